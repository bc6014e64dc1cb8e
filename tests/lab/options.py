"""The options and sections of conf/."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"


def options(group: str) -> list[str]:
    return sorted(f.stem for f in (CONF / group).glob("*.yaml") if not f.stem.startswith("_"))


def section(file: str) -> dict:
    return yaml.safe_load((CONF / file).read_text(encoding="utf-8"))


NAMED = (
    ("0.weight", (6, 4)),
    ("0.bias", (6,)),
    ("2.weight", (5, 6)),
    ("2.bias", (5,)),
    ("4.weight", (2, 5)),
    ("4.bias", (2,)),
)


def parameters(seed: int = 0) -> list[tuple[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [(name, torch.randn(shape, generator=g, dtype=torch.float64)) for name, shape in NAMED]


def keys(model) -> set[str]:
    """The names of settings as files have them."""
    return {field.alias or name for name, field in model.model_fields.items()}
