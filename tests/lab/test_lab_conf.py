"""conf/ and the code say the same: options, settings, defaults, and the user's own configuration."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from alphagrad.recipes.language import data as text_data
from alphagrad.recipes.language import models as text_models
from alphagrad.recipes.problems import settings as problems
from alphagrad.recipes.tabular import data as tables
from alphagrad.recipes.vision.data import DataSettings
from alphagrad.recipes.vision.models import USES, ModelSettings
from options import keys, options, parameters, section
from tiers import each_once

from alphagrad import alpha, normalization, transform, values, variants
from alphagrad.harness.recipe import EnvSettings
from alphagrad.lab.config import build, compose
from alphagrad.lab.config import catalogue as listing
from alphagrad.lab.config.shape import MOVED, identity


@pytest.mark.parametrize(("recipe", "optimizer"), each_once(options("recipe"), options("optimizer")))
def test_every_recipe_takes_every_optimizer(composed, recipe, optimizer):
    job = build.build(composed(f"recipe={recipe}", f"optimizer={optimizer}"))
    assert job.optimizer.name == optimizer
    for network in job.recipe.networks().values():
        built = job.optimizer.build(list(network.named_parameters()))
        given = [p for group in built.param_groups for p in group["params"]]
        assert {id(p) for p in given} == {id(p) for p in network.parameters()}


@pytest.mark.parametrize(
    "words", [("env.kwargs={length:0.5,gravity:9}",), ("env.kwargs.length=0.5", "env.kwargs.gravity=9")]
)
def test_arguments_of_any_name_are_given_together_or_one_by_one(composed, words):
    assert dict(composed(*words).env.kwargs) == {"length": 0.5, "gravity": 9}


@pytest.mark.parametrize("variant", variants.__all__)
def test_variant_configuration_is_the_variants_rule(composed, variant):
    built = build.build(composed(f"optimizer={variant}")).optimizer.build(parameters())
    assert built.param_groups[0]["rule"] == getattr(variants, variant)()


def test_every_variant_has_a_configuration():
    assert set(variants.__all__) <= set(options("optimizer"))
    shown = listing.catalogue()["Variants of AlphaGrad (optimizer=...)"]
    assert set(shown) == set(variants.__all__)
    files = {f.stem for f in Path(variants.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(variants.__all__)


SLOTS = {
    ("normalization", "tensor"): normalization.PerTensor(),
    ("normalization", "module"): normalization.PerModule(),
    ("normalization", "group"): normalization.PerGroup(),
    ("normalization", "global"): normalization.Global(),
    ("normalization", "blend"): normalization.Blend(0.5),
    ("normalization", "none"): normalization.Unnormalized(),
    ("alpha", "constant"): alpha.Constant(100.0),
    ("alpha", "sqrt_dim"): alpha.SqrtDim(1.0),
    ("alpha", "sqrt_total"): alpha.SqrtTotal(1.0),
    ("alpha", "quantile"): alpha.Quantile(0.05, 2.5),
    ("alpha", "fan_in"): alpha.FanIn(1.0),
    ("alpha", "schedule"): alpha.Schedule(10.0, 100.0, 10_000, "linear"),
    ("alpha", "saturation"): alpha.Saturation(alpha.SqrtDim(1.0), 0.05, 0.25, 2.5, 1.05, 1, 1e-3, 1e6),
    ("transform", "tanh"): transform.Tanh(),
    ("transform", "scaled_tanh"): transform.ScaledTanh(1.0),
    ("transform", "sin_tanh"): transform.SinTanh(1.0),
    ("transform", "hybrid"): transform.Hybrid(0.5),
    ("transform", "hybrid_scheduled"): transform.Hybrid(values.Ramp(0.0, 1.0, 10_000, "linear")),
    ("transform", "hybrid_adaptive"): transform.Hybrid(transform.FromSaturation(2.5)),
    ("transform", "identity"): transform.Identity(),
    ("transform", "sign"): transform.Sign(),
}


SLOT_OPTIONS = [(slot, option) for slot in compose.SLOTS for option in options(slot)]


def expected_of(slot, option):
    """What an option makes: the class of its name at its own defaults, where no line above says otherwise."""
    if (slot, option) in SLOTS:
        return SLOTS[slot, option]
    name = "".join(word.capitalize() for word in option.split("_"))
    return getattr({"normalization": normalization, "alpha": alpha, "transform": transform}[slot], name)()


def test_every_option_that_is_expected_here_is_there():
    assert set(SLOTS) <= set(SLOT_OPTIONS)


@pytest.mark.parametrize("key", [("alpha", "sqrt_dim"), ("transform", "sin_tanh"), ("normalization", "blend")])
def test_an_option_without_a_line_is_its_class_at_its_defaults(monkeypatch, key):
    part = SLOTS[key]
    monkeypatch.delitem(SLOTS, key)
    assert expected_of(*key) == part


@pytest.mark.parametrize(("slot", "option"), SLOT_OPTIONS)
def test_slot_options_build(composed, slot, option):
    expected = expected_of(slot, option)
    optimizer = "alphagrad" if getattr(expected, "uses_alpha", True) else "normalize_only"
    built = build.build(composed(f"optimizer={optimizer}", f"{slot}={option}")).optimizer.build(parameters())
    assert getattr(built.param_groups[0]["rule"], slot) == expected


@pytest.mark.parametrize(("slot", "option"), SLOT_OPTIONS)
def test_slot_files_hold_every_field(slot, option):
    part = expected_of(slot, option)
    assert set(section(f"{slot}/{option}.yaml")) - {"_target_"} == {f.name for f in fields(part)}


@pytest.mark.parametrize("group", ["recipe", "optimizer", "experiment", "data", "model", "problem"])
def test_what_ls_shows_is_described(group):
    assert options(group)
    for name, (description, _) in listing.options_of(group).items():
        assert len(description) > 5, f"{group}/{name}.yaml needs a first comment"


@pytest.mark.parametrize("name", options("recipe"))
def test_recipe_settings_have_the_files_keys(name):
    file = section(f"recipe/{name}.yaml")
    model = build.recipe_class(file["recipe"]["_target_"]).Settings
    assert set(file["recipe"]) - {"_target_"} == set(model.model_fields)
    if "env" in file:
        assert set(file["env"]) == set(EnvSettings.model_fields)
    assert file["recipe"]["name"] == name


OWN = {"_target_", "kwargs"}
"""What a user's own model or data set has."""


def texts(group: str) -> set[str]:
    """The options of a group that are for the recipes on text."""
    names = {*text_data.USES, "custom_text"} if group == "data" else text_models.USES
    return {name for name in options(group) if section(f"{group}/{name}.yaml")["name"] in names}


TABLES = sorted(name for name in options("data") if section(f"data/{name}.yaml")["name"] in tables.USES)


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_what_their_source_needs(name):
    assert (
        set(section(f"data/{name}.yaml"))
        == {"name", "test", *tables.USES[name]}
        <= set(tables.TableSettings.model_fields)
    )


@pytest.mark.parametrize("name", options("problem"))
def test_problems_have_what_they_need(name):
    problem = section(f"problem/{name}.yaml")
    assert (
        set(problem)
        == {"name", "scale", "L", *problems.USES[problem["name"]]}
        <= set(problems.ProblemSettings.model_fields)
    )


@pytest.mark.parametrize("name", sorted(set(options("data")) - texts("data") - set(TABLES)))
def test_data_settings_have_the_files_keys(composed, name):
    assert set(composed("recipe=image", f"data={name}").data) | OWN == keys(DataSettings)


@pytest.mark.parametrize("name", sorted((set(options("model")) - texts("model")) | {"mlp"}))
def test_model_settings_have_the_files_keys(composed, name):
    model = composed("recipe=image", f"model={name}").model
    uses = OWN if model.name == "custom" else USES.get(model.name, ())
    assert set(model) == {"name", *uses}
    assert set(uses) <= keys(ModelSettings)


@pytest.mark.parametrize("name", sorted(texts("model")))
def test_text_models_have_the_files_keys(name):
    model = section(f"model/{name}.yaml")
    assert set(model) == {"name", *text_models.USES[model["name"]]}


@pytest.mark.parametrize("name", sorted(texts("data")))
def test_text_data_have_what_their_source_needs(name):
    data = section(f"data/{name}.yaml")
    needed = OWN if data["name"] == "custom_text" else text_data.USES[data["name"]]
    assert {"name", *needed} <= set(data) <= keys(text_data.DataSettings)


def test_every_setting_of_a_model_is_in_a_file():
    files = [section(f"model/{name}.yaml") for name in options("model")]
    known = keys(ModelSettings) | keys(text_models.ModelSettings)
    assert {key for file in files for key in file} == known


def test_job_settings_have_the_files_keys():
    for file in options("tracking"):
        assert set(section(f"tracking/{file}.yaml")) == set(build.TrackingSettings.model_fields)
    for file in options("instruments"):
        assert set(section(f"instruments/{file}.yaml")) == set(build.InstrumentSettings.model_fields)
    top = set(section("config.yaml")) - {"defaults", "hydra"}
    assert top | {"tracking", "instruments"} == set(build.JobSettings.model_fields)


def test_settings_that_earlier_studies_had_not():
    """A study of an earlier alphagrad goes on: with their neutral values they count as absent."""
    earlier = {
        "recipe": {"name": "image", "precision": "bfloat16"},
        "optimizer": {"name": "alphagrad", "momentum": 0.9},
    }
    for part, setting, neutral, other in (
        ("recipe", "rounding", "nearest", "kahan"),
        ("recipe", "quantization", "none", "int8"),
        ("recipe", "figure", True, False),
        ("optimizer", "momentum_dtype", None, "bfloat16"),
    ):
        now = {**earlier, part: {**earlier[part], setting: neutral}}
        assert identity(now) == identity(earlier)
        assert identity({**now, part: {**now[part], setting: other}}) != identity(earlier)
    theory = {"recipe": {"name": "theory"}}  # which had its figure before
    assert identity({"recipe": {**theory["recipe"], "figure": True}}) != identity(theory)


def test_a_recipes_own_setting_of_a_defaults_name_counts():
    """Else jobs that differ in it alone would be one."""
    base = {"recipe": {"name": "own", "lr": 0.1}, "optimizer_defaults": {"lr": 0.5}, "optimizer": {"lr": 0.5}}
    keys = {identity(base)}
    for part, settings in base.items():
        keys.add(identity({**base, part: {**settings, "lr": 0.7}}))
    assert len(keys) == 4


def test_identity_is_that_of_an_earlier_alphagrad():
    earlier, moved = next(iter(MOVED.items()))
    now = {"recipe": {"gamma": 0.9}, "optimizer_defaults": {"lr": 0.5}, "optimizer": {"_target_": moved}}
    before = {"recipe": {"gamma": 0.9, "lr": 0.5}, "optimizer": {"_target_": earlier}}
    assert identity(now) == identity(before) == json.dumps(before, sort_keys=True)
