"""HalfCheetah-v4 and v5 are one task, as docs/claims.md says: the same transitions, and half of the runs the same."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SETTINGS = ["name", "lr", "momentum", "clip_grad_norm", "eps"]
JOB = ["alpha.value", "seed", *(f"optimizer.{name}" for name in SETTINGS)]


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_both_versions_give_the_same_transitions():
    both = [gym.make(f"HalfCheetah-{version}") for version in ("v4", "v5")]
    assert np.array_equal(*(env.reset(seed=7)[0] for env in both))
    actions = np.random.default_rng(7).uniform(-1, 1, (1000, 6)).astype(np.float32)
    for action in actions:
        (one, reward, *ends, _), (other, other_reward, *other_ends, _) = (env.step(action) for env in both)
        assert np.array_equal(one, other)
        assert (reward, ends) == (other_reward, other_ends)


def test_half_of_the_runs_ended_the_same():
    runs = pd.read_csv(CHECKOUT / "evidence/C3.csv.gz", keep_default_na=False, na_values=[""])
    old, new = (runs[runs["env.id"] == f"HalfCheetah-{version}"] for version in ("v4", "v5"))
    pairs = old.merge(new, on=JOB, suffixes=(" old", " new"))
    same = int((pairs["final/return old"] == pairs["final/return new"]).sum())
    page = " ".join((CHECKOUT / "docs/claims.md").read_text(encoding="utf-8").split())
    assert f"Of the {len(pairs)} runs on v4 {same} ended the same" in page
