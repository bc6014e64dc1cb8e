"""Image classification: embedded digits to ImageNet, an MLP to any model of torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import nn

from alphagrad.exporting.network import Network, Predict
from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.memory import check_memory
from alphagrad.harness.recipe import Capability, Log, Objective
from alphagrad.harness.stack import RunStack
from alphagrad.landscape.loss import FixedLoss

from .supervised import classify
from .supervised.confusion import draw_confusion
from .supervised.deployed import as_integers, trained
from .supervised.learner import Learner
from .supervised.learners import learner_of
from .supervised.loop import FitPlan, Target, fit
from .supervised.outline import MODEL_BYTES, Outline
from .supervised.parallel import parallel_of, processes
from .supervised.precision import Numbers, check_scaled
from .supervised.quantized import Quantization, check_quantizes, quantized
from .supervised.settings import SupervisedSettings, check_step, part_of, training_of, vmaps
from .supervised.surveyed import surveyed
from .vision.data import DataSettings, Sweep, dataset
from .vision.models import STACKED, ModelSettings, build_model, outline
from .vision.pictures import MISTAKES, draw_mistakes

CPU = torch.device("cpu")
LARGE = ("recipe.batch_size", "recipe.eval_batch_size", "model.hidden", "model.channels", "data.pad")
"""Settings that say what a run takes in memory."""


class ImageSettings(SupervisedSettings):
    """See conf/recipe/image.yaml for what each means."""

    data: DataSettings
    model: ModelSettings
    epochs: PositiveInt
    label_smoothing: float = Field(ge=0, lt=1)
    channels_last: Literal[True, False, "auto"]
    quantization: Quantization = "none"
    gap_images: NonNegativeInt
    target: float | None = Field(gt=0, le=1)
    figure: bool = True


class Image:
    """A classifier of images, trained and tested as the settings say."""

    Settings = ImageSettings
    objective = Objective(metrics.EVAL_ACCURACY)
    headlines: ClassVar[Mapping[str, int]] = {metrics.EVAL_ACCURACY: 4, metrics.EVAL_LOSS: 4}
    capabilities = (Capability.STACKED, Capability.SHARDED, Capability.SURVEYED, Capability.EXPORTED)
    logs = metrics.EXAMPLES | {
        *(metrics.EVAL_ACCURACY, metrics.EVAL_TOP5, metrics.CLEAN_LOSS, metrics.CLEAN_ACCURACY, metrics.GAP),
        *(metrics.TARGET_STEPS, metrics.TARGET_SECONDS, metrics.IMAGES_PER_SECOND),
    }

    def __init__(self, settings: ImageSettings) -> None:
        self.settings = settings
        self.data = dataset(settings.data)
        check_step(settings, self.data.count)
        self.outline = self._outline(settings)
        self._check_quantization(settings)
        check_memory(settings, self.bytes_of, LARGE)
        objective = classify.classification_objective(settings.label_smoothing)
        self.training = training_of(settings, self._model, objective, self._channels_last(self.outline.model))
        self.vmaps(runs=1)  # can it be as it is asked for?

    def _outline(self, s: ImageSettings) -> Outline:
        return outline(s.model, self.data.shape, len(self.data.classes), part_of(s))

    def bytes_of(self, s: ImageSettings, runs: int = 1) -> float:
        """What runs take in memory, about."""
        model = self.outline if s.model == self.settings.model else self._outline(s)
        channels, height, width = self.data.shape
        padded = channels * (height + 2 * s.data.pad) * (width + 2 * s.data.pad) if s.data.pad else 0
        evaluated = min(s.eval_batch_size, self.data.tested) * 2 * model.widest
        together = runs if s.stack == "vmap" else 1
        numbers = together * max(part_of(s) * model.activations, evaluated)
        return MODEL_BYTES * runs * model.parameters + 4 * numbers + self.data.count * padded

    @property
    def steps_per_epoch(self) -> int:
        """An epoch's last, smaller batch is left out."""
        return self.data.count // self.settings.batch_size

    @property
    def total_steps(self) -> int:
        """Optimizer steps of each run."""
        return self.settings.epochs * self.steps_per_epoch

    def check_optimizer(self, spec: OptimizerSpec) -> None:
        """Raises ``ValueError`` for an optimizer that cannot train under the recipe's settings."""
        check_scaled(self.settings.precision, spec)

    def networks(self) -> dict[str, nn.Module]:
        """The classifier."""
        return {"model": self._model()}

    def _model(self) -> nn.Module:
        model = build_model(self.settings.model, self.data.shape, len(self.data.classes))
        return quantized(model, self.settings.quantization)

    def _check_quantization(self, s: ImageSettings) -> None:
        check_quantizes(self.outline.model, s.model.name, s.quantization, s.precision, s.ema)
        if s.quantization != "none" and processes() > 1:
            raise ValueError(f"recipe.quantization={s.quantization}: is for one process, got {processes()}")

    def _channels_last(self, model: nn.Module) -> bool:
        s = self.settings
        if s.channels_last != "auto":
            return s.channels_last
        return s.stack != "vmap" and any(isinstance(m, nn.Conv2d) for m in model.modules())

    def vmaps(self, runs: int) -> bool:
        """Whether so many runs train as one tensor program."""
        parameters = sum(p.numel() for p in self._model().parameters())
        repays = parameters <= STACKED.get(self.settings.model.name, 0)
        against = "" if self.settings.quantization == "none" else f"recipe.quantization={self.settings.quantization}"
        return vmaps(self.settings, self.training, runs, repays, against)

    def train(self, stack: RunStack, log: Log) -> list[dict[str, Any]]:
        """Trains all runs in lockstep; see :class:`alphagrad.harness.recipe.Recipe`."""
        s = self.settings
        parallel = parallel_of(s.parallel)
        numbers = Numbers(s.precision, stack.device, s.rounding)
        learner = learner_of(stack, self.training, numbers, parallel, self.vmaps(len(stack)))
        batches = self.data.batches(stack, s.batch_size, parallel.share)
        exam = ImageExam(self, stack, log)
        plan = FitPlan(
            total_steps=self.total_steps,
            schedule=s.schedule,
            log_every=s.log_every,
            eval_every=s.eval_every * self.steps_per_epoch,
            measures=classify.MEASURES,
            rates={metrics.IMAGES_PER_SECOND: s.batch_size},
            target=None if s.target is None else Target(metrics.EVAL_ACCURACY, s.target),
        )
        return fit(plan, learner, batches, exam, stack, log)

    def fixed_loss(self, checkpoint: Mapping[str, Any], examples: int, device: torch.device) -> FixedLoss:
        """On training images without augmentation, in batches as in training."""
        images = self.data.sample(device, self.settings.batch_size, examples)
        return surveyed(self._model, self.training.objective, checkpoint, images, device)

    def exported(self, checkpoint: Mapping[str, Any]) -> Network:
        """The classifier, judged by the test images."""
        module = trained(self._model, checkpoint)
        graph, narrow = as_integers(module)
        images = self.data.test(CPU, self.settings.eval_batch_size)

        def score(predict: Predict) -> Mapping[str, float]:
            scores = classify.judged(lambda x: predict(x).unsqueeze(0), images, 1, len(self.data.classes), CPU)
            return scores.rows()[0]

        example = torch.zeros(1, *self.data.shape)
        names = ("images", "logits")
        return Network(module, graph, narrow, example, {0: "batch"}, names, score, metrics.EVAL_ACCURACY)


class ImageExam:
    """What is asked of the classifiers at an evaluation: the test images, and some they have seen.

    After the last step each run's confusion matrix and its most confident mistakes are drawn, unless ``figure`` is
    off.
    """

    def __init__(self, recipe: Image, stack: RunStack, log: Log) -> None:
        self.s, self.classes, self.stack, self.log = recipe.settings, recipe.data.classes, stack, log
        size = self.s.eval_batch_size
        self.test = recipe.data.test(stack.device, size)
        self.seen = recipe.data.sample(stack.device, size, self.s.gap_images) if self.s.gap_images else None

    def __call__(self, learner: Learner, step: int, last: bool) -> list[dict[str, float]]:
        """Each run's scores."""
        drawn = last and self.s.figure
        scores = self._scores(learner, self.test, MISTAKES if drawn else 0)
        rows = scores.rows()
        for run, row in enumerate(rows) if drawn else ():
            self._draw(run, scores, f"{row[metrics.EVAL_ACCURACY]:.2%} right after {step + 1} steps")
        if self.seen is not None:
            known = self._scores(learner, self.seen).rows()
            rows = [classify.with_gap(row, own) for row, own in zip(rows, known, strict=True)]
        return rows

    def _scores(self, learner: Learner, images: Sweep, mistakes: int = 0) -> classify.Scores:
        runs, classes = len(self.stack), len(self.classes)
        return classify.judged(learner.predict, images, runs, classes, self.stack.device, mistakes)

    def _draw(self, run: int, scores: classify.Scores, title: str) -> None:
        title = f"{self.s.data.name}, {self.s.model.name}: {title}"
        counts, mistakes = scores.confusion[run].cpu().numpy(), scores.mistakes(run)
        self.log.artifact(run, "confusion.png", lambda file: draw_confusion(file, counts, self.classes, title))
        self.log.artifact(
            run, "mistakes.png", lambda file: draw_mistakes(file, mistakes, self.test.picture, self.classes, title)
        )
