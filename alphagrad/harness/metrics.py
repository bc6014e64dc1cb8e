"""The names of metrics, each spelled here alone.

Steps are environment steps in reinforcement learning and optimizer steps in supervised learning.
"""

from collections.abc import Collection

from alphagrad.instruments import quantities

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
TRAIN_ERROR = "train/squared_error"
"""Mean squared error of minibatches since the last point; 1 is what predicting the mean target has."""
CLEAN_ERROR = "eval/train_squared_error"
"""The same of all training rows."""
EVAL_ERROR = "eval/squared_error"
FINAL_ERROR = "final/train_squared_error"
"""Mean of :data:`CLEAN_ERROR` over the last tenth of the evaluations."""
DIVERGED = "stability/diverged"
ROUGHNESS = "stability/detrended_variance"
"""Variance of log₁₀ :data:`CLEAN_ERROR` about its moving average."""
OPTIMALITY_GAP = "theory/optimality_gap"
"""f(x_t) − f*, of a problem whose least value is known, else f(x_t) − f_inf."""
FULL_GRAD_NORM = "theory/gradient_norm"
SMOOTHED_NORM = "theory/h"
"""h(N_t) = N_t²/(N_t + ε)."""
GAMMA = "theory/gamma"
DISTANCE = "theory/distance"
APPLIES = "theory/applies"
"""1 while the iterates are where L and D hold, then 0."""
VIOLATIONS = "theory/violations"
COSINE_UNIT = "theory/cosine_to_gradient"
COSINE_SIGN = "theory/cosine_to_sign"
"""Of the step and the signs of the gradient: 1 is signSGD's direction."""
LEMMA1, LEMMA1_BOUND = "lemma1/measured", "lemma1/bound"
LEMMA2, LEMMA2_BOUND = "lemma2/measured", "lemma2/bound"
LEMMA2_FULL = "lemma2/with_full_gradient"
"""⟨∇f, g'⟩, where g' comes of a sampled gradient."""
DESCENT, DESCENT_BOUND = "descent/measured", "descent/bound"
THEOREM1, THEOREM1_BOUND, THEOREM1_OWN = "theorem1/measured", "theorem1/bound", "theorem1/bound_of_own_step"
THEOREM2, THEOREM2_BOUND, THEOREM2_OWN = "theorem2/measured", "theorem2/bound", "theorem2/bound_of_own_step"
SIDES = {
    "Lemma 1": (LEMMA1, LEMMA1_BOUND),
    "Lemma 2": (LEMMA2, LEMMA2_BOUND),
    "descent": (DESCENT, DESCENT_BOUND),
    "Theorem 1": (THEOREM1, THEOREM1_BOUND),
    "Theorem 2": (THEOREM2, THEOREM2_BOUND),
}
"""Statement of the theory → what was measured of it, and its bound."""
TIGHTNESS = {name: f"tightness/{name.lower().replace(' ', '')}" for name in SIDES if name != "descent"}
"""Statement → measured over bound: of the lemmas the median over the steps, of the theorems at the last one."""
LEARNING_RATE = "optimizer/learning_rate"
STEPS_PER_SECOND = "time/steps_per_second"
STATE_BYTES = "cost/state_bytes"
PEAK_BYTES = "cost/peak_bytes"
"""Peak memory (bytes) of the process, or of the GPU; the runs of a stack have it in common."""
EPISODES = frozenset({EPISODIC_RETURN, EPISODIC_LENGTH, FINAL_RETURN, EVAL_RETURN, EVAL_LENGTH, STEPS_PER_SECOND})
"""What every recipe of reinforcement learning logs."""
RETURNS = {FINAL_RETURN: 1, EVAL_RETURN: 1}
"""Headlines of reinforcement learning, with the digits that are worth showing."""
EXAMPLES = frozenset({TRAIN_LOSS, TRAIN_ACCURACY, EVAL_LOSS, LEARNING_RATE, STEPS_PER_SECOND})
"""What every recipe logs that learns from examples."""


def per_tensor(quantity: str, tensor: str) -> str:
    """The name of a quantity measured on one parameter tensor."""
    return f"{quantity}/{tensor}"


def is_logged(name: str, logs: Collection[str]) -> bool:
    """Whether a recipe that logs ``logs`` may log a metric, those of single tensors included."""
    return name in logs or quantities.is_of_tensors(name.partition("/")[0])


TITLES = {
    EPISODIC_RETURN: "episodic return",
    EPISODIC_LENGTH: "episode length (steps)",
    FINAL_RETURN: f"return (mean of the last {FINAL_EPISODES} training episodes)",
    EVAL_RETURN: "evaluation return (mean over episodes)",
    EVAL_LENGTH: "evaluation episode length (steps)",
    TD_LOSS: "squared TD error (mean)",
    TD_LOSS_MAX: "squared TD error (largest)",
    Q_VALUES: "Q value (mean)",
    EPSILON: "exploration ε",
    POLICY_LOSS: "policy loss",
    VALUE_LOSS: "value loss",
    CRITIC_LOSS: "critic loss",
    ACTOR_LOSS: "actor loss",
    ENTROPY: "policy entropy (nats)",
    APPROX_KL: "KL of old and new policy (nats)",
    CLIP_FRACTION: "clipped share of the minibatch",
    EXPLAINED_VARIANCE: "explained variance of returns",
    TRAIN_LOSS: "training loss (nats)",
    TRAIN_ACCURACY: "training accuracy (share)",
    EVAL_LOSS: "evaluation loss (nats)",
    EVAL_ACCURACY: "evaluation accuracy (share)",
    EVAL_TOP5: "evaluation top-5 accuracy (share)",
    CLEAN_LOSS: "loss on training examples (nats)",
    CLEAN_ACCURACY: "accuracy on training examples (share)",
    GAP: "generalization gap (accuracy)",
    TARGET_STEPS: "optimizer steps to the target accuracy",
    TARGET_SECONDS: "training time to the target accuracy (s)",
    EVAL_F1: "evaluation macro F1",
    EVAL_PERPLEXITY: "evaluation perplexity per token",
    EVAL_BITS: "evaluation bits per byte",
    TOKENS_PER_SECOND: "tokens per second",
    MFU: "model FLOP/s over peak FLOP/s",
    IMAGES_PER_SECOND: "images per second",
    TRAIN_ERROR: "training error (squared, of standardised targets)",
    CLEAN_ERROR: "error on all training rows (squared, of standardised targets)",
    EVAL_ERROR: "test error (squared, of standardised targets)",
    FINAL_ERROR: "final error on all training rows (squared)",
    DIVERGED: "diverged (share)",
    ROUGHNESS: "variance of the detrended log₁₀ loss",
    OPTIMALITY_GAP: "f − f*, or f − f_inf where f* is not known",
    FULL_GRAD_NORM: "gradient norm ‖∇f‖₂",
    SMOOTHED_NORM: "h(N)",
    GAMMA: "γ",
    DISTANCE: "distance to the minimum",
    APPLIES: "whether L and D hold here",
    VIOLATIONS: "violated inequalities (count)",
    COSINE_UNIT: "cosine of step and gradient",
    COSINE_SIGN: "cosine of step and signs of the gradient",
    LEMMA1: "‖g'‖²",
    LEMMA1_BOUND: "bound of ‖g'‖²",
    LEMMA2: "⟨g, g'⟩",
    LEMMA2_BOUND: "bound of ⟨g, g'⟩",
    LEMMA2_FULL: "⟨∇f, g'⟩",
    DESCENT: "f after the step",
    DESCENT_BOUND: "bound of f after the step",
    THEOREM1: "mean of f − f* so far",
    THEOREM1_BOUND: "Theorem 1's bound",
    THEOREM1_OWN: "Theorem 1's bound for its own step size",
    THEOREM2: "least h(N) so far",
    THEOREM2_BOUND: "Theorem 2's bound",
    THEOREM2_OWN: "Theorem 2's bound for its own step size",
    **{metric: f"{name}: measured over bound" for name, metric in TIGHTNESS.items()},
    LEARNING_RATE: "learning rate",
    STEPS_PER_SECOND: "steps per second",
    STATE_BYTES: "optimizer state (bytes)",
    PEAK_BYTES: "peak memory (bytes)",
}
"""What each metric is, with its unit: the words for axes and tables."""

OF_TENSORS = quantities.QUANTITIES
"""Likewise of what is measured on single tensors."""


def title(metric: str) -> str:
    """What a metric is, with its unit; the name itself of one that is not known here."""
    quantity, _, tensor = metric.partition("/")
    return TITLES.get(metric) or quantities.title(quantity, tensor) or metric
