"""`alphagrad landscape`: shared axes, paths of the models that were kept, and wrong words named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from alphagrad.recipes.problems.settings import build_problem
from omegaconf import OmegaConf

import alphagrad_cli
from alphagrad.lab.config.compose import compose, hydra_initialized

THEORY = ("recipe=theory", "recipe.total_steps=40", "recipe.figure=false", "instruments.every=0")
TINY_RUNS = {
    "image": ("model=cnn", "model.norm=batch", "model.channels=[4]", "model.hidden=[8]", "recipe.gap_images=0"),
    "text": ("model.hidden=[4]", "recipe.vocabulary=300", "recipe.max_length=8"),
    "lm": ("model.width=8", "model.layers=1", "model.heads=2", "recipe.length=8", "recipe.total_steps=2"),
    "regression": ("recipe.hidden=[4]", "recipe.total_steps=5"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An output folder with two runs, which kept their models every ten steps, and one that kept none."""
    root, kept = tmp_path_factory.mktemp("trained"), "checkpoint.trajectory_every=10"
    for words in (("seed=1", kept), ("optimizer=adam", kept), ("seed=3",)):
        assert alphagrad_cli.main(["run", *THEORY, *words, "tracking=none", f"output_root={root}"]) == 0
    return root


@pytest.fixture
def descended(lab, trained, root):
    """The folders of the three runs, to do with as one likes."""
    shutil.copytree(trained, root, dirs_exist_ok=True)
    names = ("alphagrad/seed1*/*", "adam/*/*", "alphagrad/seed3*/*")
    return [next((root / "theory").glob(f"{name}/config.yaml")).parent for name in names]


def written(file):
    with np.load(file) as data:
        return dict(data)


@pytest.mark.long
def test_runs_share_directions_and_axes(cli, descended, tmp_path):
    one, other, _ = descended
    kept = sorted(file.name for file in (one / "trajectory").iterdir())
    assert kept == [f"step-{step:012d}.pt" for step in (1, 10, 20, 30, 40)]
    words = ("--to", str(tmp_path / "seen.png"), "--points", "5", "--directions", "pca", "--eigenvalues", "2")
    seen = cli("landscape", str(one), str(other), *words)
    assert seen.status == 0, seen.err
    assert (tmp_path / "seen.png").stat().st_size > 1000
    data = written(tmp_path / "seen.npz")
    with hydra_initialized():
        problem = build_problem_of(compose(THEORY))
    models = {
        k: [torch.load(f, weights_only=True)["model"] for f in sorted((folder / "trajectory").iterdir())]
        for k, folder in enumerate((one, other))
    }
    weights = {k: [torch.cat([m[name] for name in problem.sizes]) for m in found] for k, found in models.items()}
    ends = torch.stack([found[-1] for found in weights.values()])
    spread = torch.stack([w for found in weights.values() for w in [*found, found[-1]]]) - ends.mean(0)
    u, s, _ = np.linalg.svd(spread.numpy(), full_matrices=False)
    places = np.concatenate([data["path_0"], data["path_1"]])
    np.testing.assert_allclose(np.abs(places), np.abs(u[:, :2] * s[:2]), atol=1e-8)
    np.testing.assert_array_equal(data["loss_0"], data["loss_1"])  # one loss in one plane
    for k, end in enumerate(ends):
        value = float(problem.value(end))
        assert float(data[f"loss_at_end_{k}"]) == pytest.approx(value)
        assert value < float(data[f"worst_loss_{k}"])
        assert f"loss {value:.4g}, largest eigenvalues " in seen.out
    for side, column in (("x", 0), ("y", 1)):
        assert data[side].min() < places[:, column].min()
        assert data[side].max() > places[:, column].max()


def build_problem_of(config):
    from alphagrad.recipes.problems.settings import ProblemSettings

    return build_problem(ProblemSettings.model_validate(OmegaConf.to_container(config.problem, resolve=True)))


@pytest.mark.long
def test_a_line_along_random_directions(cli, descended, tmp_path):
    one, other, _ = descended
    seen = cli(
        "landscape", str(one), str(other), "--dims", "1", "--to", str(tmp_path / "a.svg"), "--span", "0.5", "--rho", "0"
    )
    assert (seen.status, "worst" in seen.out) == (0, False), seen.err
    data = written(tmp_path / "a.npz")
    assert (data["x"].min(), data["x"].max(), len(data["x"])) == (-0.5, 0.5, 51)
    for k in (0, 1):
        assert data[f"loss_{k}"][25] == pytest.approx(float(data[f"loss_at_end_{k}"]))
    assert not np.array_equal(data["loss_0"], data["loss_1"])  # each around its own weights


@pytest.mark.slow
@pytest.mark.parametrize("recipe", TINY_RUNS)
def test_every_recipe_of_examples_has_a_landscape(cli, root, recipe, tmp_path):
    words = [
        "recipe.batch_size=32",
        "instruments.every=0",
        "recipe.log_every=100",
        "recipe.eval_every=0",
        "tracking=none",
    ]
    if recipe in ("image", "text"):
        words.append("recipe.epochs=1")
    if recipe == "lm":
        words += ["recipe.sample_every=0", "recipe.peak_flops=1e9"]
    if recipe == "regression":
        words[-2] = "recipe.eval_every=5"
    done = cli("run", f"recipe={recipe}", *TINY_RUNS[recipe], *words, f"output_root={root}")
    assert done.status == 0, done.err
    folder = next(root.rglob("checkpoint.pt")).parent
    seen = cli("landscape", str(folder), "--points", "3", "--dims", "1", "--examples", "48")
    assert seen.status == 0, seen.err
    data = written(folder / "landscape.npz")
    assert data["loss_0"][1] == pytest.approx(float(data["loss_at_end_0"]), rel=1e-5)
    assert np.isfinite(data["eigenvalues_0"]).all()
    assert float(data["worst_loss_0"]) > float(data["loss_at_end_0"])


def test_wrong_words_are_named(cli, descended):
    folder = descended[2]
    for words, said in [
        (("--to", "x.jpg"), "--to=x.jpg: must end in .png, .svg, .pdf"),
        (("--to", "nowhere/x.png"), "--to=nowhere/x.png: has to be a file in a folder that exists"),
        (("--points", "2"), "--points=2: must be between 3 and 1,001"),
        (("--span", "nan"), "--span=nan: must be a number above 0"),
        (("--span", "0"), "--span=0.0: must be a number above 0"),
        (("--rho", "-1"), "--rho=-1.0: must be at least 0"),
        (("--examples", "0"), "--examples=0: must be at least 1"),
        (("--eigenvalues", "-1"), "--eigenvalues=-1: must be at least 0"),
        (("--dims", "3"), "invalid choice: 3"),
        (("--directions", "pca"), "has no path to take the principal components of; train it with checkpoint.tr"),
        (("no/such/run",), "no/such/run: is neither a folder nor a run id"),
    ]:
        seen = cli("landscape", str(folder), *words)
        assert (seen.status, len(seen.err.splitlines())) == (2, 1), seen.err
        assert said in seen.err
    assert not list(folder.glob("landscape*"))


@pytest.mark.long
def test_models_that_are_others_or_damaged_are_named(cli, descended, root, tiny):
    one, other, plain = descended
    assert cli("run", *tiny, "recipe.eval_every=0", "tracking=none", f"output_root={root}").status == 0
    agent = next((root / "dqn_cartpole").rglob("checkpoint.pt")).parent
    assert cli("run", *THEORY, "problem=rosenbrock", "tracking=none", f"output_root={root}").status == 0
    (stranger,) = [f.parent for f in (root / "theory").rglob("config.yaml") if "rosenbrock" in f.read_text()]
    torch.save({"model": {"a": torch.zeros(3)}}, plain / "checkpoint.pt")
    torch.save([1, 2], one / "trajectory" / "step-000000000010.pt")
    torch.save({"model": 3}, other / "trajectory" / "step-000000000010.pt")
    for words, said in [
        ((agent,), "recipe dqn_cartpole has no loss on fixed examples; an agent's change with its policy"),
        ((one, stranger), f"{stranger}: has other weights than {one}"),
        ((plain,), f"{plain / 'checkpoint.pt'}: is no checkpoint of recipe theory with these settings"),
        ((one, "--directions", "pca"), "step-000000000010.pt: is no checkpoint, it holds a list"),
        ((other, "--directions", "pca"), "step-000000000010.pt: is no model of this run"),
        ((root,), f"{root}: is not the folder of a run, it has no config.yaml"),
    ]:
        seen = cli("landscape", *map(str, words))
        assert (seen.status, len(seen.err.splitlines())) == (2, 1), seen.err
        assert said in seen.err
    (one / "checkpoint.pt").unlink()
    assert "has no checkpoint.pt yet; a run leaves one when it is finished" in cli("landscape", str(one)).err
    assert not list(root.rglob("landscape*"))


@pytest.mark.long
def test_a_run_in_the_same_folder_begins_a_new_path(cli, root):
    words = (*THEORY, "tracking=none", f"hydra.run.dir={root}/here", f"output_root={root}")
    assert cli("run", *words, "checkpoint.trajectory_every=7").status == 0
    assert len(list((root / "here/trajectory").iterdir())) == 6  # 1, 7, 14, 21, 28, 35
    assert cli("run", *words, "checkpoint.trajectory_every=20").status == 0
    kept = [torch.load(file, weights_only=True) for file in sorted((root / "here/trajectory").iterdir())]
    assert [own["steps"] for own in kept] == [1, 20, 40]
    assert all(not name.endswith("optimizer") for own in kept for name in own)


@pytest.mark.slow
def test_a_run_is_found_by_the_beginning_of_its_id(cli, root):
    assert cli("run", *THEORY, f"output_root={root}").status == 0
    file = next(root.rglob("run_id"))
    seen = cli("landscape", file.read_text()[:8], "--points", "3", "--output-root", str(root))
    assert (seen.status, (file.parent / "landscape.png").exists()) == (0, True), seen.err
