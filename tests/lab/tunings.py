"""Short tunings."""

from __future__ import annotations

from pathlib import Path


def words(root: Path, trials: int = 5, studies: int = 3, optimizers: str = "adam,sgd") -> list[str]:
    budget = ["--trials", str(trials), "--studies", str(studies)]
    return ["tune", "recipe=odd", f"optimizer={optimizers}", *budget, f"output_root={root}", "stack.processes=1"]
