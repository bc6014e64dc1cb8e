"""The instruments against direct computation in NumPy, and that looking changes nothing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from alphagrad import AlphaGrad, Rule, instruments, variants
from alphagrad.alpha import Constant, SqrtDim
from alphagrad.instruments import flat
from alphagrad.instruments.histogram import BINS, EDGES, SLOTS, Histogram
from alphagrad.instruments.meter import Meter
from alphagrad.instruments.noise import Noise
from alphagrad.instruments.quantities import QUANTITIES, SUMMARISED, SUMMED_UP, ZEROS, tail
from alphagrad.instruments.sums import Observation
from alphagrad.normalization import PerGroup

from gloo import in_processes  # isort: skip

from measuring import ALL, VARIANTS, drawn, give, made, measured

OTHERS = {
    "adam": lambda params: torch.optim.Adam(params, lr=0.1),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1, maximize=True),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.1, foreach=True),
}


def expected(name, before, after, grad, last):
    """The quantities of one tensor that any optimizer has, of arrays in float64."""
    g, moved = grad.ravel(), (after - before).ravel()
    norm, length, size = np.linalg.norm(g), np.linalg.norm(moved), np.linalg.norm(before)
    found = {"grad_norm": norm, "param_norm": size, "update_norm": length, "update_ratio": length / size}
    found["cosine"] = -(g @ moved) / (norm * length)
    found["kurtosis"] = np.mean((g * math.sqrt(g.size) / norm) ** 4)
    if last is not None:
        found["sign_flips"] = np.mean(np.sign(moved) * np.sign(last.ravel()) < 0)
    return {f"{quantity}/{name}": value for quantity, value in found.items()}


def array(x):
    return x.detach().double().numpy().copy()


def compared(params, optimizer, dtype, steps=3):
    """Measures steps and holds every signal of single tensors against its own computation; returns the rows."""
    meter, last, rows = Meter(optimizer, params), {}, []
    for step in range(steps):
        grads = {n: g.to(dtype) for n, g in drawn(step + 1, size=10.0 ** (2 * step - 3)).items()}
        for n, p in params.items():
            p.grad = grads[n].clone()
        before = {n: array(p) for n, p in params.items()}
        told = instruments.signals(optimizer, 0.6) if isinstance(optimizer, AlphaGrad) else {}
        (row,) = measured(meter)
        rows.append(row)
        want = {}
        for n, p in params.items():
            want |= expected(n, before[n], array(p), array(grads[n]), last.get(n))
            want |= {f"{q}/{n}": float(v) for q, v in told.get(n, {}).items() if q != "grad_norm"}
            moved = array(p) - before[n]
            last[n] = np.where(moved == 0, last.get(n, 0.0), moved)
        own = {k: v for k, v in row.items() if not k.endswith("/network")}
        assert own == pytest.approx(want, rel=1e-6, abs=1e-12)
    return rows


@pytest.mark.parametrize("name", VARIANTS)
def test_signals_of_every_variant(name):
    params, optimizer = made(lambda named: AlphaGrad(named, lr=0.01, rule=getattr(variants, name)()))
    rows = compared(params, optimizer, torch.float32)
    assert any(key.startswith("alpha/") for key in rows[0]) == (optimizer.param_groups[0]["rule"].alpha is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OTHERS)
def test_signals_of_other_optimizers(name, dtype):
    params, optimizer = made(OTHERS[name], dtype=dtype)
    rows = compared(params, optimizer, dtype)
    assert not [key for row in rows for key in row if key.startswith(("alpha", "saturation"))]


def test_large_tensors_are_measured_in_slices(monkeypatch):
    monkeypatch.setattr(flat, "LIMIT", 64)
    params, optimizer = made(lambda named: AlphaGrad(named, rule=Rule(alpha=SqrtDim(2.0))))
    compared(params, optimizer, torch.float32)
    assert len(flat.Layout(list(params), list(params.values()), 0).chunks) > 1


def test_parameter_groups_and_units_that_span_them():
    rule = Rule(PerGroup(), Constant(9.0))
    params, optimizer = made(lambda named: AlphaGrad([{"params": named[:2]}, {"params": named[2:]}], rule=rule))
    compared(params, optimizer, torch.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1e-300, 1e-80, 1e-20, 1.0, 1e20, 1e140]))
def test_nothing_but_norms_depends_on_the_gradients_size(seed, size):
    params, optimizer = made(OTHERS["adam"], dtype=torch.float64)
    grads = {n: g.double() for n, g in drawn(seed).items()}
    for n, p in params.items():
        p.grad = grads[n] * size
    meter = Meter(optimizer, params)
    meter.before(ALL)
    for n, p in params.items():
        p -= 0.1 * grads[n] if (p.requires_grad_(False) is p) else 0
    reading = meter.after()
    for i, g in enumerate(grads.values()):
        norm = torch.linalg.vector_norm(g)
        assert float(reading.columns["kurtosis"][i]) == pytest.approx(g.numel() * float((g / norm).pow(4).sum()))
        assert float(reading.columns["grad_norm"][i]) == pytest.approx(float(norm) * size)
        assert float(reading.columns["cosine"][i]) == pytest.approx(1.0)


def test_sums_over_tensors():
    params, optimizer = made(lambda named: AlphaGrad(named, lr=0.01, rule=Rule(alpha=SqrtDim(2.0))))
    meter = Meter(optimizer, params)
    moved = []
    for seed in (1, 2):
        give(params, seed)
        before = np.concatenate([array(p).ravel() for p in params.values()])
        (row,) = measured(meter)
        moved.append(np.concatenate([array(p).ravel() for p in params.values()]) - before)
    g = np.concatenate([array(p.grad).ravel() for p in params.values()])
    sizes = np.array([p.numel() for p in params.values()])
    norm = np.linalg.norm
    want = {
        "grad_norm": norm(g), "param_norm": norm(before), "update_norm": norm(moved[1]),
        "update_ratio": norm(moved[1]) / norm(before), "cosine": -(g @ moved[1]) / norm(g) / norm(moved[1]),
        "sign_flips": np.mean(moved[0] * moved[1] < 0),
    }  # fmt: skip
    for quantity in (q for q in SUMMARISED if q != "signal_to_noise"):
        values = np.array([row[f"{quantity}/{n}"] for n in params])
        assert row[f"{quantity}_all/network"] == pytest.approx(want.get(quantity, (values * sizes).sum() / sizes.sum()))
        assert row[f"{quantity}_least/network"] == values.min()
        assert row[f"{quantity}_largest/network"] == values.max()
    assert set(row) == {f"{q}/{n}" for q in SUMMARISED if q != "signal_to_noise" for n in params} | {
        f"{q}/network" for q in SUMMED_UP if not q.startswith("signal_to_noise")
    }


def test_a_stack_is_its_runs():
    runs, rule = 3, Rule(alpha=SqrtDim(3.0))
    params, optimizer = made(lambda named: AlphaGrad(named, rule=rule, batch_dims=1), runs=(runs,))
    start, meter = {n: p.detach().clone() for n, p in params.items()}, Meter(optimizer, params, 1)
    steps = [drawn(seed, (runs,)) for seed in (4, 5)]
    for grads in steps:
        for n, p in params.items():
            p.grad = grads[n].clone()
        together = measured(meter)
    assert len(together) == runs
    for run in range(runs):
        own = {n: torch.nn.Parameter(p[run].clone()) for n, p in start.items()}
        alone = Meter(AlphaGrad(list(own.items()), rule=rule), own)
        for grads in steps:
            for n, p in own.items():
                p.grad = grads[n][run].clone()
            (row,) = measured(alone)
        assert together[run] == pytest.approx(row, rel=1e-5)
        for n, counts in alone.histogram.of_run(0).items():
            assert torch.equal(meter.histogram.of_run(run)[n], counts)


def test_the_histogram_is_numpys():
    params, optimizer = made(lambda named: AlphaGrad(named, rule=Rule(alpha=SqrtDim(2.0))))
    meter = Meter(optimizer, params)
    want = {n: np.zeros(BINS) for n in params}
    edges = np.array([-np.inf, *EDGES, np.inf])
    for seed in range(5):
        give(params, seed)
        for n, p in params.items():
            g = array(p.grad).ravel()
            want[n] += np.histogram(2 * math.sqrt(g.size) * g / (np.linalg.norm(g) + 1e-8), edges)[0]
        measured(meter)
    for n, counts in meter.histogram.of_run(0).items():
        assert counts.shape == (5, BINS)
        assert counts.sum(1).tolist() == [params[n].numel()] * 5
        assert np.abs(counts.sum(0).numpy() - want[n]).sum() <= 2  # an element at an edge may fall on either side
    assert meter.histogram.starts() == [0, 1, 2, 3, 4, 5]


def test_the_histogram_takes_bounded_memory_and_loses_nothing():
    histogram, total = Histogram(), 0
    for i in range(5 * SLOTS + 3):
        names = ["a", "b"] if i % 2 else ["b"]
        histogram.add(names, torch.full((len(names), 2, BINS), i))
        total += i
    assert histogram.slots <= SLOTS
    assert histogram.stretch == 8
    assert histogram.starts()[-2:] == [8 * (histogram.slots - 1), 5 * SLOTS + 3]
    assert histogram.of_run(1)["b"].sum(0).tolist() == [total] * BINS
    assert histogram.of_run(0)["b"][1, 0] == sum(range(8, 16))
    assert histogram.of_run(0)["a"][1, 0] == sum(range(9, 16, 2))
    other = Histogram()
    other.load_state_dict(histogram.state_dict())
    for own in (histogram, other):
        own.add(["c"], torch.ones(1, 2, BINS, dtype=torch.int64))
    assert torch.equal(histogram.counts, other.counts)
    assert (histogram.names, histogram.starts()) == (other.names, other.starts())


def test_signal_and_noise_are_those_of_the_parts():
    rng = np.random.default_rng(0)
    parts, k = rng.normal(0.3, 1.0, (4, 6, 2)), 4
    p = {"w": torch.nn.Parameter(torch.zeros(6, 2, dtype=torch.float64))}
    noise = Noise(p)
    p["w"].grad = torch.zeros(6, 2, dtype=torch.float64)
    for part in parts:
        p["w"].grad += torch.from_numpy(part / k)
        noise.add()
    ((signal, spread),) = noise.signal_and_noise().values()
    variance = parts.reshape(k, -1).var(0, ddof=1).sum() / k
    assert float(spread) == pytest.approx(variance)
    assert float(signal) == pytest.approx(np.square(parts.mean(0)).sum() - variance)
    assert noise.signal_and_noise() == {}
    noise.add()
    assert noise.signal_and_noise() == {}  # one part says nothing


def test_components_are_told_too():
    params, optimizer = made(AlphaGrad)
    give(params, 1)
    (row,) = measured(Meter(optimizer, params), Observation(1, 2.5, components=True))
    g = array(params["long"].grad)
    assert row["kurtosis/long"] == pytest.approx(np.mean((g / np.sqrt(np.mean(g**2))) ** 4))
    assert {key.partition("/")[0] for key in row if key.endswith("/long")} >= {ZEROS, tail(2), "quantile_1.00"}
    assert not [key for key in row if key.startswith(("cosine", "sign_flips"))]


SHARDED = {"a.weight": Shard(0), "a.bias": Shard(0), "b.weight": Shard(1), "b.bias": Replicate(), "long": Shard(0)}


def on_two_processes():
    mesh = init_device_mesh("cpu", (2,))

    def spread(name, value):
        place = SHARDED[name]
        local = value
        if place.is_shard():
            local = value.chunk(2, place.dim)[mesh.get_rank()]
        stride = torch.empty(value.shape).stride()
        return DTensor.from_local(local.clone(), mesh, [place], run_check=False, shape=value.shape, stride=stride)

    return [signals_of(adam, spread) for adam in (False, True)]


def signals_of(adam, spread):
    params = {n: torch.nn.Parameter(spread(n, p)) for n, p in drawn(0).items()}
    named = list(params.items())
    optimizer = torch.optim.Adam(named, foreach=False) if adam else AlphaGrad(named, rule=Rule(alpha=SqrtDim(2.0)))
    meter, rows = Meter(optimizer, params), []
    for step in range(3):
        for n, p in params.items():
            p.grad = spread(n, drawn(step + 1)[n])
        rows += measured(meter, Observation(99, 0.6, components=True, details=True))
    return rows, meter.histogram.of_run(0), sorted(meter.state_dict().get("signs", {}))


def test_sharded_tensors_are_measured_whole(tmp_path):
    found = in_processes(on_two_processes, tmp_path)
    for i, adam in enumerate((False, True)):
        rows, counts, _ = signals_of(adam, lambda _, value: value.clone())
        for own, counted, signs in (process[i] for process in found):
            assert own == [pytest.approx(row, rel=1e-5, abs=1e-9) for row in rows]
            assert set(counted) == set(counts)
            assert all(int((counted[n] - counts[n]).abs().sum()) <= 2 for n in counts)
            assert signs == []  # each process has its own, so that none are saved


def test_every_quantity_is_measured_somewhere():
    """But for skipped updates, which the optimizer counts, and what half precision loses, which the recipes do."""
    known = {"grad_norm", "saturation", "alpha", "skipped", "kurtosis", ZEROS, *(tail(s) for s in (2, 3, 4))}
    known |= {"overflow", "underflow", "lost"}
    assert set(QUANTITIES) - known <= set(SUMMARISED)
