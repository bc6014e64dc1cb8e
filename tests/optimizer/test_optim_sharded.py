"""AlphaGrad on parameters that two processes share makes the update of one process."""

import copy

import pytest
import torch
import torch.distributed as dist
from cases import ALPHAS, DECAYS, MOMENTA, NORMALIZATIONS, TRANSFORMS, WITHOUT_ALPHA, rule_of
from gloo import in_processes
from network import network
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from alphagrad import AlphaGrad, Rule, signals, variants
from alphagrad.alpha import Constant, Saturation, SqrtDim
from alphagrad.normalization import Global, PerTensor

# over two processes: shards of unequal size, one that is empty, one along the second dimension, and no shards at all
SHAPES = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (2, 5), "b.bias": (1,), "c.weight": (3, 3), "gain": ()}
PLACEMENTS = {name: Shard(0) for name in SHAPES} | {"c.weight": Shard(1), "gain": Replicate()}
STEPS = 4


def drawn(seed, dtype=torch.float32, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {n: (torch.randn(s, generator=generator) * size).to(dtype) for n, s in SHAPES.items()}


def trained(rule, mesh=None, dtype=torch.float32, spoiled=None, **settings):
    """Parameters and state after some steps, in full; on a mesh, from shards. A gradient may be spoiled at step 1."""

    def spread(name, value):
        if mesh is None:
            return value
        place = PLACEMENTS[name]
        local = value  # cut here, as distribute_tensor would after sending it around
        if place.is_shard():
            parts = value.chunk(mesh.size(), place.dim)
            rank, empty = mesh.get_rank(), value.narrow(place.dim, 0, 0)
            local = parts[rank] if rank < len(parts) else empty
        stride = torch.empty(value.shape).stride()
        return DTensor.from_local(local.clone(), mesh, [place], run_check=False, shape=value.shape, stride=stride)

    params = {n: torch.nn.Parameter(spread(n, v)) for n, v in drawn(0, dtype).items()}
    named = list(params.items())
    optimizer = AlphaGrad([{"params": named[:2]}, {"params": named[2:]}], lr=0.1, rule=rule, **settings)
    seen = []
    for step in range(STEPS):
        grads = drawn(step + 1, dtype, 10.0 ** (step - 2))
        if step == 1 and spoiled is not None:
            grads[spoiled].view(-1)[0] = float("nan")
        for n, p in params.items():
            p.grad = spread(n, grads[n])
        seen.append({f"{n} {k}": v for n, row in signals(optimizer, 0.6).items() for k, v in row.items()})
        optimizer.step()
    state = {f"{n} {key}": v for n, p in params.items() for key, v in optimizer.state[p].items()}
    found = {**params, **state, **{f"{i} {k}": v for i, row in enumerate(seen) for k, v in row.items()}}
    return {n: (v.full_tensor() if isinstance(v, DTensor) else v).detach().clone() for n, v in found.items()}


def all_slots():
    """Every value of every slot, the other settings dealt out; now and then a NaN in one process's shard."""
    others = [{**m, **d} for d in DECAYS.values() for m in MOMENTA.values()]
    pairs = [(n, "saturation", "tanh") for n in NORMALIZATIONS] + [("global", a, "hybrid_saturation") for a in ALPHAS]
    pairs += [("tensor", None if t in WITHOUT_ALPHA else "saturation", t) for t in TRANSFORMS]
    for i, slots in enumerate(dict.fromkeys(pairs)):
        spoiled = (None, "a.weight", "b.bias")[i % 3]
        yield "-".join(map(str, slots)), rule_of(*slots), {"spoiled": spoiled, "foreach": i % 2 == 0} | others[i % 8]


SPECIAL = {
    "bfloat16": (variants.hybrid(3.0, 0.3), {"dtype": torch.bfloat16, "momentum": 0.9}),
    "float16": (Rule(alpha=Saturation(SqrtDim(), tau=0.5)), {"dtype": torch.float16, "momentum": 0.9}),
    "propagate": (Rule(), {"spoiled": "a.weight", "nonfinite": "propagate"}),
    "maximize": (Rule(), {"maximize": True}),
}
COMPILED = {
    "compiled": (Rule(alpha=Saturation(SqrtDim(), tau=0.5)), {"compile": True, "momentum": 0.9, "spoiled": "a.bias"}),
    "compiled_global": (Rule(Global(), Constant(30.0)), {"compile": True, "foreach": True}),
}


def all_of(cases):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {name: trained(rule, mesh, **settings) for name, (rule, settings) in cases.items()}


def everything():
    slots = {name: (rule, settings) for name, rule, settings in all_slots()}
    return {"cases": all_of({**slots, **SPECIAL}), **layouts()}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What two processes have found; they are started once, because that takes longest."""
    return in_processes(everything, tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def sharded(processes):
    return [found["cases"] for found in processes]


def assert_like_one_process(sharded, name, rule, settings, tolerance):
    alone = trained(rule, **settings)
    for rank, found in enumerate(sharded):
        assert found[name].keys() == alone.keys()
        for key, expected in alone.items():
            torch.testing.assert_close(
                found[name][key],
                expected,
                rtol=tolerance,
                atol=tolerance,
                equal_nan=True,
                msg=f"{name}: {key} on {rank}",
            )


@pytest.mark.long
def test_every_rule(sharded):
    """Parameters, momentum, α, saturation, counts of skipped updates, and what is observed."""
    for name, rule, settings in all_slots():
        assert_like_one_process(sharded, name, rule, settings, 2e-6)


@pytest.mark.long
@pytest.mark.parametrize("name", SPECIAL)
def test_every_way_to_step(sharded, name):
    rule, settings = SPECIAL[name]
    assert_like_one_process(sharded, name, rule, settings, 1e-2 if "float16" in name else 2e-6)


@pytest.mark.slow
def test_compiled_steps(tmp_path):
    found = in_processes(all_of, tmp_path / "processes", COMPILED)
    for name, (rule, settings) in COMPILED.items():
        assert_like_one_process(found, name, rule, settings, 2e-6)


@pytest.mark.long
def test_the_shards_are_what_they_should_be(sharded):
    """The cases have what they claim to have: skipped updates, α that moved, and no NaN elsewhere."""
    found = sharded[0]["float16"]
    moved = [n for n in SHAPES if len({float(found[f"{i} {n} alpha"]) for i in range(STEPS)}) > 1]
    assert {"a.weight", "b.weight"} <= set(moved)
    skipped = [float(v) for case in sharded[0].values() for n, v in case.items() if n.endswith("skipped")]
    assert set(skipped) == {0.0, 1.0}
    nans = {name for name, case in sharded[0].items() if not case["a.weight"].isfinite().all()}
    assert nans == {"propagate"}


def layouts():
    """One update under each division of the same parameter and gradient among the processes."""
    two = init_device_mesh("cpu", (1, 2), mesh_dim_names=("one", "two"))
    other = init_device_mesh("cpu", (2, 1), mesh_dim_names=("one", "two"))
    g = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    half = DTensor.from_local(g / 2, two, [Replicate(), Partial()])
    cases = {
        "hybrid": (two, [Replicate(), Shard(0)], None),
        "both dimensions": (two, [Shard(1), Shard(0)], None),
        "of two dimensions": (other, [Shard(1), Shard(0)], None),
        "replicated": (two, [Replicate(), Replicate()], None),
        "gradient in one piece": (two, [Replicate(), Shard(0)], distribute_tensor(g, two, [Replicate(), Replicate()])),
        "gradient still to be summed": (two, [Replicate(), Shard(1)], half),
    }
    moved = {}
    for name, (mesh, placements, grad) in cases.items():
        p = torch.nn.Parameter(distribute_tensor(torch.zeros(3, 4), mesh, placements))
        p.grad = distribute_tensor(g, mesh, placements) if grad is None else grad
        AlphaGrad([p], lr=1.0, rule=Rule(alpha=Constant(3.0))).step()
        moved[name] = p.full_tensor().detach()
    refused = {}
    for name, placements, settings in (
        ("stack", [Replicate(), Shard(0)], {"batch_dims": 1}),
        ("partial", [Replicate(), Partial()], {}),
    ):
        try:
            AlphaGrad([DTensor.from_local(torch.zeros(2, 2), two, placements).requires_grad_()], **settings)
        except ValueError as error:
            refused[name] = str(error)
    return {"moved": moved, "refused": refused, **unlucky(two["two"]), **through_fsdp()}


def unlucky(mesh):
    """A NaN in the shard of one process alone, under ``nonfinite="raise"``, and an overflow under GradScaler."""
    g = torch.tensor([1.0, 2.0, float("nan")])
    p = torch.nn.Parameter(distribute_tensor(torch.zeros(3), mesh, [Shard(0)]))
    p.grad = distribute_tensor(g, mesh, [Shard(0)])
    try:
        AlphaGrad([("w", p)], nonfinite="raise").step()
        raised = ""
    except FloatingPointError as error:
        raised = str(error)
    optimizer = AlphaGrad([p], lr=1.0, rule=Rule(alpha=Constant(3.0)))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(p.sum().to_local())  # makes its scale
    scales = []
    for grad in (torch.tensor([8.0, 8.0, float("inf")]), torch.tensor([8.0, 16.0, 24.0])):
        p.grad = distribute_tensor(grad, mesh, [Shard(0)])
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    skipped = [float(count) for count in optimizer.skipped().values()]
    return {"raised": raised, "scales": scales, "skipped": skipped, "scaled": p.full_tensor().detach()}


def through_fsdp():
    """A state gathered by torch's own functions from one model, given to another."""
    whole = StateDictOptions(full_state_dict=True)
    ends = []
    saved = None
    for _ in range(2):
        model = network()
        for layer in (model[0], model[2], model):
            fully_shard(layer)
        rule = Rule(PerTensor(), Saturation(SqrtDim(), tau=0.5))
        optimizer = AlphaGrad(model.named_parameters(), lr=0.1, momentum=0.9, rule=rule)
        for step in range(4):
            if step == 2 and saved is not None:
                model.load_state_dict(saved["model"])
                set_optimizer_state_dict(model, optimizer, saved["optimizer"], options=whole)
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step if saved is None or step > 1 else 99))
            model(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == 1 and saved is None:
                kept = {"optimizer": get_optimizer_state_dict(model, optimizer, options=whole)}
                # on one process alone torch fills it; the others take it from there
                kept["optimizer"] = copy.deepcopy(broadcast(kept["optimizer"]))
                kept["model"] = {n: v.clone() for n, v in model.state_dict().items()}
        saved = saved or kept
        ends.append({n: p.full_tensor().detach() for n, p in model.named_parameters()})
    return {"straight": ends[0], "resumed": ends[1], "state": sorted(saved["optimizer"]["state"]["0.weight"])}


def broadcast(value):
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


@pytest.mark.long
def test_every_division_gives_one_update(processes):
    g = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    expected = -torch.tanh(3.0 * g / g.norm())
    for found in processes:
        assert len(found["moved"]) == 6
        for name, moved in found["moved"].items():
            torch.testing.assert_close(moved, expected, msg=name)


@pytest.mark.long
def test_what_cannot_be_sharded_is_refused(processes):
    for found in processes:
        assert "parameter 0 is sharded; a stack of runs" in found["refused"]["stack"]
        assert "Partial" in found["refused"]["partial"]


@pytest.mark.long
def test_bad_gradients_of_one_process_are_everybodys(processes):
    g = torch.tensor([1.0, 2.0, 3.0])
    for found in processes:
        assert found["raised"] == "non-finite gradient in w"
        assert found["scales"] == [4.0, 4.0]
        assert found["skipped"] == [0.0]  # dropped by the scaler, before the optimizer counts
        torch.testing.assert_close(found["scaled"], -torch.tanh(3.0 * g / g.norm()))


@pytest.mark.long
def test_torchs_own_checkpoints_of_sharded_optimizers(processes):
    for found in processes:
        assert {"momentum_buffer", "begun", "alpha", "saturation", "step", "skipped"} == set(found["state"])
        for name, expected in found["straight"].items():
            assert torch.equal(found["resumed"][name], expected), name
