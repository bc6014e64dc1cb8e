"""What `alphagrad alpha` shows: the α every tensor of a recipe's network would get under each rule."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig
from rich.table import Table
from torch import nn

from alphagrad import alpha as policies
from alphagrad.common.words import cell
from alphagrad.harness.driver import rule_of
from alphagrad.lab.config.build import build
from alphagrad.lab.evidence.tables import table as new_table
from alphagrad.values import TensorInfo

RULES: dict[str, policies.Alpha] = {
    "√d": policies.SqrtDim(1.0),
    "3√d": policies.SqrtDim(3.0),
    "√total": policies.SqrtTotal(1.0),
    "3√total": policies.SqrtTotal(3.0),
    "5%>τ": policies.Quantile(0.05, 2.5),
    "√fan-in": policies.FanIn(1.0),
}


def alpha_table(config: DictConfig) -> list[Table]:
    """One table for each network of the recipe: d, fan-in and α by rule; the chosen optimizer's α last."""
    setup = build(config)
    rule = rule_of(setup.optimizer)
    chosen = None if rule is None else rule.alpha
    networks = setup.recipe.networks()
    total = sum(p.numel() for network in networks.values() for p in network.parameters())
    return [
        network_table(f"{config.recipe.name}: {name}", network, chosen, str(config.optimizer.name), total)
        for name, network in networks.items()
    ]


def network_table(title: str, network: nn.Module, chosen: Any, optimizer: str, total: int) -> Table:
    """The table of one network; its last row counts the network and, if there are several, all of them."""
    own_total = sum(p.numel() for p in network.parameters())
    caption = f"network total d = {own_total:,}, √d = {own_total**0.5:,.1f}"
    if total != own_total:
        caption += f"; all networks d = {total:,}, √d = {total**0.5:,.1f}"
    # the rules: sqrt_dim with k = 1 and 3, sqrt_total likewise, quantile, fan_in, and the one chosen
    headings = ("shape", "d", "fan-in", *RULES, *([optimizer] if chosen else []))
    table = new_table("tensor", *headings, right=headings, caption=caption)
    table.title, table.padding = cell(title), (0, 1, 0, 0)
    for name, p in network.named_parameters():
        info = TensorInfo(name, tuple(p.shape), 0, own_total)
        rules = [*RULES.values(), *([chosen] if chosen else [])]
        alphas = [policy.initial(info) for policy in rules]
        shape = "×".join(map(str, p.shape))
        table.add_row(cell(name), shape, f"{info.d:,}", f"{policies.fan_in(p.shape):,}", *(written(a) for a in alphas))
    return table


def written(alpha: float | tuple[float, ...]) -> str:
    """An α, or one for each run."""
    values = alpha if isinstance(alpha, tuple) else (alpha,)
    return "/".join(f"{a:.1f}" if a < 100 else f"{a:.0f}" for a in values)
