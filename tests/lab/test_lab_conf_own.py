"""The user's own configuration comes first."""

from __future__ import annotations

import pytest
from options import CONF, parameters

from alphagrad import alpha, normalization, transform
from alphagrad.lab.config import build

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
