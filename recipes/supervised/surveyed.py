"""The loss that a model is trained with, on fixed examples, as a function of its weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from alphagrad.landscape.loss import FixedLoss, Part

from .learner import LossFunction

NAME = "model"
"""Of a checkpoint's entry with the weights."""


def weights_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The weights in a checkpoint; ``ValueError`` if it has none."""
    found = checkpoint.get(NAME)
    if not isinstance(found, Mapping):
        raise ValueError(f"has no {NAME}")
    return found


def surveyed(
    build: Callable[[], nn.Module],
    objective: LossFunction,
    checkpoint: Mapping[str, Any],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> FixedLoss:
    """The mean loss of a checkpoint's model on batches of inputs [B, ...] and targets [B, ...], in float32.

    It is a function of the trained weights. Dropout is off. Normalisations over a batch take each batch's own
    statistics, as in training, and not the averages of the run, which belong to its last weights alone. Parameters
    that need no gradient stay as they are, and tied ones are one.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    saved = {name: t.float() if t.is_floating_point() else t for name, t in weights_of(checkpoint).items()}
    module = build().to(device).float()
    for name, parameter in module.named_parameters():
        if name not in saved or saved[name].shape != parameter.shape:
            raise ValueError(f"has no {name} {list(parameter.shape)}")
    module.load_state_dict(saved, strict=False)
    freeze_statistics(module.eval())
    parts = list(batches)
    total = sum(len(inputs) for inputs, _ in parts)

    def part(inputs: Tensor, targets: Tensor) -> Part:
        share = len(inputs) / total

        def value(weights: Mapping[str, Tensor]) -> Tensor:
            outputs = functional_call(module, dict(weights), (inputs,))
            return share * objective(outputs.float(), targets)[0]

        return value

    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return FixedLoss(trained, [part(inputs, targets) for inputs, targets in parts])


def freeze_statistics(module: nn.Module) -> None:
    """Changes a module so that its outputs are a function of inputs and weights, which torch differentiates twice."""
    for own in module.modules():
        if isinstance(own, _NormBase):
            own.track_running_stats = False
            own.running_mean = own.running_var = own.num_batches_tracked = None
        if type(own) is nn.EmbeddingBag:
            own.__class__ = SmoothBag


class SmoothBag(nn.EmbeddingBag):
    """An embedding bag of tokens [B, T] out of operations that have second derivatives, which torch's has not."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """The same outputs [B, E]; ``ValueError`` for a bag of another kind."""
        if (
            self.mode not in ("mean", "sum")
            or offsets is not None
            or per_sample_weights is not None
            or input.dim() != 2
        ):
            raise ValueError("an EmbeddingBag must have mode mean or sum and be given tokens [B, T] alone")
        found = F.embedding(input, self.weight)
        if self.padding_idx is None:
            return found.mean(1) if self.mode == "mean" else found.sum(1)
        counted = (input != self.padding_idx).unsqueeze(-1).to(found)
        total = (found * counted).sum(1)
        return total / counted.sum(1).clamp(min=1) if self.mode == "mean" else total
