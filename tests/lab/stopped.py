"""Runs that are stopped, and what they go on from."""

from __future__ import annotations

from pathlib import Path

CONF = Path(__file__).resolve().parents[2] / "conf"
OPTIMIZERS = sorted(file.stem for file in (CONF / "optimizer").glob("[!_]*.yaml"))
# what has a state or a schedule of its own
MORE = [
    ("optimizer=alphagrad", "alpha=saturation"),
    ("optimizer=alphagrad", "alpha=schedule", "alpha.steps=9"),
    ("optimizer=alphagrad", "alpha=quantile"),
    ("optimizer=hybrid", "transform=hybrid_scheduled", "transform.lam.steps=9"),
    ("optimizer=hybrid", "transform=hybrid_adaptive"),
    ("optimizer=adam", "optimizer.amsgrad=true", "optimizer.clip_grad_norm=0.5"),
]
EVERY = ("checkpoint.every_steps=10", "recipe.compile=false")


def interrupt() -> None:
    raise KeyboardInterrupt
