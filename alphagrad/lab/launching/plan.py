"""Which jobs of a multirun train together: those that differ in seed and optimizer alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import size
from alphagrad.harness import memory
from alphagrad.harness.recipe import Capability
from alphagrad.lab.config.build import build, check_stack, recipe_class
from alphagrad.lab.config.compose import config_hash
from alphagrad.lab.launching.interrupted import PlannedStack, interrupted
from alphagrad.lab.training.job import Assignment

# What may differ between the runs of a stack, or does not touch the numbers.
OWN = ("seed", "optimizer", "optimizer_defaults", "normalization", "alpha", "transform", "stack")


def stacks_of(assignments: Sequence[Assignment], max_runs: int, processes: int) -> list[list[int]]:
    """The jobs' numbers, grouped: one list for each stack.

    Jobs can share a stack when their configurations differ in seed and optimizer alone. Those of one
    optimizer stay side by side, because they then share one optimizer too. A group is cut into as few parts
    of at most ``max_runs`` as keep ``processes`` processes busy.
    """
    if max_runs == 1 or not assignments:
        return [[number] for number in range(len(assignments))]
    groups: dict[str, list[int]] = {}
    configs = [_resolved(assignment.config) for assignment in assignments]
    for number, config in enumerate(configs):
        shared = {key: value for key, value in config.items() if key not in OWN}
        alone = "" if can_be_stacked(str(config["recipe"]["_target_"])) else str(number)
        groups.setdefault(json.dumps(shared, sort_keys=True) + alone, []).append(number)
    busy = max(1, -(-processes // len(groups)))
    found: list[list[int]] = []
    for members in groups.values():
        members.sort(key=lambda number: json.dumps(configs[number]["optimizer"], sort_keys=True))
        parts = min(len(members), max(busy, -(-len(members) // max_runs)))
        bounds = [len(members) * part // parts for part in range(parts + 1)]
        found += [members[low:high] for low, high in pairwise(bounds)]
    return found


@cache
def can_be_stacked(target: str) -> bool:
    """Whether several runs of a recipe train together."""
    return Capability.STACKED in recipe_class(target).capabilities


def check_stacks(configs: Sequence[DictConfig], max_runs: int, processes: int) -> None:
    """:class:`ConfigError` where a stack of these jobs, or those that train at a time, take more memory than there is.

    See :func:`alphagrad.lab.config.build.bytes_of`.
    """
    plain = [{str(k): v for k, v in config.items_ex(resolve=False) if k != "hydra"} for config in configs]
    taken: dict[tuple[str, int], float] = {}
    needs: list[float] = []
    for members in stacks_of([Assignment(own, "", "") for own in plain], max_runs, processes):
        like = config_hash(configs[members[0]]), len(members)
        if like not in taken:
            taken[like] = check_stack(build(configs[members[0]]), len(members))
        needs.append(taken[like])
    largest, there = sorted(needs, reverse=True)[:processes], memory.memory()
    if sum(largest) > there:
        raise ConfigError(
            f"stack.processes={processes}: {len(largest)} stacks at a time take about {size(sum(largest))} of "
            f"memory, and this machine has {size(there)}; give less, or a smaller stack.max_runs"
        )


def planned(assignments: Sequence[Assignment], max_runs: int, processes: int) -> list[PlannedStack]:
    """The stacks to train: those that were interrupted as they were, the other jobs as :func:`stacks_of` has them."""
    stacks = interrupted(assignments)
    taken = {number for stack in stacks for number in stack.jobs.values()}
    left = [number for number in range(len(assignments)) if number not in taken]
    for members in stacks_of([assignments[number] for number in left], max_runs, processes):
        numbers = [left[n] for n in members]
        stacks.append(PlannedStack([assignments[number] for number in numbers], dict(enumerate(numbers))))
    return stacks


def _resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
