"""Optimizers' settings: each reaches its optimizer, and counts in the hash if it changes numbers."""

from __future__ import annotations

import inspect
import io

import pytest
import torch
from omegaconf import OmegaConf
from options import options, parameters, section
from tiers import rows_one_in

from alphagrad.common.errors import ConfigError
from alphagrad.harness.state import pack, unpack
from alphagrad.lab.config import build, compose, optimizers, targets


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


@pytest.mark.parametrize(("optimizer", "setting"), rows_one_in(6, settings_of_optimizers()))
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


@pytest.mark.parametrize(("optimizer", "setting"), rows_one_in(3, settings_of_optimizers()))
def test_optimizer_settings_survive_a_checkpoint(composed, optimizer, setting):
    """The state is saved and taken back as a checkpoint has it, and the steps after it are the same."""
    value, *needs = OTHER.get(f"{optimizer}.{setting}") or OTHER[setting]
    build_it = build.build(composed(f"optimizer={optimizer}", *needs, f"optimizer.{setting}={value}")).optimizer.build
    named, others = parameters(), parameters()
    whole, broken = build_it(named), build_it(others)

    def step(optimizer, params, number):
        g = torch.Generator().manual_seed(number)
        for _, p in params:
            p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype)
        torch.manual_seed(number)
        optimizer.step()

    for number in range(3):
        step(whole, named, number)
        step(broken, others, number)
    file = io.BytesIO()
    torch.save(pack(broken), file)
    file.seek(0)
    again = build_it(others)
    unpack(again, torch.load(file, weights_only=True))
    for number in range(3, 6):
        step(whole, named, number)
        step(again, others, number)
    for (name, p), (_, q) in zip(named, others, strict=True):
        assert torch.equal(p, q), name


def test_a_rounding_draws_by_the_seed_of_the_run(composed):
    """And neighbouring seeds do not draw the same numbers one step later."""
    first, second = (build.build(composed("optimizer=fixed_point", f"seed={seed}")).optimizer for seed in (1, 2))
    starts = [spec.build(parameters()).param_groups[0]["noise"] for spec in (first, second)]
    assert abs(starts[0] - starts[1]) > 1e6
    given = build.build(composed("optimizer=fixed_point", "optimizer.seed=1", "seed=2")).optimizer
    assert given.build(parameters()).param_groups[0]["noise"] == starts[0]


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
