"""Every combination of slots and settings against the float64 reference."""

import pytest
import torch
from cases import (
    DECAYS,
    MOMENTA,
    NORMALIZATIONS,
    SLOTS,
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
@pytest.mark.parametrize(
    ("dtype", "how"),
    [(torch.float32, {"fused": True}), (torch.float32, {"foreach": False}), (torch.float64, {"foreach": True})],
    ids=["kernel", "loop", "foreach"],
)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_combination_follows_the_reference(normalization, dtype, how):
    data = make_values(seed=1)
    for slots in SLOTS:
        if slots[0] == normalization:
            for momentum in MOMENTA.values():
                for decay in DECAYS.values():
                    check(slots, momentum | decay, dtype, how, data)
