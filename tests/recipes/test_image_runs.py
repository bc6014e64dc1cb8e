"""Runs of the recipe image: what they log and leave, how they are compiled, and what is refused."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from alphagrad.recipes.image import Image
from alphagrad.recipes.vision.data import dataset
from alphagrad.recipes.vision.models import USES
from image_cases import ADAM, OURS, flat, outcome, recipe, train
from tiers import one_in
from torch import nn

from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.harness.state import pack
from alphagrad.optimizer import AlphaGrad

SGD = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9), "elementwise")


def test_channels_come_last_where_there_are_convolutions():
    assert recipe("cnn").training.channels_last
    assert not recipe("cnn", stack="vmap").training.channels_last
    assert not recipe("mlp").training.channels_last
    assert not recipe("cnn", channels_last=False).training.channels_last


def test_channels_last_and_compilation_are_other_ways_to_the_same_numbers(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self)))
    plain = outcome("cnn", OURS, channels_last=False)
    for how in (True, "auto"):
        torch.testing.assert_close(outcome("cnn", OURS, channels_last=how), plain, rtol=1e-4, atol=1e-5)
    assert not compiled
    monkeypatch.setattr(AlphaGrad, "step", lambda self: seen.append(self.param_groups[0]["compile"]))
    seen: list[bool] = []
    outcome("cnn", OURS, compile=True)
    assert compiled
    assert all(seen)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_compiled_equals_eager(how):
    torch.testing.assert_close(
        outcome(spec=OURS, compile=True, stack=how), outcome(spec=OURS, stack=how), rtol=1e-3, atol=1e-5
    )


def test_the_average_of_weights_is_evaluated():
    image = recipe(ema=0.95)
    (result,), log = train(image, RunSpec(0, ADAM))
    assert not torch.equal(flat(result["model"]), flat(result["average"]))
    losses = {}
    for which in ("model", "average"):
        module = image.networks()["model"]
        module.load_state_dict(result[which])
        images, labels = next(iter(image.data.test(torch.device("cpu"), 1000)))
        losses[which] = nn.functional.cross_entropy(module(images), labels).item()
    (shown,) = log.of(0, metrics.EVAL_LOSS).values()
    assert shown == pytest.approx(losses["average"], rel=1e-5)
    assert shown != pytest.approx(losses["model"], rel=1e-3)


@pytest.mark.parametrize("precision", ["amp_bfloat16", "amp_float16", "bfloat16"])
def test_low_precision_learns(precision):
    (result,), log = train(recipe("cnn", precision=precision, epochs=4), RunSpec(0, ADAM))
    (accuracy,) = log.of(0, metrics.EVAL_ACCURACY).values()
    assert accuracy > 0.3  # a tenth by chance; float32 reaches 0.5
    wanted = torch.bfloat16 if precision == "bfloat16" else torch.float32
    assert {t.dtype for t in result["model"].values()} == {wanted}


def test_weight_decay_leaves_biases_and_norms_alone():
    still = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=0.1, weight_decay=1.0), "elementwise")
    for how in ("loop", "vmap"):
        image = recipe("cnn", shape={"norm": "group"}, stack=how)
        image.training = deepcopy(image.training)
        object.__setattr__(image.training, "objective", lambda logits, y: (logits.sum() * 0, torch.zeros(2)))
        (start,) = RunStack([RunSpec(0, still)]).modules(lambda i=image: i.networks()["model"])
        (result,), _ = train(image, RunSpec(0, still))
        for name, p in start.named_parameters():
            assert torch.equal(result["model"][name], p) == (p.dim() < 2), name


@pytest.mark.long
def test_what_is_logged(tmp_path):
    image = recipe("cnn", log_every=10, eval_every=1, gap_images=100, target=0.2, epochs=4)
    _, log = train(image, RunSpec(0, ADAM), observe=20, folder=tmp_path)
    steps = image.steps_per_epoch
    evaluated = [steps * k - 1 for k in range(1, 5)]
    for name in (metrics.EVAL_ACCURACY, metrics.EVAL_LOSS, metrics.EVAL_TOP5, metrics.GAP, metrics.CLEAN_LOSS):
        assert list(log.of(0, name)) == evaluated, name
    logged = [*range(9, 4 * steps, 10), 4 * steps - 1]
    for name in (metrics.TRAIN_LOSS, metrics.TRAIN_ACCURACY, metrics.IMAGES_PER_SECOND, metrics.LEARNING_RATE):
        assert list(log.of(0, name)) == logged, name
    accuracy, clean, gap = (log.of(0, n) for n in (metrics.EVAL_ACCURACY, metrics.CLEAN_ACCURACY, metrics.GAP))
    assert all(gap[s] == pytest.approx(clean[s] - accuracy[s]) for s in evaluated)
    assert all(log.of(0, metrics.EVAL_TOP5)[s] >= accuracy[s] for s in evaluated)
    (reached,) = log.of(0, metrics.TARGET_STEPS).items()
    first = next(s for s in evaluated if accuracy[s] >= 0.2)
    assert reached == (first, first + 1)
    assert 0 < log.of(0, metrics.TARGET_SECONDS)[first] < 60
    assert list(log.of(0, "grad_norm/0.weight") or log.of(0, "grad_norm/7.weight")) == list(range(0, 4 * steps, 20))
    assert log.artifacts == [(0, "confusion.png"), (0, "mistakes.png")]
    for file in tmp_path.iterdir():
        assert file.read_bytes().startswith(b"\x89PNG")


def test_a_run_that_diverges_ends_alone():
    wild = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=1e30), "elementwise")
    for how in ("vmap", "loop"):
        image = recipe(stack=how, log_every=5)
        together, log = train(image, RunSpec(0, wild), RunSpec(1, ADAM))
        (alone,), _ = train(recipe(stack="loop"), RunSpec(1, ADAM))
        assert [(run, "non-finite" in reason) for run, _, reason in log.ended] == [(0, True)]
        torch.testing.assert_close(together[1]["model"], alone["model"], rtol=1e-3, atol=1e-4)


def test_a_run_that_is_not_finite_reaches_no_target():
    """A class is named for NaN as well, and right now and then."""
    wild = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=1e30), "elementwise")
    for how in ("vmap", "loop"):
        image = recipe(stack=how, log_every=1000, eval_every=1, epochs=2, target=0.01)
        _, log = train(image, RunSpec(0, wild), RunSpec(1, ADAM))
        assert [run for run, _, _ in log.ended] == [0]
        assert not log.of(0, metrics.TARGET_STEPS)
        assert not log.of(0, metrics.EVAL_ACCURACY)
        assert log.of(1, metrics.TARGET_STEPS)


def test_checkpoints_hold_tensors_and_plain_values(tmp_path):
    (result,), _ = train(recipe("cnn", shape={"norm": "batch"}, ema=0.9), RunSpec(0, OURS))
    torch.save(pack(result), tmp_path / "c.pt")
    loaded = torch.load(tmp_path / "c.pt", weights_only=True)
    recipe("cnn", shape={"norm": "batch"}).networks()["model"].load_state_dict(loaded["model"])


def test_what_dropout_draws_belongs_to_the_run():
    def noisy(image: Image) -> Image:
        build = image.training.build
        object.__setattr__(image.training, "build", lambda: nn.Sequential(build(), nn.Dropout(0.5)))
        return image

    runs = [RunSpec(0, ADAM), RunSpec(1, ADAM)]
    together, _ = train(noisy(recipe()), *runs)
    for k, run in enumerate(runs):
        torch.manual_seed(k)  # what was drawn before does not matter
        (alone,), _ = train(noisy(recipe()), run)
        assert torch.equal(flat(together[k]["model"]), flat(alone["model"]))
    (without,), _ = train(recipe(), runs[0])
    assert not torch.equal(flat(without["model"]), flat(together[0]["model"]))


@pytest.mark.slow
@pytest.mark.parametrize("spec", [ADAM, SGD, OURS], ids=lambda spec: spec.name)
def test_it_learns_the_digits(spec):
    _, log = train(recipe(shape={"hidden": [128]}, epochs=15), RunSpec(0, spec))
    assert list(log.of(0, metrics.EVAL_ACCURACY).values())[-1] > 0.94


BAD = {
    "recipe.batch_size=5000": ({"batch_size": 5000}, "1438"),
    "recipe.batch_size=64": ({"accumulate": 3}, "accumulate=3"),
    "recipe.stack=vmap": ({"stack": "vmap", "model": "cnn", "shape": {"norm": "batch"}}, "BatchNorm2d"),
    "recipe.stack=vmap: cannot be with recipe.precision": ({"stack": "vmap", "precision": "bfloat16"}, "use loop"),
    "recipe.stack=vmap: cannot be with recipe.accumulate": ({"stack": "vmap", "accumulate": 2}, "use loop"),
    "recipe.stack=vmap: cannot be with recipe.channels_last": ({"stack": "vmap", "channels_last": True}, "use loop"),
    "data.std=": ({"data": {"std": [0.0]}}, "positive"),
    "data.mean=": ({"data": {"mean": [0.1, 0.2]}}, "channels"),
    "data.size=8": ({"data": {"size": 8}}, "null"),
    "data.validation=": ({"data": {"validation": 0.9999}}, "none"),
    "model.channels=": ({"model": "cnn", "shape": {"channels": [4, 4, 4, 4]}}, "poolings"),
    "model.channels": ({"model": "cnn", "shape": {"channels": [12], "norm": "group"}}, "8 groups"),
    "model.patch=3": ({"model": "vit_tiny", "shape": {"patch": 3}}, "8×8"),
    "model.name=nope": ({"model": "nope"}, "resnet18"),
    "model.hidden=": ({"model": "resnet18", "shape": {"hidden": [3], "stem": "small"}}, "no such setting"),
    "model.name=alexnet": ({"model": "alexnet"}, "64 images"),
    "model.stem=null": ({"model": "resnet18"}, "needs it"),
}


@pytest.mark.parametrize("said", BAD)
def test_what_cannot_be_is_refused(said):
    settings, also = BAD[said]
    with pytest.raises(ValueError, match="^" + said.replace("[", r"\[")) as caught:
        recipe(**settings)
    assert also in str(caught.value)
    assert "\n" not in str(caught.value)


def test_auto_stacks_where_it_repays():
    assert [recipe().vmaps(runs) for runs in (1, 2)] == [False, True]
    assert not recipe("cnn").vmaps(8)
    assert not recipe(shape={"hidden": [1024, 512]}).vmaps(8)
    assert recipe("cnn", stack="vmap").vmaps(1)
    assert not recipe(stack="loop").vmaps(8)
    assert not recipe(precision="bfloat16").vmaps(8)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data = dataset(recipe().settings.data)
    images = np.concatenate([data.train_images.images.numpy(), data.test_images.images.numpy()])
    assert images.shape == (1797, 8, 8, 1)
    assert sorted(map(bytes, images)) == sorted(map(bytes, (load_digits().images * 15).astype(np.uint8)))
    assert set(USES) == {"mlp", "cnn", "resnet18", "resnet50", "vit_tiny"}


COMMAND = ("run", "recipe=image", "optimizer=adam", "recipe.epochs=1", "model.hidden=[8]")


@pytest.mark.long
def test_a_run_is_recorded_with_its_pictures(cli, root, store_runs):
    done = cli(*COMMAND, f"output_root={root}")
    assert done.status == 0, done.err
    assert "eval/accuracy" in done.out
    (run,) = store_runs(root)
    assert run.data.params["data.name"] == "digits"
    assert run.data.params["model.hidden"] == "[8]"
    (folder,) = [f.parent for f in root.rglob("checkpoint.pt") if "artifacts" not in f.parts]
    kept = {f.name for f in (root / "artifacts").rglob("*") if f.is_file()}
    assert {"confusion.png", "mistakes.png", "checkpoint.pt"} <= kept
    assert {"confusion.png", "mistakes.png"} <= {f.name for f in folder.iterdir()}
    assert not [f for f in folder.iterdir() if ".tmp" in f.name]


@pytest.mark.long
def test_an_image_that_is_damaged_ends_the_run(cli, root, store_runs, tmp_path):
    from PIL import Image as Picture

    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            Picture.new("RGB", (16, 16)).save(tmp_path / "pets" / part / name / "0.png")
    bad = tmp_path / "pets/train/b/0.png"
    bad.write_bytes(bad.read_bytes()[:40])
    settings = ("data=imagenet", "data.name=pets", f"data.root={tmp_path}", "data.size=8", "data.workers=0")
    done = cli(*COMMAND, *settings, "recipe.batch_size=2", f"output_root={root}")
    assert done.status != 0
    assert str(bad) in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    (run,) = store_runs(root)
    assert run.info.status == "FAILED"


REFUSED = {
    "data=nope": ("data=nope", "digits", "imagenet"),
    "model=nope": ("model=nope", "vit_tiny"),
    "data.pda=1": ("data.pda", "did you mean pad"),
    "data.pad=-1": ("data.pad=-1",),
    "model.hidden=[0]": ("model.hidden",),
    "recipe.schedule.kind=step": ("recipe.schedule.kind", "one_cycle"),
    "recipe.precision=fp8": ("recipe.precision", "amp_bfloat16"),
    "recipe.ema=1": ("recipe.ema=1", "less than 1"),
    "recipe.quantization=int2": ("recipe.quantization='int2'", "int4_weights"),
    "recipe.quantization=int8 model=vit_tiny": ("recipe.quantization=int8", "use mlp, cnn"),
    "recipe.channels_last=nope": ("recipe.channels_last='nope'", "True, False or 'auto'"),
    "recipe.target=0": ("recipe.target=0",),
    "recipe.batch_size=2000": ("recipe.batch_size=2000", "1438"),
    "data.name=mine data.root=/nowhere": ("/nowhere/mine", "train.npz"),
    "data=cifar100 data.root=/nowhere data.download=false": ("data.root=/nowhere", "cifar100"),
    "optimizer=muon optimizer.nope=1": ("optimizer.nope",),
}


@pytest.mark.parametrize("words", one_in(3, REFUSED))
def test_bad_input_is_one_line_and_leaves_nothing(cli, tmp_path, words):
    failed = cli("run", "recipe=image", *words.split(), f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    (line,) = failed.err.splitlines()
    assert line.startswith("alphagrad: ")
    for needed in REFUSED[words]:
        assert needed in line
    assert not (tmp_path / "out").exists()


def test_data_belongs_to_recipes_that_have_it(cli, tmp_path):
    failed = cli("run", "recipe=dqn_cartpole", "data=mnist", f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    assert "recipe=dqn_cartpole has no data" in failed.err
