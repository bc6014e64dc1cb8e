"""What classifiers minimize, and how they are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from alphagrad.harness import metrics

from .learner import LossFunction

MEASURES = {metrics.TRAIN_LOSS: "mean", metrics.TRAIN_ACCURACY: "mean"}
"""What :func:`classification_objective` reports of a batch, and how a window of them is summed up."""
TOP = 5


def classification_objective(label_smoothing: float) -> LossFunction:
    """Mean cross-entropy of logits [B, K] against classes [B], and [2]: itself, the accuracy."""

    def measured(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        loss = cross_entropy(logits, classes, label_smoothing=label_smoothing)
        correct = (logits.detach().argmax(-1) == classes).to(loss.dtype).mean()
        return loss, torch.stack([loss.detach(), correct])

    return measured


class Scores:
    """How R classifiers judge a set of examples.

    Args:
        runs: R.
        classes: K.
        device: where the logits are.
        mistakes: how many of each run's most confident mistakes are remembered.
    """

    def __init__(self, runs: int, classes: int, device: torch.device, mistakes: int = 0) -> None:
        self.count = 0
        self.loss = torch.zeros(runs, dtype=torch.float64, device=device)
        self.top = torch.zeros(runs, dtype=torch.int64, device=device)
        self.confusion = torch.zeros(runs, classes, classes, dtype=torch.int64, device=device)
        """Counts of [run, true class, predicted class]."""
        self._kept = mistakes
        # confidence, index, true class and prediction, per run
        self._mistakes = torch.full((4, runs, mistakes), -1.0, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Takes in logits [R, B, K] of examples of classes [B], in the set's order."""
        runs, batch, classes = logits.shape
        wide = logits.double()
        logs = wide.log_softmax(-1)
        wanted = labels.expand(runs, batch)
        self.loss -= logs.gather(-1, wanted.unsqueeze(-1)).squeeze(-1).sum(-1)
        best = logits.topk(min(TOP, classes), dim=-1).indices
        self.top += (best == wanted.unsqueeze(-1)).any(-1).sum(-1)
        predicted = logits.argmax(-1)
        cells = wanted * classes + predicted + torch.arange(runs, device=labels.device)[:, None] * classes**2
        self.confusion += torch.bincount(cells.flatten(), minlength=self.confusion.numel()).view_as(self.confusion)
        if self._kept:
            confidence = logs.amax(-1).exp()
            confidence = confidence.masked_fill(predicted == wanted, -1.0)
            index = torch.arange(self.count, self.count + batch, device=labels.device).expand(runs, batch)
            found = torch.stack([confidence, index.double(), wanted.double(), predicted.double()])
            both = torch.cat([self._mistakes, found], dim=-1)
            order = both[0].argsort(dim=-1, descending=True, stable=True)[:, : self._kept]
            self._mistakes = both.gather(-1, order.expand(4, -1, -1))
        self.count += batch

    def rows(self) -> list[dict[str, float]]:
        """Each run's loss, accuracy and top-5 accuracy (where there are more than 5 classes)."""
        correct = self.confusion.diagonal(dim1=1, dim2=2).sum(-1)
        columns = {metrics.EVAL_LOSS: self.loss, metrics.EVAL_ACCURACY: correct}
        if self.confusion.shape[1] > TOP:
            columns[metrics.EVAL_TOP5] = self.top
        listed = {name: (column.double() / self.count).tolist() for name, column in columns.items()}
        return [{name: column[run] for name, column in listed.items()} for run in range(len(self.loss))]

    def mistakes(self, run: int) -> list[tuple[int, int, int, float]]:
        """Index, true class, predicted class and confidence of a run's most confident mistakes, worst first."""
        rows = self._mistakes[:, run].T.tolist()
        return [(int(i), int(true), int(guess), sure) for sure, i, true, guess in rows if sure >= 0]


def judged(
    predict: Callable[[Tensor], Tensor],
    examples: Iterable[tuple[Tensor, Tensor]],
    runs: int,
    classes: int,
    device: torch.device,
    mistakes: int = 0,
) -> Scores:
    """The scores of R classifiers on batches of inputs [B, ...] and classes [B]."""
    scores = Scores(runs, classes, device, mistakes)
    for inputs, labels in examples:
        scores.add(predict(inputs), labels)
    return scores


def with_gap(row: dict[str, float], train: dict[str, float]) -> dict[str, float]:
    """A test set's row with what the same classifier scores on training examples, and the gap between them."""
    accuracy = train[metrics.EVAL_ACCURACY]
    told = {metrics.CLEAN_LOSS: train[metrics.EVAL_LOSS], metrics.CLEAN_ACCURACY: accuracy}
    return {**row, **told, metrics.GAP: accuracy - row[metrics.EVAL_ACCURACY]}
