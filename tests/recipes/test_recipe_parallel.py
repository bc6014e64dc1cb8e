"""A run on two processes, by DDP or FSDP2, makes the updates of one process with the same batches."""

import copy
import os
from pathlib import Path

import image_cases
import pytest
import text_cases
import torch
from alphagrad.recipes.supervised.learner import Training
from alphagrad.recipes.supervised.looped import LoopLearner
from alphagrad.recipes.supervised.parallel import Parallel, blocks, parallel_of
from alphagrad.recipes.supervised.precision import Numbers
from gloo import in_processes
from text_cases import write_corpus, write_tables
from torch import nn

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Saturation, SqrtDim
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.normalization import PerModule

RULES = {"alphagrad": Rule(), "adaptive": Rule(PerModule(), Saturation(SqrtDim(), tau=0.5))}
OPTIMIZERS = {
    **{
        name: lambda params, rule=rule: AlphaGrad(params, lr=0.05, rule=rule, momentum=0.9, weight_decay=0.1)
        for name, rule in RULES.items()
    },
    "adam": lambda params: torch.optim.AdamW(params, lr=0.01),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
}
CASES = {
    **{name: {"optimizer": name} for name in OPTIMIZERS},
    "clipped": {"optimizer": "sgd", "clip": 0.1},
    "accumulated": {"optimizer": "adaptive", "accumulate": 2, "ema": 0.5},
    "amp_bfloat16": {"optimizer": "alphagrad", "precision": "amp_bfloat16"},
    "amp_float16": {"optimizer": "alphagrad", "precision": "amp_float16"},
    "bfloat16": {"optimizer": "alphagrad", "precision": "bfloat16", "ema": 0.5},
}
# with their own rounding, the parts of a batch give another sum
TOLERANCE = {"amp_bfloat16": 0.03, "amp_float16": 0.01, "bfloat16": 0.1}
BATCH, STEPS = 8, 6


class Model(nn.Module):
    """Layers of odd sizes, so that no shard is like another; its own parameter is smaller than the world."""

    def __init__(self, norm=False):
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.norm = nn.BatchNorm1d(7) if norm else nn.LayerNorm(7)
        self.last = nn.Linear(7, 3)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.gain * self.last(torch.relu(self.norm(self.first(x))))


def objective(outputs, targets):
    loss = nn.functional.cross_entropy(outputs, targets)
    return loss, torch.stack([loss.detach(), (outputs.argmax(-1) == targets).float().mean()])


def learner_of(parallel, optimizer, accumulate=1, ema=None, clip=None, precision="float32", norm=False, compile=False):
    spec = OptimizerSpec(optimizer, OPTIMIZERS[optimizer], clip_grad_norm=clip)
    training = Training(
        lambda: Model(norm), objective, frozenset({"first.bias"}), ema, accumulate, compile, channels_last=False
    )
    device = torch.device("cpu")
    return LoopLearner(RunStack([RunSpec(0, spec)]), training, Numbers(precision, device), parallel)


def batch(step, parallel, size=BATCH):
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(size, 5, generator=generator), torch.randint(3, (size,), generator=generator)
    each = size // parallel.processes
    part = slice(parallel.rank * each, (parallel.rank + 1) * each)
    return x[part].unsqueeze(0), y[part].unsqueeze(0)


def trained(parallel, learner=None, start=0, **case):
    """What a learner makes of some batches: measures, signals, predictions, and its result, all whole."""
    learner = learner or learner_of(parallel, **case)
    seen = []
    for step in range(start, STEPS):
        learner.scale_lr(1 - step / STEPS)
        measures, signals = learner.step(*batch(step, parallel), Observation(2, 0.5))
        seen.append([measures, {name: torch.tensor(value) for name, value in signals[0].items()}])
    predicted = learner.predict(batch(99, Parallel())[0][0])
    result = learner.result(0)
    return {"seen": seen, "predicted": predicted, "result": result}


def all_cases():
    found = {}
    for kind in ("ddp", "fsdp"):
        parallel = parallel_of(kind)
        found[kind] = {name: trained(parallel, **case) for name, case in CASES.items()}
        # stopped half-way; a learner of its own takes the state
        case = CASES["accumulated"]
        half = learner_of(parallel, **case)
        for step in range(3):
            half.scale_lr(1 - step / STEPS)
            half.step(*batch(step, parallel), None)
        state = copy.deepcopy(half.state_dict())
        again = learner_of(parallel, **case)
        again.load_state_dict(copy.deepcopy(state))  # like torch's optimizers it takes tensors as they are
        found[kind]["state"] = state
        found[kind]["resumed"] = trained(parallel, again, start=3)
        # batch normalisation's statistics are those of a process's own part
        normalizing = learner_of(parallel, "sgd", norm=True)
        normalizing.step(*batch(0, parallel), None)
        predicted = normalizing.predict(batch(99, Parallel())[0][0])
        found[kind]["norm"] = {"predicted": predicted, **normalizing.result(0)["model"]}
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return in_processes(all_cases, tmp_path_factory.mktemp("two"))


def assert_same(found, expected, told, tolerance=2e-5):
    """Equal to a tolerance, through mappings and lists; tensors by their largest element."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), told
        for key, value in expected.items():
            assert_same(found[key], value, f"{told} {key}", tolerance)
    elif isinstance(expected, (list, tuple)):
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{told} {i}", tolerance)
    elif isinstance(expected, torch.Tensor):
        assert type(found) is torch.Tensor
        scale = float(expected.double().abs().max().clamp(min=1e-3)) if expected.numel() else 1.0
        assert found.dtype == expected.dtype
        torch.testing.assert_close(
            found.double(), expected.double(), rtol=0, atol=tolerance * scale, msg=lambda m: f"{told}: {m}"
        )
    else:
        assert found == expected, told


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_updates_of_one(two, kind, name):
    alone = trained(Parallel(), **CASES[name])
    assert len(alone["seen"][0][1]) > 3
    if name in TOLERANCE:  # the trajectory, not each signal: a rounded component may cross the threshold τ
        for found in two:
            assert_same(found[kind][name]["result"]["model"], alone["result"]["model"], name, TOLERANCE[name])
            assert_same(found[kind][name]["predicted"], alone["predicted"], name, 2 * TOLERANCE[name])
        return
    for found in two:
        assert_same(found[kind][name], alone, name)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_resumed_run_ends_the_same(two, kind):
    """In two processes to the bit, in one to rounding: the state is whole."""
    for found in two:
        straight, resumed = found[kind]["accumulated"], found[kind]["resumed"]
        assert_same(resumed["result"], straight["result"], kind, 0)
        assert_same(resumed["predicted"], straight["predicted"], kind, 0)
    alone = learner_of(Parallel(), **CASES["accumulated"])
    alone.load_state_dict(two[0][kind]["state"])
    ended = trained(Parallel(), alone, start=3)
    assert_same(ended["result"], two[0][kind]["accumulated"]["result"], kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_all_processes_evaluate_the_same_statistics(two, kind):
    first, second = (found[kind]["norm"] for found in two)
    assert_same(second, first, kind, 0)
    # the first process's part of the batch alone
    rank0 = Parallel(0, 2)
    alone = learner_of(Parallel(), "sgd", norm=True)
    alone.step(*batch(0, rank0), None)
    assert_same(first["norm.running_mean"], alone.result(0)["model"]["norm.running_mean"], kind)


SGD = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=0.3, momentum=0.9), "elementwise")


def of_recipes(root, kind):
    """The parameters of small models of the recipes, after some steps."""
    corpus, tables = write_corpus(root), write_tables(root)
    recipes = {
        **{name: text_cases.lm(corpus, name, {"layers": 2}, parallel=kind) for name in ("gpt2", "llama")},
        "mlp": text_cases.text(tables, "mlp", parallel=kind),
        "transformer": text_cases.text(tables, "transformer", {"layers": 2}, parallel=kind),
    }
    norm = {"channels": [8], "hidden": [4], "norm": "group"}
    recipes["cnn"] = image_cases.recipe("cnn", shape=norm, parallel=kind, epochs=1, batch_size=200)
    return {name: text_cases.train(r, root, RunSpec(0, SGD))[0][0]["model"] for name, r in recipes.items()}


def of_recipes_in_both_ways(root):
    found = {}
    for kind in ("ddp", "fsdp"):
        place = Path(root, kind, os.environ["RANK"])
        place.mkdir(parents=True)
        found[kind] = of_recipes(place, kind)
    return found


@pytest.mark.long
def test_recipes_in_two_processes(tmp_path):
    alone = of_recipes(tmp_path, "ddp")
    for found in in_processes(of_recipes_in_both_ways, tmp_path / "two", str(tmp_path)):
        for kind in ("ddp", "fsdp"):
            assert_same(found[kind], alone, kind, 1e-4)


def test_layers_of_a_transformer_are_gathered_one_by_one():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            inner = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
            self.layers = nn.ModuleList([nn.ModuleDict({"parts": inner}), nn.Linear(1, 1)])

    deep = Deep()
    first, second = deep.layers
    assert blocks(deep) == [*first["parts"], first, second]


def compiled():
    found = {}
    for kind in ("ddp", "fsdp"):
        parallel = parallel_of(kind)
        found[kind] = trained(parallel, optimizer="adaptive", compile=True)["result"]["model"]
    return found


@pytest.mark.slow
def test_compiled_in_two_processes(tmp_path):
    alone = trained(Parallel(), optimizer="adaptive")["result"]["model"]
    for found in in_processes(compiled, tmp_path / "two"):
        for kind in ("ddp", "fsdp"):
            assert_same(found[kind], alone, kind, 1e-4)
