"""Saturated actors are told from others, and the pages count them as the kept table has them."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def saturation(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    yield importlib.import_module("actor_saturation")
    sys.modules.pop("actor_saturation")


def test_a_saturated_actor_is_told_from_others(saturation, cli, tmp_path):
    short = ["recipe.total_steps=8", "recipe.learning_starts=2", "recipe.batch_size=2", "recipe.eval_episodes=1"]
    words = ["recipe=td3_hopper", "env.id=Pendulum-v1", *short, "seed=0,1,2", f"output_root={tmp_path / 'out'}"]
    assert cli("run", "-m", *words, "optimizer=alphagrad", "optimizer.momentum=0.5").status == 0
    (study,) = (tmp_path / "out").glob("*/studies/*")
    last = "actor.4"
    for seed, bias in ((1, 9.0), (2, -0.5)):  # with the last layer's weights at 0 the action is tanh of its bias
        (file,) = study.glob(f"*seed{seed}*/checkpoint.pt")
        checkpoint = torch.load(file, weights_only=True)
        checkpoint["actor"][f"{last}.weight"].zero_()
        checkpoint["actor"][f"{last}.bias"].fill_(bias)
        torch.save(checkpoint, file)
    saturation.main([str(study), "--to", str(tmp_path / "actors.csv")])
    rows = pd.read_csv(tmp_path / "actors.csv", keep_default_na=False).set_index("seed")
    assert list(rows.index) == [0, 1, 2]
    assert set(rows["optimizer"]) == {"alphagrad"}
    assert set(rows["momentum"]) == {0.5}
    assert rows["saturated"].tolist() == [0, 1, 0]
    assert rows["action"].astype(str).tolist() == ["", "+1", "-0.462"]
    assert rows["return_if_constant"][0] == ""
    for seed, torque in ((1, 2.0), (2, -0.924)):
        assert float(rows["return_if_constant"][seed]) == pytest.approx(swung(torque), abs=0.1)


def swung(torque: float) -> float:
    """Mean return of twenty episodes of a pendulum under one torque."""
    env, total = gym.make("Pendulum-v1"), 0.0
    for seed in range(20):
        env.reset(seed=seed)
        total += sum(float(env.step(np.array([torque], dtype=np.float32))[1]) for _ in range(200))
    return total / 20


def test_without_a_checkpoint_it_says_so(saturation, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        saturation.main([str(tmp_path), "--to", str(tmp_path / "actors.csv")])
    assert left.value.code == 2
    assert "no run of these studies has a checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "actors.csv").exists()


def test_the_page_counts_the_saturated_actors_as_the_table_does():
    page = (DOCS / "paper.md").read_text(encoding="utf-8")
    told = page.partition("AlphaGrad's actors are saturated.")[2].partition("\n\n")[0]
    runs = pd.read_csv(DOCS / "results/hopper_actors.csv", keep_default_na=False)
    ours = runs[(runs["optimizer"] == "alphagrad") & (runs["momentum"] == "0.9") & (runs["lr"] != 3e-5)]
    high, low = (ours[ours["lr"] == rate] for rate in (3e-4, 1e-4))
    saturated = [int((rows["saturated"] == 1).sum()) for rows in (high, low)]
    assert f"each of the {saturated[0]} runs" in told
    assert len(high) == saturated[0]
    ones = high[high["action"] == "+1 +1 +1"]
    assert f"In {len(ones)} runs they are (1, 1, 1)" in told
    (earns,) = set(ones["return_if_constant"])
    assert f"earns {float(earns):.0f} by itself" in told
    assert f"At 1e-4 the actors of {saturated[1]} runs are saturated" in told
    assert len(low) - saturated[1] == 6
    assert (runs[runs["optimizer"] == "adam"]["saturated"] < 0.1).all()


def test_so_do_the_rows_of_rate_and_momentum():
    page = (DOCS / "paper.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (0|0\.9) \| (\S+) \| \d+ \| .* \| [a-z ]+ \| (\d) \|$", page, re.MULTILINE)
    runs = pd.read_csv(DOCS / "results/hopper_momentum_actors.csv")
    assert len(rows) == 6
    for momentum, rate, saturated in rows:
        own = runs[(runs["momentum"] == float(momentum)) & (runs["lr"] == float(rate))]
        assert len(own) == 5
        assert int(saturated) == (own["saturated"] == 1).sum()


def test_a_study_that_is_not_there_is_told(saturation, tmp_path, capsys):
    (tmp_path / "study" / "run").mkdir(parents=True)
    (tmp_path / "study" / "run" / "config.yaml").touch()
    for words, told in (
        ([str(tmp_path / "study"), str(tmp_path / "other"), "--to", str(tmp_path / "a.csv")], "other: has no run's"),
        ([str(tmp_path / "study"), "--to", str(tmp_path / "none" / "a.csv")], "has to be a file in a folder that"),
    ):
        with pytest.raises(SystemExit) as left:
            saturation.main(words)
        assert left.value.code == 2
        assert told in capsys.readouterr().err
