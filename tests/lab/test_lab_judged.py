"""What recipes say of themselves, and who asks them: reports, tunings, launchers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.table import Table

from alphagrad.common.errors import ConfigError
from alphagrad.harness import metrics
from alphagrad.harness.recipe import Capability, Objective
from alphagrad.instruments import quantities
from alphagrad.lab.config import build, compose
from alphagrad.lab.config.catalogue import options_of
from alphagrad.lab.launching.plan import stacks_of
from alphagrad.lab.records import judged
from alphagrad.lab.training.job import Assignment
from alphagrad.lab.tuning import search
from alphagrad.lab.tuning.verdict import TuningPlan


@pytest.mark.parametrize("name", options_of("recipe"))
def test_every_recipe_is_judged_by_what_it_logs(composed, name):
    recipe = build.recipe_class(composed(f"recipe={name}").recipe._target_)
    assert recipe.objective.metric in recipe.logs
    assert set(recipe.headlines) <= set(recipe.logs)
    assert recipe.objective.metric in recipe.headlines
    assert (Capability.PLAYED in recipe.capabilities) == hasattr(recipe, "play")
    assert recipe.objective.metric in metrics.TITLES


@given(
    st.sampled_from(["max", "min"]),
    st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="/_"), min_size=1),
    st.dictionaries(st.text(min_size=1), st.integers(0, 20)),
)
def test_tags_say_what_the_recipe_says(better, metric, headlines):
    class Recipe:
        objective = Objective(metric, better)

    Recipe.headlines = headlines
    tags = judged.tags_of(Recipe)
    assert judged.objective_of(tags, {}) == (metric, better)
    assert judged.headlines_of(tags) == headlines


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"a": "b"}', "7", '{"a": null}'])
def test_other_tags_are_those_of_an_earlier_alphagrad(text):
    assert judged.headlines_of({judged.HEADLINES: text}) == judged.EARLIER
    assert judged.objective_of({judged.OBJECTIVE: text}, {metrics.EVAL_LOSS: 1.0}) == (metrics.EVAL_LOSS, "min")


def test_digits_are_bounded():
    assert judged.headlines_of({judged.HEADLINES: '{"a": 1000000000, "b": -3}'}) == {"a": 20, "b": 0}


@pytest.mark.parametrize(
    ("metric", "minimize", "expected"),
    [
        ("", None, ("eval/loss", True)),
        ("", False, ("eval/loss", False)),
        ("eval/loss", None, ("eval/loss", True)),
        ("train/loss", None, ("train/loss", False)),
        ("train/loss", True, ("train/loss", True)),
    ],
)
def test_a_tuning_asks_the_recipe(metric, minimize, expected):
    plan = TuningPlan(1, 1, metric, minimize, "tpe", True).of(Objective("eval/loss", "min"))
    assert (plan.metric, plan.minimize) == expected


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [("image", ("eval/accuracy", False)), ("lm", ("eval/loss", True))],
    ids=["image", "lm"],
)
@pytest.mark.long
def test_tune_searches_for_the_recipes_objective(cli, lab, root, recipe, expected):
    """Before it trained for a metric of reinforcement learning, and noticed after a round."""
    plans: list = []
    lab.setattr(search, "_tune", lambda contenders, plan, *_: plans.append(plan) or [])
    lab.setattr("alphagrad.lab.tuning.verdict.verdict_table", lambda verdicts, plan: Table("empty"))
    told = cli("tune", f"recipe={recipe}", "optimizer=adam,alphagrad", "--trials", "1", f"output_root={root}")
    assert told.status == 0, told.err
    assert [(plan.metric, plan.minimize) for plan in plans] == [expected]


@pytest.mark.long
def test_a_study_of_images_is_drawn(cli, root, tmp_path):
    words = ("recipe=image", "recipe.epochs=1", "recipe.gap_images=0", "model.hidden=[8]", f"output_root={root}")
    assert cli("run", *words).status == 0
    drawn = cli("report", "--plot", str(tmp_path / "curves.png"), "--output-root", str(root))
    assert drawn.status == 0, drawn.err
    assert "eval/accuracy drawn in" in drawn.out
    assert "eval/loss" in drawn.out


def test_runs_of_a_recipe_that_cannot_be_stacked_train_alone(odd):
    with compose.hydra_initialized():
        jobs = {
            name: [compose.compose([f"recipe={name}", f"seed={s}"]) for s in range(3)] for name in ("odd", "lonely")
        }
    plain = {name: [Assignment(OmegaConf.to_container(c), "", "") for c in configs] for name, configs in jobs.items()}
    assert stacks_of(plain["odd"], 9, 1) == [[0, 1, 2]]
    assert stacks_of(plain["lonely"], 9, 1) == [[0], [1], [2]]


def test_a_recipe_must_say_what_it_is_judged_by(odd):
    with compose.hydra_initialized(), pytest.raises(ConfigError, match="objective = Objective") as told:
        build.build(compose.compose(["recipe=mute"]))
    assert "\n" not in str(told.value)


def test_titles_have_units():
    assert metrics.title("eval/accuracy") == "evaluation accuracy (share)"
    assert metrics.title("saturation/layer.weight") == "saturation S(α) (share of components) of layer.weight"
    assert metrics.title("my/own") == "my/own"
    named = {value for key, value in vars(metrics).items() if key.isupper() and isinstance(value, str)}
    assert named | set(metrics.TIGHTNESS.values()) == set(metrics.TITLES)
    own = {value for key, value in vars(quantities).items() if key.isupper() and isinstance(value, str)}
    tails = {quantities.tail(sigmas) for sigmas in (2, 3, 4)}
    assert (own - {quantities.QUANTILES, quantities.NETWORK}) | tails == set(quantities.QUANTITIES)
    assert set(quantities.SUMMARISED) <= set(quantities.QUANTITIES)
    largest = "saturation S(α) (share of components), largest of the tensors of actor"
    assert metrics.title("saturation_largest/actor") == largest
