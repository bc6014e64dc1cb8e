"""Runs in half precision that are stopped, with a narrow momentum: they go on to the bit."""

from __future__ import annotations

import pytest
import torch
from alphagrad.recipes.supervised.precision import Numbers
from stopped import EVERY, assert_same, gone_on, interrupt

from alphagrad.common.errors import ConfigError
from alphagrad.lab.config.build import build

FORMATS = [
    ("float32", "nearest", "bfloat16"),
    ("amp_float16_unscaled", "nearest", "float16"),
    ("amp_bfloat16", "nearest", "bfloat16"),
    ("bfloat16", "stochastic", "bfloat16"),
]
IMAGE = ("recipe=image", "model.hidden=[8]", "recipe.epochs=1", "recipe.batch_size=128", "recipe.eval_every=0")
LM = ("recipe=lm", "model.width=8", "model.layers=1", "model.heads=1", "recipe.length=8", "recipe.batch_size=2")
LM += ("recipe.total_steps=8", "recipe.eval_every=0", "recipe.sample_every=0", "recipe.peak_flops=1e9")
RECIPES = {"image": (*IMAGE, "recipe.figure=false", "recipe.gap_images=0"), "lm": LM}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No timing of products, and few validation tokens."""
    monkeypatch.setattr(Numbers, "warn_if_slow", lambda numbers: None)
    monkeypatch.setattr("alphagrad.recipes.lm.LMExam.__call__", lambda exam, *_: [{}] * len(exam.samplers))


@pytest.mark.parametrize(("precision", "rounding", "dtype"), FORMATS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_narrow_momentum_goes_on_to_the_bit(composed, recipe, precision, rounding, dtype):
    """Half-way, in a stack of two."""
    numbers = (f"recipe.precision={precision}", f"recipe.rounding={rounding}", f"optimizer.momentum_dtype={dtype}")
    job = build(composed(*RECIPES[recipe], "optimizer=alphagrad", "recipe.compile=false", *numbers))
    kept = [slot["momentum_buffer"].dtype for run in gone_on(job, 4) for slot in run["optimizer"].values()]
    assert set(kept) == {getattr(torch, dtype)}


def test_an_interrupted_run_goes_on(cli, at, root):
    words = (*RECIPES["image"], *EVERY, "checkpoint.every_steps=5", "optimizer=alphagrad", f"output_root={root}")
    words += ("optimizer.momentum_dtype=bfloat16", "recipe.precision=amp_bfloat16")
    folders = [root / "whole", root / "broken"]
    assert cli("run", *words, f"hydra.run.dir={folders[0]}").status == 0
    at(7, interrupt)
    assert cli("run", *words, f"hydra.run.dir={folders[1]}").status == 130
    assert cli("resume", str(folders[1])).status == 0
    assert_same(*(torch.load(folder / "checkpoint.pt", weights_only=True) for folder in folders))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_scaler_hides_what_should_be_raised(composed, recipe):
    """Told in one line, before training."""
    words = (*RECIPES[recipe], "optimizer=alphagrad", "optimizer.nonfinite=raise")
    with pytest.raises(ConfigError, match=r"^optimizer\.nonfinite=raise: recipe\.precision=amp_float16 drops steps"):
        build(composed(*words, "recipe.precision=amp_float16"))
    build(composed(*words, "recipe.precision=amp_float16_unscaled"))
