"""The theory at every step: it holds for what it covers, and what is wrong on purpose is found."""

from __future__ import annotations

import csv
import math
from functools import partial

import numpy as np
import pytest
import torch
from alphagrad.recipes.statements import bounds
from alphagrad.recipes.statements.figure import tightness
from alphagrad.recipes.statements.update import update_of
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_cases import PROBLEMS, alphagrad, audited, problem_of, settings_of
from tiers import long, one_in

from alphagrad import Rule
from alphagrad.alpha import Constant, Saturation, Schedule, SqrtDim
from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.normalization import Blend, Global, PerModule, PerTensor, Unnormalized
from alphagrad.transform import FromSaturation, Hybrid, Identity, ScaledTanh, Sign, SinTanh, Tanh
from alphagrad.values import Ramp

BENT = [
    Rule(PerTensor(), Constant(100.0), Tanh()),
    Rule(Global(), Constant(0.5), Tanh()),
    Rule(PerModule(), SqrtDim(1.0), SinTanh(1.5)),
    Rule(Blend(), SqrtDim(2.0), ScaledTanh(0.3)),
    Rule(PerTensor(), Schedule(1.0, 50.0, 30), Tanh()),
    Rule(PerTensor(), Saturation(SqrtDim(1.0), factor=1.5), Tanh()),
    Rule(PerTensor(), SqrtDim(1.0), Hybrid(Ramp(0.0, 1.0, 20))),
    Rule(Global(), SqrtDim(1.0), Hybrid(FromSaturation(1.0))),
    Rule(PerTensor(), None, Sign()),
    Rule(PerTensor(), None, Identity()),
]
COVERED = [alphagrad(momentum=m, rule=rule) for rule in BENT for m in (0.0, 0.9)]


@pytest.mark.parametrize("name", one_in(6, PROBLEMS))
def test_what_holds_holds(name):
    """Every statement, at every step, for every kind of rule, at the theorems' own step size."""
    log = audited(name, *COVERED, total_steps=15, step_size="theorem")
    assert not log.ended
    for run in range(len(COVERED)):
        assert log.column(metrics.VIOLATIONS, run) == [0.0]
        for measured, bound in (metrics.SIDES["Lemma 1"], metrics.SIDES["Theorem 2"], metrics.SIDES["descent"]):
            both = zip(log.column(measured, run), log.column(bound, run), strict=True)
            assert all(m <= b * (1 + 1e-6) + 1e-9 for m, b in both)
        assert len(log.column(metrics.LEMMA2, run)) == 15


PRINTED = {
    "one α and one norm": (Rule(Global(), Constant(5.0), Tanh()), 0.0, "quadratic", {}, None),
    "one α and a norm for each tensor": (Rule(PerTensor(), Constant(5.0), Tanh()), 0.0, "quadratic", {}, None),
    "an α for each tensor": (Rule(PerTensor(), SqrtDim(0.3), Tanh()), 0.0, "rosenbrock", {}, "Lemma 2"),
    "momentum": (Rule(Global(), Constant(5.0), Tanh()), 0.9, "quadratic", {}, "Lemma 1"),
    "noise": (Rule(Global(), Constant(5.0), Tanh()), 0.0, "noisy_quadratic", {"snr": 0.05}, "Lemma 2"),
    "minibatches": (Rule(Global(), Constant(5.0), Tanh()), 0.0, "logistic", {"batch_size": 1}, "Lemma 2"),
    "no normalisation": (Rule(Unnormalized(), Constant(1.0), Tanh()), 0.0, "plateau", {}, "Lemma 2"),
}


@pytest.mark.parametrize("case", one_in(6, PRINTED))
def test_what_is_printed_holds_for_its_own_setting_alone(case):
    """A run of the paper's statements fails where they do not hold; what does hold, holds in the same run."""
    rule, momentum, problem, changed, broken = PRINTED[case]
    given = alphagrad(momentum=momentum, rule=rule, lr=0.05)
    own = settings_of(problem, **changed)
    printed = audited(own, given, total_steps=60, statements="printed")
    if broken is None:
        assert not printed.ended
    else:
        step, reason = printed.ended[0]
        assert reason.startswith(broken)
        assert "off by" in reason
        assert printed.column(metrics.VIOLATIONS)[-1] >= 1
        assert step < 60
    assert not audited(own, given, total_steps=60).ended


def test_momentum_breaks_lemma_2_as_printed():
    log = audited("quadratic", alphagrad(momentum=0.9, lr=0.3), statements="printed", on_violation="note")
    below = [m < b for m, b in zip(log.column(metrics.LEMMA2), log.column(metrics.LEMMA2_BOUND), strict=True)]
    assert any(below)
    assert not log.ended
    assert log.column(metrics.VIOLATIONS)[-1] > 1


# problem → settings with which a run meets a share of L (times 0.9), and its rate
MET = {
    "plateau": ({"distance": 1.0}, 0.5, 0.02),
    "cliff": ({"distance": 0.05}, 0.5, 5e-4),
    "robust": ({}, 0.27, 0.02),
    "rosenbrock": ({"box": 1.2}, 0.38, 0.02),
}


@pytest.mark.parametrize("name", one_in(8, PROBLEMS))
def test_a_wrong_smoothness_is_found(name):
    """Half of the L that is right, or nine tenths of the curvature that is met where L is that of the worst place."""
    changed, share, lr = MET.get(name, ({}, 0.5, 0.02))
    given = alphagrad(momentum=0.0, lr=lr, rule=Rule(alpha=Constant(100.0)))
    L = problem_of(name, **changed).L
    assert not audited(settings_of(name, **changed), given, total_steps=60).ended
    log = audited(settings_of(name, L=share * L, **changed), given, total_steps=60)
    assert log.ended[0][1].startswith(("smoothness: ", "curvature: "))


def test_the_descent_itself_finds_a_wrong_smoothness(monkeypatch):
    """Also without the comparison of gradients, once a run moves about the minimum."""
    monkeypatch.setattr("alphagrad.recipes.statements.audit.Audit._smooth", lambda *_: None)
    given = alphagrad(momentum=0.0, lr=0.3, rule=Rule(alpha=Constant(100.0)))
    assert audited(settings_of("quadratic", L=0.01), given).ended[0][1].startswith("descent: ")
    assert not audited("quadratic", given).ended


@pytest.mark.parametrize("power", [*long(-12, 0), 12])
def test_scale_changes_nothing_but_the_scale(power):
    """C8, with ε = 0: the same way, step for step."""
    given = alphagrad(momentum=0.9, eps=0.0)
    far = audited(settings_of("quadratic", scale=10.0**power), given).column(metrics.DISTANCE)
    assert far == pytest.approx(audited("quadratic", given).column(metrics.DISTANCE), rel=1e-9)


def test_where_L_does_not_hold_nothing_that_needs_it_is_checked(capsys):
    log = audited("rosenbrock", alphagrad(lr=0.05, momentum=0.9), total_steps=20)
    applies = log.column(metrics.APPLIES)
    assert applies[0] == 1.0
    assert applies[-1] == 0.0
    assert not log.ended
    assert len(log.column(metrics.DESCENT_BOUND)) == applies.count(1.0)
    assert len(log.column(metrics.LEMMA2_BOUND)) == 20
    assert "left the region where L holds at step" in capsys.readouterr().err


def test_L_must_hold_at_the_points_that_momentum_leads_to():
    """Descent is about z, which leaves the box long before x does."""
    for box in (1.21, 1.3):
        log = audited(settings_of("rosenbrock", box=box), alphagrad(lr=0.05, momentum=0.99))
        assert not log.ended
        assert log.column(metrics.APPLIES)[0] == 0.0


def test_the_bound_of_its_own_step_knows_of_the_noise():
    """For the theorems' own step size it is the bound itself at the last step, sampled gradients or not."""
    for problem in (settings_of("noisy_quadratic"), settings_of("logistic", batch_size=8)):
        log = audited(problem, alphagrad(momentum=0.0, rule=Rule(Global())), step_size="theorem")
        for bound, own in (
            (metrics.THEOREM1_BOUND, metrics.THEOREM1_OWN),
            (metrics.THEOREM2_BOUND, metrics.THEOREM2_OWN),
        ):
            assert log.column(own)[-1] == pytest.approx(log.column(bound)[-1], rel=0.02)
            assert all(b >= o * (1 - 1e-9) for b, o in zip(log.column(bound), log.column(own), strict=True))


@pytest.mark.slow
def test_noise_breaks_theorem_2_as_printed():
    """Steps of one example each: h(N) comes to rest above the printed bound, which knows of no noise."""
    given = alphagrad(momentum=0.0, lr=1e-3, rule=Rule(Global(), Constant(100.0)))
    own = settings_of("logistic", batch_size=1)
    log = audited(own, given, total_steps=6000, statements="printed", on_violation="note")
    assert log.column(metrics.THEOREM2)[-1] > 1.05 * log.column(metrics.THEOREM2_BOUND)[-1]


def test_an_optimizer_that_no_statement_covers_is_only_measured(capsys):
    specs = [
        OptimizerSpec("adam", partial(torch.optim.Adam, lr=0.01), "elementwise"),
        alphagrad("turning", rule=Rule(transform=SinTanh(3.0))),
        alphagrad("decaying", weight_decay=0.1),
    ]
    log = audited("quadratic", *specs)
    told = capsys.readouterr().err
    for run, why in enumerate(("is no AlphaGrad", "transform.kappa=3.0", "optimizer.weight_decay=0.1")):
        assert why in told
        assert len(log.column(metrics.OPTIMALITY_GAP, run)) == 40
        assert metrics.LEMMA1 not in log.rows[run][0]
    for spec in specs[:2]:
        with pytest.raises(ValueError, match=r"recipe\.step_size=theorem: no theorem is about"):
            audited("quadratic", spec, step_size="theorem")


@pytest.mark.long
def test_a_run_alone_is_the_run_of_a_stack():
    specs = [alphagrad(momentum=0.9), alphagrad(momentum=0.0, rule=Rule(alpha=SqrtDim(2.0)))]
    together = audited("noisy_quadratic", *specs)
    for run, spec in enumerate(specs):
        alone = audited("noisy_quadratic", spec)
        assert together.column(metrics.OPTIMALITY_GAP, run) == pytest.approx(alone.column(metrics.OPTIMALITY_GAP))
    again = audited("noisy_quadratic", *specs)
    assert again.rows == together.rows


def test_the_rate_of_the_theorems():
    """It makes the two terms of the bound equal, and the bound the closed form."""
    log = audited("quadratic", alphagrad(momentum=0.0), step_size="theorem", statements="printed", total_steps=30)
    for theorem, own in (
        (metrics.THEOREM1_BOUND, metrics.THEOREM1_OWN),
        (metrics.THEOREM2_BOUND, metrics.THEOREM2_OWN),
    ):
        assert log.column(theorem)[-1] == pytest.approx(log.column(own)[-1])
        assert all(b >= o * (1 - 1e-12) for b, o in zip(log.column(theorem), log.column(own), strict=True))
    problem = problem_of("quadratic")
    gap = float(problem.value(problem.start))
    closed = math.sqrt(2 * problem.L * problem.n * gap / 30) / math.tanh(100.0)
    assert log.column(metrics.THEOREM2_OWN)[-1] == pytest.approx(closed)


def test_files_of_a_run(tmp_path):
    log = audited("quadratic", alphagrad(), figure=True)
    log.files[0, "statements.png"](tmp_path / "statements.png")
    assert (tmp_path / "statements.png").read_bytes()[:4] == b"\x89PNG"
    log.files[0, "statements.csv"](tmp_path / "statements.csv")
    rows = list(csv.DictReader((tmp_path / "statements.csv").open()))
    assert len(rows) == 40
    assert float(rows[3][metrics.LEMMA1]) == log.column(metrics.LEMMA1)[3]


@given(
    st.floats(0.01, 300.0),
    st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=30),
    st.sampled_from([Tanh(), ScaledTanh(0.5), SinTanh(1.5), SinTanh(0.3), Hybrid(0.4), Identity(), Sign()]),
)
@settings(max_examples=150, deadline=None)
def test_the_bounds_are_bounds(alpha, numbers, transform):
    """Of the lemmas of one tensor, on any gradient, against φ written out."""
    g = np.array(numbers)
    norm = float(np.linalg.norm(g))
    if norm < 1e-100:
        return
    number = float(transform.fixed) if transform.fixed is not None else 0.0
    bend = bounds.Bend(transform, alpha, number)
    by = norm + 1e-3
    scaled = [torch.from_numpy(alpha * g / by)] if transform.uses_alpha else [torch.from_numpy(g / by)]
    v = transform(scaled, [torch.from_numpy(g / by)], [torch.tensor(number, dtype=torch.float64)])[0].numpy()
    slack = 1e-9
    assert v @ v <= bounds.square_bound(bend, len(g), norm, by) * (1 + slack)
    assert g @ v >= bounds.alignment_bound(bend, norm, by) * (1 - slack)
    assert g @ v <= bounds.alignment_limit(bend, norm, by, float(np.abs(g).sum())) * (1 + slack)


def test_the_printed_lemma_2_is_the_case_of_one_norm():
    update = update_of(alphagrad(rule=Rule(Global(), Constant(3.0), Tanh())), {"w": torch.ones(7)})
    assert update is not None
    bend = bounds.Bend(Tanh(), 3.0, 0.0)
    assert bounds.alignment_bound(bend, 2.0, 2.0 + 1e-8) == pytest.approx(math.tanh(3.0) * bounds.h(2.0, 1e-8))
    assert update.square([bend]) <= 7
    assert bounds.h(0.0, 0.0) == 0.0
    assert bounds.h(3.0, 1.0) == 9 / 4


def test_measured_over_bound():
    history = [{metrics.LEMMA1: 1.0, metrics.LEMMA1_BOUND: 4.0}, {metrics.LEMMA1: 3.0, metrics.LEMMA1_BOUND: 4.0}]
    assert tightness(history) == {"tightness/lemma1": 0.5}
