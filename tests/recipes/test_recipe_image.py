"""The image recipe: against a loop written by hand, in stacks, and every setting at work."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from alphagrad.recipes.image import Image, ImageSettings
from alphagrad.recipes.vision.data import dataset
from alphagrad.recipes.vision.models import USES
from torch import nn

from alphagrad import variants
from alphagrad.harness import metrics
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.harness.state import pack
from alphagrad.optimizer import AlphaGrad

CONF = Path(__file__).resolve().parents[2] / "conf"


def file_of(name: str) -> dict:
    return {k: v for k, v in yaml.safe_load((CONF / name).read_text()).items() if k != "defaults"}


DATA, DEFAULTS = file_of("data/digits.yaml"), file_of("recipe/image.yaml")["recipe"]
DEFAULTS = {k: v for k, v in DEFAULTS.items() if k not in ("_target_", "data", "model")}
SHORT = {"epochs": 2, "batch_size": 64, "eval_every": 0, "gap_images": 0}
SMALL = {"mlp": {"hidden": [12]}, "cnn": {"channels": [4, 6], "hidden": [8], "norm": "none"}}


def recipe(model: str = "mlp", data: dict | None = None, shape: dict | None = None, **settings) -> Image:
    chosen = {"name": model, **SMALL.get(model, {}), **(shape or {})}
    values = {**DEFAULTS, **SHORT, **settings, "data": {**DATA, **(data or {})}, "model": chosen}
    return Image(ImageSettings(**values))


ADAM = OptimizerSpec("adam", lambda params: torch.optim.Adam(params, lr=3e-3), "elementwise")
ADAMW = OptimizerSpec("adamw", lambda params: torch.optim.AdamW(params, lr=3e-3, weight_decay=0.5), "elementwise")
SGD = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9), "elementwise")
CLIPPED = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=0.5), "elementwise", clip_grad_norm=0.2)
OURS = OptimizerSpec(
    "alphagrad",
    lambda params, **stacked: AlphaGrad(params, lr=3e-3, rule=variants.alphagrad(30.0), momentum=0.9, **stacked),
    "batch_dims",
)


class Recorder:
    """A log that remembers everything."""

    def __init__(self, runs: int = 1, observe: int = 0, folder: Path | None = None) -> None:
        self.observation = Observation(2, 1.0)
        self.observe_every, self.folder = observe, folder
        self.points: list[list[tuple[int, str, float]]] = [[] for _ in range(runs)]
        self.artifacts: list[tuple[int, str]] = []
        self.ended: list[tuple[int, int, str]] = []
        self.states: dict[int, dict] = {}

    def metrics(self, run, step, values):
        self.points[run] += [(step, name, float(value)) for name, value in values.items()]

    def diverged(self, run, step, reason):
        self.ended.append((run, step, reason))

    def progress(self, step, shown):
        pass

    def artifact(self, run, name, write):
        self.artifacts.append((run, name))
        if self.folder is not None:
            write(self.folder / f"{run}-{name}")

    def restore(self, parts):
        return 0

    def checkpoint(self, step, parts, result):
        pass

    def of(self, run: int, name: str) -> dict[int, float]:
        return {step: value for step, n, value in self.points[run] if n == name}


def train(image: Image, *runs: RunSpec, **recorder) -> tuple[list[dict], Recorder]:
    torch.set_num_threads(1)
    log = Recorder(len(runs), **recorder)
    return image.train(RunStack(runs), log), log


def flat(model: dict) -> torch.Tensor:
    return torch.cat([t.flatten().double() for t in model.values()])


def by_hand(image: Image, seed: int, make, clip: float | None = None) -> nn.Module:
    """Training as anyone would write it: a loader's worth of batches, a scheduler of torch's, one module."""
    s = image.settings
    stack = RunStack([RunSpec(seed, ADAM)])
    (module,) = stack.modules(lambda: image.networks()["model"])
    batches = image.data.batches(stack, s.batch_size, (0, 1))
    optimizer = make(module.named_parameters())
    total, warm = image.total_steps, s.schedule.warmup * image.total_steps - 1
    factors = [
        step / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / (total - 1 - warm))) / 2
        for step in range(total)
    ]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [*factors, 0.0].__getitem__)
    loss_function = nn.CrossEntropyLoss(label_smoothing=s.label_smoothing)
    module.train()
    for step in range(total):
        images, labels = batches.at(step)
        optimizer.zero_grad()
        loss_function(module(images[0]), labels[0]).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
        scheduler.step()
    return module


@pytest.mark.parametrize("spec", [ADAM, OURS, CLIPPED], ids=["adam", "alphagrad", "clipped"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_training_is_the_plain_loops(model, spec):
    image = recipe(model, label_smoothing=0.1, data={"pad": 1, "flip": True})
    (result,), _ = train(image, RunSpec(3, spec))
    module = by_hand(image, 3, spec.build, spec.clip_grad_norm)
    torch.testing.assert_close(result["model"], dict(module.state_dict()), rtol=1e-4, atol=1e-6)
    assert result["steps"] == image.total_steps == 2 * (1438 // 64)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_run_k_of_a_stack_is_the_run_alone(model, how):
    runs = [RunSpec(0, ADAM), RunSpec(5, ADAM), RunSpec(5, OURS), RunSpec(2, OURS), RunSpec(1, CLIPPED)]
    settings = {"ema": 0.9, "data": {"pad": 1}, "log_every": 10, "gap_images": 50, "target": 0.3}
    image = recipe(model, stack=how, **settings)
    together, log = train(image, *runs, observe=7)
    exact = how == "loop"
    for k, run in enumerate(runs):
        (alone,), own = train(recipe(model, stack="loop", **settings), run, observe=7)
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 2e-3, "atol": 2e-4}
        torch.testing.assert_close(together[k]["model"], alone["model"], **tolerance)
        torch.testing.assert_close(together[k]["average"], alone["average"], **tolerance)
        for name, state in alone["optimizer"].items():
            assert together[k]["optimizer"][name].keys() == state.keys()
        names = {n for _, n, _ in own.points[0]}
        assert {n for _, n, _ in log.points[k]} == names
        for name in names:
            if not name.startswith("time/"):
                seen, expected = log.of(k, name), own.of(0, name)
                assert seen.keys() == expected.keys()
                close = {"rel": 1e-6 if exact else 0.02, "abs": 0 if exact else 0.01}
                assert list(seen.values()) == pytest.approx(list(expected.values()), **close)


FUSED = [
    OptimizerSpec("adamw", lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.5, fused=True), "elementwise"),
    OptimizerSpec("sgd", lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1, fused=True), "elementwise"),
]


@pytest.mark.parametrize("spec", FUSED, ids=["adamw", "sgd"])
def test_decay_of_weights_alone_in_a_stack(spec):
    """Two groups of parameters, each a part of every run's row: fused steps take them for one piece of memory."""
    runs = [RunSpec(seed, spec) for seed in range(3)]
    together, log = train(recipe(stack="vmap", log_every=10), *runs)
    for k, run in enumerate(runs):
        (alone,), own = train(recipe(stack="loop", log_every=10), run)
        torch.testing.assert_close(together[k]["model"], alone["model"], rtol=1e-3, atol=1e-4)
        assert log.of(k, metrics.LEARNING_RATE) == own.of(0, metrics.LEARNING_RATE)
        for name, state in alone["optimizer"].items():
            assert together[k]["optimizer"][name].keys() == state.keys()
            for key, value in state.items():
                torch.testing.assert_close(together[k]["optimizer"][name][key], value, rtol=1e-3, atol=1e-4)


def test_seeds_and_data_make_the_run():
    image = recipe()
    results = [train(image, RunSpec(seed, ADAM))[0][0]["model"] for seed in (0, 0, 1)]
    assert torch.equal(flat(results[0]), flat(results[1]))
    assert not torch.equal(flat(results[0]), flat(results[2]))


def test_the_same_seed_starts_every_optimizer_from_the_same_network():
    starts = [
        RunStack([RunSpec(4, spec)]).modules(lambda: recipe("cnn").networks()["model"])[0] for spec in (ADAM, OURS)
    ]
    assert torch.equal(flat(starts[0].state_dict()), flat(starts[1].state_dict()))


# a setting → another value, and what else both runs need
CHANGES = {
    "epochs": (3, {}),
    "batch_size": (48, {}),
    "accumulate": (4, {"model": "cnn", "shape": {"norm": "batch"}}),
    "label_smoothing": (0.2, {}),
    "decay": ("all", {"spec": ADAMW}),
    "precision": ("amp_bfloat16", {}),
    "schedule": ({"kind": "constant", "warmup": 0.0, "start": 0.0, "end": 0.0}, {}),
}
PARTS = {
    "schedule": {"kind": "one_cycle", "warmup": 0.3, "start": 0.5, "end": 0.5},
    "data": {"pad": 1, "flip": True, "mean": [0.1], "std": [0.7], "validation": 0.3},
}


def outcome(model: str = "mlp", spec: OptimizerSpec = ADAM, **settings) -> torch.Tensor:
    return flat(train(recipe(model, **settings), RunSpec(0, spec))[0][0]["model"])


@pytest.mark.parametrize("setting", CHANGES)
def test_settings_change_what_is_learned(setting):
    value, needs = CHANGES[setting]
    assert not torch.equal(outcome(**needs), outcome(**needs, **{setting: value}))


@pytest.mark.parametrize(("part", "setting"), [(p, s) for p, settings in PARTS.items() for s in settings])
def test_settings_of_parts_change_what_is_learned(part, setting):
    base = dict(DEFAULTS["schedule"]) if part == "schedule" else {}
    changed = {**base, setting: PARTS[part][setting]}
    assert not torch.equal(outcome(**{part: base}), outcome(**{part: changed}))


@pytest.mark.parametrize("setting", ["log_every", "eval_every", "eval_batch_size", "gap_images", "target", "figures"])
def test_settings_of_measurement_leave_training_alone(setting):
    base = {"log_every": 10, "eval_every": 1, "gap_images": 100, "target": 0.1}
    value = {
        "log_every": 7,
        "eval_every": 2,
        "eval_batch_size": 100,
        "gap_images": 0,
        "target": None,
        "figures": False,
    }[setting]
    (one,), first = train(recipe(**base), RunSpec(0, ADAM))
    (two,), second = train(recipe(**{**base, setting: value}), RunSpec(0, ADAM))
    assert torch.equal(flat(one["model"]), flat(two["model"]))
    points = [{(step, name) for step, name, _ in log.points[0]} for log in (first, second)]
    assert (points[0] == points[1]) == (setting in ("eval_batch_size", "figures"))
    assert bool(second.artifacts) == (setting != "figures")
    if setting == "eval_batch_size":
        assert first.of(0, metrics.EVAL_LOSS) == pytest.approx(second.of(0, metrics.EVAL_LOSS), rel=1e-6)


def test_every_setting_is_tested():
    elsewhere = {"name", "data", "model"}  # with the configuration
    elsewhere |= {
        "ema",
        "channels_last",
        "compile",
        "stack",
        "parallel",
        "rounding",
        "quantization",
    }  # tests of their own
    measured = {"figures", "log_every", "eval_every", "eval_batch_size", "gap_images", "target"}
    assert set(ImageSettings.model_fields) == set(CHANGES) | elsewhere | measured


def test_accumulation_is_the_whole_batch():
    assert torch.allclose(outcome(), outcome(accumulate=4), atol=1e-6)


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


@pytest.mark.parametrize("words", REFUSED)
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
