"""Studies that are shipped: each composes and builds, and is the one that was meant."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from options import options
from tiers import long

from alphagrad.lab.config import build
from alphagrad.lab.config.alike import compose_all

EMBEDDED = {"text_newsgroups": ["data=pydocs"], "lm_sotu": ["data=topics"]}
"""For studies on data that are not everywhere, some that are."""
QUICK = ("cliff", "lm_sotu", "paper_dqn", "scale")
"""Studies of few jobs."""


@pytest.mark.parametrize("study", [*QUICK, *long(*(s for s in options("experiment") if s not in QUICK))])
def test_every_study_composes_and_builds(composed, study):
    from alphagrad.lab.config.sweep import jobs_of, sweep_parameters

    overrides = [f"experiment={study}", *EMBEDDED.get(study, [])]
    jobs = jobs_of([*sweep_parameters(overrides), *overrides])
    assert len(jobs) > 1
    numbers = ("seed=", "optimizer.lr=")
    for config in compose_all(list({tuple(o for o in job if not o.startswith(numbers)) for job in jobs})):
        build.build(config)


def test_the_papers_dqn_study(composed):
    from alphagrad.lab.config.sweep import jobs_of, sweep_parameters

    overrides = ["experiment=paper_dqn"]
    jobs = jobs_of([*sweep_parameters(overrides), *overrides])
    configs = compose_all(jobs)
    told = [(c.optimizer.name, OmegaConf.select(c, "alpha.value"), c.seed) for c in configs]
    rows = [("adam", None), ("alphagrad", 93), ("alphagrad", 186), ("alphagrad", 279)]
    assert sorted(told, key=str) == sorted([(*row, s) for row in rows for s in range(10)], key=str)
    assert {c.optimizer.eps for c in configs} == {1e-5}
    assert {c.optimizer.momentum for c in configs if c.optimizer.name == "alphagrad"} == {0.9}
    assert {c.recipe.total_steps for c in configs} == {500_000}


@pytest.mark.parametrize(
    ("study", "alphas", "env_id", "steps", "clip"),
    [
        ("paper_ppo", [98, 196, 294], "HalfCheetah-v5", 1_000_000, 0.5),
        ("paper_td3", [100, 150, 200, 250, 457], "Hopper-v4", 500_000, None),
    ],
)
@pytest.mark.long
def test_the_papers_other_studies(composed, study, alphas, env_id, steps, clip):
    from alphagrad.lab.config.sweep import jobs_of, sweep_parameters

    overrides = [f"experiment={study}"]
    configs = compose_all(jobs_of([*sweep_parameters(overrides), *overrides]))
    told = [(c.optimizer.name, OmegaConf.select(c, "alpha.value"), c.seed) for c in configs]
    rows = [("adam", None), *(("alphagrad", alpha) for alpha in alphas)]
    assert sorted(told, key=str) == sorted([(*row, s) for row in rows for s in range(10)], key=str)
    assert {c.env.id for c in configs} == {env_id}
    assert {c.recipe.total_steps for c in configs} == {steps}
    assert {(c.optimizer.name, c.optimizer.clip_grad_norm) for c in configs} == {("adam", clip), ("alphagrad", None)}
    assert {c.optimizer.eps for c in configs if c.optimizer.name == "adam"} == {1e-5 if clip else 1e-8}
