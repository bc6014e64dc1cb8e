"""What a ``_target_`` may call: what the configuration of alphagrad and of the user names, and what suits its place."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from targets_cases import DANGEROUS, HYDRA, MODULE, PLACES
from tiers import each_once, one_in

from alphagrad.alpha import Alpha
from alphagrad.common.errors import ConfigError
from alphagrad.lab.config import build, targets
from alphagrad.normalization import Normalization
from alphagrad.rule import Rule
from alphagrad.transform import Transform


@pytest.fixture
def evil(lab, tmp_path):
    """A module that notes that it was imported or called; the folder of its notes."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "alphagrad_test_evil.py").write_text(MODULE)
    lab.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("alphagrad_test_evil", None)


def marks(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if not file.suffix and file.name != "__pycache__"}


@pytest.mark.parametrize("name", ["torch.optim.optimizer.torch.os.system", "alphagrad.lab.records.folder.Path"])
def test_what_a_module_imported_from_elsewhere_is_refused_without_advice(name):
    with pytest.raises(ConfigError, match="leads out of") as caught:
        targets.resolve("optimizer", name, (torch.optim.Optimizer,))
    assert "--allow-target" not in str(caught.value)


@pytest.fixture
def base(composed):
    """A configuration that takes what it did not have."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(composed(), resolve=False)
    return lambda: OmegaConf.create(plain)  # a copy each time


@pytest.mark.parametrize("place", one_in(3, PLACES))
def test_nothing_else_is_called(base, evil, tmp_path, place):
    from omegaconf import OmegaConf

    mark = tmp_path / "made"
    few = DANGEROUS if place in ("optimizer", "optimizer.rule.alpha") else DANGEROUS[::4]
    for name in few:
        node = {"_target_": name, "path": str(mark), "value": 1.0}
        config = base()
        if place in ("recipe", "optimizer"):
            OmegaConf.update(config, place, {"_target_": name})
        elif place.endswith("[0]"):
            OmegaConf.update(config, place.removesuffix("[0]"), [node], merge=False)
        else:
            OmegaConf.update(config, place, node, merge=False)
        with pytest.raises(ConfigError, match=r"_target_="):
            build.build(config)
    assert not mark.exists()
    assert marks(evil) == set()


def test_special_keys_are_not_a_way_around(base):
    from omegaconf import OmegaConf

    for key, value in (("_partial_", True), ("_recursive_", False), ("_convert_", "none"), ("_nope_", 1)):
        config = base()
        OmegaConf.update(config, f"optimizer.rule.{key}", value)
        with pytest.raises(ConfigError, match=rf"optimizer\.rule\.{key}"):
            build.build(config)


def test_a_value_that_only_looks_like_a_pointer_is_not_followed(base, evil, lab):
    """What is checked is what is called: an escaped ``${...}`` is not resolved a second time."""
    from omegaconf import OmegaConf

    lab.setenv("ALPHAGRAD_TEST_NODE", "{_target_: alphagrad_test_evil.rule}")
    for pointer in (r"\${oc.decode:\${oc.env:ALPHAGRAD_TEST_NODE}}", "${oc.decode:${oc.env:ALPHAGRAD_TEST_NODE}}"):
        config = base()
        OmegaConf.update(config, "optimizer.rule.alpha", pointer)
        with pytest.raises(ConfigError):
            build.build(config)
    assert marks(evil) == set()


def optimizer_of(config) -> torch.optim.Optimizer:
    return build.build(config).optimizer.build([("w", torch.zeros(2, 2, requires_grad=True))])


def test_the_users_own_configuration_names_what_is_allowed(composed, evil, lab, tmp_path):
    words = ("optimizer=mine", "optimizer.rule.value=5")
    own = tmp_path / "conf/optimizer"
    own.mkdir(parents=True)
    shipped = "name: mine\n_target_: alphagrad.AlphaGrad\nlr: 0.1\nstacking: batch_dims\nclip_grad_norm: null\n"
    for function in ("rule", "bare"):
        (own / "mine.yaml").write_text(f"{shipped}rule:\n  _target_: alphagrad_test_evil.{function}\n  value: 1.0\n")
        lab.setenv("ALPHAGRAD_CONF", str(tmp_path / "conf"))
        from alphagrad.lab.config import compose

        with compose.hydra_initialized():
            config = compose.compose(words)
            assert optimizer_of(config).param_groups[0]["rule"].alpha.value == 5
    # a comment names nothing
    (own / "mine.yaml").write_text(f"{shipped}# _target_: alphagrad_test_evil.rule\n")
    with pytest.raises(ConfigError, match="--allow-target"):
        targets.resolve("optimizer.rule", "alphagrad_test_evil.rule", (Rule,))


@pytest.mark.parametrize(
    ("allowed", "name", "takes", "said"),
    [
        ("alphagrad_test_evil", "rule", Rule, None),
        ("alphagrad_test_evil.rule", "rule", Rule, None),
        ("alphagrad_test_evil.bare", "bare", Rule, None),
        ("alphagrad_test_evil", "Mine", Alpha, None),
        ("alphagrad_test_evil", "make", torch.optim.Optimizer, None),
        ("alphagrad_test_evil.make_bare", "make_bare", torch.optim.Optimizer, None),
        ("alphagrad_test_evil", "bare", Rule, "does not say what it returns"),
        ("alphagrad_test_evil", "wrong", Rule, "makes an int|makes a int"),
        ("alphagrad_test_evil", "Plain", Rule, "makes a Plain, where a Rule must be made"),
        ("alphagrad_test_evil", "Mine", Transform, "makes a Mine, where a Transform must be made"),
        ("alphagrad_test_evil", "Mine", Normalization, "makes a Mine, where a Normalization must be made"),
        ("alphagrad_test_evil", "torch", Rule, "is a module, where a Rule must be made"),
        ("alphagrad_test", "rule", Rule, "--allow-target"),
        ("alphagrad_test_evi", "rule", Rule, "--allow-target"),
    ],
)
def test_allow_target(evil, allowed, name, takes, said):
    with targets.allowing([allowed]):
        if said is None:
            assert callable(targets.resolve("here", f"alphagrad_test_evil.{name}", (takes,)))
        else:
            with pytest.raises(ConfigError, match=said):
                targets.resolve("here", f"alphagrad_test_evil.{name}", (takes,))
    assert "called" not in marks(evil)
    with pytest.raises(ConfigError, match="--allow-target"):
        targets.resolve("here", f"alphagrad_test_evil.{name}", (takes,))


@pytest.mark.parametrize("name", ["liar", "silent"])
def test_what_was_made_is_looked_at_as_well(base, evil, name):

    config = base()
    config.optimizer.rule = {"_target_": f"alphagrad_test_evil.{name}"}
    with targets.allowing([f"alphagrad_test_evil.{name}"]), pytest.raises(ConfigError, match="where it must be a Rule"):
        build.build(config)
    config.optimizer = {
        "name": "mine",
        "_target_": "alphagrad_test_evil.make_nothing",
        "lr": 0.1,
        "stacking": "elementwise",
        "clip_grad_norm": None,
    }
    with targets.allowing(["alphagrad_test_evil.make_nothing"]), pytest.raises(ConfigError, match="no optimizer"):
        build.build(config)


@pytest.fixture
def stopped(cli, root, tiny):
    """The folder of a run, as somebody may have handed it over."""
    assert cli("run", *tiny, f"output_root={root}").status == 0
    folder = next(root.rglob("run_id")).parent
    (folder / "run_id").unlink()
    return folder


@pytest.mark.parametrize(
    ("command", "name"),
    each_once(["resume", "watch"], ["sympy.sympify", "os.mkdir", "torch.load", "alphagrad_test_evil.rule"]),
)
def test_a_folder_of_somebody_elses(cli, root, stopped, evil, tmp_path, command, name):
    config = yaml.safe_load((stopped / "config.yaml").read_text())
    config["optimizer"]["rule"] = {"_target_": name, "path": str(tmp_path / "made")}
    if command == "watch":
        config["recipe"]["_target_"] = name
    (stopped / "config.yaml").write_text(yaml.safe_dump(config))
    before = sorted(str(f) for f in root.rglob("*") if "lock" not in f.name)
    told = cli(command, str(stopped))
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert f"_target_={name}" in told.err
    assert "--allow-target" in told.err
    assert not (tmp_path / "made").exists()
    assert marks(evil) == set()
    assert sorted(str(f) for f in root.rglob("*") if "lock" not in f.name) == before


def test_a_command_line_and_its_flag(cli, evil, tmp_path, lab):
    lab.chdir(tmp_path)
    words = ("alpha", "alpha._target_=alphagrad_test_evil.Mine")
    refused = cli(*words)
    assert (refused.status, len(refused.err.splitlines())) == (2, 1), refused.err
    assert marks(evil) == set()
    for flag in (("--allow-target", "alphagrad_test_evil"), ("--allow-target=alphagrad_test_evil.Mine",)):
        done = cli(*words, *flag)
        assert done.status == 0, done.err
        assert marks(evil) == {"imported"}
    assert cli(*words).status == 2  # it held for its command alone
    for flag in (("--allow-target",), ("--allow-target", ""), ("--allow-target", "a b"), ("--allow-target", "--x")):
        assert cli(*words, *flag).status == 2


@pytest.mark.parametrize("mode", ["run", "study", "resumed"])
@pytest.mark.parametrize("word", HYDRA)
def test_hydras_own_settings_run_nothing(cli, evil, root, tmp_path, mode, word):
    conf = tmp_path / "conf"
    conf.mkdir()
    callback = "hydra:\n  callbacks:\n    mine:\n      _target_: alphagrad_test_evil.Plain\n"
    (conf / "config.yaml").write_text(f"defaults: [/config]\n{callback}")
    (conf / "experiment").mkdir()
    (conf / "experiment/theirs.yaml").write_text(f"# @package _global_\n{callback}")
    (tmp_path / "made").touch()
    before = (tmp_path / "made").stat().st_mtime_ns
    words = [word.format(made=tmp_path / "made", conf=conf), f"output_root={root}", "seed=1"]
    if word.startswith("--config-dir"):
        words.append("experiment=theirs")
    if mode == "resumed":
        folder = root / "study"
        folder.mkdir()
        (folder / "arguments.json").write_text(json.dumps({"arguments": ["-m", *words], "cwd": str(tmp_path)}))
        told = cli("resume", str(folder), f"--output-root={root}")
    else:
        told = cli("run", *(["-m"] if mode == "study" else []), *words)
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert marks(evil) == set()
    assert (tmp_path / "made").stat().st_mtime_ns == before
    assert {p.name for p in root.iterdir() if "lock" not in p.name} <= {"mlflow.db", "study", ".studies"}


def test_arguments_that_were_noted_allow_nothing(cli, evil, root, tmp_path):
    folder = root / "study"
    folder.mkdir()
    rule = "optimizer.rule={_target_: alphagrad_test_evil.rule}"
    for flag in (["--allow-target", "alphagrad_test_evil"], ["--allow-target=alphagrad_test_evil"]):
        noted = {"arguments": ["-m", rule, *flag, f"output_root={root}"], "cwd": str(tmp_path)}
        (folder / "arguments.json").write_text(json.dumps(noted))
        told = cli("resume", str(folder), f"--output-root={root}")
        assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
        assert marks(evil) == set()
