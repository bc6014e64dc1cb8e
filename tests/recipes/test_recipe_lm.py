"""The recipe lm: against a loop written by hand, in stacks, its models, tokens and measures."""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from alphagrad.recipes.language.batches import Packed
from alphagrad.recipes.language.data import DataSettings, corpus
from alphagrad.recipes.language.sampling import Sampler
from alphagrad.recipes.language.speed import flops_per_token
from alphagrad.recipes.language.tokens import END_OF_TEXT, stream, trained
from alphagrad.recipes.lm import scores, tokenized
from alphagrad.recipes.supervised.orders import Orders
from alphagrad.recipes.supervised.schedules import factor
from alphagrad.recipes.supervised.speed import peak_flops
from text_cases import ADAMW, OURS, flat, lm, train, write_corpus
from tiers import long, quick_where

from alphagrad.harness import metrics
from alphagrad.harness.stack import RunSpec, RunStack


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("model", [*long("gpt2"), "llama"])
def test_it_is_a_plain_loop(model, data, tmp_path):
    recipe = lm(data, model, tokenizer="bpe", vocabulary=270, sample_every=6, sample_tokens=5)
    ((found,), log) = train(recipe, tmp_path, RunSpec(5, ADAMW))
    stack = RunStack([RunSpec(5, ADAMW)])
    (module,) = stack.modules(lambda: recipe.networks()["model"])
    row, held_out = tokenized(recipe.settings.data, "bpe", 270)
    orders = Orders(stack.generators("minibatch"), (len(row) - 1) // 8, 4, (0, 1))
    small = {name for name, p in module.named_parameters() if p.dim() < 2}
    groups = [
        {"params": [p for n, p in module.named_parameters() if n not in small], "weight_decay": 0.5},
        {"params": [p for n, p in module.named_parameters() if n in small], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    for step in range(6):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * factor(recipe.settings.schedule, step, 6)
        x = torch.from_numpy(np.stack([row[8 * k : 8 * k + 9] for k in orders.at(step)[0]])).long()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()).backward()
        optimizer.step()
    assert torch.allclose(flat(found["model"]), flat(module.state_dict()), rtol=1e-4, atol=1e-6)
    module.eval()
    nats = 0.0
    with torch.no_grad():  # each token given those before it in its sequence
        for place in range(1, len(held_out)):
            begin = (place - 1) // 8 * 8
            logits = module(torch.from_numpy(held_out[begin:place]).long()[None])[0, -1]
            nats -= float(logits.log_softmax(-1)[held_out[place]])
    size = len(Path(data["root"], "test.txt").read_bytes())
    assert log.last(0, metrics.EVAL_LOSS) == pytest.approx(nats / (len(held_out) - 1), rel=1e-5)
    assert log.last(0, metrics.EVAL_PERPLEXITY) == pytest.approx(math.exp(nats / (len(held_out) - 1)), rel=1e-4)
    assert log.last(0, metrics.EVAL_BITS) == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert len((tmp_path / "0-sample-0000006.txt").read_text()) > 1
    assert json.loads((tmp_path / "0-tokenizer.json").read_text())["model"]["type"] == "BPE"


def test_run_k_of_a_stack_is_the_run_alone(data, tmp_path):
    recipe = lm(data, dropout=0.2, ema=0.9, sample_every=6, sample_tokens=8)
    runs = [RunSpec(3, ADAMW), RunSpec(4, OURS)]
    together, log = train(recipe, tmp_path, *runs)
    drawn = (tmp_path / "1-sample-0000006.txt").read_text()
    ((alone,), single) = train(recipe, tmp_path, runs[1])
    assert torch.equal(flat(alone["model"]), flat(together[1]["model"]))
    assert single.last(0, metrics.EVAL_LOSS) == log.last(1, metrics.EVAL_LOSS)
    assert (tmp_path / "0-sample-0000006.txt").read_text() == drawn


CHANGES = [
    {"tokenizer": "bpe", "vocabulary": 270},
    {"length": 4},
    {"dropout": 0.3},
    {"total_steps": 7},
    {"batch_size": 3},
    {"precision": "amp_bfloat16"},
]


@pytest.mark.parametrize("change", quick_where(CHANGES, lambda change: "precision" not in change), ids="-".join)
def test_every_setting_changes_what_is_learned(change, data, tmp_path):
    ((before,), _) = train(lm(data), tmp_path, RunSpec(0, ADAMW))
    ((after,), _) = train(lm(data, **change), tmp_path, RunSpec(0, ADAMW))
    one, other = flat(before["model"]), flat(after["model"])
    assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_a_model_sees_the_past_alone(model, data):
    net = lm(data, model).networks()["model"].eval()
    x = torch.arange(8)[None]
    y = x.clone()
    y[0, 5] = 99
    with torch.no_grad():
        one, other = net(x), net(y)
    assert torch.allclose(one[:, :5], other[:, :5], atol=1e-6)
    assert not torch.allclose(one[:, 5:], other[:, 5:], atol=1e-6)


@pytest.mark.parametrize("count", [2, 5, 9, 17, 18, 24, 25])
def test_every_token_but_the_first_is_predicted_once(count):
    packed = Packed(np.arange(count), 8, torch.device("cpu"))
    targets = [t for x, y in packed.sweep(2) for t in y.flatten().tolist()]
    assert targets == list(range(1, count))
    assert all((y == x + 1).all() for x, y in packed.sweep(2))
    assert len(packed) == (count - 1) // 8


def test_samples_are_written_at_the_evaluations_that_follow(data, tmp_path):
    train(lm(data, eval_every=2, sample_every=3, sample_tokens=2, total_steps=11), tmp_path, RunSpec(0, ADAMW))
    written = sorted(file.name for file in tmp_path.glob("*sample*"))
    assert written == [f"0-sample-{step:07d}.txt" for step in (4, 6, 10, 11)]


def test_a_validation_text_shorter_than_a_sequence(data, tmp_path):
    (Path(data["root"]) / "brief.txt").write_text("sea", encoding="utf-8")
    _, log = train(lm({**data, "test": "brief.txt"}), tmp_path, RunSpec(0, ADAMW))
    assert math.isfinite(log.last(0, metrics.EVAL_LOSS))


@pytest.mark.parametrize(("kind", "vocabulary"), [("bytes", None), ("bpe", 300)])
def test_tokens_lead_back_to_the_text(kind, vocabulary):
    documents = ["The sea – the wood.\n", "", f"ελληνικά 🌊 {END_OF_TEXT} no end"]
    tokenizer = trained(kind, vocabulary, documents[:1] * 20, [END_OF_TEXT])
    row = stream(tokenizer, documents, 0)
    assert (row == 0).sum() == 3
    assert row.max() < tokenizer.size <= (vocabulary or 257)
    ends = np.flatnonzero(row == 0)
    assert [tokenizer.decode(part[part > 0].tolist()) for part in np.split(row, ends + 1)[:3]] == documents


def test_a_row_of_a_table_is_a_document(tmp_path):
    (tmp_path / "a.csv").write_text('body\n"one\ntwo"\nthree\n')
    (tmp_path / "b.csv").write_text("body\nfour\n")
    s = {"name": "files", "root": str(tmp_path), "train": "*.csv", "test": "b.csv"}
    assert corpus(DataSettings(**s, text="body")) == (["one\ntwo", "three", "four"], ["four"])
    with pytest.raises(ValueError, match=r"data.text=null: .*a.csv is a table"):
        corpus(DataSettings(**s))


def test_a_text_is_drawn_from_what_the_model_says():
    shares = torch.tensor([0.5, 0.3, 0.2])
    sampler = Sampler(np.random.default_rng(0), 1.0, 4)
    ids = sampler.sample(lambda x: shares.log().expand(1, x.shape[1], 3), 0, 4000, 0, torch.device("cpu"))
    assert np.allclose(np.bincount(ids) / 4000, shares, atol=0.03)
    cold = Sampler(np.random.default_rng(0), 0.01, 4)
    assert set(cold.sample(lambda x: shares.log().expand(1, x.shape[1], 3), 0, 20, 0, torch.device("cpu"))) == {0}


def test_operations_are_those_that_are_counted(data):
    from torch.utils.flop_counter import FlopCounterMode

    net = lm(data, shape={"width": 16, "layers": 2, "heads": 2}).networks()["model"]
    net.model.set_attn_implementation("eager")  # the counter does not know the fused one of the CPU
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(2, 8, dtype=torch.long))
    # backward is twice forward
    assert flops_per_token(net, 2, 16, 8) == 3 * counter.get_total_flops() / 16
    assert peak_flops(torch.device("cpu"), torch.float32) > 1e8


def test_a_uniform_model_scores_the_logarithm_of_its_tokens():
    row = scores(100 * math.log(64), 100, 50)
    assert row[metrics.EVAL_LOSS] == pytest.approx(math.log(64))
    assert row[metrics.EVAL_PERPLEXITY] == pytest.approx(64)
    assert row[metrics.EVAL_BITS] == pytest.approx(12)


BAD = [
    ({}, {"model": "mlp", "shape": {"hidden": [4]}}, "model=mlp: recipe lm has gpt2, llama"),
    ({}, {"model": "llama", "dropout": 0.1}, "recipe.dropout=0.1: llama has none"),
    ({}, {"model": "llama", "shape": {"kv_heads": 3}}, "model.kv_heads=3: must divide the 2 heads"),
    ({}, {"tokenizer": "words", "vocabulary": 50}, "recipe.tokenizer=words: recipe lm has bpe and bytes"),
    ({}, {"length": 4000}, "recipe.batch_size=4: there are only 1 training examples"),
    ({}, {"length": 40000}, "recipe.length=40000: data.train has only 4876 tokens"),
    ({}, {"tokenizer": "bpe", "vocabulary": 10**9}, "recipe.vocabulary=1000000000: must be ≤ 1048576"),
    ({"train": "."}, {}, r"data.train=\.: is neither a file nor a pattern"),
    ({"train": "a**/x.txt"}, {}, r"data.train=a\*\*/x.txt: is neither a file nor a pattern"),
    ({"validation": 0.2}, {}, "data.validation=0.2: is for recipe text"),
    ({"test": "*.csv"}, {}, r"data.test=\*.csv: no such file below"),
]


@pytest.mark.parametrize(("named", "settings", "told"), BAD, ids=lambda v: v[:30] if isinstance(v, str) else "")
def test_what_does_not_fit_is_named(named, settings, told, data):
    shape = settings.pop("shape", None)
    from text_cases import SHAPES

    model = settings.pop("model", "gpt2")
    if model not in SHAPES or model == "mlp":
        shape = shape or {}
    with pytest.raises(ValueError, match=told):
        lm({**data, **named}, model, shape, **settings)


def ngram_module():
    file = Path(__file__).resolve().parents[2] / "benchmarks/ngram.py"
    spec = importlib.util.spec_from_file_location("ngram", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kneser_ney(text: list[int], n: int, vocabulary: int):
    """Chen & Goodman's recursion with dictionaries: p(word, context)."""
    grams = {k: Counter(tuple(text[i : i + k]) for i in range(len(text) - k + 1)) for k in range(1, n + 1)}
    counts = {n: grams[n]}
    for k in range(1, n):
        before = defaultdict(set)
        for gram in grams[k + 1]:
            before[gram[1:]].add(gram[0])
        counts[k] = Counter({gram: len(before[gram]) for gram in grams[k]})
    discounts = {}
    for k, seen in counts.items():
        of = Counter(seen.values())
        if not all(of[c] for c in (1, 2, 3, 4)):
            discounts[k] = [0, 0.5, 1.0, 1.5]
            continue
        y = of[1] / (of[1] + 2 * of[2])
        discounts[k] = [0, *(max(0.0, c - (c + 1) * y * of[c + 1] / of[c]) for c in (1, 2, 3))]

    def p(word: int, context: tuple[int, ...]) -> float:
        k = len(context) + 1
        lower = p(word, context[1:]) if context else 1 / vocabulary
        following = {gram[-1]: c for gram, c in counts[k].items() if gram[:-1] == context}
        if not sum(following.values()):
            return lower
        taken = {w: discounts[k][min(c, 3)] for w, c in following.items()}
        total = sum(following.values())
        own = following.get(word, 0) - taken.get(word, 0)
        return own / total + sum(taken.values()) / total * lower

    return p


@pytest.mark.parametrize("begun", [False, True])
def test_the_ngram_model_is_kneser_neys(begun):
    rng = np.random.default_rng(1)
    text = (40 * rng.random(900) ** 4).astype(int).tolist()  # 40 tokens, few of them often
    if begun:  # as nothing else does: nothing precedes these
        text = [37, 38, 39, *(min(t, 36) for t in text)]
    model = ngram_module().KneserNey(np.array(text), 3, 41)
    reference = kneser_ney(text, 3, 41)
    seen = np.array([0, 0, 1, 40, 3, 0, 40, 40, 0, 1, 7, 0, 0, 37, 38, 39, 1])  # 40 is in no training text
    found = model.probabilities(seen)
    expected = [reference(int(w), tuple(seen[max(0, i - 2) : i].tolist())) for i, w in enumerate(seen)]
    assert np.allclose(found, expected, rtol=1e-12)
    for context in ([0, 1], [40, 1], [3, 40]):
        assert sum(model.probabilities(np.array([*context, w]))[2] for w in range(41)) == pytest.approx(1)
