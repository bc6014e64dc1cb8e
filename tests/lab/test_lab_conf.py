"""conf/ and the code say the same: options, settings, defaults, and the user's own configuration."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from alphagrad.recipes.language import data as text_data
from alphagrad.recipes.language import models as text_models
from alphagrad.recipes.problems import settings as problems
from alphagrad.recipes.tabular import data as tables
from alphagrad.recipes.vision.data import DataSettings
from alphagrad.recipes.vision.models import USES, ModelSettings
from omegaconf import OmegaConf

from alphagrad import alpha, normalization, transform, values, variants
from alphagrad.common.errors import ConfigError
from alphagrad.harness.recipe import EnvSettings
from alphagrad.lab.config import build, compose, optimizers, targets
from alphagrad.lab.config import catalogue as listing
from alphagrad.lab.config.alike import compose_all
from alphagrad.lab.config.shape import MOVED, identity

CONF = Path(__file__).resolve().parents[2] / "conf"


def options(group: str) -> list[str]:
    return sorted(f.stem for f in (CONF / group).glob("*.yaml") if not f.stem.startswith("_"))


def section(file: str) -> dict:
    return yaml.safe_load((CONF / file).read_text(encoding="utf-8"))


NAMED = (
    ("0.weight", (6, 4)),
    ("0.bias", (6,)),
    ("2.weight", (5, 6)),
    ("2.bias", (5,)),
    ("4.weight", (2, 5)),
    ("4.bias", (2,)),
)


def parameters(seed: int = 0) -> list[tuple[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [(name, torch.randn(shape, generator=g, dtype=torch.float64)) for name, shape in NAMED]


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("recipe", options("recipe"))
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


def test_every_option_of_a_slot_is_expected_here():
    assert {(slot, o) for slot in compose.SLOTS for o in options(slot)} == set(SLOTS)


@pytest.mark.parametrize(("slot", "option"), SLOTS)
def test_slot_options_build(composed, slot, option):
    expected = SLOTS[slot, option]
    optimizer = "alphagrad" if getattr(expected, "uses_alpha", True) else "normalize_only"
    built = build.build(composed(f"optimizer={optimizer}", f"{slot}={option}")).optimizer.build(parameters())
    assert getattr(built.param_groups[0]["rule"], slot) == expected


@pytest.mark.parametrize(("slot", "option"), SLOTS)
def test_slot_files_hold_every_field(slot, option):
    part = SLOTS[slot, option]
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


def keys(model) -> set[str]:
    """The names of settings as files have them."""
    return {field.alias or name for name, field in model.model_fields.items()}


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


def settings_of_optimizers() -> list[tuple[str, str]]:
    pairs = []
    shared = section("optimizer/_alphagrad.yaml")
    for name in options("optimizer"):
        own = section(f"optimizer/{name}.yaml")
        keys = own if "_target_" in own else shared if name == "alphagrad" else {}
        pairs += [(name, k) for k in keys if k not in (*optimizers.OWN_OPTIMIZER_SETTINGS, "rule", "fused")]
    return pairs


# a second value of a setting, one that shows within a few steps, and what else it needs
OTHER = {
    "lr": ("0.02",),
    "betas": ("[0.5,0.6]",),
    "eps": ("0.3",),
    "weight_decay": ("0.3",),
    "momentum": ("0.4",),
    "dampening": ("0.5",),
    "amsgrad": ("true",),
    "nesterov": ("true", "optimizer.momentum=0.9"),
    "centered": ("true",),
    "alpha": ("0.2",),
    "trust_coefficient": ("0.5",),
    "preconditioning_compute_steps": ("3",),
    "matrix_eps": ("0.5",),
    "ns_steps": ("2",),
    "adamw_lr": ("0.2",),
    "adamw_betas": ("[0.5,0.6]",),
    "adamw_eps": ("0.3",),
    "adamw_wd": ("0.3",),
    "maximize": ("true",),
    "nonfinite": ("propagate",),
    "momentum_dtype": ("bfloat16",),
    "k": ("3.0",),
    "weight_bits": ("8",),
    "rounding": ("nearest",),
    "seed": ("1",),
    "fixed_point.alpha": ("0.2", "optimizer.k=null"),
}


def trajectory(config, bad_step: int | None) -> torch.Tensor:
    """Where an optimizer leads in six steps of gradients that shrink, so that amsgrad's maximum counts."""
    named = parameters()
    optimizer = build.build(config).optimizer.build(named)
    g = torch.Generator().manual_seed(1)
    for step in range(6):
        for _, p in named:
            p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype) / (step + 1) ** 2
            if step == bad_step:
                p.grad.fill_(torch.nan)
        optimizer.step()
    return torch.cat([p.flatten() for _, p in named])


@pytest.mark.parametrize(("optimizer", "setting"), settings_of_optimizers())
def test_optimizer_settings_reach_the_optimizer(composed, optimizer, setting):
    value, *needs = OTHER.get(f"{optimizer}.{setting}") or OTHER[setting]
    base = [f"optimizer={optimizer}", "optimizer.lr=0.1", *needs]
    if setting == "nesterov":
        base.append("optimizer.nesterov=false")
    changed = [*(o for o in base if not o.startswith(f"optimizer.{setting}=")), f"optimizer.{setting}={value}"]
    bad = 2 if setting == "nonfinite" else None
    config = composed(*base)
    before, after = trajectory(config, bad), trajectory(composed(*changed), bad)
    assert not torch.equal(before, after)
    assert torch.equal(before, trajectory(config, bad))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_fused_is_another_way_to_the_same_numbers(composed, optimizer):
    plain, fused = (composed(f"optimizer={optimizer}", f"optimizer.fused={fused}") for fused in ("false", "true"))
    assert build.build(fused).optimizer.build(parameters()).defaults["fused"] is True
    assert build.build(plain).optimizer.build(parameters()).defaults["fused"] is False
    torch.testing.assert_close(trajectory(plain, None), trajectory(fused, None))


def test_clip_grad_norm_and_stacking_reach_the_spec(composed):
    spec = build.build(composed("optimizer=adam", "optimizer.clip_grad_norm=0.5")).optimizer
    assert (spec.name, spec.stacking, spec.clip_grad_norm) == ("adam", "elementwise", 0.5)
    assert build.build(composed("optimizer=muon")).optimizer.stacking == "per_run"


def test_equal_settings_make_equal_specs(composed):
    def spec(*overrides):
        return build.build(composed(*overrides)).optimizer

    assert spec("optimizer=adam") == spec("optimizer=adam", "seed=4")
    assert spec("optimizer=hybrid") == spec("optimizer=hybrid", "seed=4")
    assert hash(spec("optimizer=hybrid")) == hash(spec("optimizer=hybrid", "seed=4"))
    assert spec("optimizer=adam") != spec("optimizer=adam", "optimizer.eps=1e-5")
    assert spec("optimizer=adam") != spec("optimizer=adamw", "optimizer.weight_decay=0")
    assert spec("alpha.value=93") != spec("alpha.value=94")


def test_the_hash_counts_what_changes_numbers(composed):
    def digest(*overrides):
        return compose.config_hash(composed(*overrides))

    base = digest()
    assert len(base) == 8
    assert int(base, 16) >= 0
    for same in ("seed=7", "output_root=elsewhere", "tracking.experiment=other", "tracking.uri=sqlite:////x.db"):
        assert digest(same) == base, same
    others = [
        "optimizer=adam",
        "optimizer.lr=0.1",
        "alpha.value=93",
        "alpha=sqrt_dim",
        "normalization=module",
        "recipe.gamma=0.9",
        "recipe.total_steps=400000",
        "env.id=Acrobot-v1",
        "optimizer.clip_grad_norm=1",
    ]
    digests = [digest(o) for o in others]
    assert len({base, *digests}) == len(others) + 1


def test_settings_are_flat_and_told_once(composed):
    flat = compose.settings_of(composed("optimizer=saturation", "seed=3", "optimizer_defaults.lr=0.125"))
    assert flat["seed"] == 3
    assert flat["optimizer.lr"] == 0.125  # resolved
    assert flat["alpha.start.k"] == 1.0
    assert flat["recipe.hidden"] == [120, 84]
    assert flat["env.id"] == "CartPole-v1"
    assert flat["tracking.uri"] is None
    told_elsewhere = ("hydra", "recipe.env.", "optimizer.rule.alpha.", "optimizer.rule.normalization.")
    assert not [k for k in flat if k.startswith(told_elsewhere)]
    # all that can be set is told
    whole = OmegaConf.to_container(composed("optimizer=saturation"), resolve=True)
    leaves = [k for k, v in whole["recipe"].items() if k != "env" and not isinstance(v, dict)]
    assert {f"recipe.{k}" for k in leaves} <= set(flat)


USER_RULE = """
from alphagrad.alpha import SqrtDim
from alphagrad.normalization import Global
from alphagrad.rule import Rule
from alphagrad.transform import SinTanh


def my_rule(k=2.0):
    return Rule(Global(), SqrtDim(k), SinTanh(1.5))
"""
USER_OPTIMIZER = """
# the rule of my own
name: mine
_target_: alphagrad.AlphaGrad
rule:
  _target_: alphagrad_test_rules.my_rule
  k: 3.0
lr: ${optimizer_defaults.lr}
momentum: 0.5
stacking: batch_dims
clip_grad_norm: null
"""
USER_ADAM = """
# My Adam
name: adam
_target_: torch.optim.Adam
lr: 0.5
eps: 0.25
stacking: elementwise
clip_grad_norm: null
"""


@pytest.fixture
def own_conf(lab, tmp_path):
    """A user's configuration: an optimizer of their own, another default for adam, another recipe."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/alphagrad_test_rules.py").write_text(USER_RULE)
    lab.syspath_prepend(tmp_path / "modules")
    conf = tmp_path / "conf"
    (conf / "optimizer").mkdir(parents=True)
    (conf / "recipe").mkdir()
    (conf / "optimizer/mine.yaml").write_text(USER_OPTIMIZER)
    (conf / "optimizer/adam.yaml").write_text(USER_ADAM)
    recipe = (CONF / "recipe/dqn_cartpole.yaml").read_text().replace("DQN on CartPole-v1", "My Acrobot")
    (conf / "recipe/acrobot.yaml").write_text(
        recipe.replace("CartPole-v1", "Acrobot-v1").replace("dqn_cartpole", "acrobot")
    )
    lab.setenv("ALPHAGRAD_CONF", str(conf))
    return conf


def test_own_configuration_comes_first(own_conf, composed):
    from alphagrad.rule import Rule

    job = build.build(composed("optimizer=mine", "recipe=acrobot"))
    group = job.optimizer.build(parameters()).param_groups[0]
    assert group["rule"] == Rule(normalization.Global(), alpha.SqrtDim(3.0), transform.SinTanh(1.5))
    assert group["momentum"] == 0.5
    assert job.recipe.n_observations == 6
    assert build.build(composed("optimizer=adam")).optimizer.build(parameters()).defaults["lr"] == 0.5
    assert build.build(composed("optimizer=adamw")).optimizer.build(parameters()).defaults["lr"] == 2.5e-4
    assert build.build(composed("optimizer=mine", "optimizer.rule.k=5")).optimizer.build(parameters()).param_groups[0][
        "rule"
    ].alpha == alpha.SqrtDim(5.0)


def test_ls_shows_own_configuration(own_conf, cli):
    shown = cli("ls").out
    assert "the rule of my own" in shown
    variants_part, _, baselines_part = shown.partition("Baselines")
    assert "mine" in variants_part
    assert "My Adam" in baselines_part
    assert "the paper's baseline" not in shown  # the shipped adam's description
    assert "acrobot" in shown


def test_own_configuration_reaches_a_run(own_conf, cli, root, tiny, store_runs):
    done = cli("run", "optimizer=mine", f"output_root={root}", *tiny)
    assert done.status == 0, done.err
    (run,) = store_runs(root)
    assert run.data.params["optimizer.rule._target_"] == "alphagrad_test_rules.my_rule"
    assert run.data.tags["variant"] == "mine"


def test_a_missing_own_folder_is_an_error(lab, cli, tmp_path):
    lab.setenv("ALPHAGRAD_CONF", str(tmp_path / "none"))
    for command in (("ls",), ("run", f"output_root={tmp_path / 'out'}")):
        failed = cli(*command)
        assert failed.status == 2
        assert failed.err.startswith("alphagrad: ALPHAGRAD_CONF=")
    assert not (tmp_path / "out").exists()


def test_a_setting_the_constructor_lacks_is_named(composed):
    config = composed("optimizer=sgd", "+optimizer.betas=[0.9,0.99]")
    with pytest.raises(ConfigError, match=r"optimizer\.betas: sgd has no such setting; it has lr, momentum"):
        build.build(config)


def test_baselines_are_constructors_of_known_packages():
    for name in options("optimizer"):
        target = section(f"optimizer/{name}.yaml").get("_target_", "alphagrad.AlphaGrad")
        assert target.startswith(
            (
                "torch.optim.",
                "pytorch_optimizer.",
                "alphagrad.harness.baselines.",
                "alphagrad.AlphaGrad",
                "alphagrad.fixed_point.",
            )
        )
        assert inspect.signature(targets.resolve("optimizer", target, (torch.optim.Optimizer,)))


EMBEDDED = {"text_newsgroups": ["data=pydocs"], "lm_sotu": ["data=topics"]}
"""For studies on data that are not everywhere, some that are."""


@pytest.mark.parametrize("study", options("experiment"))
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


def test_settings_that_earlier_studies_had_not():
    """A study of an earlier alphagrad goes on: with their neutral values they count as absent."""
    earlier = {
        "recipe": {"name": "image", "precision": "bfloat16"},
        "optimizer": {"name": "alphagrad", "momentum": 0.9},
    }
    for section, setting, neutral, other in (
        ("recipe", "rounding", "nearest", "kahan"),
        ("recipe", "quantization", "none", "int8"),
        ("recipe", "figures", True, False),
        ("optimizer", "momentum_dtype", None, "bfloat16"),
    ):
        now = {**earlier, section: {**earlier[section], setting: neutral}}
        assert identity(now) == identity(earlier)
        assert identity({**now, section: {**now[section], setting: other}}) != identity(earlier)


def test_a_recipes_own_setting_of_a_defaults_name_counts():
    """Else jobs that differ in it alone would be one."""
    base = {"recipe": {"name": "own", "lr": 0.1}, "optimizer_defaults": {"lr": 0.5}, "optimizer": {"lr": 0.5}}
    keys = {identity(base)}
    for section, settings in base.items():
        keys.add(identity({**base, section: {**settings, "lr": 0.7}}))
    assert len(keys) == 4


def test_identity_is_that_of_an_earlier_alphagrad():
    earlier, moved = next(iter(MOVED.items()))
    now = {"recipe": {"gamma": 0.9}, "optimizer_defaults": {"lr": 0.5}, "optimizer": {"_target_": moved}}
    before = {"recipe": {"gamma": 0.9, "lr": 0.5}, "optimizer": {"_target_": earlier}}
    assert identity(now) == identity(before) == json.dumps(before, sort_keys=True)
