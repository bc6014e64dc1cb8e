"""The memory ledger: against bytes that can be counted by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from alphagrad import AlphaGrad
from alphagrad.harness.driver import OptimizerSpec


@pytest.fixture(scope="module")
def ledger():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
        import memory_ledger

        yield memory_ledger
    sys.modules.pop("memory_ledger", None)


OPTIMIZERS = {
    "alphagrad": (lambda params: AlphaGrad(params, lr=1e-3), 0),
    "momentum": (lambda params: AlphaGrad(params, lr=1e-3, momentum=0.9), 4),
    "bfloat16": (lambda params: AlphaGrad(params, lr=1e-3, momentum=0.9, momentum_dtype="bfloat16"), 2),
    "adam": (lambda params: torch.optim.Adam(params, lr=1e-3, fused=True), 8),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bytes_are_those_that_are_counted_by_hand(ledger, name):
    make, each = OPTIMIZERS[name]
    module = nn.Linear(1000, 100, bias=False)
    found = ledger.measured(module, OptimizerSpec(name, make), torch.zeros(1, 1000), torch.zeros(1, dtype=torch.int64))
    numbers = 100_000
    assert found.parameters == found.gradients == 4 * numbers
    assert found.state - each * numbers in range(17)  # counts of steps and of skipped tensors
    # one example's numbers are few; a kernel that is written in torch's operations takes some of a tensor's for a while
    assert 0 <= found.peak - (8 + each) * numbers < 20_000


def test_the_largest_network_fits_and_the_next_does_not(ledger):
    spec = OptimizerSpec("adam", OPTIMIZERS["adam"][0])
    width, parameters = ledger.largest(ledger.mlp, spec, 100_000)
    assert parameters == 795 * width + 10
    image, label = torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64)
    peaks = [ledger.measured(ledger.mlp(w), spec, image, label).peak for w in (width, width + 1)]
    assert peaks[0] <= 100_000 < peaks[1]
    assert ledger.largest(ledger.mlp, spec, 1000) == (0, 0)
