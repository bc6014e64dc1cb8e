"""What is stated of all tensors together finds a wrong update without the statements of single tensors."""

from __future__ import annotations

import pytest
import torch
from alphagrad.recipes.statements import bounds
from alphagrad.recipes.statements.audit import Audit
from theory_cases import alphagrad, audited, settings_of

from alphagrad import Rule
from alphagrad.alpha import Constant
from alphagrad.normalization import Blend, PerTensor
from alphagrad.transform import Tanh


def uphill(self, scaled, unit, numbers):
    return [-torch.tanh(s) for s in scaled]


def unbent(self, scaled, unit, numbers):
    return scaled


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [("Lemma 2 of ∇f: ", uphill), ("Lemma 2 of all tensors: ", uphill), ("length of v: ", unbent)],
)
@pytest.mark.parametrize("normalization", [PerTensor(), Blend()], ids=["tensor", "blend"])
def test_a_wrong_update_breaks_it(statement, wrong, normalization, monkeypatch):
    tensor = Audit._tensor
    monkeypatch.setattr(Audit, "_tensor", staticmethod(lambda *given: tensor(*given[:-1], [])))
    given = alphagrad(rule=Rule(normalization, Constant(100.0)), momentum=0.5, foreach=True)
    problem = settings_of("noisy_quadratic", snr=100.0)
    assert not audited(problem, given, total_steps=5).ended
    monkeypatch.setattr(Tanh, "__call__", wrong)
    assert statement in audited(problem, given, total_steps=5).ended[0][1]


def test_the_bound_of_all_tensors_is_held_against_their_own(monkeypatch):
    alignment = bounds.alignment_bound
    monkeypatch.setattr(bounds, "alignment_bound", lambda *given: 0.1 * alignment(*given))
    reason = audited("quadratic", alphagrad()).ended[0][1]
    assert "bound of Lemma 2 of all tensors: " in reason
