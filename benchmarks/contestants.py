"""The optimizers that the benchmark of a step compares."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch

Build = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def contestants(variants: bool, compiled: bool) -> dict[str, Build]:
    """Name → optimizer; what is not installed is said and left out."""
    from alphagrad import AlphaGrad

    found: dict[str, Build] = {
        "Adam fused": lambda ps: torch.optim.Adam(ps, fused=True),
        "Adam foreach": lambda ps: torch.optim.Adam(ps, foreach=True),
        "Adam default": torch.optim.Adam,
        "SGD fused": lambda ps: torch.optim.SGD(ps, lr=1e-3, fused=True),
        "SGD fused, momentum": lambda ps: torch.optim.SGD(ps, lr=1e-3, momentum=0.9, fused=True),
    }
    momenta: dict[str, dict[str, Any]] = {"": {}, ", momentum": {"momentum": 0.9}}
    ways: dict[str, dict[str, Any]] = {"": {}, " plain": {"fused": False}}
    if compiled:
        ways[" torch.compile"] = {"fused": False, "compile": True}
    if variants:
        named = rules()
        found |= {f"{n}{m}": _ours(AlphaGrad, rule=r, **k) for n, r in named.items() for m, k in momenta.items()}
    else:
        found |= {
            f"AlphaGrad{w}{m}": _ours(AlphaGrad, **how, **k) for w, how in ways.items() for m, k in momenta.items()
        }
        found["AlphaGrad, bfloat16 momentum"] = _ours(AlphaGrad, momentum=0.9, momentum_dtype=torch.bfloat16)
        found |= dict(others())
    return found


def _ours(kind: Any, **settings: Any) -> Build:
    return lambda ps: kind([(f"m{i // 2}.p{i}", p) for i, p in enumerate(ps)], lr=1e-3, **settings)


def rules() -> dict[str, Any]:
    """Every transform, every α policy and every normalisation, one changed at a time."""
    from alphagrad import Rule, alpha, normalization, transform

    policies = [alpha.Constant(), alpha.SqrtDim(), alpha.SqrtTotal(), alpha.Quantile(), alpha.FanIn()]
    policies += [alpha.Schedule(), alpha.Saturation()]
    bends = [transform.Tanh(), transform.ScaledTanh(), transform.SinTanh(), transform.Hybrid()]
    bends += [transform.Hybrid(transform.FromSaturation()), transform.Identity(), transform.Sign()]
    units = [normalization.PerModule(), normalization.PerGroup(), normalization.Global(), normalization.Blend()]
    found = {repr(b): Rule(alpha=alpha.Constant() if b.uses_alpha else None, transform=b) for b in bends}
    found |= {type(p).__name__: Rule(alpha=p) for p in policies[1:]}
    return found | {repr(u): Rule(u) for u in units}


def others() -> Iterable[tuple[str, Build]]:
    """Optimizers of other packages, where they are installed."""
    if has("pytorch_optimizer"):
        import pytorch_optimizer as po

        yield "pytorch-optimizer Lion", po.Lion
        yield "pytorch-optimizer LAMB", po.Lamb
    if has("optimi"):
        import optimi

        yield "optimi Lion", lambda ps: optimi.Lion(ps, lr=1e-3)
    if has("heavyball"):
        import heavyball

        yield "HeavyBall SGD", lambda ps: heavyball.SGD(ps, lr=1e-3, consume_grad=False)


def has(package: str) -> bool:
    """Whether it is installed; says so if not."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"{package}: not installed, left out", file=sys.stderr)
    return found
