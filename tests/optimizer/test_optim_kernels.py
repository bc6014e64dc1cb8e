"""The kernels do what ``step.py`` says, to rounding, for every rule, layout and number of threads."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import (
    DECAYS,
    MOMENTA,
    NORMALIZATIONS,
    WITH_KERNEL,
    covering,
    error,
    make_values,
    rule_of,
    train,
)
from kernel_steps import trained
from tiers import one_in

import alphagrad as optimizer_package
from alphagrad import AlphaGrad, Rule
from alphagrad.kernels import elements, table, threads
from alphagrad.kernels.table import PIECE
from alphagrad.normalization import PerTensor
from alphagrad.transform import Identity

RULES = [rule_of(*slots) for slots in WITH_KERNEL]


@pytest.mark.parametrize("normalization", one_in(3, NORMALIZATIONS))
def test_a_kernel_is_the_plain_step_for_every_rule(normalization):
    """With every pair of a rule's parts and settings; the test below has all combinations."""
    for slots, momentum, decay in covering(MOMENTA, DECAYS):
        if slots[0] == normalization and slots in WITH_KERNEL:
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
