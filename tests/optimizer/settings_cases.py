"""Every argument of every slot, with values that change the trajectory."""

from alphagrad import Rule
from alphagrad.alpha import Constant, FanIn, Quantile, Saturation, Schedule, SqrtDim, SqrtTotal
from alphagrad.normalization import Blend, PerGroup
from alphagrad.transform import FromSaturation, Hybrid, ScaledTanh, SinTanh
from alphagrad.values import Ramp

SMOOTH = Rule(alpha=Constant(2.0))
NAN, INF = float("nan"), float("inf")
CONTROLLED = {"start": Constant(2.0), "low": 0.3, "high": 0.5, "tau": 0.5, "factor": 1.5}
CONTROLLED |= {"every": 1, "min_alpha": 1e-3, "max_alpha": 1e6}
HYBRID = lambda lam: Rule(alpha=Constant(2.0), transform=Hybrid(lam))  # noqa: E731


def controlled(**change):
    return Rule(alpha=Saturation(**{**CONTROLLED, **change}))


def scheduled(**change):
    return Rule(alpha=Schedule(**{"start": 1.0, "end": 9.0, "steps": 3, "kind": "linear", **change}))


def ramped(**change):
    return HYBRID(Ramp(**{"start": 0.1, "end": 0.9, "steps": 3, "kind": "linear", **change}))


SLOT_ARGUMENTS = {
    (Rule, "normalization"): (SMOOTH, Rule(PerGroup(), Constant(2.0))),
    (Rule, "alpha"): (SMOOTH, Rule(alpha=SqrtDim(2.0))),
    (Rule, "transform"): (SMOOTH, Rule(alpha=Constant(2.0), transform=Hybrid(0.5))),
    (Blend, "rho"): (Rule(Blend(0.2), Constant(2.0)), Rule(Blend(0.8), Constant(2.0))),
    (Constant, "value"): (SMOOTH, Rule(alpha=Constant(3.0))),
    (SqrtDim, "k"): (Rule(alpha=SqrtDim(1.0)), Rule(alpha=SqrtDim(2.0))),
    (SqrtTotal, "k"): (Rule(alpha=SqrtTotal(1.0)), Rule(alpha=SqrtTotal(2.0))),
    (SqrtTotal, "total"): (Rule(alpha=SqrtTotal(1.0)), Rule(alpha=SqrtTotal(1.0, 50))),
    (Quantile, "fraction"): (Rule(alpha=Quantile(0.05)), Rule(alpha=Quantile(0.5))),
    (Quantile, "tau"): (Rule(alpha=Quantile(0.05, 2.5)), Rule(alpha=Quantile(0.05, 1.0))),
    (FanIn, "k"): (Rule(alpha=FanIn(1.0)), Rule(alpha=FanIn(2.0))),
    (Schedule, "start"): (scheduled(), scheduled(start=2.0)),
    (Schedule, "end"): (scheduled(), scheduled(end=2.0)),
    (Schedule, "steps"): (scheduled(), scheduled(steps=7)),
    (Schedule, "kind"): (scheduled(), scheduled(kind="cosine")),
    (Saturation, "start"): (controlled(), controlled(start=Constant(1.0))),
    (Saturation, "low"): (controlled(), controlled(low=0.0)),
    (Saturation, "high"): (controlled(), controlled(high=1.0)),
    (Saturation, "tau"): (controlled(), controlled(tau=1.0)),
    (Saturation, "factor"): (controlled(), controlled(factor=2.0)),
    (Saturation, "every"): (controlled(), controlled(every=3)),
    (Saturation, "min_alpha"): (controlled(), controlled(min_alpha=1.9)),
    (Saturation, "max_alpha"): (controlled(low=0.8, high=0.9), controlled(low=0.8, high=0.9, max_alpha=2.1)),
    (ScaledTanh, "beta"): (
        Rule(alpha=Constant(2.0), transform=ScaledTanh(1.0)),
        Rule(alpha=Constant(2.0), transform=ScaledTanh(0.5)),
    ),
    (SinTanh, "kappa"): (
        Rule(alpha=Constant(2.0), transform=SinTanh(1.0)),
        Rule(alpha=Constant(2.0), transform=SinTanh(2.0)),
    ),
    (Hybrid, "lam"): (HYBRID(0.5), HYBRID(0.2)),
    (FromSaturation, "tau"): (HYBRID(FromSaturation(0.5)), HYBRID(FromSaturation(1.0))),
    (Ramp, "start"): (ramped(), ramped(start=0.5)),
    (Ramp, "end"): (ramped(), ramped(end=0.5)),
    (Ramp, "steps"): (ramped(), ramped(steps=7)),
    (Ramp, "kind"): (ramped(), ramped(kind="exponential")),
}
