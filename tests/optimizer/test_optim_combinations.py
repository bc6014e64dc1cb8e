"""Combinations of slots and settings against the float64 reference."""

import itertools

import pytest
import torch
from cases import (
    ALPHAS,
    DECAYS,
    MOMENTA,
    NORMALIZATIONS,
    SLOTS,
    TRANSFORMS,
    covering,
    error,
    make_values,
    rule_of,
    settings_of,
    train,
    train_reference,
)

LR = 0.1
# α of a controlled policy is kept in float32 whatever the parameters are
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
CONTROLLED_TOLERANCE = 1e-6


def check(slots, settings, dtype, how, data):
    initial, grads = data
    reference = train_reference(settings_of(*slots, lr=LR, **settings), initial, grads)
    _, params = train(rule_of(*slots), initial, grads, dtype, lr=LR, **how, **settings)
    tolerance = CONTROLLED_TOLERANCE if slots[1] == "saturation" else TOLERANCE[dtype]
    for name, expected in reference.values().items():
        assert error(params[name], expected) < tolerance, (slots, settings, name, params[name], expected)


# loop and foreach agree to the last bit, says test_optim_torch_contract, so each is compared in one dtype
WAYS = {
    "kernel": (torch.float32, {"fused": True}),
    "loop": (torch.float32, {"foreach": False}),
    "foreach": (torch.float64, {"foreach": True}),
}


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_rule_follows_the_reference(normalization):
    """Every rule once, with every pair of its parts and settings; the test below has all combinations."""
    data = make_values(seed=1)
    for slots, way, momentum, decay in covering(WAYS, MOMENTA, DECAYS):
        if slots[0] == normalization:
            check(slots, MOMENTA[momentum] | DECAYS[decay], *WAYS[way], data)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_combination_follows_the_reference(normalization, way):
    data = make_values(seed=1)
    for slots in SLOTS:
        if slots[0] == normalization:
            for momentum in MOMENTA.values():
                for decay in DECAYS.values():
                    check(slots, momentum | decay, *WAYS[way], data)


def test_every_pair_of_values_is_tried():
    """Those of rules are as many as there are; with the settings, and of two settings, all are."""
    chosen = covering(WAYS, MOMENTA, DECAYS)
    assert [slots for slots, *_ in chosen] == SLOTS
    rows = [(*slots, *settings) for slots, *settings in chosen]
    columns = [[*NORMALIZATIONS], [*ALPHAS, None], [*TRANSFORMS], [*WAYS], [*MOMENTA], [*DECAYS]]
    for (i, first), (j, second) in itertools.combinations(enumerate(columns), 2):
        found = {(row[i], row[j]) for row in rows}
        if (i, j) == (1, 2):
            assert found == {(a, t) for _, a, t in SLOTS}
        else:
            assert found == set(itertools.product(first, second)), (i, j)
