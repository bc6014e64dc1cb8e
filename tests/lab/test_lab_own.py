"""What is a user's own, in a folder of theirs: found without PYTHONPATH, checked, stacked, sent away and resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import pytest
import torch
from own_cases import MODULE
from tiers import rows_one_in

from alphagrad.common import own
from alphagrad.lab.launching import dispatch

IMAGE = ("run", "recipe=image", "recipe.epochs=1", "recipe.gap_images=0", "tracking=none")
NET = ("model=custom", "model._target_=own_things.Net")
SQUARES = ("data=custom_images", "data._target_=own_things.squares")


@pytest.fixture
def folder(lab, tmp_path):
    """A folder as a user has one; nothing but $ALPHAGRAD_CONF leads to it."""
    made = tmp_path / "mine"
    (made / "optimizer").mkdir(parents=True)
    (made / "own_things.py").write_text(MODULE)
    (made / "optimizer/steep.yaml").write_text(
        "name: steep\n_target_: alphagrad.AlphaGrad\nrule:\n  _target_: own_things.steep\n  value: 30.0\n"
        "lr: ${optimizer_defaults.lr}\nmomentum: 0.9\n"
    )
    (made / "optimizer/plain.yaml").write_text(
        "name: plain\n_target_: own_things.Plain\nlr: ${optimizer_defaults.lr}\n"
    )
    lab.setenv("ALPHAGRAD_CONF", str(made))
    lab.delenv("PYTHONPATH", raising=False)
    lab.chdir(tmp_path)
    yield made
    sys.modules.pop("own_things", None)
    for name in [name for name, spec in gymnasium.registry.items() if "own_things" in str(spec.entry_point)]:
        del gymnasium.registry[name]  # else gymnasium warns that the next test's is another


@pytest.fixture(autouse=True)
def undrawn(lab):
    for module in ("image", "text"):
        lab.setattr(f"alphagrad.recipes.{module}.draw_confusion", lambda file, *_, **__: file.touch())
    lab.setattr("alphagrad.recipes.image.draw_mistakes", lambda file, *_: file.touch())


def result(root: Path) -> dict[str, torch.Tensor]:
    (file,) = root.rglob("checkpoint.pt")
    kept = torch.load(file, weights_only=True)
    found = {f"{part}.{name}": value for part, values in kept.items() if isinstance(values, dict)
             for name, value in values.items() if isinstance(value, torch.Tensor)}  # fmt: skip
    assert found
    return found


def test_what_an_optimizers_file_leaves_out(folder, composed, lab):
    from alphagrad.lab.config import build

    own.importable(folder)
    for recipe, clip in (("ppo_halfcheetah", 0.5), ("image", None)):
        steep, plain = (composed(f"recipe={recipe}", f"optimizer={name}").optimizer for name in ("steep", "plain"))
        adam = composed(f"recipe={recipe}", "optimizer=adam").optimizer
        assert (steep.stacking, steep.clip_grad_norm) == ("batch_dims", None)  # as the shipped variants
        assert (plain.stacking, plain.clip_grad_norm) == ("per_run", adam.clip_grad_norm) == ("per_run", clip)
    config = composed("recipe=image", "optimizer=plain", "optimizer.clip_grad_norm=2", "optimizer.stacking=elementwise")
    spec = build.build(config).optimizer
    assert (spec.clip_grad_norm, spec.stacking) == (2, "elementwise")


@pytest.mark.parametrize(
    "words",
    [
        (*IMAGE, *NET, "model.kwargs.width=4", *SQUARES, "data.kwargs.count=64", "recipe.batch_size=16"),
        (*IMAGE, "model=custom", "model._target_=own_things.Numbered"),
        ("run", "recipe=text", "recipe.epochs=1", "model=custom", "model._target_=own_things.Reader",
         "data=custom_text", "data._target_=own_things.moods", "recipe.batch_size=16", "tracking=none"),
        ("run", "recipe=lm", "recipe.total_steps=2", "recipe.length=16", "recipe.batch_size=4",
         "recipe.sample_tokens=2", "model=custom", "model._target_=own_things.Bigrams", "data=custom_text",
         "data._target_=own_things.counting",
         "tracking=none"),
    ],
    ids=["image", "numbers", "text", "lm"],
)  # fmt: skip
def test_models_and_data(cli, folder, root, words):
    done = cli(*words, f"output_root={root}")
    assert done.status == 0, done.err
    assert "eval/loss" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    rows_one_in(24, [
        (("optimizer=steep", "optimizer.rule._target_=own_things.stepe"), "there is no stepe in own_things; did you"),
        (("optimizer=plain", "optimizer.rate=1"), "optimizer.rate: no such setting"),
        (("optimizer=plain", "optimizer.lr=fast"), "optimizer.lr='fast': must be a finite number"),
        (("optimizer=plain", "optimizer.stacking=shared"), "must be one of batch_dims, elementwise, per_run"),
        (("model=custom",), "model._target_='???': must be the dotted name"),
        (("model=custom", "model._target_=own_things.Nett"), "there is no Nett in own_things; did you mean Net?"),
        (("model=custom", "model._target_=own_things.bare"), "does not say what it returns"),
        (("model=custom", "model._target_=own_things.squares"), "makes a Splits, where a Module must be made"),
        ((*NET, "model.kwargs.widht=3"), "model.kwargs.widht=3: own_things.Net has no such argument; it has width;"),
        ((*NET, "model.kwargs.classes=3"), "model.kwargs.classes=3: is given by the recipe"),
        ((*NET, "model.kwargs.width=wide"), "with model.kwargs={'width': 'wide'}: raised TypeError"),
        ((*NET, "model.kwargs.width=100000000000"), "parameters take about 120 TB of memory"),
        (("model=custom", "model._target_=own_things.Reader"), "needs it; the recipe itself gives shape, classes"),
        (("model=custom", "model._target_=own_things.Short"), "gives a tensor [128, 9], where it must give"),
        (("model=custom", "model._target_=own_things.Told"), "gives a dict, where it must give a tensor of logits"),
        (("model=custom", "model._target_=own_things.Failing"), "fails on inputs [128, 1, 8, 8]: KeyError: 'lost'"),
        (("model=custom", "model._target_=own_things.Leaving"), "raised SystemExit: 3"),
        (("model=custom", "model._target_=own_things.Still"), "has no parameters that could be trained"),
        (("data=custom_images", "data._target_=own_things.nothing"), "there is no nothing in own_things"),
        (("data=custom_images", "data._target_=own_things.pair"), "does not say what it returns, where a Splits"),
        ((*SQUARES, "data.kwargs.wrong=floats"), "its train images must be uint8 [N, H, W, 1 or 3], got float64"),
        ((*SQUARES, "data.kwargs.wrong=short"), "the test split has 32 images and 31 labels"),
        ((*SQUARES, "data.kwargs.wrong=alone"), "its train must be two arrays, images and labels"),
        ((*SQUARES, "data.kwargs.wrong=label"), "a test label is 6; they must lie in 0 to 1"),
        ((*SQUARES, "data.kwargs.number=3"), "data.kwargs.number=3: own_things.squares has no such argument"),
        (("data=custom_images", "data._target_=own_things.moods"), "its train images must be uint8"),
        (("model=custom", "model._target_=os.system"), "if you trust it, add --allow-target os.system"),
        (("recipe=dqn_cartpole", *NET), "recipe=dqn_cartpole has no model; recipe=image, text and lm have one"),
        (("recipe=dqn_cartpole", "env.id=own_things:Wlak-v0"), "env.id=own_things:Wlak-v0: "),
        (("recipe=dqn_cartpole", "env.id=own_thing:Walk-v0"), "env.id=own_thing:Walk-v0: No module named 'own_thing'"),
        (("recipe=dqn_cartpole", "env.id=own_things:Walk-v0", "env.kwargs.size=3"), "env.kwargs={'size': 3}: Type"),
    ]),
)  # fmt: skip
def test_a_mistake_is_one_line(cli, folder, root, words, said):
    recipe = () if words[0].startswith("recipe=") else ("recipe=image",)
    before = sorted(root.rglob("*"))
    told = cli("run", *recipe, *words, f"output_root={root}", "tracking=none")
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert said in told.err
    assert sorted(root.rglob("*")) == before


def test_a_module_that_is_hidden_by_another_is_told(cli, folder, root):
    (folder / "json.py").write_text("def rule():\n    pass\n")
    told = cli("run", "optimizer=steep", "optimizer.rule._target_=json.rule", f"output_root={root}")
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert "json.rule: neither" in told.err  # json is not what lies in the folder, and so it is not allowed either
    (folder / "optimizer/steep.yaml").write_text(
        (folder / "optimizer/steep.yaml").read_text().replace("own_things.steep", "json.rule")
    )
    told = cli("run", "optimizer=steep", f"output_root={root}")
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert "json.rule: cannot be imported: Python finds " in told.err
    assert "call your file otherwise" in told.err


def test_what_counts_as_the_users_own(folder):
    (folder / "package").mkdir()
    (folder / "package/part.py").touch()
    (folder / "not-a-name.py").touch()
    own.importable(folder)
    assert own.own_modules() == {"own_things", "package"}  # the folders of groups hold no module
    (folder / "json.py").touch()
    assert own.own_modules() == {"own_things", "package"}
    assert own.hidden("json").endswith("json/__init__.py")


@pytest.mark.parametrize(
    "words",
    [
        (*NET, *SQUARES, "recipe=image", "recipe.batch_size=8", "recipe.epochs=1", "optimizer=steep"),
        ("recipe=dqn_cartpole", "env.id=own_things:Walk-v0", "env.kwargs.length=5", "optimizer=plain",
         "recipe.total_steps=60", "recipe.learning_starts=20", "recipe.batch_size=8", "recipe.eval_episodes=1"),
    ],
    ids=["image", "environment"],
)  # fmt: skip
@pytest.mark.long
def test_resumed_to_the_bit(cli, folder, tmp_path, at, words):
    words = ("run", *words, "tracking=none", "recipe.log_every=5")
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert cli(*words, f"output_root={straight}").status == 0

    def interrupt() -> None:
        raise KeyboardInterrupt

    at(8, interrupt)
    assert cli(*words, f"output_root={stopped}").status == 130
    (file,) = stopped.rglob("config.yaml")
    resumed = cli("resume", str(file.parent))
    assert resumed.status == 0, resumed.err
    expected = result(straight)
    assert all(torch.equal(value, expected[name]) for name, value in result(stopped).items())


@pytest.mark.long
def test_a_stack_in_processes_of_its_own(cli, folder, root, store_runs):
    done = cli(
        *("run", "-m", "recipe=dqn_cartpole", "env.id=own_things:Walk-v0", "optimizer=steep,plain", "seed=0,1"),
        *("recipe.total_steps=60", "recipe.learning_starts=20", "recipe.batch_size=8", "recipe.eval_episodes=1"),
        *("hydra/launcher=stacked", f"output_root={root}"),
    )
    assert done.status == 0, done.err
    assert [run.info.status for run in store_runs(root)] == ["FINISHED"] * 5
    report = cli("report", "--output-root", str(root))
    assert report.status == 0, report.err
    assert "plain" in report.out


def test_a_worker_elsewhere_is_told_of_the_folder(folder, lab):
    """Its own environment need not have it, as on a cluster that is running."""
    config = {"tracking": {"uri": "none"}, "output_root": "o"}
    from alphagrad.lab.training.job import Assignment

    sent = dispatch.parcel([Assignment(config, folder / "run", 0)])
    lab.delenv("ALPHAGRAD_CONF")
    lab.setattr(sys, "path", [place for place in sys.path if place != str(folder)])
    assert find_spec("own_things") is None
    dispatch.train(dispatch.Parcel([], {}, sent.modules))
    assert find_spec("own_things") is not None


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers(folder, root, launcher):
    words = ("run", "-m", *IMAGE[1:-1], *NET, *SQUARES, "recipe.batch_size=16", "optimizer=steep", "seed=0,1")
    command = [sys.executable, "-m", "alphagrad_cli", *words, f"hydra/launcher={launcher}", f"output_root={root}"]
    done = subprocess.run(command, env=dict(os.environ), cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 finished" in done.stdout


def test_arguments_are_swept_as_other_settings(composed, folder):
    from alphagrad.lab.config import alike, sweep

    own.importable(folder)
    words = ["recipe=image", *NET, "model.kwargs.width=4,8", *SQUARES, "data.kwargs.count=64", "seed=0,1"]
    configs = alike.compose_all(sweep.jobs_of(words))
    assert [config.model.kwargs.width for config in configs] == [4, 4, 8, 8]
    assert {config.data.kwargs["count"] for config in configs} == {64}
