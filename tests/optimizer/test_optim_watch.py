"""The instruments in a training loop: nothing changes by them, and they go on from a saved state."""

import copy
import doctest
import inspect
import warnings

import pytest
import torch
from measuring import VARIANTS, made, measured, network

from alphagrad import AlphaGrad, Rule, instruments, variants
from alphagrad.alpha import Constant, SqrtDim
from alphagrad.instruments import watching
from alphagrad.instruments.meter import Meter


def train(optimizer, model, steps=4, seed=3, look=None):
    torch.manual_seed(seed)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()
        if look is not None:
            look(step)


BUILDS = {
    **{
        name: (lambda named, name=name: AlphaGrad(named, rule=getattr(variants, name)(), momentum=0.9))
        for name in VARIANTS
    },
    "compiled": lambda named: AlphaGrad(named, fused=False, compile=True, momentum=0.9),
    "adamw": lambda named: torch.optim.AdamW(named, lr=0.01),
    "adam, fused": lambda named: torch.optim.Adam(named, lr=0.01, fused=True),
    "adagrad": lambda named: torch.optim.Adagrad(named, lr=0.01),
}


@pytest.mark.parametrize("name", [n if n != "compiled" else pytest.param(n, marks=pytest.mark.slow) for n in BUILDS])
def test_watching_changes_nothing(name):
    ends, states = [], []
    for look in (False, True):
        model = network()
        optimizer = BUILDS[name](list(model.named_parameters()))
        hooks = [dict(optimizer._optimizer_step_pre_hooks), dict(optimizer._optimizer_step_post_hooks)]
        attributes = set(vars(optimizer))
        if look:
            with instruments.watch(optimizer) as w:
                train(optimizer, model)
            assert len(w.measured) == 4
            assert hooks == [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
            assert set(vars(optimizer)) <= attributes | {"_own_gatherer", "_told_of_standing", "_compiled_update"}
        else:
            train(optimizer, model)
        train(optimizer, model)
        assert len(w.measured) == 4 if look else True
        ends.append(model.state_dict())
        states.append(copy.deepcopy(optimizer.state_dict()["state"]))
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])
    assert str(states[0]) == str(states[1])


def test_every_argument_of_watch_changes_something():
    def seen(**arguments):
        model = network()
        optimizer = AlphaGrad(model.named_parameters(), rule=Rule(alpha=SqrtDim(2.0)))
        with instruments.watch(optimizer, **arguments) as w:
            train(optimizer, model)
        return w.rows()

    usual = seen()
    assert [row["step"] for row in seen(every=2)] == [s for s in (0, 2) for _ in range(4)]
    assert {row["tensor"] for row in seen(tensors=1)} == {"0.weight"}
    assert [row["saturation"] for row in seen(tau=0.5)] != [row["saturation"] for row in usual]
    assert set(usual[0]) - set(seen(details=False)[0]) == {"cosine", "sign_flips", "kurtosis"}
    assert set(inspect.signature(instruments.watch).parameters) == {"optimizer", "every", "tensors", "tau", "details"}
    assert usual[0]["sign_flips"] is None
    assert usual[4]["sign_flips"] is not None
    for wrong in ({"every": 0}, {"tensors": 0}, {"tau": 0.0}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            seen(**wrong)


@pytest.mark.parametrize("build", [BUILDS["alphagrad"], BUILDS["adamw"]], ids=["alphagrad", "adamw"])
def test_the_table_is_readable(build):
    long = "a.very.long.name.of.a.module.that.does.not.fit.into.a.line.of.eighty.columns"
    params = {f"{long}.weight": torch.nn.Parameter(torch.ones(3, 2)), "b": torch.nn.Parameter(torch.zeros(2))}
    optimizer = build(list(params.items()))
    with instruments.watch(optimizer) as w:
        assert w.table().startswith("nothing was measured")
        for _ in range(2):
            for p in params.values():
                p.grad = torch.full_like(p, -1.5e-7)
            optimizer.step()
    lines = w.table().splitlines()
    assert lines[0] == "step 1"
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    assert "weight" in lines[2]
    assert lines[-1].startswith("all")
    assert ("alpha" in lines[1]) == isinstance(optimizer, AlphaGrad)
    assert len({len(told.split()) for told in lines[1:]}) == 1


def test_a_table_for_each_run_of_a_stack():
    p = torch.nn.Parameter(torch.ones(2, 4))
    optimizer = AlphaGrad([("w", p)], batch_dims=1, rule=Rule(alpha=Constant((2.0, 50.0))))
    with instruments.watch(optimizer) as w:
        p.grad = torch.ones(2, 4)
        optimizer.step()
    assert [row["alpha"] for row in w.rows()] == [2.0, 50.0]
    assert [w.table(run).splitlines()[-1].split()[-2] for run in (0, 1)] == ["2", "50"]


def test_parts_of_a_batch_give_signal_over_noise():
    model = network()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    with instruments.watch(optimizer, every=2) as w:
        for _ in range(3):
            for _ in range(4):
                (model(torch.randn(8, 6)).square().mean() / 4).backward()
                w.accumulated()
            optimizer.step()
            optimizer.zero_grad()
    rows = w.rows()
    assert [row["step"] for row in rows[::4]] == [0, 2]
    assert all(isinstance(row["signal_to_noise"], float) for row in rows)
    signal, noise = (sum(float(part[i]) for part in w.measured[0][1].noise.values()) for i in (0, 1))
    assert float(w.measured[0][1].sums()["signal_to_noise_all"]) == pytest.approx(signal / noise)
    with instruments.watch(optimizer, details=False) as w:
        w.accumulated()
        optimizer.step()
    assert w.rows() == []  # there was no gradient


def test_a_closure_computes_its_own_gradients():
    model = network()
    optimizer = torch.optim.LBFGS(list(model.named_parameters()), max_iter=3)

    def loss():
        optimizer.zero_grad()
        value = model(torch.ones(4, 6)).square().mean()
        value.backward()
        return value

    with instruments.watch(optimizer) as w:
        optimizer.step(loss)
        optimizer.step(closure=loss)
    assert set(w.rows()[-1]) == {"step", "tensor", "run", "param_norm", "update_norm", "update_ratio", "sign_flips"}
    assert "|w|" in w.table()


@pytest.mark.parametrize("build", [AlphaGrad, lambda named: AlphaGrad(named, fused=True), BUILDS["adam, fused"]])
def test_scaled_gradients_are_measured_unscaled(build):
    rows = []
    for scale in (1.0, 1024.0):
        model = network()
        optimizer = build(list(model.named_parameters()))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
        with instruments.watch(optimizer) as w:
            scaler.scale(model(torch.ones(8, 6)).square().mean()).backward()
            scaler.step(optimizer)
        rows.append(w.rows())
    for one, other in zip(*rows, strict=True):
        assert one.pop("tensor") == other.pop("tensor")
        assert {q for q, v in one.items() if v is None} == {q for q, v in other.items() if v is None} == {"sign_flips"}
        assert {**one, "sign_flips": 0} == pytest.approx({**other, "sign_flips": 0}, rel=1e-5)
    assert len(rows[0]) == 4


@pytest.mark.slow
def test_a_step_in_a_compiled_function_is_measured():
    model = network()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    step = torch.compile(optimizer.step, backend="eager")
    with instruments.watch(optimizer) as w, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            model(torch.ones(8, 6)).square().mean().backward()
            step()
    assert [row["step"] for row in w.rows()] == [0] * 4 + [1] * 4
    assert w.rows()[-1]["update_norm"] > 0


@pytest.mark.parametrize("name", ["alphagrad", "adamw"])
def test_measurements_go_on_from_a_saved_state(name):
    def started():
        model = network()
        optimizer = BUILDS[name](list(model.named_parameters()))
        return model, optimizer, Meter(optimizer, dict(model.named_parameters()))

    def go(model, optimizer, meter, seeds):
        rows = []
        for seed in seeds:
            torch.manual_seed(seed)
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            rows += measured(meter)
        return rows

    model, optimizer, meter = started()
    go(model, optimizer, meter, range(3))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), meter.state_dict()))
    rows = go(model, optimizer, meter, range(3, 6))
    others = started()
    for part, state in zip(others, saved, strict=True):
        part.load_state_dict(state)
    assert go(*others, range(3, 6)) == rows
    assert str(meter.state_dict()) == str(others[2].state_dict())
    assert "sign_flips/0.weight" in rows[0]


def test_the_example_of_watch():
    outcome = doctest.testmod(watching)
    assert outcome.attempted > 5
    assert outcome.failed == 0


def test_after_needs_before():
    params, optimizer = made(AlphaGrad)
    with pytest.raises(RuntimeError, match="before"):
        Meter(optimizer, params).after()
