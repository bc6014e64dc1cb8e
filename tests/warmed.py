"""What the server of :mod:`warm` has done before it forks: imports, and what else a process does once."""

from __future__ import annotations

import importlib
import sys

import recalled
from hydra.core.plugins import Plugins

Plugins.instance()  # first, as in `alphagrad run`: its search loads modules anew

HEAVY = [
    "alphagrad_cli",
    "alphagrad.lab.commands.run",
    "alphagrad.lab.launching.resume",
    "alphagrad.lab.launching.check",
    "alphagrad.lab.launching.workers",
    "alphagrad.lab.evidence.status",
    "alphagrad.lab.training.runner",
    "mlflow.store.tracking.sqlalchemy_store",
    "alembic.command",
    *(f"alphagrad.recipes.{name}" for name in ("dqn", "ppo", "td3", "image", "text", "lm")),
    # what only the first optimizer, environment, data set, figure and process group would import
    "torch._dynamo",
    "alphagrad.kernels.loops",
    "gymnasium.envs.classic_control.cartpole",
    "sklearn.datasets",
    "matplotlib.figure",
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint.state_dict",
]
for name in HEAVY:
    importlib.import_module(name)

sys.modules["sqlalchemy.orm"].configure_mappers()
compose = sys.modules["alphagrad.lab.config.compose"]
recalled.recalled().__enter__()
with compose.hydra_initialized():
    for recipe in ("dqn_cartpole", "ppo_halfcheetah", "td3_hopper", "image", "text", "lm"):
        compose.compose([f"recipe={recipe}"])
