"""What a step keeps, and what it needs while it runs: at most as much as the largest tensor."""

import gc
import itertools
import weakref

import pytest
import torch
from cases import rule_of
from tiers import long, one_in
from torch.utils._python_dispatch import TorchDispatchMode

from alphagrad import AlphaGrad, Rule

RULES = {
    "base": Rule(),
    "hybrid": rule_of("tensor", "constant", "hybrid"),
    "controlled": rule_of("global", "saturation", "hybrid_saturation"),
}


class Alive(TorchDispatchMode):
    """The largest number of bytes alive of what operations have made."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        flat = result if isinstance(result, (list, tuple)) else [result]
        for t in flat:
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    size = storage.nbytes()
                    self.now += size
                    weakref.finalize(t, self.free, storage._cdata, size)
        self.most = max(self.most, self.now)
        return result

    def free(self, key, size):
        self.known.discard(key)
        self.now -= size


def peak(sizes, dtype, device, **settings):
    """Bytes that a step needs beyond parameters, gradients and state, and those of the largest tensor."""
    params = [torch.nn.Parameter(torch.ones(n, dtype=dtype, device=device)) for n in sizes]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = AlphaGrad([(f"m{i}.w", p) for i, p in enumerate(params)], lr=1.0, **settings)
    optimizer.step()
    gc.collect()
    before = {p.grad.untyped_storage()._cdata for p in params} | {p.untyped_storage()._cdata for p in params}
    alive = Alive()
    alive.known |= before
    for state in optimizer.state.values():
        alive.known |= {t.untyped_storage()._cdata for t in state.values() if isinstance(t, torch.Tensor)}
    with alive:
        optimizer.step()
    return alive.most, max(p.numel() * p.element_size() for p in params)


ALL = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
CASES = list(itertools.product(RULES, ({}, ALL), (torch.float32, torch.bfloat16), ("cpu", "meta")))
PAIRS = {0, 7, 9, 14, 18, 21}
"""In these all pairs of values occur; the whole product is for the slow tests."""


@pytest.mark.parametrize(
    ("rule", "settings", "dtype", "device"),
    [pytest.param(*case, marks=[] if n in PAIRS else pytest.mark.slow) for n, case in enumerate(CASES)],
)
def test_a_plain_step_needs_at_most_the_largest_tensor(rule, settings, dtype, device):
    """``meta`` stands for an accelerator; several tensors, one of them large, and larger than what one gathers."""
    large = 1 << (24 if device == "meta" else 21)
    sizes = [large, *[large // 16] * 8, 1000, 10]
    most, largest = peak(sizes, dtype, device, rule=RULES[rule], fused=False, **settings)
    assert most <= largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("settings", [{}, *long({"compile": True})], ids=["default", "compile"])
@pytest.mark.parametrize("rule", one_in(3, RULES.values()), ids=RULES)
def test_a_kernel_needs_next_to_nothing(rule, settings, dtype):
    most, largest = peak([1 << 22, 1000], dtype, "cpu", rule=rule, momentum=0.9, **settings)
    assert most < largest / 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_state_is_one_buffer_with_momentum_and_none_without(dtype):
    """C4, in bytes a parameter byte: 0, 1, and with bfloat16 momentum of float32 parameters 0.5."""
    for settings, share in (
        ({}, 0.0),
        ({"momentum": 0.9}, 1.0),
        ({"momentum": 0.9, "momentum_dtype": torch.bfloat16}, None),
    ):
        p = torch.nn.Parameter(torch.ones(1000, 100, dtype=dtype))
        p.grad = torch.ones_like(p)
        optimizer = AlphaGrad([p], lr=1.0, **settings)
        optimizer.step()
        kept = sum(t.numel() * t.element_size() for t in optimizer.state[p].values())
        share = 2 / p.element_size() if share is None else share
        assert kept / (p.numel() * p.element_size()) == pytest.approx(share, abs=1e-4)
