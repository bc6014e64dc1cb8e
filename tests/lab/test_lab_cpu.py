"""How a run computes: its threads, and subnormal numbers taken as 0 in training alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from alphagrad.recipes.dqn import DQN
from threadpoolctl import threadpool_info, threadpool_limits

from alphagrad.lab.training.cpu import computing, flushes


def halves() -> float:
    """A product that is subnormal."""
    return float(torch.tensor(2e-38) * torch.tensor(0.1))


def test_subnormal_numbers_are_0_within_and_come_back_after_an_error():
    assert halves() > 0
    assert not flushes()
    with computing(1):
        assert halves() == 0
        assert flushes()
    assert halves() > 0
    with pytest.raises(ZeroDivisionError), computing(1):
        raise ZeroDivisionError
    assert not flushes()


def test_who_had_them_as_0_before_keeps_them_so():
    torch.set_flush_denormal(True)
    try:
        with computing(1):
            pass
        assert flushes()
    finally:
        torch.set_flush_denormal(False)


def test_averages_of_a_dead_unit_end_at_0():
    weight = torch.ones(8, requires_grad=True)
    optimizer = torch.optim.Adam([weight], fused=True)
    with computing(1):
        for gradient in (1e-30, *[0.0] * 400):
            weight.grad = torch.full_like(weight, gradient)
            optimizer.step()
    assert not optimizer.state[weight]["exp_avg"].any()


def test_a_run_trains_with_them_as_0(cli, root, tiny, lab):
    seen: list[bool] = []
    train = DQN.train

    def noted(self, stack, log):
        seen.append(flushes())
        return train(self, stack, log)

    lab.setattr(DQN, "train", noted)
    assert cli("run", "optimizer=adam", f"output_root={root}", *tiny).status == 0
    assert seen == [True]
    assert not flushes()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_run_that_diverges_says_so_without_numpy_s_warnings(cli, root, tiny):
    done = cli("run", "optimizer=sgd", "optimizer.lr=1e30", f"output_root={root}", *tiny)
    assert done.status == 1
    assert "diverged at step" in done.err


def test_numpy_has_the_run_s_threads_within():
    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with computing(1):
            assert threads() == {1}
        assert threads() == before


@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="needs a processor with AVX512")
def test_a_cache_of_two_kinds_of_processors_serves_both(tmp_path):
    """Loops of AVX512, run under AVX2, made every run diverge."""
    words = ["recipe=dqn_cartpole", "optimizer=adam", "recipe.total_steps=12000", "recipe.compile=true"]
    command = [sys.executable, "-m", "alphagrad_cli", "run", "-m", *words, "seed=range(4)", "hydra/launcher=stacked"]
    for kind in ("avx512", "avx2"):
        shared = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "ATEN_CPU_CAPABILITY": kind}
        done = subprocess.run(
            [*command, f"output_root={tmp_path / kind}"],
            env=os.environ | shared,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "4 finished" in done.stdout + done.stderr
