"""The rule: which norm divides the gradient, how steep α is, what bends the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass

from alphagrad.alpha import Alpha, Constant
from alphagrad.normalization import Normalization, PerTensor
from alphagrad.transform import Tanh, Transform
from alphagrad.values import PerRun


@dataclass(frozen=True)
class Rule:
    """``g' = transform(α · ĝ, ĝ)`` with ``ĝ = normalization(g)``; a value, hashable and printable.

    Args:
        normalization: the unit over which one L2 norm is taken.
        alpha: the policy that gives each tensor its steepness α; ``None`` exactly when the
            transform does not use α.
        transform: the function of ``α·ĝ`` and ``ĝ`` that becomes the update.

    Raises:
        TypeError: a slot holds something that is not of its kind.
        ValueError: the transform needs an α and none is given, or it ignores the one given.
    """

    normalization: Normalization = field(default_factory=PerTensor)
    alpha: Alpha | None = field(default_factory=Constant)
    transform: Transform = field(default_factory=Tanh)

    def __post_init__(self) -> None:
        if not isinstance(self.normalization, Normalization):
            raise TypeError(f"normalization: expected a Normalization, got {self.normalization!r}")
        if not isinstance(self.transform, Transform):
            raise TypeError(f"transform: expected a Transform, got {self.transform!r}")
        if self.alpha is not None and not isinstance(self.alpha, Alpha):
            raise TypeError(f"alpha: expected an Alpha policy or None, got {self.alpha!r}")
        if self.transform.uses_alpha and self.alpha is None:
            raise ValueError(f"alpha: {self.transform!r} needs a policy, got None")
        if not self.transform.uses_alpha and self.alpha is not None:
            raise ValueError(f"alpha: {self.transform!r} does not use α, so it must be None, got {self.alpha!r}")

    @property
    def counts_steps(self) -> bool:
        """Whether a tensor's update depends on how many came before it."""
        return self.transform.counts_steps or (self.alpha is not None and self.alpha.counts_steps)

    @property
    def spans_tensors(self) -> bool:
        """Whether a tensor's update depends on other tensors."""
        return self.normalization.spans_tensors or (self.alpha is not None and self.alpha.spans_tensors)

    @property
    def changes(self) -> bool:
        """Whether α or the transform's number changes from update to update."""
        return self.counts_steps or bool(self.taus)

    @property
    def taus(self) -> tuple[float, ...]:
        """The thresholds at which the rule must know the saturation S(α)."""
        asked = (self.alpha.tau if self.alpha is not None and self.alpha.controlled else None, self.transform.tau)
        return tuple(dict.fromkeys(tau for tau in asked if tau is not None))

    def run_counts(self) -> Iterator[tuple[str, int]]:
        """The settings that hold one number for each run, and how many they hold."""
        for slot in ("alpha", "transform"):
            yield from run_counts(slot, getattr(self, slot))


def run_counts(path: str, part: object) -> Iterator[tuple[str, int]]:
    """As :meth:`Rule.run_counts`, for one value somewhere in a rule."""
    if isinstance(part, PerRun):
        yield path, len(part)
    elif is_dataclass(part):
        for f in fields(part):
            yield from run_counts(f"{path}.{f.name}", getattr(part, f.name))
