"""An n-gram model with modified Kneser-Ney smoothing on the tokens that a run of recipe lm sees.

    python benchmarks/ngram.py data=sotu recipe.tokenizer=bpe recipe.vocabulary=4096 [--order 5]

Takes the settings of recipe lm and prints loss, perplexity and bits per byte on its validation text, every token
but the first predicted, as the recipe's evaluation counts. The model is the interpolated one of Chen & Goodman
(1999, section 4.1.6) that KenLM estimates: three discounts for each order from the counts of counts, continuation
counts below the highest order, and the uniform distribution under the unigrams.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where no n-gram of an order is seen once, twice, three or four times; KenLM's --discount_fallback."""


class KneserNey:
    """Interpolated modified Kneser-Ney.

    Args:
        tokens: the training text [N], numbers below ``vocabulary``.
        order: n; a token is predicted from the n − 1 before it.
        vocabulary: how many tokens there are.

    An n-gram is a number: contexts are numbered per length, the one of length k + 1 being a pair (context of
    length k that begins one later, the token before it), so that a shorter context is a longer one's ``suffix``.
    """

    def __init__(self, tokens: np.ndarray, order: int, vocabulary: int) -> None:
        self.order, self.vocabulary = order, vocabulary
        tokens = tokens.astype(np.int64)
        # sorted keys; a key's place is the number of what it stands for
        self._contexts: list[np.ndarray] = []
        self._grams: list[np.ndarray] = []
        self._probability: list[np.ndarray] = []
        self._backoff: list[np.ndarray] = []
        numbers = self._number(tokens, grow=True)
        grams = []
        for k in range(order):
            keys = numbers[k][k:] * vocabulary + tokens[k:]
            unique, counts = np.unique(keys, return_counts=True)
            grams.append((unique, counts, keys))
            self._grams.append(unique)
        for k in range(order):
            unique, counts, _ = grams[k]
            if k < order - 1:  # how many different tokens precede it; the text's first n-gram has none before it
                longer = self._grams[k + 1]
                context, token = np.divmod(longer, vocabulary)
                shorter = self._suffix[k + 1][context] * vocabulary + token if k else token
                counts = np.bincount(np.searchsorted(unique, shorter), minlength=len(unique))
            self._estimate(k, unique, counts)

    def _number(self, tokens: np.ndarray, grow: bool) -> list[np.ndarray]:
        """For each k < n the number of the k tokens before each place; −1 where they never were, or are not there."""
        count = len(tokens)
        numbers = [np.zeros(count, dtype=np.int64)]
        if grow:
            self._suffix: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
        for k in range(1, self.order):
            before = np.full(count, -1, dtype=np.int64)
            shorter = numbers[k - 1][k:]
            keys = np.where(shorter >= 0, shorter * self.vocabulary + tokens[: count - k], -1)
            if grow:
                unique = np.unique(keys)
                self._contexts.append(unique)
                self._suffix.append(unique // self.vocabulary)
            before[k:] = _find(self._contexts[k - 1], keys)
            numbers.append(before)
        return numbers

    def _estimate(self, k: int, unique: np.ndarray, counts: np.ndarray) -> None:
        """Discounted probabilities of the (k + 1)-grams, and each context's weight of the shorter ones."""
        context = unique // self.vocabulary
        size = len(self._suffix[k])
        of = [int((counts == c).sum()) for c in range(1, 5)]
        discounts = np.array([0.0, *FALLBACK])
        if 0 not in of:
            y = of[0] / (of[0] + 2 * of[1])
            discounts[1:] = [max(0.0, c - (c + 1) * y * of[c] / of[c - 1]) for c in (1, 2, 3)]
        taken = discounts[np.minimum(counts, 3)]
        totals = np.bincount(context, weights=counts, minlength=size)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.bincount(context, weights=taken, minlength=size) / totals
        # a context that nothing follows, as the text's last, leaves all to the shorter one
        self._backoff.append(np.where(totals > 0, weight, 1.0))
        # nothing comes before the text's first n-gram: its context can have a count of 0, and so have all that follow
        self._probability.append((counts - taken) / np.maximum(totals[context], 1))

    def probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """p(token | the n − 1 before it) at each place of a text [N], of its first tokens given what there is."""
        tokens = tokens.astype(np.int64)
        numbers = self._number(tokens, grow=False)
        result = np.full(len(tokens), 1 / self.vocabulary)
        for k in range(self.order):
            known = numbers[k] >= 0
            context = numbers[k][known]
            place = _find(self._grams[k], context * self.vocabulary + tokens[known])
            own = np.where(place >= 0, self._probability[k][place], 0.0)
            result[known] = own + self._backoff[k][context] * result[known]
        return result


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted key among sorted keys, −1 where it is none of them."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where((keys[place] == wanted) & (wanted >= 0), place, -1)


def main() -> None:
    """Reads the settings, fits and prints."""
    from alphagrad.recipes.language.data import corpus
    from alphagrad.recipes.lm import LM, scores, tokenized

    from alphagrad.common.errors import ConfigError
    from alphagrad.lab.config.build import build_recipe
    from alphagrad.lab.config.compose import compose, hydra_initialized

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="of recipe lm")
    parser.add_argument("--order", type=int, default=5, help="n (default %(default)s)")
    args = parser.parse_args()
    if args.order < 1:
        parser.error(f"--order {args.order}: must be at least 1")
    try:
        with hydra_initialized():
            recipe = build_recipe(compose(["recipe=lm", *args.settings]))
    except ConfigError as error:
        parser.error(str(error))
    assert isinstance(recipe, LM)
    s = recipe.settings
    train, test = tokenized(s.data, s.tokenizer, s.vocabulary)
    size = sum(len(document.encode()) for document in corpus(s.data)[1])
    begun = time.perf_counter()
    model = KneserNey(train, args.order, recipe.tokens.size)
    nats = -np.log(model.probabilities(test)[1:]).sum()
    told = ", ".join(f"{name} {value:.4f}" for name, value in scores(float(nats), len(test) - 1, size).items())
    print(f"{args.order}-gram, {len(train):,} training tokens, {len(test):,} validation tokens: {told}")
    print(f"{time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
