"""The names of metrics, each spelled here alone.

Steps are environment steps in reinforcement learning and optimizer steps in supervised learning.
"""

from collections.abc import Collection, Mapping

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
TRAIN_LOSS = "train/loss"
"""Mean training loss since the last point, under augmentation and label smoothing."""
TRAIN_ACCURACY = "train/accuracy"
EVAL_LOSS = "eval/loss"
"""Mean cross-entropy on the whole test set; no smoothing, no augmentation."""
EVAL_ACCURACY = "eval/accuracy"
EVAL_TOP5 = "eval/top5_accuracy"
CLEAN_LOSS = "eval/train_loss"
"""As :data:`EVAL_LOSS`, on a fixed part of the training set."""
CLEAN_ACCURACY = "eval/train_accuracy"
GAP = "eval/generalization_gap"
"""Accuracy on that part of the training set minus accuracy on the test set."""
TARGET_STEPS = "target/steps"
"""Optimizer steps until the target accuracy was first seen in an evaluation."""
TARGET_SECONDS = "time/to_target"
"""Training time until then, evaluations left out."""
EVAL_F1 = "eval/macro_f1"
"""Mean over the classes of their F1 on the whole test set."""
EVAL_PERPLEXITY = "eval/perplexity"
"""exp(:data:`EVAL_LOSS`), a token."""
EVAL_BITS = "eval/bits_per_byte"
"""The whole validation text's cross-entropy in bits over its bytes in UTF-8: independent of the tokenizer."""
TOKENS_PER_SECOND = "time/tokens_per_second"
MFU = "time/mfu"
"""Model FLOP/s of training over what the device does in a matrix product."""
IMAGES_PER_SECOND = "time/images_per_second"
LEARNING_RATE = "optimizer/learning_rate"
STEPS_PER_SECOND = "time/steps_per_second"

GRAD_NORM = "grad_norm"
UPDATE_NORM = "update_norm"
SATURATION = "saturation"
ALPHA = "alpha"
SKIPPED = "skipped"


PER_TENSOR = (GRAD_NORM, UPDATE_NORM, SATURATION, ALPHA, SKIPPED)
"""Quantities of single tensors."""
EPISODES = frozenset({EPISODIC_RETURN, EPISODIC_LENGTH, FINAL_RETURN, EVAL_RETURN, EVAL_LENGTH, STEPS_PER_SECOND})
"""What every recipe of reinforcement learning logs."""
EXAMPLES = frozenset({TRAIN_LOSS, TRAIN_ACCURACY, EVAL_LOSS, LEARNING_RATE, STEPS_PER_SECOND})
"""What every recipe logs that learns from examples."""


def per_tensor(quantity: str, tensor: str) -> str:
    """The name of a quantity measured on one parameter tensor."""
    return f"{quantity}/{tensor}"


HEADLINES = {
    FINAL_RETURN: "{:.1f}",
    EVAL_RETURN: "{:.1f}",
    EVAL_ACCURACY: "{:.4f}",
    EVAL_F1: "{:.4f}",
    EVAL_LOSS: "{:.4f}",
    EVAL_BITS: "{:.3f}",
}
"""The few metrics worth a column or a line, and how their numbers are written."""


def headline(values: Mapping[str, float]) -> str:
    """What a line about a finished run says."""
    return ", ".join(f"{name} {form.format(values[name])}" for name, form in HEADLINES.items() if name in values)


def is_logged(name: str, logs: Collection[str]) -> bool:
    """Whether a recipe that logs ``logs`` may log a metric, those of single tensors included."""
    return name in logs or name.partition("/")[0] in PER_TENSOR


def objective(values: Mapping[str, float]) -> float | None:
    """What an optimizing sweeper maximizes."""
    if EVAL_RETURN in values or EVAL_ACCURACY in values:
        return values.get(EVAL_RETURN, values.get(EVAL_ACCURACY))
    return -values[EVAL_LOSS] if EVAL_LOSS in values else None
