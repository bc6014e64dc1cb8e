"""Image models: the published sizes, and outputs for every kind of image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from alphagrad.recipes.vision.models import GrayAsColour, ModelSettings, build_model, outline
from torch import nn

CONF = Path(__file__).resolve().parents[2] / "conf/model"


def model(name: str, shape: tuple[int, int, int], classes: int = 10, **changed) -> nn.Module:
    return build_model(
        ModelSettings(**{**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changed}), shape, classes
    )


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "changed", "count"),
    [
        ("resnet18", (3, 32, 32), 10, {}, 11_173_962),  # kuangliu/pytorch-cifar's ResNet-18
        ("resnet18", (3, 224, 224), 1000, {"stem": "imagenet"}, 11_689_512),  # torchvision's page
        ("resnet50", (3, 224, 224), 1000, {}, 25_557_032),
        ("vit_tiny", (3, 224, 224), 1000, {"patch": 16}, 5_717_416),  # timm's deit_tiny_patch16_224
        ("torchvision", (3, 224, 224), 1000, {}, 2_542_856),
        ("mlp", (1, 28, 28), 10, {"hidden": [300, 100]}, 266_610),  # LeCun et al. 1998's 300-100, with one bias each
        ("cnn", (1, 28, 28), 10, {}, 320 + 18_496 + 64 * 49 * 128 + 128 + 1_290),
    ],
)
def test_sizes_are_the_published_ones(name, shape, classes, changed, count):
    with torch.device("meta"):
        assert size(model(name, shape, classes, **changed)) == count


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18", "vit_tiny"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gray_and_colour(name, channels):
    net = model(name, (channels, 8, 8), classes=4).eval()
    assert net(torch.randn(2, channels, 8, 8)).shape == (2, 4)


def test_gray_is_shown_three_times():
    net, x = model("vit_tiny", (1, 8, 8)).eval(), torch.randn(2, 1, 8, 8)
    assert isinstance(net, GrayAsColour)
    assert torch.equal(net(x), net.model(torch.cat([x, x, x], dim=1)))


def test_the_small_stem_keeps_the_images_size():
    net = model("resnet18", (1, 8, 8))
    seen = []
    net.layer1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    net.eval()(torch.randn(1, 1, 8, 8))
    assert seen == [(1, 64, 8, 8)]


def test_pooling_before_relu_is_relu_before_pooling():
    net = model("cnn", (1, 8, 8), channels=[4], hidden=[5])
    layers = list(net)
    assert [type(layer).__name__ for layer in layers[:3]] == ["Conv2d", "MaxPool2d", "ReLU"]
    other = nn.Sequential(layers[0], layers[2], layers[1], *layers[3:])
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(net(x), other(x))


@pytest.mark.parametrize(("norm", "kind"), [("none", None), ("group", nn.GroupNorm), ("batch", nn.BatchNorm2d)])
def test_norms(norm, kind):
    net = model("cnn", (3, 8, 8), channels=[8, 16], norm=norm)
    found = {type(m) for m in net.modules()} & {nn.GroupNorm, nn.BatchNorm2d}
    assert found == ({kind} if kind else set())
    biases = [m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert biases == [norm == "none"] * 2  # a normalisation has its own


@pytest.mark.parametrize("name", ["googlenet", "vit_b_32"])
def test_torchvisions_models_that_need_more_than_a_name(name):
    """Two heads in training, an image size: they are built to give logits for the images there are."""
    outline(ModelSettings(name=name), (3, 64, 64), 10, batch=4)


@pytest.mark.parametrize(
    ("name", "shape", "batch"),
    [
        ("alexnet", (1, 8, 8), 4),
        ("vit_b_16", (3, 8, 8), 4),
        ("resnet18", (3, 8, 8), 1),
        ("squeezenet1_0", (3, 8, 8), 2),
    ],
)
def test_a_model_that_cannot_train_on_such_images_says_so(name, shape, batch):
    settings = ModelSettings(name=name, stem="imagenet" if name == "resnet18" else None)
    with pytest.raises(ValueError, match=rf"^model\.name={name}: ") as caught:
        outline(settings, shape, 10, batch)
    assert "\n" not in str(caught.value)
    assert ("recipe.batch_size" in str(caught.value)) == (batch == 1)


def test_a_model_that_cannot_be_built_so_says_why():
    with pytest.raises(ValueError, match=r"model\.name=nope: no such model; there are mlp, cnn, resnet18"):
        build_model(ModelSettings(name="nope"), (3, 8, 8), 10)
