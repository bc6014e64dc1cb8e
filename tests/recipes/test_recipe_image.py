"""The recipe image: against a loop written by hand, in stacks, and every setting at work."""

from __future__ import annotations

import math

import pytest
import torch
from alphagrad.recipes.image import Image, ImageSettings
from image_cases import ADAM, DEFAULTS, OURS, flat, outcome, recipe, train
from tiers import long
from torch import nn

from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack

ADAMW = OptimizerSpec("adamw", lambda params: torch.optim.AdamW(params, lr=3e-3, weight_decay=0.5), "elementwise")
CLIPPED = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=0.5), "elementwise", clip_grad_norm=0.2)


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


@pytest.mark.parametrize("model", ["mlp", *long("cnn")])
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
            if not name.startswith(("time/", "cost/")):
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


@pytest.mark.parametrize("setting", CHANGES)
def test_settings_change_what_is_learned(setting):
    value, needs = CHANGES[setting]
    assert not torch.equal(outcome(**needs), outcome(**needs, **{setting: value}))


@pytest.mark.parametrize(("part", "setting"), [(p, s) for p, settings in PARTS.items() for s in settings])
def test_settings_of_parts_change_what_is_learned(part, setting):
    base = dict(DEFAULTS["schedule"]) if part == "schedule" else {}
    changed = {**base, setting: PARTS[part][setting]}
    assert not torch.equal(outcome(**{part: base}), outcome(**{part: changed}))


@pytest.mark.parametrize("setting", ["log_every", "eval_every", "eval_batch_size", "gap_images", "target", "figure"])
def test_settings_of_measurement_leave_training_alone(setting):
    base = {"log_every": 10, "eval_every": 1, "gap_images": 100, "target": 0.1}
    value = {
        "log_every": 7,
        "eval_every": 2,
        "eval_batch_size": 100,
        "gap_images": 0,
        "target": None,
        "figure": False,
    }[setting]
    (one,), first = train(recipe(**base), RunSpec(0, ADAM))
    (two,), second = train(recipe(**{**base, setting: value}), RunSpec(0, ADAM))
    assert torch.equal(flat(one["model"]), flat(two["model"]))
    points = [{(step, name) for step, name, _ in log.points[0]} for log in (first, second)]
    assert (points[0] == points[1]) == (setting in ("eval_batch_size", "figure"))
    assert bool(second.artifacts) == (setting != "figure")
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
    measured = {"figure", "log_every", "eval_every", "eval_batch_size", "gap_images", "target"}
    assert set(ImageSettings.model_fields) == set(CHANGES) | elsewhere | measured


def test_accumulation_is_the_whole_batch():
    assert torch.allclose(outcome(), outcome(accumulate=4), atol=1e-6)
