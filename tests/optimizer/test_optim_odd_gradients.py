"""The instruments on gradients that are zero, missing, sparse or complex."""

import math
import warnings

import pytest
import torch
from measuring import give, made, measured

from alphagrad import AlphaGrad, instruments
from alphagrad.instruments.meter import Meter


def test_a_skipped_step_and_a_gradient_of_zeros():
    params, optimizer = made(AlphaGrad)
    meter = Meter(optimizer, params)
    give(params, 1)
    params["a.weight"].grad[0, 0] = math.nan
    params["b.weight"].grad[0, 0] = math.inf
    params["a.bias"].grad.zero_()
    (row,) = measured(meter)
    assert row["update_norm/a.weight"] == row["update_norm/b.weight"] == row["update_norm/a.bias"] == 0.0
    assert row["grad_norm/b.weight"] == math.inf
    missing = {"grad_norm/a.weight", "cosine/a.weight", "kurtosis/a.weight", "cosine/b.weight", "cosine/a.bias"}
    assert not missing & set(row)
    assert not any(math.isnan(value) for value in row.values())
    counted = {n: int(c.sum()) for n, c in meter.histogram.of_run(0).items()}
    assert counted == {"a.bias": 5, "b.weight": 0, "b.bias": 1, "long": 9000}
    give(params, 2)
    (row,) = measured(meter)
    assert row["sign_flips/a.weight"] == 0.0  # it has not moved before
    assert row["sign_flips/long"] > 0


def test_parameters_at_zero_have_no_ratio():
    p = torch.nn.Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    (row,) = measured(Meter(torch.optim.SGD([p], lr=1.0), {"w": p}))
    assert row["update_norm/w"] == pytest.approx(math.sqrt(3))
    assert "update_ratio/w" not in row
    assert "update_ratio_all/network" not in row


def test_what_has_no_gradient_is_left_out_and_comes_back():
    params, optimizer = made(lambda named: torch.optim.SGD(named, lr=1.0))
    meter = Meter(optimizer, params)
    flips = []
    for step in range(4):
        give(params, 7)
        sign = 1 if step % 2 else -1
        for p in params.values():
            p.grad = p.grad * sign
        if step == 1:
            params["long"].grad = None
        (row,) = measured(meter)
        flips.append((row.get("sign_flips/a.weight"), row.get("sign_flips/long"), "grad_norm/long" in row))
    assert flips == [(None, None, True), (1.0, None, False), (1.0, 0.0, True), (1.0, 1.0, True)]
    frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    assert measured(Meter(torch.optim.SGD([frozen]), {"w": frozen})) == []


def test_sparse_and_complex_gradients_are_left_out_with_a_warning():
    table, phase = torch.nn.Embedding(9, 3, sparse=True), torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    plain = torch.nn.Parameter(torch.ones(2))
    params = {"table": table.weight, "phase": phase, "plain": plain}
    optimizer = torch.optim.SGD(list(params.items()), lr=0.1)

    def step():
        optimizer.zero_grad()
        (table(torch.tensor([1, 2])).sum() + phase.abs().sum() + plain.sum()).backward()
        optimizer.step()

    with instruments.watch(optimizer) as w:
        with pytest.warns(UserWarning, match="table, phase left out"):
            step()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            step()
    assert {row["tensor"] for row in w.rows()} == {"plain"}
