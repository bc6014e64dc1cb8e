"""The replay memories of a stack."""

from __future__ import annotations

import numpy as np
import torch
from alphagrad.recipes.replay import Replay


def replay(seeds=(0, 1), capacity=10, batch_size=6, width=3) -> Replay:
    return Replay(capacity, width, batch_size, [np.random.default_rng(s) for s in seeds], torch.device("cpu"))


def fill(memory: Replay, count: int, start: int = 0) -> None:
    """Transition t of run k holds (k, t, −t)."""
    runs = len(memory.generators)
    for t in range(start, start + count):
        memory.add(np.arange(runs)[:, None], np.full((runs, 1), t), np.full((runs, 1), -t))


def test_rows_belong_to_their_run_and_hold_together():
    memory = replay(seeds=(3, 4, 5), capacity=50, batch_size=200)
    fill(memory, 50)
    batch = memory.sample()
    assert batch.shape == (3, 200, 3)
    assert batch.dtype == torch.float32
    for run in range(3):
        assert (batch[run, :, 0] == run).all()
        assert torch.equal(batch[run, :, 1], -batch[run, :, 2])


def test_only_filled_rows_are_sampled_and_all_of_them():
    memory = replay(capacity=1000, batch_size=256)
    fill(memory, 7)
    drawn = {int(t) for _ in range(100) for t in memory.sample()[..., 1].flatten()}
    assert drawn == set(range(7))


def test_the_oldest_are_overwritten():
    memory = replay(capacity=10, batch_size=256)
    fill(memory, 23)
    drawn = {int(t) for _ in range(20) for t in memory.sample()[..., 1].flatten()}
    assert drawn == set(range(13, 23))


def test_one_row_is_enough():
    memory = replay()
    fill(memory, 1)
    assert (memory.sample()[..., 1] == 0).all()


def test_a_runs_draws_are_its_own():
    together, alone, moved = replay(seeds=(7, 8)), replay(seeds=(8,)), replay(seeds=(9, 1, 8))
    for memory in (together, alone, moved):
        fill(memory, 10)
    for step in range(150):  # longer than a block of draws
        a, b, c = together.sample()[1], alone.sample()[0], moved.sample()[2]
        assert torch.equal(a[:, 1:], b[:, 1:])
        assert torch.equal(b[:, 1:], c[:, 1:])
        fill(together, 1, 10 + step)
        fill(alone, 1, 10 + step)
        fill(moved, 1, 10 + step)


def test_minibatches_differ_and_are_uniform():
    memory = replay(seeds=(0,), capacity=10, batch_size=100)
    fill(memory, 10)
    batches = torch.stack([memory.sample()[0, :, 1] for _ in range(300)])
    assert len({tuple(b.tolist()) for b in batches}) == 300
    counts = torch.bincount(batches.flatten().long(), minlength=10)
    expected = 3000
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 27.9  # 99.9 % of a χ² with 9 degrees of freedom; the seed is fixed


def test_a_minibatch_is_a_copy():
    memory = replay(capacity=4)
    fill(memory, 4)
    batch = memory.sample()
    kept = batch.clone()
    fill(memory, 4, start=100)
    assert torch.equal(batch, kept)
