"""What is not where a kernel would write is left to the plain step: the same result or error, and no memory harmed."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from cases import rule_of
from tiers import rows_one_in

from alphagrad import AlphaGrad, InBackward, Rule, kernels, signals
from alphagrad.alpha import Alpha, Constant, FanIn, SqrtTotal
from alphagrad.normalization import Normalization
from alphagrad.transform import ScaledTanh, Sign, SinTanh

P = torch.nn.Parameter


def both(scenario):
    """Runs a scenario with kernels and without; the ends, or the errors' types."""
    ends = []
    for how in ({}, {"fused": False}):
        torch.manual_seed(0)
        try:
            ends.append([t.detach().clone() for t in scenario(how)])
        except Exception as error:
            ends.append(type(error))
    return ends


def grown_parameter(how):
    p = P(torch.zeros(10, 4))
    o = AlphaGrad([p], lr=0.1, momentum=0.9, **how)
    p.grad = torch.ones(10, 4)
    o.step()
    p.data, p.grad = torch.zeros(4000, 4), torch.ones(4000, 4)
    o.step()
    return [p]


def buffers_of_two_types(how):
    a, b = P(torch.zeros(16)), P(torch.zeros(16))
    o = AlphaGrad([a, b], lr=0.1, momentum=0.9, **how)
    a.grad = torch.ones(16)
    o.step()
    o.param_groups[0]["momentum_dtype"] = torch.bfloat16
    b.grad = torch.ones(16)
    o.step()
    return [a, b, *(o.state[x]["momentum_buffer"].float() for x in (a, b))]


def state_changed(key, value, batch_dims=0):
    def scenario(how):
        p = P(torch.zeros(3, 4))
        o = AlphaGrad([p], lr=0.1, momentum=0.9, batch_dims=batch_dims, **how)
        p.grad = torch.ones(3, 4)
        o.step()
        o.state[p][key] = value.clone() if value.is_contiguous() else value
        o.step()
        return [p]

    return scenario


def gradient(make, shape=(4,)):
    def scenario(how):
        p = P(torch.zeros(shape))
        p.grad = make()
        AlphaGrad([p], lr=0.1, rule=Rule(alpha=Constant(3.0)), **how).step()
        return [p]

    return scenario


def reshaped_behind_its_back(how):
    p = P(torch.zeros(3, 4).t())
    o = AlphaGrad([p], lr=0.1, **how)
    p.grad = torch.ones(3, 4).t()
    o.step()
    base, p.grad = torch.zeros(4, 4), None
    p.data = base.t()[:3]
    p.grad = torch.ones(4, 4).t()[:3]
    o.step()
    return [p, base]


def fan_in_after_reshaping(how):
    p = P(torch.zeros(4, 6))
    o = AlphaGrad([p], lr=0.1, rule=Rule(alpha=FanIn(1.0)), **how)
    for shape in ((4, 6), (2, 12)):
        p.grad = None
        p.data = p.data.reshape(shape)
        p.grad = torch.ones(shape)
        o.step()
    return [p]


def rate_of_a_half_type(how):
    p = P(torch.zeros(4))
    p.grad = torch.ones(4)
    AlphaGrad([p], lr=torch.tensor(0.25, dtype=torch.bfloat16), **how).step()
    return [p]


def on_another_default_device(how):
    p, q = P(torch.zeros(4)), P(torch.full((4,), 9.0, dtype=torch.bfloat16))
    p.grad, q.grad = torch.ones(4), torch.ones(4, dtype=torch.bfloat16)
    o = AlphaGrad([p, q], lr=0.5, rule=rule_of("global", "constant", "tanh"), **how)
    with torch.device("meta"):
        o.step()
    return [p, q.float()]


@dataclass(frozen=True)
class OwnAlpha(Alpha):
    """α = 10 at every step, as ``make`` gives it."""

    make: Callable[[torch.Tensor], torch.Tensor]
    counts_steps = True

    def initial(self, info):
        return 10.0

    def at(self, steps, infos):
        return self.make(steps)


class OwnNorm(Normalization):
    spans_tensors = False

    def norms(self, norms, infos):
        return norms.float()


def own(batch_dims=0, **parts):
    """A rule with a part of somebody's own."""

    def scenario(how):
        params = [P(torch.zeros(3, 40)) for _ in range(4)]
        optimizer = AlphaGrad(params, lr=0.1, rule=Rule(**parts), batch_dims=batch_dims, **how)
        for p in params:
            p.grad = torch.randn(3, 40)
        optimizer.step()
        return params

    return scenario


def runs_that_overlap(how):
    p = P(torch.zeros(8).as_strided((3, 5), (0, 1)))
    p.grad = torch.ones(3, 5)
    AlphaGrad([p], lr=0.1, batch_dims=1, **how).step()
    return [p]


SCENARIOS = {
    "a parameter that has grown": grown_parameter,
    "buffers of two types": buffers_of_two_types,
    "a buffer of another size": state_changed("momentum_buffer", torch.zeros(2)),
    "a buffer elsewhere": state_changed("momentum_buffer", torch.zeros(3, 4, device="meta")),
    "a buffer of integers": state_changed("momentum_buffer", torch.zeros(3, 4, dtype=torch.int64)),
    "counts of another size": state_changed("skipped", torch.zeros(7, dtype=torch.int32)),
    "too few counts": state_changed("skipped", torch.zeros((), dtype=torch.int32), batch_dims=1),
    "counts of another type": state_changed("begun", torch.ones((), dtype=torch.float64)),
    "a gradient that is zero and nowhere": gradient(lambda: torch._efficientzerotensor(4)),
    "a gradient that is minus what is stored": gradient(lambda: torch._neg_view(torch.ones(4))),
    "an expanded gradient": gradient(lambda: torch.ones(1).expand(4)),
    "a transposed gradient": gradient(lambda: torch.arange(12.0).view(4, 3).t(), (3, 4)),
    "a shape that changes with the layout alone": reshaped_behind_its_back,
    "another fan-in": fan_in_after_reshaping,
    "a rate in bfloat16": rate_of_a_half_type,
    "another default device": on_another_default_device,
    "an own policy in float32": own(alpha=OwnAlpha(lambda steps: steps.float() + 10)),
    "an own policy with one number for all": own(alpha=OwnAlpha(lambda steps: torch.tensor(10.0).double())),
    "an own policy with one number for all, stacked": own(1, alpha=OwnAlpha(lambda steps: steps[:1, :1] + 10)),
    "an own normalisation in float32": own(normalization=OwnNorm()),
    "an own normalisation in float32, stacked": own(1, normalization=OwnNorm()),
    "runs that overlap": runs_that_overlap,
    "buffers of runs that overlap": state_changed("momentum_buffer", torch.zeros(1, 4).expand(3, 4), batch_dims=1),
}


@pytest.mark.filterwarnings("ignore:lr. steps")
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_kernel_ends_where_the_plain_step_does(scenario):
    fused, plain = both(scenario)
    if isinstance(plain, type):
        assert fused is plain
    else:
        for p, q in zip(fused, plain, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_fused_says_why_it_cannot():
    wide = torch.zeros(4, 2)
    own = torch.zeros(4).as_subclass(type("Own", (torch.Tensor,), {}))
    for p, word in ((P(wide[:, 0]), "lie apart"), (own, "plain")):
        p.grad = torch.ones(4)
        with pytest.raises(RuntimeError, match=f"^fused=True: .*{word}"):
            AlphaGrad([p], fused=True).step()


def test_the_whole_network_counts_also_where_it_grows():
    """d_network is that of the moment, lazy parameters of other groups included."""
    p, lazy = P(torch.zeros(4)), torch.nn.UninitializedParameter()
    optimizer = AlphaGrad([{"params": [p]}, {"params": [lazy]}], lr=0.1, rule=Rule(alpha=SqrtTotal(1.0)))
    found = []
    for step in range(2):
        p.grad = torch.ones(4)
        if step:
            lazy.materialize((100,))
            lazy.data.zero_()
            lazy.grad = torch.ones(100)
        found.append(signals(optimizer)["parameter 0"]["alpha"].item())
        optimizer.step()
    assert found == [pytest.approx(2.0), pytest.approx(104**0.5)]


@pytest.mark.parametrize(
    ("how", "kind"), rows_one_in(3, product([{}, {"fused": False}], [AlphaGrad, InBackward])), ids=str
)
def test_gradients_do_not_outlive_the_step(kind, how):
    model = torch.nn.Linear(3, 2)
    seen = []
    for p in model.parameters():  # before the optimizer's own hooks
        p.register_post_accumulate_grad_hook(lambda p: seen.append(weakref.ref(p.grad)))
    optimizer = kind(model.parameters(), lr=0.1, momentum=0.9, **how)
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        if kind is AlphaGrad:
            signals(optimizer)
        optimizer.step()
        optimizer.zero_grad()
    gc.collect()
    assert len(seen) == 4
    assert all(ref() is None for ref in seen)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_of_steps_in_backward_step_too(copier):
    model = torch.nn.Linear(3, 2)
    optimizer = InBackward(model.parameters(), lr=0.1)
    twin_model, twin = copier((model, optimizer))
    for m in (model, twin_model):
        m(torch.ones(1, 3)).sum().backward()
    assert torch.equal(model.weight, twin_model.weight)
    assert twin_model.weight.grad is None
    twin.remove()
    twin_model(torch.ones(1, 3)).sum().backward()
    assert twin_model.weight.grad is not None


@pytest.mark.parametrize("nonfinite", ["skip", "propagate"])
def test_the_sign_needs_no_size(nonfinite):
    """Of 1e30 beside 1e-38, and of infinities that are let through."""
    for grad in ([1e30, 1e-30, -1e-38], [float("inf"), 1.0, -2.0], [1e-45, -1e-45, 0.0]):
        if nonfinite == "skip" and grad[0] == float("inf"):
            continue
        for how in ({}, {"fused": False}):
            p = P(torch.zeros(3))
            p.grad = torch.tensor(grad)
            AlphaGrad([p], lr=1.0, rule=Rule(alpha=None, transform=Sign()), nonfinite=nonfinite, **how).step()
            assert torch.equal(p, -torch.sign(torch.tensor(grad)))


def test_numbers_beyond_float32_are_refused():
    for make in (lambda: ScaledTanh(1e39), lambda: SinTanh(1e39), lambda: AlphaGrad([P(torch.zeros(1))], lr=1e39)):
        with pytest.raises(ValueError, match=r"3.4e\+38\]?, got 1e\+39"):
            make()


def test_numba_that_cannot_be_imported_is_warned_of(monkeypatch):
    def broken(name, *args):
        raise ImportError("Numba needs NumPy 2.3 or less")

    kernels.has.cache_clear()
    monkeypatch.setattr(kernels.importlib, "import_module", broken)
    try:
        p = P(torch.zeros(2))
        p.grad = torch.ones(2)
        with pytest.warns(UserWarning, match="numba cannot be imported .*NumPy 2.3 or less.*; the plain step runs"):
            AlphaGrad([p], lr=0.1).step()
        assert (p < 0).all()
    finally:
        kernels.has.cache_clear()


def test_what_numba_keeps_is_named_by_all_its_sources():
    """Numba looks at a function's own file, and the loops read a record that another file lays out."""
    memory = pytest.importorskip("alphagrad.kernels.memory")
    from alphagrad.kernels.loops import loops

    for entry in loops():
        function = getattr(entry, "py_func", None) or entry._pyfunc
        assert memory.SOURCES in [cell.cell_contents for cell in function.__closure__]
