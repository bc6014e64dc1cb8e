"""What supervised recipes share: schedules, averages, scores, against torch's and scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from alphagrad.recipes.supervised import classify
from alphagrad.recipes.supervised.averaging import Average
from alphagrad.recipes.supervised.confusion import draw_confusion
from alphagrad.recipes.supervised.loop import Clock, Target
from alphagrad.recipes.supervised.schedules import ScheduleSettings, factor
from alphagrad.recipes.supervised.settings import draws
from alphagrad.recipes.vision.pictures import draw_mistakes
from torch import nn
from torchvision.ops import StochasticDepth

from alphagrad.harness import metrics

CPU = torch.device("cpu")


def rates(total: int, make) -> list[float]:
    """The learning rates of a scheduler of torch's."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, seen = make(optimizer), []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(seen) < total else None
    return seen


@pytest.mark.parametrize("total", [1, 2, 10, 73])
@pytest.mark.parametrize(("warmup", "start", "end"), [(0.3, 0.04, 1e-4), (0.5, 0.0, 0.1)])
def test_one_cycle_is_torchs(total, warmup, start, end):
    s = ScheduleSettings(kind="one_cycle", warmup=warmup, start=start, end=end)
    if total * warmup < 2:  # torch's divides by zero
        assert factor(s, 0, total) == 1.0
        return
    shape = {"pct_start": warmup, "div_factor": 1 / max(start, 1e-30), "final_div_factor": max(start, 1e-30) / end}
    theirs = rates(total, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total, cycle_momentum=False, **shape))
    assert [factor(s, step, total) for step in range(total)] == pytest.approx(theirs, abs=1e-9)


def test_cosine_and_constant_are_torchs():
    scheduler = torch.optim.lr_scheduler
    s = ScheduleSettings(kind="cosine", warmup=0.0, start=0.0, end=0.05)
    theirs = rates(40, lambda o: scheduler.CosineAnnealingLR(o, 39, eta_min=0.05))
    assert [factor(s, step, 40) for step in range(40)] == pytest.approx(theirs)
    s = ScheduleSettings(kind="constant", warmup=0.25, start=0.1, end=0.0)
    theirs = rates(40, lambda o: scheduler.LinearLR(o, 0.1, 1.0, total_iters=9))
    assert [factor(s, step, 40) for step in range(40)] == pytest.approx(theirs)


def test_the_average_is_torchs():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    theirs = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    theirs.update_parameters(module)  # its first update takes the weights as they are
    ours = Average(module.state_dict(), 0.9)
    for _ in range(5):
        module(torch.randn(8, 3))
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn_like(p))
        theirs.update_parameters(module)
        ours.update(module.state_dict())
    for name, expected in theirs.module.state_dict().items():
        if expected.is_floating_point():
            torch.testing.assert_close(ours.tensors[name], expected, msg=name)
    assert ours.tensors["1.num_batches_tracked"] == 5


@pytest.fixture
def judged():
    torch.manual_seed(0)
    logits, labels = 2 * torch.randn(3, 40, 7), torch.randint(7, (40,))
    scores = classify.Scores(3, 7, CPU, mistakes=6)
    for part in (slice(0, 15), slice(15, 40)):
        scores.add(logits[:, part], labels[part])
    return logits, labels, scores


def test_scores_are_scikit_learns(judged):
    from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

    logits, labels, scores = judged
    for run, row in enumerate(scores.rows()):
        shares, truth = logits[run].double().softmax(-1).numpy(), labels.numpy()
        assert row[metrics.EVAL_LOSS] == pytest.approx(log_loss(truth, shares, labels=range(7)))
        assert row[metrics.EVAL_ACCURACY] == pytest.approx(accuracy_score(truth, shares.argmax(1)))
        assert row[metrics.EVAL_TOP5] == pytest.approx(top_k_accuracy_score(truth, shares, k=5, labels=range(7)))
        expected = confusion_matrix(truth, shares.argmax(1), labels=range(7))
        assert np.array_equal(scores.confusion[run].numpy(), expected)


def test_mistakes_are_the_most_confident(judged):
    logits, labels, scores = judged
    for run in range(3):
        shares = logits[run].double().softmax(-1)
        sure, guess = shares.max(-1)
        wrong = [k for k in sure.argsort(descending=True).tolist() if guess[k] != labels[k]][:6]
        found = scores.mistakes(run)
        assert [index for index, *_ in found] == wrong
        for index, true, taken, confidence in found:
            assert (true, taken) == (labels[index], guess[index])
            assert confidence == pytest.approx(float(sure[index]))


def test_perfect_scores_have_no_mistakes(tmp_path):
    scores = classify.Scores(1, 3, CPU, mistakes=4)
    scores.add(10 * torch.eye(3)[None], torch.arange(3))
    (row,) = scores.rows()
    assert row[metrics.EVAL_ACCURACY] == 1
    assert metrics.EVAL_TOP5 not in row  # of three classes, every one would be among the five
    assert scores.mistakes(0) == []
    draw_mistakes(tmp_path / "none.png", [], lambda index: torch.zeros(2, 2, 1), ["a", "b", "c"], "none")
    draw_confusion(tmp_path / "c.png", scores.confusion[0].numpy(), ["a", "b", "c"], "three")
    draw_confusion(tmp_path / "many.png", np.eye(100, dtype=int), [str(k) for k in range(100)], "many")
    assert all(file.stat().st_size > 1000 for file in tmp_path.iterdir())


def test_the_objective_is_torchs():
    torch.manual_seed(0)
    logits, labels = torch.randn(9, 4), torch.randint(4, (9,))
    for smoothing in (0.0, 0.3):
        loss, (same, accuracy) = classify.classification_objective(smoothing)(logits, labels)
        assert loss == same == nn.CrossEntropyLoss(label_smoothing=smoothing)(logits, labels)
        assert accuracy == pytest.approx((logits.argmax(-1) == labels).float().mean().item())


def test_targets():
    rising, falling = Target("a", 0.5), Target("a", 0.5, rising=False)
    assert [rising.reached({"a": v}) for v in (0.4, 0.5, 0.6)] == [False, True, True]
    assert [falling.reached({"a": v}) for v in (0.4, 0.5, 0.6)] == [True, True, False]


def test_the_clock_leaves_pauses_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(Clock, "now", lambda self: now[0])
    clock = Clock(1, CPU)
    now[0] = 2.0
    assert clock.stop() == 2.0
    now[0] = 10.0
    clock.start()
    now[0] = 11.0
    assert clock.stop() == 3.0
    other = Clock(1, CPU)
    other.load_state_dict(clock.state_dict())
    assert other.seconds == 3.0


def test_what_draws_random_numbers_is_known():
    """vmap refuses them."""
    assert [draws(m) for m in (nn.Dropout(), nn.Dropout2d(), StochasticDepth(0.1, "row"))] == [True] * 3
    assert not draws(nn.Linear(1, 1))
