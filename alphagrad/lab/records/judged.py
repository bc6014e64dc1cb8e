"""What the runs of a recipe are judged by, as their tags say it to those who do not load the recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from alphagrad.harness import metrics

OBJECTIVE = "alphagrad.objective"
"""Tag: ``max eval/return``."""
HEADLINES = "alphagrad.headlines"
"""Tag: metric → digits, in JSON."""
EARLIER = {
    **metrics.RETURNS,
    metrics.EVAL_ACCURACY: 4,
    metrics.EVAL_F1: 4,
    metrics.EVAL_LOSS: 4,
    metrics.EVAL_BITS: 3,
}
"""Headlines of runs that an earlier alphagrad recorded, without these tags."""
MOST_DIGITS = 20


def tags_of(recipe: Any) -> dict[str, str]:
    """A recipe's tags."""
    judged = recipe.objective
    return {OBJECTIVE: f"{judged.better} {judged.metric}", HEADLINES: json.dumps(dict(recipe.headlines))}


def objective_of(tags: Mapping[str, str], values: Mapping[str, float]) -> tuple[str, str]:
    """The metric that a run is judged by, and whether *max* or *min* of it is better."""
    better, _, metric = tags.get(OBJECTIVE, "").partition(" ")
    if better in ("max", "min") and metric:
        return metric, better
    earlier = ((metrics.EVAL_RETURN, "max"), (metrics.EVAL_ACCURACY, "max"), (metrics.EVAL_LOSS, "min"))
    return next((known for known in earlier if known[0] in values), earlier[0])


def headlines_of(tags: Mapping[str, str]) -> dict[str, int]:
    """The metrics of a run that are worth a column, and the digits of their numbers."""
    try:
        found = json.loads(tags[HEADLINES])
        return {str(name): min(max(int(digits), 0), MOST_DIGITS) for name, digits in found.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return dict(EARLIER)


def told(values: Mapping[str, float], headlines: Mapping[str, int]) -> str:
    """What a line about a finished run says."""
    return ", ".join(f"{name} {values[name]:.{digits}f}" for name, digits in headlines.items() if name in values)
