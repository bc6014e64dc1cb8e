"""Models of text: a bag of embeddings, transformers built from a configuration, pretrained ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..supervised.outline import Outline
from ..supervised.own import OwnSettings, own_model, own_outline, takes
from .pretrained import load_classifier


class ModelSettings(OwnSettings):
    """Which model; see conf/model/. A model has the settings that :data:`USES` lists, the others are None."""

    name: str = Field(min_length=1)
    hidden: list[PositiveInt] | None = Field(default=None, min_length=1)
    """mlp: its hidden layers, the first of them the embedding's width."""
    width: PositiveInt | None = None
    layers: int | None = Field(default=None, gt=0, le=1000)
    heads: PositiveInt | None = None
    """Of a transformer; the feed-forward layers are four times as wide, llama's 8/3 times."""
    kv_heads: PositiveInt | None = None
    """llama: heads of keys and values."""
    path: str | None = Field(default=None, min_length=1)
    """pretrained: a local folder, or a model's name on the hub."""
    download: bool | None = None
    """pretrained: whether a model that is not on this machine is fetched."""


USES: Mapping[str, tuple[str, ...]] = {
    "mlp": ("hidden",),
    "transformer": ("width", "layers", "heads"),
    "gpt2": ("width", "layers", "heads"),
    "llama": ("width", "layers", "heads", "kv_heads"),
    "pretrained": ("path", "download"),
}
CLASSIFIERS, CAUSAL = ("mlp", "transformer", "pretrained"), ("gpt2", "llama")


def check_model(s: ModelSettings, recipe: str, allowed: Sequence[str]) -> None:
    """Raises ``ValueError`` where the recipe has no such model, or a setting is missing, wrong or too many."""
    shapes = [name for name in ModelSettings.model_fields if name not in OwnSettings.model_fields]
    if s.target is not None:
        for setting in shapes:
            if setting != "name" and (value := getattr(s, setting)) is not None:
                raise ValueError(f"model.{setting}={value}: {s.target} takes its arguments as model.kwargs.NAME=VALUE")
        return
    if s.name not in allowed:
        raise ValueError(f"model={s.name}: recipe {recipe} has {', '.join(allowed)}, custom")
    for setting in shapes:
        given, wanted = getattr(s, setting), setting in USES[s.name]
        if setting != "name" and (given is not None) != wanted:
            raise ValueError(f"model.{setting}={given}: {s.name} {'needs it' if wanted else 'has no such setting'}")
    if s.width is not None and s.heads is not None and s.width % (2 * s.heads):
        raise ValueError(f"model.heads={s.heads}: width {s.width} must be a multiple of twice the heads")
    if s.heads is not None and s.kv_heads is not None and s.heads % s.kv_heads:
        raise ValueError(f"model.kv_heads={s.kv_heads}: must divide the {s.heads} heads")


def own(s: ModelSettings, vocabulary: int, classes: int | None, length: int, dropout: float, pad: int) -> nn.Module:
    """A model of the user's own, which is offered what the arguments are; recipe lm has neither classes nor padding."""
    return own_model(s, _offers(s, vocabulary, classes, length, dropout, pad))


def outline(s: ModelSettings, vocabulary: int, classes: int | None, length: int, dropout: float, pad: int) -> Outline:
    """How large a model of the user's own is, tried on two texts of ``length`` tokens; ``ValueError`` if it fails."""
    given = _offers(s, vocabulary, classes, length, dropout, pad)
    outputs = (2, length, vocabulary) if classes is None else (2, classes)
    return own_outline(s, given, lambda: torch.zeros(2, length, dtype=torch.long), outputs)


def _offers(
    s: ModelSettings, vocabulary: int, classes: int | None, length: int, dropout: float, pad: int
) -> dict[str, int | float]:
    if dropout and not takes(s, "dropout"):
        raise ValueError(f"recipe.dropout={dropout}: {s.target} has no argument dropout; give 0.0")
    more = {} if classes is None else {"classes": classes, "pad": pad}
    return {"vocabulary": vocabulary, "length": length, "dropout": dropout, **more}


class Bag(nn.Module):
    """An MLP on the mean of a text's embeddings (Joulin et al. 2017, without their n-grams).

    The mean of embeddings is a linear layer on the shares of the words in the text, so that the first of the
    hidden layers is the embedding. Tokens ``pad`` count nothing.

    Args:
        vocabulary: how many tokens there are.
        hidden: widths of the hidden layers.
        classes: outputs.
        dropout: share of every hidden layer that is zeroed in training.
        pad: the number of the padding token.
    """

    def __init__(self, vocabulary: int, hidden: Sequence[int], classes: int, dropout: float, pad: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(vocabulary, hidden[0], mode="mean", padding_idx=pad)
        # the usual N(0, 1) starts far from where small learning rates can reach
        nn.init.normal_(self.embedding.weight, std=0.1)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(hidden, [*hidden[1:], classes], strict=True):
            layers += [nn.ReLU(), nn.Dropout(dropout), nn.Linear(inputs, outputs)]
        self.layers = nn.Sequential(*layers)

    def forward(self, ids: Tensor) -> Tensor:
        """Tokens [B, T] → logits [B, C]."""
        return self.layers(self.embedding(ids))


class Logits(nn.Module):
    """A model of transformers as one that takes tokens alone and gives logits.

    Args:
        model: the model.
        pad: the padding token, which it does not attend to; None where nothing is padded.
    """

    def __init__(self, model: nn.Module, pad: int | None) -> None:
        super().__init__()
        self.model, self.pad = model, pad

    def forward(self, ids: Tensor) -> Tensor:
        """Tokens [B, T] → logits [B, C], or [B, T, V] of a causal model."""
        if self.pad is None:
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        else:
            logits = self.model(input_ids=ids, attention_mask=(ids != self.pad).long()).logits
        return logits


def classifier(
    s: ModelSettings, vocabulary: int, classes: int, length: int, dropout: float | None, pad: int
) -> nn.Module:
    """The model of recipe text: tokens [B, T ≤ length] → logits [B, classes].

    Raises:
        ValueError: a pretrained model cannot be loaded.
    """
    if s.target is not None:
        return own(s, vocabulary, classes, length, dropout or 0.0, pad)
    if s.name == "mlp":
        assert s.hidden is not None
        return Bag(vocabulary, s.hidden, classes, dropout or 0.0, pad)
    if s.name == "pretrained":
        assert s.path is not None
        return Logits(load_classifier(s.path, bool(s.download), classes, vocabulary, length, pad), pad)
    if length < 2:
        raise ValueError(f"recipe.max_length={length}: must be ≥ 2, [START] and one token of the text")
    from transformers import BertConfig, BertForSequenceClassification

    width, layers, heads = _shape(s)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=length,
        hidden_dropout_prob=dropout or 0.0,
        attention_probs_dropout_prob=dropout or 0.0,
        pad_token_id=pad,
        id2label={label: str(label) for label in range(classes)},
    )
    return Logits(BertForSequenceClassification(config), pad)


def numbers_of(s: ModelSettings, vocabulary: int, length: int) -> tuple[int, int]:
    """How large a model is, about: its parameters, and what its layers give for a token, or for a text of mlp's.

    Of a pretrained one it is not known.
    """
    if s.name == "pretrained":
        return 0, 0
    if s.hidden is not None:
        return vocabulary * s.hidden[0] + sum(a * b for a, b in pairwise(s.hidden)), 2 * sum(s.hidden)
    width, layers, _ = _shape(s)
    return 12 * layers * width**2 + (vocabulary + length) * width, 16 * layers * width


def _shape(s: ModelSettings) -> tuple[int, int, int]:
    """Width, layers and heads, which :func:`check_model` has seen to be there."""
    assert s.width is not None
    assert s.layers is not None
    assert s.heads is not None
    return s.width, s.layers, s.heads


def causal(s: ModelSettings, vocabulary: int, length: int, dropout: float, end: int) -> nn.Module:
    """The model of recipe lm: tokens [B, T ≤ length] → logits [B, T, vocabulary]; embeddings tied to the output.

    *gpt2* (Radford et al. 2019): learned positions, GELU, LayerNorm. *llama* (Touvron et al. 2023): rotary
    positions, SwiGLU, RMSNorm, no biases, grouped keys and values.
    """
    if s.target is not None:
        return own(s, vocabulary, None, length, dropout, end)
    return Logits(MAKERS[s.name](s, vocabulary, length, dropout, end), None)


def _gpt2(s: ModelSettings, vocabulary: int, length: int, dropout: float, end: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    width, layers, heads = _shape(s)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=end,
        eos_token_id=end,
    )
    model: nn.Module = GPT2LMHeadModel(config)
    return model


def _llama(s: ModelSettings, vocabulary: int, length: int, dropout: float, end: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    width, layers, heads = _shape(s)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        # to a multiple of 32, as fast as any
        intermediate_size=math.ceil(width * 8 / 3 / 32) * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=s.kv_heads,
        max_position_embeddings=length,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
    )
    model: nn.Module = LlamaForCausalLM(config)
    return model


MAKERS: Mapping[str, Callable[[ModelSettings, int, int, float, int], nn.Module]] = {"gpt2": _gpt2, "llama": _llama}
