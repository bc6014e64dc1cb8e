"""Muon takes the hidden matrices alone."""

from __future__ import annotations

import torch
from stacks import gradients, of_run, parameters

from alphagrad.harness.baselines import muon


def muon_step(named: dict[str, torch.Tensor], grads: dict[str, torch.Tensor], **settings) -> dict[str, torch.Tensor]:
    params = {name: p.clone() for name, p in named.items()}
    defaults = {
        "lr": 0.02, "momentum": 0.95, "nesterov": True, "ns_steps": 5, "weight_decay": 0.0,
        "adamw_lr": 1e-3, "adamw_betas": (0.9, 0.95), "adamw_eps": 1e-10, "adamw_wd": 0.0,
    }  # fmt: skip
    optimizer = muon(list(params.items()), **{**defaults, **settings})
    for name, p in params.items():
        p.grad = grads[name].clone()
    optimizer.step()
    return params


def test_muon_takes_the_hidden_matrices_alone():
    named, grads = of_run(parameters(1), 0), of_run(gradients(1, 1)[0], 0)
    after = muon_step(named, grads)
    hidden = {"0.weight", "2.weight"}
    # the rest moves as under torch's own AdamW
    rest = {n: p.clone() for n, p in named.items() if n not in hidden}
    adamw = torch.optim.AdamW(rest.values(), lr=1e-3, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
    for name, p in rest.items():
        p.grad = grads[name].clone()
    adamw.step()
    for name, p in rest.items():
        torch.testing.assert_close(after[name], p, rtol=1e-5, atol=1e-7)
    # the hidden weights move along a nearly orthogonal matrix: singular values near one another
    for name in hidden:
        singular = torch.linalg.svdvals(after[name] - named[name])
        assert singular.max() / singular.min() < 2
        raw = torch.linalg.svdvals(grads[name])
        assert raw.max() / raw.min() > 3
    # and the two learning rates are each other's business
    faster = muon_step(named, grads, lr=0.04)
    for name in named:
        assert torch.equal(faster[name], after[name]) == (name not in hidden)
    faster = muon_step(named, grads, adamw_lr=2e-3)
    for name in named:
        assert torch.equal(faster[name], after[name]) == (name in hidden)


def test_muon_without_hidden_weights():
    named = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    after = muon_step(named, {"weight": torch.ones(2, 3), "bias": torch.ones(2)})
    torch.testing.assert_close(after["weight"], torch.ones(2, 3) - 1e-3)
