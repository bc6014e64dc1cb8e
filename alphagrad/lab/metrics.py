"""The names of metrics, each spelled here alone. Steps are environment steps in reinforcement learning."""

from collections.abc import Mapping

EPISODIC_RETURN = "episode/return"
EPISODIC_LENGTH = "episode/length"
FINAL_RETURN = "final/return"
"""Mean return of the last :data:`FINAL_EPISODES` training episodes."""
FINAL_EPISODES = 100
EVAL_RETURN = "eval/return"
"""Mean return of evaluation episodes under the greedy policy."""
EVAL_LENGTH = "eval/length"

TD_LOSS = "loss/td_mean"
TD_LOSS_MAX = "loss/td_max"
"""Largest squared TD error of a single transition since the last point."""
Q_VALUES = "value/q_mean"
EPSILON = "exploration/epsilon"
POLICY_LOSS = "loss/policy"
VALUE_LOSS = "loss/value"
CRITIC_LOSS = "loss/critic"
ACTOR_LOSS = "loss/actor"
ENTROPY = "policy/entropy"
APPROX_KL = "policy/approx_kl"
"""Schulman's estimate (r − 1) − log r of KL(old, new)."""
CLIP_FRACTION = "policy/clip_fraction"
EXPLAINED_VARIANCE = "value/explained_variance"
LEARNING_RATE = "optimizer/learning_rate"
STEPS_PER_SECOND = "time/steps_per_second"

GRAD_NORM = "grad_norm"
UPDATE_NORM = "update_norm"
SATURATION = "saturation"
ALPHA = "alpha"
SKIPPED = "skipped"


def per_tensor(quantity: str, tensor: str) -> str:
    """The name of a quantity measured on one parameter tensor."""
    return f"{quantity}/{tensor}"


def headline(values: Mapping[str, float]) -> str:
    """The few metrics worth a line when a run ends."""
    return ", ".join(f"{name} {values[name]:.1f}" for name in (FINAL_RETURN, EVAL_RETURN) if name in values)
