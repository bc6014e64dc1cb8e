"""The names of what is measured on single tensors, each spelled here alone, and how they are summed up over tensors.

Torch is not needed here, so that reports can do without it.
"""

from __future__ import annotations

GRAD_NORM = "grad_norm"
PARAM_NORM = "param_norm"
UPDATE_NORM = "update_norm"
UPDATE_RATIO = "update_ratio"
SATURATION = "saturation"
ALPHA = "alpha"
COSINE = "cosine"
SIGN_FLIPS = "sign_flips"
SIGNAL_TO_NOISE = "signal_to_noise"
SKIPPED = "skipped"
KURTOSIS = "kurtosis"
"""Of the components of a gradient, about 0: 3 for a Gaussian."""
ZEROS = "zeros"
OVERFLOW = "overflow"
"""Of a gradient that half precision computed: NaN or infinite."""
UNDERFLOW = "underflow"
"""Of a gradient that half precision computed: 0, or below its smallest normal number, where it loses digits."""
LOST = "lost"
"""Of the elements that have a gradient: those that the step left as they were, with what is kept of the rounding."""
LOSSES = (OVERFLOW, UNDERFLOW, LOST)
QUANTILES = "quantile_"


def tail(sigmas: int) -> str:
    """The quantity that is the share of components beyond so many σ."""
    return f"beyond_{sigmas}_sigma"


def quantile(level: float) -> str:
    """The quantity that is the components' quantile, in σ, where that of N(0, 1) is ``level``."""
    return f"{QUANTILES}{level:.2f}"


QUANTITIES = {
    GRAD_NORM: "gradient norm ‖g‖₂",
    PARAM_NORM: "norm of the parameters ‖θ‖₂ before the update",
    UPDATE_NORM: "norm of the update ‖Δθ‖₂",
    UPDATE_RATIO: "update over parameters ‖Δθ‖₂/‖θ‖₂",
    SATURATION: "saturation S(α) (share of components)",
    ALPHA: "steepness α",
    COSINE: "cosine of −Δθ and the gradient",
    SIGN_FLIPS: "components that moved against their last measured move (share)",
    SIGNAL_TO_NOISE: "signal over noise of the gradient, squared norms",
    SKIPPED: "skipped updates (count)",
    KURTOSIS: "kurtosis of the gradient's components",
    ZEROS: "exact zeros (share of the gradient)",
    OVERFLOW: "overflow (share of the gradient)",
    UNDERFLOW: "underflow (share of the gradient)",
    LOST: "lost updates (share of components)",
    **{tail(sigmas): f"components beyond {sigmas} σ (share)" for sigmas in (2, 3, 4)},
}
"""What each is, with its unit."""
SUMMARIES = {
    "all": "{}, all tensors of {} as one",
    "least": "{}, least of the tensors of {}",
    "largest": "{}, largest of the tensors of {}",
}
"""How a quantity is summed up over the measured tensors, in words that take its title and the network."""
SUMMARISED = (
    *(GRAD_NORM, PARAM_NORM, UPDATE_NORM, UPDATE_RATIO, SATURATION),
    *(ALPHA, COSINE, SIGN_FLIPS, SIGNAL_TO_NOISE, KURTOSIS),
)
"""The quantities that are summed up."""
NETWORK = "network"
"""What stands for the tensor in the name of a sum-up, where a run has one optimizer."""


def summary(quantity: str, kind: str) -> str:
    """The quantity that sums up another over the tensors, by one of :data:`SUMMARIES`."""
    return f"{quantity}_{kind}"


SUMMED_UP = {summary(quantity, kind): (quantity, kind) for quantity in SUMMARISED for kind in SUMMARIES}
LOST_IN_ALL = {summary(quantity, "all"): (quantity, "all") for quantity in LOSSES}


def is_of_tensors(quantity: str) -> bool:
    """Whether a quantity is measured on single tensors, or sums one up."""
    return quantity in {*QUANTITIES, *SUMMED_UP, *LOST_IN_ALL} or quantity.startswith(QUANTILES)


def title(quantity: str, of: str) -> str | None:
    """What a quantity of a tensor, or of a network, is, with its unit; None of one that is not known."""
    if quantity in QUANTITIES:
        return f"{QUANTITIES[quantity]} of {of}"
    measured, kind = (SUMMED_UP | LOST_IN_ALL).get(quantity, ("", ""))
    return SUMMARIES[kind].format(QUANTITIES[measured], of) if measured else None
