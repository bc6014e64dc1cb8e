"""`alphagrad tune`: what is refused."""

from __future__ import annotations

import pytest
from tunings import words

from alphagrad.common.errors import ConfigError
from alphagrad.lab.tuning import search as tune
from alphagrad.lab.tuning import spaces


@pytest.mark.parametrize(
    ("extra", "needed"),
    [
        (["--trials", "0"], ("--trials=0", "at least 1")),
        (["--studies", "-1"], ("--studies=-1", "at least 1")),
        (["optimizer.lr=0.1"], ("optimizer.lr", "searched")),
        (["seed=1,2"], ("seed=1,2", "only optimizer")),
        (["optimizer=nope"], ("optimizer=nope",)),
        (["recipe.total_steps=0.5"], ("recipe.total_steps=0.5",)),
    ],
)
def test_wrong_words_are_one_line(cli, odd, tmp_path, extra, needed):
    failed = cli(*words(tmp_path / "out"), *extra)
    assert failed.status == 2
    assert len(failed.err.splitlines()) == 1, failed.err
    for text in needed:
        assert text in failed.err
    assert not (tmp_path / "out" / "tuning.db").exists()


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("optimizer.lr: {low: 1.0e-5, high: 1.0e-1}", ("tune/sgd.yaml", "4 decades", "one size")),
        ("optimizer.lr: {low: 1.0e-1, high: 1.0e-5}", ("tune/sgd.yaml", "low must be less")),
        ("optimizer.lr: 3", ("tune/sgd.yaml", "optimizer.lr")),
        ("optimizer.momentum: {choices: [0.9]}", ("tune/sgd.yaml", "optimizer.momentum.choices")),
        ("optimizer.nope: {low: 0.1, high: 1.0}", ("optimizer.nope", "no such setting")),
    ],
)
def test_wrong_spaces_are_one_line(cli, odd, lab, tmp_path, text, needed):
    folder = tmp_path / "conf"
    (folder / "tune").mkdir(parents=True)
    (folder / "recipe").mkdir()
    (folder / "recipe/odd.yaml").write_text((odd / "recipe/odd.yaml").read_text())
    (folder / "tune/sgd.yaml").write_text(text + "\n")
    lab.setenv("ALPHAGRAD_CONF", str(folder))
    failed = cli(*words(tmp_path / "out", optimizers="sgd,adam"))
    assert failed.status == 2
    assert len(failed.err.splitlines()) == 1, failed.err
    for part in needed:
        assert part in failed.err
    assert not (tmp_path / "out" / "tuning.db").exists()


@pytest.mark.long
def test_a_metric_that_looks_mistyped_is_doubted_before_anything_is_trained(cli, odd, lab, root, capfd):
    said = []
    lab.setattr(tune, "_train", lambda *_: said.append(capfd.readouterr().err) or interrupt())

    def interrupt():
        raise KeyboardInterrupt

    for metric in ("eval/retrun", "eval/return", "mine"):
        assert cli(*words(root, 1, 1, "sgd"), "--metric", metric).status == 130
    assert "did you mean eval/return?" in said[0]
    assert not any("mean" in text for text in said[1:])


def test_without_optuna(cli, lab, tmp_path):
    lab.setattr(tune, "find_spec", lambda package: None)
    failed = cli("tune", f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    assert failed.err == "alphagrad: alphagrad tune: needs the package optuna; pip install 'alphagrad[tune]'\n"


def test_space_sizes():
    small = spaces.Space("a", {"x": spaces.Range(low=1e-3, high=1.0), "y": spaces.Choices(choices=[1, 2])})
    same = spaces.Space("b", {"u": spaces.Choices(choices=["p", "q"]), "v": spaces.Range(low=2.0, high=2000.0)})
    more = spaces.Space("c", {**same.settings, "w": spaces.Choices(choices=[0, 1])})
    spaces.check_equal([small, same])
    with pytest.raises(ConfigError, match=r"tune/c.yaml: 3 decades × 2 choices × 2 choices, but tune/a.yaml has 3 dec"):
        spaces.check_equal([small, same, more])


def test_a_metric_that_the_recipe_never_logs_is_refused(cli, tmp_path):
    pytest.importorskip("optuna")
    told = cli("tune", "optimizer=adam", "--metric", "eval/accuracy", f"output_root={tmp_path / 'out'}")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert told.err.startswith("alphagrad: --metric=eval/accuracy: recipe dqn_cartpole has no such metric; it has ")
    assert not list((tmp_path / "out").glob("*"))


def test_a_metric_that_a_recipe_never_logs_is_refused_before_anything_is_written(cli, tmp_path):
    words = ("recipe=dqn_cartpole", "optimizer=adam", f"output_root={tmp_path / 'out'}", "--metric", "eval/retrun")
    told = cli("tune", *words)
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert "--metric=eval/retrun" in told.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", ["hydra/launcher=stacked", "hydra.run.dir=x", "hydra.sweep.dir=x"])
def test_settings_that_a_tuning_has_no_use_for_are_refused(cli, tmp_path, word):
    told = cli("tune", "recipe=dqn_cartpole", "optimizer=adam", word, f"output_root={tmp_path / 'out'}")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert f"{word}: a tuning uses no launcher" in told.err
    assert not (tmp_path / "out").exists()
