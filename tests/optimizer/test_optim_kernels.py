"""The kernels do what ``step.py`` says, to rounding, for every rule, layout and number of threads."""

import copy
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import (
    DECAYS,
    MOMENTA,
    NORMALIZATIONS,
    SLOTS,
    assert_same,
    covering,
    error,
    in_groups,
    make_values,
    rule_of,
    train,
)
from numba import njit

import alphagrad as optimizer_package
from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant
from alphagrad.kernels import elements, table, threads
from alphagrad.kernels.table import PIECE
from alphagrad.normalization import PerTensor
from alphagrad.transform import Hybrid, Identity, SinTanh, Tanh

RULES = [rule_of(*slots) for slots in SLOTS]


@njit
def tanh_of(x, out):
    for i in range(x.size):
        out[i] = elements.tanh(x[i])


@njit
def short_sine_of(x, out):
    for i in range(x.size):
        out[i] = elements.short_sine(x[i])


@njit
def sine_of(x, out):
    for i in range(x.size):
        out[i] = elements.sine(x[i])


def floats(first, last, every):
    return np.arange(first, last, every, dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize("every", [1009, pytest.param(1, marks=pytest.mark.slow)])
def test_tanh_keeps_its_relative_accuracy_over_all_floats(every):
    """From the smallest subnormal to inf: 3e-7, half a unit in the last place more among subnormals."""
    for first in range(0, 0x7F800001, 1 << 26):
        x = floats(first, min(first + (1 << 26), 0x7F800001), every)
        out = np.empty_like(x)
        tanh_of(x, out)
        expected = np.tanh(x.astype(np.float64))
        assert (np.abs(out - expected) <= 3e-7 * expected + 2.0**-150).all()
        negative = np.empty_like(x)
        tanh_of(-x, negative)
        assert np.array_equal(negative, -out)


def test_tanh_of_special_numbers():
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 9.1, 3e38], np.float32)
    out = np.empty_like(x)
    tanh_of(x, out)
    assert np.array_equal(out, np.array([1, -1, np.nan, 0, 0, 1, 1], np.float32), equal_nan=True)
    assert np.signbit(out[4])


def test_sine_is_accurate_up_to_its_limit():
    x = np.concatenate([np.linspace(-20, 20, 100_001), np.linspace(-1e6, 1e6, 100_001)])
    out = np.empty_like(x)
    sine_of(x, out)
    np.testing.assert_allclose(out, np.sin(x), rtol=0, atol=1e-9)


def test_the_short_sine_is_accurate_up_to_pi():
    """2e-7 absolute; small numbers, subnormal ones too, to their last bit but one. Odd, and NaN stays NaN."""
    largest = int(np.float32(np.pi).view(np.uint32))
    x = floats(0, largest + 1, 997)
    out, negative = np.empty_like(x), np.empty_like(x)
    short_sine_of(x, out)
    short_sine_of(-x, negative)
    exact = np.sin(x.astype(np.float64))
    assert (np.abs(out - exact) <= 2e-7).all()
    small = x < 1
    assert (np.abs(out - exact)[small] <= 2e-7 * exact[small] + 2.0**-149).all()
    assert np.array_equal(negative, -out)
    short_sine_of(np.array([np.nan], np.float32), out)
    assert np.isnan(out[0])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_kernel_is_the_plain_step_for_every_rule(normalization):
    """With every pair of a rule's parts and settings; the test below has all combinations."""
    for slots, momentum, decay in covering(MOMENTA, DECAYS):
        if slots[0] == normalization:
            assert_plain(rule_of(*slots), MOMENTA[momentum] | DECAYS[decay])


@pytest.mark.slow
@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA)
@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
def test_a_kernel_is_the_plain_step_for_every_combination(momentum, decay):
    for rule in RULES:
        assert_plain(rule, momentum | decay)


def assert_plain(rule, settings):
    """A kernel ends where the plain step does."""
    initial, grads = make_values(seed=3)
    plain, expected = train(rule, initial, grads, fused=False, lr=0.1, **settings)
    fused, got = train(rule, initial, grads, fused=True, lr=0.1, **settings)
    for name in expected:
        # of the path's length, which is of the order of 0.1: what is left after turning back is less exact
        close = {"rtol": 1e-6, "atol": 1e-7}
        torch.testing.assert_close(got[name], expected[name], **close, msg=lambda m: f"{rule}: {m}")
        states = fused.state[got[name]], plain.state[expected[name]]
        assert states[0].keys() == states[1].keys()
        for key in states[0]:
            torch.testing.assert_close(states[0][key], states[1][key], rtol=1e-6, atol=1e-6)


def trained(shapes, dtype=torch.float32, layout=lambda t: t, grad_layout=lambda t: t, steps=3, **settings):
    """Parameters and buffers after some steps of drawn gradients."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda shape: torch.randn(shape, generator=generator).to(dtype)  # noqa: E731
    params = [torch.nn.Parameter(layout(draw(shape))) for shape in shapes]
    optimizer = AlphaGrad([(f"m{i // 2}.p{i}", p) for i, p in enumerate(params)], lr=0.05, **settings)
    for _ in range(steps):
        for p in params:
            p.grad = grad_layout(draw(p.shape))
        optimizer.step()
    return params


RAGGED = [(1,), (7,), (3, 5), (elements.BLOCK,), (elements.BLOCK + 1,), (PIECE - 1,), (2 * PIECE + 3,), ()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rule", [Rule(), rule_of("blend", "saturation", "hybrid_saturation")], ids=["base", "blend"])
def test_every_size_of_tensor(rule, dtype):
    """Below, at and above a block's and a piece's length; bfloat16 may round another way once in a thousand."""
    settings = {"rule": rule, "momentum": 0.9, "weight_decay": 0.1}
    plain = trained(RAGGED, dtype, fused=False, **settings)
    fused = trained(RAGGED, dtype, fused=True, **settings)
    for p, q in zip(plain, fused, strict=True):
        if dtype is torch.float32:
            assert error(q, p.detach().double().numpy()) < 1e-6
        else:
            differ = (p != q).double().mean()
            assert differ < 0.005
            torch.testing.assert_close(q, p, rtol=2**-7, atol=2**-9)


def test_threads_change_nothing(monkeypatch):
    """To the last bit: sums are made a piece at a time."""
    monkeypatch.setattr(threads, "PARALLEL", 1)
    ends = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert threads.threads_for(PIECE) == count
        ends.append(trained(RAGGED, rule=rule_of("global", "saturation", "hybrid"), momentum=0.9, fused=True))
    for other in ends[1:]:
        assert all(torch.equal(p, q) for p, q in zip(ends[0], other, strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_threads_share_a_simple_step(momentum, monkeypatch):
    """One whose norms are those of single tensors, which Python does not interrupt."""
    monkeypatch.setattr(threads, "PARALLEL", 1)
    ends = []
    for count in (1, 3):
        torch.set_num_threads(count)
        ends.append(trained(RAGGED, momentum=momentum, weight_decay=0.1, fused=True))
    assert all(torch.equal(p, q) for p, q in zip(*ends, strict=True))


FORKED = """
import os, torch
from alphagrad import AlphaGrad
from alphagrad.kernels import threads
threads.PARALLEL = 1
torch.set_num_threads(2)
p = torch.nn.Parameter(torch.zeros(200_000))
p.grad = torch.ones_like(p)
optimizer = AlphaGrad([p], lr=1.0)
optimizer.step()
child = os.fork()
if not child:
    optimizer.step()
    os._exit(0 if float(p[0]) < 0 else 1)
assert os.waitpid(child, 0)[1] == 0
optimizer.step()
"""


AGAIN = """
import torch
from alphagrad import AlphaGrad
p = torch.nn.Parameter(torch.zeros(4))
p.grad = torch.ones(4)
AlphaGrad([p], lr=1.0, fused=True).step()
print(float(p[0]))
"""


@pytest.mark.slow
def test_what_is_kept_on_disk_is_made_anew_when_any_source_changes(tmp_path, monkeypatch):
    """Also where the change is not in the file of the function that numba keeps."""
    package = tmp_path / "alphagrad"
    source = Path(optimizer_package.__file__).parent
    skipped = shutil.ignore_patterns("lab", "__pycache__")
    shutil.copytree(source, package, ignore=skipped)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def step():
        done = subprocess.run([sys.executable, "-c", AGAIN], check=True, capture_output=True, text=True, cwd=tmp_path)
        return float(done.stdout)

    before = step()
    elements_file = package / "kernels" / "elements.py"
    changed = elements_file.read_text().replace("    t = x * ratio", "    t = f32(0.5) * x * ratio")
    assert changed != elements_file.read_text()
    elements_file.write_text(changed)
    assert step() == pytest.approx(before / 2)


@pytest.mark.long
def test_a_forked_process_steps_on_alone():
    """OpenMP's threads stay in the parent; waiting for them would never end."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120)


def test_without_openmp_one_thread_does_the_work(monkeypatch):
    monkeypatch.setattr(threads, "PARALLEL", 1)
    torch.set_num_threads(2)
    shared = trained(RAGGED, fused=True)
    monkeypatch.setattr(threads, "team", lambda: None)
    alone = trained(RAGGED, fused=True)
    assert all(torch.equal(p, q) for p, q in zip(shared, alone, strict=True))


def test_without_torchs_guard_every_step_looks_anew(monkeypatch):
    guarded = trained(RAGGED, momentum=0.9, fused=True)
    monkeypatch.setattr(table, "GUARDS", None)
    alone = trained(RAGGED, momentum=0.9, fused=True)
    assert all(torch.equal(p, q) for p, q in zip(guarded, alone, strict=True))


@pytest.mark.parametrize("flush", [True, False])
def test_threads_take_subnormals_as_the_training_thread_does(flush, monkeypatch):
    monkeypatch.setattr(threads, "PARALLEL", 1)
    ends = []
    for count in (1, 2):
        torch.set_num_threads(count)
        assert threads.threads_for(PIECE) == count
        torch.set_flush_denormal(flush)
        try:
            ps = [torch.nn.Parameter(torch.zeros(40 * PIECE)) for _ in range(2)]
            for p in ps:
                p.grad = torch.full_like(p, 1e-30)
            AlphaGrad(ps, lr=1e-10, rule=Rule(PerTensor(), None, Identity()), eps=1.0).step()
        finally:
            torch.set_flush_denormal(False)
        ends.append(ps)
    assert all(bool(((p == 0) == flush).all()) for ps in ends for p in ps)


def strided(t):
    wide = torch.zeros(*t.shape, 2, dtype=t.dtype)
    wide[..., 0] = t
    return wide[..., 0]


LAYOUTS = {
    "plain": lambda t: t.clone(),
    "transposed": lambda t: t.transpose(0, 2).contiguous().transpose(0, 2),
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "strided": strided,
    "expanded": lambda t: t[:1, :1, :1, :1].expand(t.shape),
}


@pytest.mark.parametrize(("of_param", "of_grad"), list(itertools.product(list(LAYOUTS)[:4], LAYOUTS)))
def test_every_layout(of_param, of_grad):
    rule = Rule(alpha=Constant(3.0))
    make = {"layout": LAYOUTS[of_param], "grad_layout": LAYOUTS[of_grad], "rule": rule, "momentum": 0.9}
    (plain,), (fused,) = (trained([(4, 3, 2, 5)], **make, **how) for how in ({"fused": False}, {}))
    assert error(fused.contiguous(), plain.detach().contiguous().double().numpy()) < 1e-6
    assert fused.stride() == plain.stride()


def test_rows_of_a_matrix_are_a_stack():
    """The runs of a stack may lie apart, as the slices of one matrix [R, D] do; run k is the run alone, bit for bit."""
    generator = torch.Generator().manual_seed(0)
    matrix, grads = (torch.randn(3, 50, generator=generator) for _ in range(2))
    alone = []
    for k in range(3):
        own = [torch.nn.Parameter(x.clone()) for x in (matrix[k, :20], matrix[k, 20:].view(6, 5))]
        for p, g in zip(own, (grads[k, :20], grads[k, 20:].view(6, 5)), strict=True):
            p.grad = g.clone()
        AlphaGrad(own, lr=0.1, momentum=0.9, fused=True).step()
        alone.append(torch.cat([p.detach().flatten() for p in own]))
    views = [matrix[:, :20], matrix[:, 20:].view(3, 6, 5)]
    for view, g in zip(views, (grads[:, :20], grads[:, 20:].view(3, 6, 5)), strict=True):
        view.grad = g
    AlphaGrad(views, lr=0.1, momentum=0.9, batch_dims=1, fused=True).step()
    assert torch.equal(matrix, torch.stack(alone))


def test_what_changes_under_the_optimizer_is_noticed():
    """Types, memory, state and settings may change between steps, behind the same objects."""
    rule = rule_of("tensor", "saturation", "tanh")
    ends = []
    for how in ({"fused": False}, {}):
        generator = torch.Generator().manual_seed(0)
        p = torch.nn.Parameter(torch.randn(40, 30, generator=generator))
        optimizer = AlphaGrad([p], lr=0.1, rule=rule, momentum=0.9, **how)

        def step(change=lambda: None, p=p, optimizer=optimizer, generator=generator):
            change()
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
            optimizer.step()

        step()
        step(lambda p=p: setattr(p, "data", p.data.clone()))
        step(lambda p=p, o=optimizer: o.state[p].update(alpha=torch.tensor(7.0)))
        step(lambda o=optimizer: o.param_groups[0].update(lr=0.01, momentum=0.5, weight_decay=0.3))
        step(lambda p=p: setattr(p, "data", p.data.t().contiguous().t()))
        step(lambda o=optimizer: o.load_state_dict(copy.deepcopy(o.state_dict())))
        step(lambda p=p: setattr(p, "data", p.data.double()))
        step(lambda o=optimizer: o.param_groups[0].update(rule=Rule(alpha=Constant(3.0))))
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("every", [pytest.param(23, marks=pytest.mark.long), pytest.param(1, marks=pytest.mark.slow)])
def test_the_triton_kernels_do_the_same_in_tritons_interpreter(every):
    """One rule in so many, both half precisions, stacks, and gradients that are not finite."""
    pytest.importorskip("triton", reason="Triton comes with torch on Linux alone")
    program = Path(__file__).with_name("interpreted.py")
    ended = subprocess.run([sys.executable, program, str(every)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert int(ended.stdout.split()[0]) > 50


def test_autograd_notices_the_change():
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    AlphaGrad([p], lr=0.1, fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Twice(Tanh):
    """A user's own transform."""

    def __call__(self, scaled, unit, numbers):
        return [2 * u for u in super().__call__(scaled, unit, numbers)]


NOT_COVERED = {
    "a user's own transform": (torch.float32, Rule(transform=Twice()), {}),
    "float64": (torch.float64, Rule(), {}),
    "float16": (torch.float16, Rule(), {}),
    "a sine of large angles": (torch.float32, Rule(transform=SinTanh(2e6)), {}),
    "stochastic rounding": (torch.bfloat16, Rule(), {"rounding": "stochastic"}),
}


@pytest.mark.parametrize(("dtype", "rule", "settings"), NOT_COVERED.values(), ids=NOT_COVERED)
def test_what_no_kernel_covers_is_left_to_the_plain_step(dtype, rule, settings):
    p, q = (torch.nn.Parameter(torch.ones(4, dtype=dtype)) for _ in range(2))
    ends = []
    for x, how in ((p, {}), (q, {"fused": False})):
        torch.manual_seed(0)
        x.grad = torch.tensor([1.0, -2.0, 3.0, -4.0], dtype=dtype)
        AlphaGrad([x], lr=0.1, rule=rule, **how, **settings).step()
        ends.append(x.detach())
    assert torch.equal(*ends)
    with pytest.raises(RuntimeError, match=r"^fused=True: no kernel covers"):
        AlphaGrad([p], rule=rule, fused=True, **settings).step()


def test_subclasses_of_tensors_are_left_to_the_plain_step():
    class Own(torch.Tensor):
        pass

    p = torch.ones(3).as_subclass(Own)
    p.grad = torch.ones(3)
    AlphaGrad([p], lr=0.1).step()
    assert (p < 1).all()


def test_without_numba_the_plain_step_runs(monkeypatch):
    from alphagrad import kernels

    monkeypatch.setattr(kernels, "has", lambda package: False)
    initial, grads = make_values()
    _, expected = train(Rule(), initial, grads, fused=False)
    _, got = train(Rule(), initial, grads)
    assert_same(expected, got)
    with pytest.raises(RuntimeError, match="needs numba"):
        train(Rule(), initial, grads, fused=True)


def test_hybrids_keep_both_their_terms():
    """λ = 0 is the identity and λ = 1 the tanh, exactly as those transforms give them."""
    initial, grads = make_values()
    for lam, twin in ((0.0, Rule(alpha=None, transform=Identity())), (1.0, Rule(alpha=Constant(2.0)))):
        _, hybrid = train(Rule(alpha=Constant(2.0), transform=Hybrid(lam)), initial, grads, fused=True)
        _, expected = train(twin, initial, grads, fused=True)
        for name in expected:
            assert error(hybrid[name], expected[name].detach().double().numpy()) < 1e-6


def test_groups_without_gradients_and_new_groups():
    params = {n: torch.nn.Parameter(torch.tensor(v, dtype=torch.float32)) for n, v in make_values()[0].items()}
    optimizer = AlphaGrad(in_groups(params), lr=0.1, rule=rule_of("global", "sqrt_total", "tanh"), fused=True)
    for present in (["gain"], ["gain", "b.weight"], list(params), ["a.bias"]):
        before = {n: p.detach().clone() for n, p in params.items()}
        for n, p in params.items():
            p.grad = torch.ones_like(p) if n in present else None
        optimizer.step()
        assert {n for n, p in params.items() if not torch.equal(p, before[n])} == set(present)
