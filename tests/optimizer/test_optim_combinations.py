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
    WITHOUT_ALPHA,
    WITHOUT_KERNEL,
    covering,
    error,
    make_values,
    rule_of,
    settings_of,
    shipped,
    train,
    train_reference,
)

from alphagrad.alpha import Alpha
from alphagrad.kernels.coverage import knows
from alphagrad.normalization import Normalization
from alphagrad.transform import Transform

LR = 0.1
# α of a controlled policy is kept in float32 whatever the parameters are
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
CONTROLLED_TOLERANCE = 1e-6


@pytest.mark.parametrize(("base", "cases"), [(Normalization, NORMALIZATIONS), (Alpha, ALPHAS), (Transform, TRANSFORMS)])
def test_every_shipped_equation_is_among_the_cases(base, cases):
    """So that it is compared with the reference, which has it once more."""
    assert {type(part) for part, _ in cases.values()} == shipped(base)


def test_an_equation_without_a_case_would_be_found():
    base = type("Base", (), {"__module__": "alphagrad.transform"})
    deeper = type("Deeper", (type("Outside", (base,), {}),), {"__module__": "alphagrad.elsewhere"})
    assert shipped(base) == {base, deeper}
    assert Transform not in shipped(Transform)


def test_what_has_no_kernel_is_known():
    rules = {t: rule_of("tensor", None if t in WITHOUT_ALPHA else "constant", t) for t in TRANSFORMS}
    assert {t for t, rule in rules.items() if not knows(rule)} == set(WITHOUT_KERNEL)


def check(slots, settings, dtype, how, data):
    if slots[2] in WITHOUT_KERNEL and "fused" in how:
        how = {}
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
