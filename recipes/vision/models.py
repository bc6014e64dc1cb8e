"""Image models: an MLP, a small CNN, and torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..supervised.outline import Outline, outlined
from ..supervised.own import OwnSettings, own_model, own_outline

Norm = Literal["none", "group", "batch"]
GROUPS = 8
"""Groups of a group normalisation, or as many as a layer has channels if these are fewer."""


class ModelSettings(OwnSettings):
    """Which model; see conf/model/. A model has the settings that :data:`USES` lists, the others are None."""

    name: str = Field(min_length=1)
    hidden: list[PositiveInt] | None = None
    """mlp: its hidden layers. cnn: those after the convolutions."""
    channels: list[PositiveInt] | None = Field(default=None, min_length=1)
    """cnn: of its convolutions, each followed by a pooling that halves the image."""
    norm: Norm | None = None
    """cnn: what follows a convolution."""
    stem: Literal["small", "imagenet"] | None = None
    """resnet18, resnet50: a 3×3 convolution without pooling, for small images, or the 7×7 one with pooling."""
    patch: PositiveInt | None = None
    """vit_tiny: side of a patch."""


def build_model(s: ModelSettings, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The model for images of ``shape`` [C, H, W].

    Raises:
        ValueError: there is no such model, or it does not fit the images.
    """
    if s.target is not None:
        return own_model(s, offers(shape, classes))
    if s.name not in MAKERS and s.name not in (known := torchvision_models()):
        raise ValueError(f"model.name={s.name}: no such model; there are {', '.join([*MAKERS, *known])}")
    maker = MAKERS.get(s.name, from_torchvision)
    wanted = USES.get(s.name, ())
    for setting in SHAPES:
        given = getattr(s, setting) is not None
        if given and setting not in wanted:
            uses = f"; it has {', '.join(wanted)}" if wanted else ""
            raise ValueError(f"model.{setting}={getattr(s, setting)}: {s.name} has no such setting{uses}")
        if setting in wanted and not given:
            raise ValueError(f"model.{setting}=null: {s.name} needs it")
    return maker(s, shape, classes)


def check_own(s: ModelSettings) -> None:
    """Raises ``ValueError`` where a model of the user's own is given a setting of those that come with alphagrad."""
    for setting in SHAPES:
        if (value := getattr(s, setting)) is not None:
            raise ValueError(f"model.{setting}={value}: {s.target} takes its arguments as model.kwargs.NAME=VALUE")


def offers(shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    """What a model of the user's own is offered."""
    return {"shape": shape, "classes": classes}


def mlp(s: ModelSettings, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Linear layers with ReLU between them on the flattened image."""
    assert s.hidden is not None
    channels, height, width = shape
    return nn.Sequential(nn.Flatten(), *_head(channels * height * width, s.hidden, classes))


def cnn(s: ModelSettings, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """3×3 convolutions, each with normalisation, 2×2 max pooling and ReLU, then linear layers."""
    assert s.channels is not None
    assert s.hidden is not None
    width, height, side = shape[0], shape[1], shape[2]
    layers: list[nn.Module] = []
    for channels in s.channels:
        if min(height, side) < 2:
            raise ValueError(
                f"model.channels={s.channels}: {len(s.channels)} poolings are too many for images of "
                f"{shape[1]}×{shape[2]}"
            )
        layers += [nn.Conv2d(width, channels, 3, padding=1, bias=s.norm == "none"), *_norm(s.norm, channels)]
        layers += [nn.MaxPool2d(2), nn.ReLU()]  # which is ReLU and pooling, with a quarter of the ReLUs
        width, height, side = channels, height // 2, side // 2
    return nn.Sequential(*layers, nn.Flatten(), *_head(width * height * side, s.hidden, classes))


def _head(inputs: int, hidden: list[int], classes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return [*layers, nn.Linear(inputs, classes)]


def _norm(kind: Norm | None, channels: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(channels)]
    if kind == "group":
        groups = min(GROUPS, channels)
        if channels % groups:
            raise ValueError(f"model.channels: {channels} channels cannot be split into {groups} groups (model.norm)")
        return [nn.GroupNorm(groups, channels)]
    return []


def resnet(s: ModelSettings, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet (He et al. 2016) of torchvision; the small stem is the one that is usual for CIFAR."""
    from torchvision import models

    net: nn.Module = getattr(models, s.name)(weights=None, num_classes=classes)
    if s.stem == "small":
        net.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's
        return net
    return three_channels(net, shape)


def vit_tiny(s: ModelSettings, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ViT-Tiny (Touvron et al. 2021, DeiT-Ti): 12 layers of 192 with 3 heads, for square images."""
    from torchvision.models import VisionTransformer

    assert s.patch is not None
    if shape[1] != shape[2] or shape[1] % s.patch:
        raise ValueError(f"model.patch={s.patch}: must divide the side of square images, got {shape[1]}×{shape[2]}")
    net = VisionTransformer(
        image_size=shape[1],
        patch_size=s.patch,
        num_layers=12,
        num_heads=3,
        hidden_dim=192,
        mlp_dim=768,
        num_classes=classes,
    )
    return three_channels(net, shape)


def torchvision_models() -> list[str]:
    """The names of torchvision's classification models."""
    from torchvision import models

    return models.list_models(module=models)


def from_torchvision(s: ModelSettings, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Any classification model of torchvision by its name, untrained."""
    from torchvision import models

    more: dict[str, object] = {}
    if s.name in ("googlenet", "inception_v3"):  # their further heads are for losses of their own
        more = {"aux_logits": False, "init_weights": True}
    elif s.name.startswith("vit_"):
        more = {"image_size": shape[1]}
    try:
        net = models.get_model(s.name, weights=None, num_classes=classes, **more)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        told = f"cannot be built for {shape[1]}×{shape[2]} images and {classes} classes"
        raise ValueError(f"model.name={s.name}: {told} ({error})") from error
    return three_channels(net, shape)


def outline(s: ModelSettings, shape: tuple[int, int, int], classes: int, batch: int) -> Outline:
    """The model, without numbers where that can be, and how large it is.

    Raises:
        ValueError: it cannot be built, or not train on batches of so many images.
    """
    if s.target is not None:
        check_own(s)
        return own_outline(s, offers(shape, classes), lambda: torch.zeros(batch, *shape), (batch, classes))
    with torch.device("meta"):
        try:
            net = build_model(s, shape, classes)
        except RuntimeError as error:  # more numbers than 64 bits can count
            setting = next((name for name in ("hidden", "channels") if getattr(s, name) is not None), "name")
            told = " ".join(str(error).split())[:200]
            raise ValueError(f"model.{setting}={getattr(s, setting)}: no machine can hold it ({told})") from error
        try:
            outputs, found = outlined(net, torch.empty(batch, *shape))
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            told = " ".join(str(error).split())[:200]
            size = f"{batch} images of {shape[0]}×{shape[1]}×{shape[2]}"
            if batch == 1:
                size += " (recipe.batch_size over recipe.accumulate and processes)"
            raise ValueError(f"model.name={s.name}: cannot train on {size} at a time: {told}") from error
    if not isinstance(outputs, Tensor) or outputs.shape != (batch, classes):
        raise ValueError(f"model.name={s.name}: does not give one row of {classes} logits for each image")
    return found


class GrayAsColour(nn.Module):
    """Repeats the one channel of gray images three times, for models that know colour alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.model(x.expand(-1, 3, -1, -1))


def three_channels(net: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """The net for images of any number of channels."""
    return net if shape[0] == 3 else GrayAsColour(net)


MAKERS: dict[str, Callable[[ModelSettings, tuple[int, int, int], int], nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet18": resnet,
    "resnet50": resnet,
    "vit_tiny": vit_tiny,
}
SHAPES = ("hidden", "channels", "norm", "stem", "patch")
"""Settings of single models."""
USES = {
    "mlp": ("hidden",),
    "cnn": ("channels", "hidden", "norm"),
    "resnet18": ("stem",),
    "resnet50": ("stem",),
    "vit_tiny": ("patch",),
}
STACKED = {"mlp": 100_000}
"""Up to how many parameters several runs of a model are faster as one tensor program than one after the other: where
calls take longer than what they compute (docs/results/vision.md). Convolutions never are, on a CPU."""
