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
from theory_cases import PROBLEMS, alphagrad, audited, problem_of, recipe, settings_of

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


@pytest.mark.parametrize("name", PROBLEMS)
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


@pytest.mark.parametrize("case", PRINTED)
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


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_wrong_smoothness_is_found(name):
    """A tenth of the L that is right, or of the curvature met on the way, where L is that of the worst place."""
    given = alphagrad(momentum=0.0, lr=0.02, rule=Rule(alpha=Constant(100.0)))
    problem = problem_of(name)
    log = audited(settings_of(name, L=problem.L * 1e-4), given, total_steps=20)
    if name == "plateau":  # where nothing is bent the first steps do not meet it
        log = audited(settings_of(name, L=0.01, distance=1.0), given, total_steps=20)
    assert log.ended[0][1].startswith("smoothness: ")


def test_the_descent_itself_finds_a_wrong_smoothness(monkeypatch):
    """Also without the comparison of gradients, once a run moves about the minimum."""
    monkeypatch.setattr("alphagrad.recipes.statements.audit.Audit._smooth", lambda *_: None)
    given = alphagrad(momentum=0.0, lr=0.3, rule=Rule(alpha=Constant(100.0)))
    assert audited(settings_of("quadratic", L=0.01), given).ended[0][1].startswith("descent: ")
    assert not audited("quadratic", given).ended


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_constants_are_the_problems(name):
    problem, rng = problem_of(name), np.random.default_rng(1)
    gradient = torch.func.grad(problem.value)
    spread = problem.box or 3.0
    for _ in range(60):
        x, y = (torch.from_numpy(rng.uniform(-spread, spread, problem.n)) for _ in range(2))
        if rng.random() < 0.5:
            y = x + 1e-3 * (y - x)
        assert (gradient(x) - gradient(y)).norm() <= problem.L * (x - y).norm() * (1 + 1e-9)
        assert problem.value(x) >= problem.f_inf
        assert problem.value(x) >= problem.least
        if problem.convex:
            assert problem.value(y) >= problem.value(x) + gradient(x) @ (y - x) - 1e-9
    if problem.x_star is not None:
        assert float(problem.value(problem.x_star)) == pytest.approx(problem.least, abs=1e-12)
        assert gradient(problem.x_star).norm() < 1e-9
    if problem.D is not None and problem.x_star is not None:
        assert float((problem.start - problem.x_star).norm()) <= problem.D


@pytest.mark.parametrize("name", ["sines", "robust", "rosenbrock", "plateau", "cliff"])
def test_what_is_called_not_convex_is_not(name):
    problem, rng = problem_of(name), np.random.default_rng(0)
    hessian = torch.func.hessian(problem.value)
    points = [torch.from_numpy(rng.uniform(-2, 2, problem.n)) for _ in range(30)] + [problem.start]
    assert min(float(torch.linalg.eigvalsh(hessian(x))[0]) for x in points) < -1e-10
    assert not problem.convex


def test_the_sines_satisfy_the_inequality_of_polyak_and_lojasiewicz():
    problem = problem_of("sines")
    x = torch.linspace(-30, 30, 20_001, dtype=torch.float64)
    f = x.square() + 3 * torch.sin(x).square()
    slope = 2 * x + 3 * torch.sin(2 * x)
    assert bool((slope.square() / 2 >= f / 32 - 1e-12).all())
    assert float(problem.value(torch.full((20,), 0.7, dtype=torch.float64))) == pytest.approx(
        20 * (0.49 + 3 * math.sin(0.7) ** 2)
    )


def test_conditioning_is_what_was_asked_for():
    hessian = torch.func.hessian(problem_of("quadratic", sizes=[6, 2], conditioning=50.0).value)
    curvatures = torch.linalg.eigvalsh(hessian(torch.zeros(8, dtype=torch.float64)))
    assert float(curvatures[-1] / curvatures[0]) == pytest.approx(50.0)
    flat = problem_of("convex_quadratic", sizes=[6, 2], flat=0.25)
    curvatures = torch.linalg.eigvalsh(torch.func.hessian(flat.value)(flat.start))
    assert int((curvatures.abs() < 1e-12).sum()) == 2


def test_the_noise_has_the_ratio_that_was_asked_for():
    problem = problem_of("noisy_quadratic", snr=4.0)
    assert problem.sampling is not None
    rng = np.random.default_rng(0)
    drawn = torch.from_numpy(np.stack([problem.sampling.draw(rng) for _ in range(500)]))
    gradient = torch.func.grad(problem.value)(problem.start)
    assert float(gradient.norm() / drawn.square().sum(1).mean().sqrt()) == pytest.approx(4.0, rel=0.02)
    sampled = torch.func.grad(problem.sampling.value)(problem.start, drawn[0])
    assert torch.allclose(sampled, gradient + drawn[0])


def test_a_minibatch_is_of_the_examples():
    problem = problem_of("logistic", batch_size=569)
    assert problem.sampling is not None
    everything = torch.arange(569)
    assert torch.allclose(problem.sampling.value(problem.start + 0.1, everything), problem.value(problem.start + 0.1))
    with pytest.raises(ValueError, match=r"problem\.batch_size=570: there are only 569"):
        problem_of("logistic", batch_size=570)


@pytest.mark.parametrize("power", [-12, 0, 12])
def test_scale_changes_nothing_but_the_scale(power):
    """C8, with ε = 0: the same way, step for step."""
    given = alphagrad(momentum=0.9, eps=0.0)
    far = audited(settings_of("quadratic", scale=10.0**power), given).column(metrics.DISTANCE)
    assert far == pytest.approx(audited("quadratic", given).column(metrics.DISTANCE), rel=1e-9)


def test_where_L_does_not_hold_nothing_that_needs_it_is_checked(capsys):
    log = audited(settings_of("rosenbrock", box=1.21), alphagrad(lr=0.05, momentum=0.9), total_steps=20)
    applies = log.column(metrics.APPLIES)
    assert applies[0] == 1.0
    assert applies[-1] == 0.0
    assert not log.ended
    assert len(log.column(metrics.DESCENT_BOUND)) == applies.count(1.0)
    assert len(log.column(metrics.LEMMA2_BOUND)) == 20
    assert "left the region where L holds at step" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("problem", "changed", "told"),
    [
        ("sines", {"box": 1.0}, r"problem\.box=1\.0: sines has no such setting; it has sizes"),
        ("rosenbrock", {"sizes": [1]}, r"problem\.sizes=\[1\]: rosenbrock needs two"),
        ("rosenbrock", {"box": 1.0}, r"problem\.box=1: must hold the start"),
        ("quadratic", {"sizes": None}, r"problem\.sizes=null: quadratic needs it"),
        ("quadratic", {"sizes": [3000]}, r"problem\.sizes=\[3000\]: must sum up to at most"),
    ],
)
def test_settings_that_do_not_fit(problem, changed, told):
    with pytest.raises(ValueError, match=told):
        recipe(settings_of(problem, **changed))
    with pytest.raises(ValueError, match=r"optimizer\.lr=0"):
        audited("quadratic", alphagrad(lr=0.0))
