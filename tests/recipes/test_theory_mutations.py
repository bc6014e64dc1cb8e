"""An update that is wrong in one respect breaks an inequality that the right one keeps: a table in docs/theory.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from theory_cases import alphagrad, audited, settings_of

from alphagrad import Rule, batch, measure, step
from alphagrad.alpha import Constant, SqrtDim
from alphagrad.normalization import Global, PerModule, shared
from alphagrad.transform import Tanh


def drop_epsilon(patch):
    divisors = step.divisors

    def without(batches, grad_scale=None):
        return [by - b.eps for by, b in zip(divisors(batches, grad_scale), batches, strict=True)]

    patch.setattr(step, "divisors", without)


def argument_for_tanh(patch):
    patch.setattr(Tanh, "__call__", lambda self, scaled, unit, numbers: scaled)


def norm_of_the_group(patch):
    def together(batches):
        return [shared(b.norms, [info.group for info in b.infos]).double() for b in batches]

    patch.setattr(measure, "unit_norms", together)


def sign_of_momentum(patch):
    numbers_of = step.numbers_of

    def negative(*given):
        numbers = numbers_of(*given)
        return numbers | ({"momentum": -numbers["momentum"]} if "momentum" in numbers else {})

    patch.setattr(step, "numbers_of", negative)


def momentum_before_tanh(patch):
    """v ← γ·v + g, and then the norm and the tanh of v."""
    buffers: dict[int, torch.Tensor] = {}
    update = step.update

    def first(batches, grad_scale=None, found_inf=None):
        for b in batches:
            for i, (p, g) in enumerate(zip(b.params, b.grads, strict=True)):
                buffers[p.data_ptr()] = b.momentum * buffers.get(p.data_ptr(), 0.0) + g
                b.grads[i] = buffers[p.data_ptr()].clone()
            b.buffers, b.begun = [], []
        update(batches, grad_scale, found_inf)

    patch.setattr("alphagrad.optimizer.update", first)


def alpha_of_the_next_tensor(patch):
    steepness = batch.Batch.steepness
    patch.setattr(batch.Batch, "steepness", lambda self: steepness(self).roll(1, 0))


def tensor_norms_for_global(patch):
    patch.setattr(Global, "norms", lambda self, norms, infos: norms)


def global_norm_for_module(patch):
    patch.setattr(PerModule, "norms", Global.norms)


def dimension_for_its_root(patch):
    patch.setattr(SqrtDim, "initial", lambda self, info: self.k * info.d)


# mutation → rule and settings of the run, its problem, and the statement that finds it
MUTATIONS = {
    drop_epsilon: (Rule(alpha=Constant(1.0)), {"eps": 0.5}, {}, "Lemma 1 in"),
    argument_for_tanh: (Rule(alpha=Constant(100.0)), {}, {}, "Lemma 1 in"),
    norm_of_the_group: (Rule(alpha=Constant(0.5)), {}, {}, "Lemma 2 in"),
    sign_of_momentum: (Rule(alpha=Constant(5.0)), {"momentum": 0.9}, {}, "Lemma 2 in"),
    momentum_before_tanh: (Rule(alpha=Constant(5.0)), {"momentum": 0.9}, {}, "Lemma 2 in"),
    alpha_of_the_next_tensor: (Rule(alpha=SqrtDim(0.2)), {}, {"sizes": [98, 1, 1]}, "Lemma 2"),
    tensor_norms_for_global: (Rule(Global(), Constant(0.5)), {}, {}, "Lemma 1 in"),
    global_norm_for_module: (Rule(PerModule(), Constant(0.5)), {}, {}, "Lemma 2 in"),
    dimension_for_its_root: (Rule(alpha=SqrtDim(0.2)), {}, {}, "Lemma 1 in"),
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.__name__)
def test_a_mutation_of_the_update_breaks_a_statement(mutation, monkeypatch):
    rule, settings, changed, found = MUTATIONS[mutation]
    given = alphagrad(rule=rule, lr=0.01, foreach=True, **settings)  # the plain step, which is what is mutated
    problem = settings_of("quadratic", **changed)
    assert not audited(problem, given, total_steps=10).ended
    mutation(monkeypatch)
    at, reason = audited(problem, given, total_steps=10).ended[0]
    assert found in reason, reason
    assert at < 10


def test_the_table_is_whole():
    """docs/theory.md has a line for each mutation, and the statement that finds it."""
    page = (Path(__file__).resolve().parents[2] / "docs/theory.md").read_text(encoding="utf-8")
    for mutation, (*_, found) in MUTATIONS.items():
        line = next(line for line in page.splitlines() if f"`{mutation.__name__}`" in line)
        assert found.removesuffix(" in") in line
