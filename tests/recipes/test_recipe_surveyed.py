"""The loss on fixed examples of recipes that have one: torch's own numbers, and twice differentiable."""

from __future__ import annotations

import math

import pytest
import torch
from alphagrad.recipes.language.models import Bag
from alphagrad.recipes.supervised.classify import classification_objective
from alphagrad.recipes.supervised.surveyed import surveyed
from tiers import quick_where
from torch import nn
from torch.nn.functional import cross_entropy

from alphagrad.lab.config.build import build_recipe
from alphagrad.lab.config.compose import compose, hydra_initialized
from alphagrad.landscape.sharpness import largest_eigenvalues

RECIPES = {
    "image": ("model=cnn", "model.norm=batch", "model.channels=[4]", "model.hidden=[8]"),
    "text": ("model=mlp", "model.hidden=[4]", "recipe.vocabulary=300"),
    "lm": ("model.width=8", "model.layers=1", "model.heads=2", "recipe.length=8"),
    "regression": ("recipe.hidden=[4]",),
}
OBJECTIVE = classification_objective(0.0)
CPU = torch.device("cpu")


@pytest.mark.parametrize("recipe", quick_where(RECIPES, lambda recipe: recipe != "text"))
def test_a_recipe_has_its_training_loss(recipe):
    with hydra_initialized():
        built = build_recipe(compose([f"recipe={recipe}", *RECIPES[recipe], "recipe.batch_size=16"]))
    (model,) = built.networks().values()
    loss = built.fixed_loss({"model": model.state_dict()}, 40, CPU)
    assert len(loss.parts) == (1 if recipe == "regression" else 3)
    assert set(loss.shapes) == {name for name, _ in model.named_parameters()}
    chance = {"image": 10, "text": len(built.data.classes) if recipe == "text" else 1, "lm": 257}.get(recipe)
    if chance is not None:  # an untrained model knows little more than nothing
        assert loss.value(loss.start) == pytest.approx(math.log(chance), rel=0.2)
    assert torch.isfinite(loss.curvature(loss.start, loss.gradient(loss.start))).all()
    assert loss.value(loss.start) == loss.value(loss.start)  # no part of it changes
    with pytest.raises(ValueError, match="has no"):
        built.fixed_loss({"model": {}}, 40, CPU)
    with pytest.raises(ValueError, match="has no model"):
        built.fixed_loss({}, 40, CPU)


def normalized() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2))


def test_normalisations_take_the_batchs_statistics_and_leave_the_runs_alone():
    torch.manual_seed(0)
    net = normalized()
    net[1].running_mean += 5.0
    saved = {name: t.clone() for name, t in net.state_dict().items()}
    batches = [(torch.randn(n, 3), torch.randint(2, (n,))) for n in (8, 4)]
    loss = surveyed(normalized, OBJECTIVE, {"model": saved}, batches, CPU)
    net[3].p = 0.0
    expected = sum(cross_entropy(net.train()(x), y) * len(x) for x, y in batches) / 12
    assert loss.value(loss.start) == pytest.approx(expected.item(), rel=1e-6)
    assert "1.running_mean" not in loss.shapes


class Tied(nn.Module):
    """Embeddings that are the output's weights, and a layer that does not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.middle = nn.Linear(4, 4).requires_grad_(False)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.middle(self.embedding(ids)))


@pytest.mark.parametrize("both", [True, False])
def test_tied_weights_are_one_and_frozen_ones_stay(both):
    torch.manual_seed(0)
    net, ids = Tied(), torch.randint(7, (9,))
    saved = net.state_dict() if both else dict(net.named_parameters())  # stacks keep each parameter once
    loss = surveyed(Tied, OBJECTIVE, {"model": saved}, [(ids, ids)], CPU)
    assert loss.shapes == {"embedding.weight": (7, 4)}
    assert loss.value(loss.start) == pytest.approx(cross_entropy(net(ids), ids).item(), rel=1e-6)
    with torch.no_grad():
        net.embedding.weight.mul_(2)
    assert loss.value(2 * loss.start) == pytest.approx(cross_entropy(net(ids), ids).item(), rel=1e-6)
    whole = torch.func.hessian(lambda v: cross_entropy(torch.func.functional_call(net, loss.named(v), (ids,)), ids))
    largest = torch.linalg.eigvalsh(whole(loss.start))[-1].item()
    assert largest_eigenvalues(loss, loss.start, 1)[0][0] == pytest.approx(largest, rel=1e-3)


def test_a_bag_of_embeddings_has_second_derivatives():
    torch.manual_seed(0)
    bag, ids = Bag(20, [4, 3], 2, 0.0, 0), torch.randint(1, 20, (6, 5))
    ids[0, 2:] = 0  # padding
    ids[1] = 0
    classes = torch.randint(2, (6,))
    loss = surveyed(lambda: Bag(20, [4, 3], 2, 0.0, 0), OBJECTIVE, {"model": bag.state_dict()}, [(ids, classes)], CPU)
    cross_entropy(bag(ids), classes).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in bag.parameters()])
    torch.testing.assert_close(loss.gradient(loss.start), expected)
    counts = torch.stack([torch.bincount(row[row != 0], minlength=20) for row in ids]).float()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)  # the embedding is a linear layer on them

    def value(v: torch.Tensor) -> torch.Tensor:
        named = loss.named(v)
        hidden = (shares @ named["embedding.weight"]).relu() @ named["layers.2.weight"].T + named["layers.2.bias"]
        return cross_entropy(hidden.relu() @ named["layers.5.weight"].T + named["layers.5.bias"], classes)

    v = torch.randn_like(expected)
    torch.testing.assert_close(loss.curvature(loss.start, v), torch.func.hessian(value)(loss.start) @ v)
