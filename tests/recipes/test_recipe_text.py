"""The recipe text: against a loop written by hand, in stacks, every setting at work, data that does not fit."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from alphagrad.recipes.language.batches import Sweep, Texts
from alphagrad.recipes.language.data import DataSettings, labelled
from alphagrad.recipes.language.embedded import PACKAGES, pydocs, topics
from alphagrad.recipes.language.scores import macro_f1
from alphagrad.recipes.supervised.orders import Orders
from alphagrad.recipes.supervised.schedules import factor
from pyarrow import parquet
from sklearn.metrics import f1_score
from text_cases import ADAMW, OURS, flat, text, train, write_tables

from alphagrad.harness import metrics
from alphagrad.harness.stack import RunSpec, RunStack


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict:
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.mark.parametrize("model", ["mlp", "transformer"])
def test_it_is_a_plain_loop(model, tables, tmp_path):
    recipe = text(tables, model, label_smoothing=0.1)
    ((found,), log) = train(recipe, tmp_path, RunSpec(5, ADAMW))
    stack = RunStack([RunSpec(5, ADAMW)])
    (module,) = stack.modules(lambda: recipe.networks()["model"])
    texts = recipe.texts("train", stack.device)
    orders = Orders(stack.generators("minibatch"), len(texts), 20, (0, 1))
    small = {name for name, p in module.named_parameters() if p.dim() < 2}
    groups = [
        {"params": [p for n, p in module.named_parameters() if n not in small], "weight_decay": 0.5},
        {"params": [p for n, p in module.named_parameters() if n in small], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    for step in range(recipe.total_steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * factor(recipe.settings.schedule, step, recipe.total_steps)
        rows = [recipe.texts("train", stack.device).padded(torch.tensor([k]))[0] for k in orders.at(step)[0]]
        batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=recipe.pad)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            module(batch), texts.labels[orders.at(step)[0]], label_smoothing=0.1
        ).backward()
        optimizer.step()
    assert torch.allclose(flat(found["model"]), flat(module.state_dict()), rtol=1e-4, atol=1e-6)
    module.eval()
    test = recipe.texts("test", stack.device)
    with torch.no_grad():
        called = module(test.padded(torch.arange(30))).argmax(-1)
    assert log.last(0, metrics.EVAL_ACCURACY) == pytest.approx((called == test.labels).double().mean())
    expected = f1_score(test.labels, called, average="macro", zero_division=0)
    assert log.last(0, metrics.EVAL_F1) == pytest.approx(expected)
    rows = list(csv.reader((tmp_path / "0-confusion.csv").open()))
    assert rows[0] == ["true", "sea", "sky", "wood"]
    counts = np.array([[int(n) for n in row[1:]] for row in rows[1:]])
    assert counts.sum() == 30
    assert counts.trace() == (called == test.labels).sum()
    assert (tmp_path / "0-confusion.png").stat().st_size > 1000


def test_it_learns_to_tell_texts_apart(tables, tmp_path):
    _, log = train(text(tables, epochs=25), tmp_path, RunSpec(0, OURS))
    assert log.last(0, metrics.EVAL_ACCURACY) > 0.9


def test_run_k_of_a_stack_is_the_run_alone(tables, tmp_path):
    recipe = text(tables, "transformer", dropout=0.2, ema=0.9)
    runs = [RunSpec(3, ADAMW), RunSpec(4, OURS), RunSpec(3, OURS)]
    together, _ = train(recipe, tmp_path, *runs)
    for run, result in zip(runs, together, strict=True):
        ((alone,), _) = train(recipe, tmp_path, run)
        # texts are padded to the longest of the stack's, which changes the order of sums alone
        assert torch.allclose(flat(alone["model"]), flat(result["model"]), rtol=1e-3, atol=1e-5)
    assert not torch.equal(flat(together[1]["model"]), flat(together[2]["model"]))


CHANGES = [
    {"tokenizer": "bytes", "vocabulary": None},
    {"tokenizer": "bpe", "vocabulary": 270},
    {"vocabulary": 6},
    {"max_length": 4},
    {"dropout": 0.3},
    {"label_smoothing": 0.2},
    {"batch_size": 10},
    {"epochs": 3},
    {"decay": "all"},
    {"precision": "bfloat16"},
]


@pytest.mark.parametrize("change", CHANGES, ids="-".join)
def test_every_setting_changes_what_is_learned(change, tables, tmp_path):
    ((before,), _) = train(text(tables), tmp_path, RunSpec(0, ADAMW))
    ((after,), _) = train(text(tables, **change), tmp_path, RunSpec(0, ADAMW))
    one, other = flat(before["model"]), flat(after["model"])
    assert one.shape != other.shape or not torch.equal(one, other)


def test_accumulated_passes_add_up_to_the_batch(tables, tmp_path):
    results = [train(text(tables, accumulate=n), tmp_path, RunSpec(0, ADAMW))[0][0] for n in (1, 4)]
    assert torch.allclose(*(flat(r["model"]) for r in results), rtol=1e-4, atol=1e-6)


def test_padding_changes_no_logit(tables):
    for model in ("mlp", "transformer"):
        recipe = text(tables, model)
        net = recipe.networks()["model"].eval()
        texts = recipe.texts("test", torch.device("cpu"))
        shortest = texts.lengths.argmin()[None]
        assert texts.lengths[shortest] < 8
        with torch.no_grad():
            assert torch.allclose(net(texts.padded(shortest)), net(texts.padded(shortest, 8)), atol=1e-6)


def test_a_sweep_has_every_text_once():
    texts = Texts([np.arange(1, n + 2) for n in (3, 0, 5, 1)], [0, 1, 2, 3], 4, 0, torch.device("cpu"))
    seen = [(int(y), row[row > 0].tolist()) for x, ys in Sweep(texts, 3) for row, y in zip(x, ys, strict=True)]
    assert sorted(seen) == [(0, [1, 2, 3, 4]), (1, [1]), (2, [1, 2, 3, 4]), (3, [1, 2])]


def test_macro_f1_is_scikit_learns():
    rng = np.random.default_rng(0)
    true, guess = rng.integers(4, size=50), rng.integers(3, size=50)
    counts = torch.zeros(1, 5, 5, dtype=torch.int64)  # the fifth class is nowhere
    for t, g in zip(true, guess, strict=True):
        counts[0, t, g] += 1
    assert macro_f1(counts).item() == pytest.approx(f1_score(true, guess, average="macro", zero_division=0))


@pytest.mark.long
def test_embedded_texts_are_split_the_same_way_every_time():
    splits = pydocs()
    train_texts, test_texts = ({t for t, _ in splits[s]} for s in ("train", "test"))
    assert not train_texts & test_texts
    assert {label for _, label in splits["train"]} == {label for _, label in splits["test"]} == set(PACKAGES)
    assert 0.15 < len(test_texts) / (len(train_texts) + len(test_texts)) < 0.25
    assert pydocs() == splits
    whole = topics()
    assert set(whole["train"]).isdisjoint(whole["test"])
    assert len(whole["test"]) >= 4


def test_held_out_texts_are_training_texts_and_the_test_split_is_not_used(tables):
    whole, part = labelled(DataSettings(**tables)), labelled(DataSettings(**tables, validation=0.2))
    assert (len(part.train.texts), len(part.test.texts)) == (72, 18)
    both = zip(part.train.texts + part.test.texts, part.train.labels + part.test.labels, strict=True)
    assert sorted(both) == sorted(zip(whole.train.texts, whole.train.labels, strict=True))


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".parquet", ".JSON"])
def test_tables_of_every_kind_are_read(ending, tables, tmp_path):
    import json

    for split in ("train", "test"):
        rows = list(csv.DictReader(Path(tables["root"], f"{split}.csv").read_text().splitlines()))
        file = tmp_path / f"{split}{ending}"
        if ending == ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), file)
        else:
            told = [json.dumps(row) for row in rows]
            # an array behind a byte order mark and a line, and its first row without a column that others have
            file.write_text("\n".join(told) if ending == ".jsonl" else f"\ufeff\n[{', '.join(told)}]")
    named = {**tables, "root": str(tmp_path), "train": f"train{ending}", "test": f"test{ending}"}
    assert labelled(DataSettings(**named)) == labelled(DataSettings(**tables))


BAD = [
    ({}, {"model": "resnet18"}, "model=resnet18: recipe text has mlp, transformer, pretrained"),
    ({}, {"shape": {"width": 4}}, "model.width=4: mlp has no such setting"),
    ({}, {"model": "transformer", "shape": {"heads": 3}}, "model.heads=3: width 8 must be a multiple"),
    ({}, {"tokenizer": "bytes"}, "recipe.vocabulary=40: bytes need none"),
    ({}, {"tokenizer": "bpe"}, "recipe.vocabulary=40: bpe need ≥ 259"),
    ({}, {"batch_size": 100}, "recipe.batch_size=100: there are only 90"),
    ({"train": "nowhere.csv"}, {}, "data.train=nowhere.csv: no such file below"),
    ({"text": "body"}, {}, "data.text=body: .*train.csv has no such column; it has label, text"),
    ({"label": None}, {}, "data.label=null: data.name=files needs it"),
    ({"repo": "a/b"}, {}, "data.repo=a/b: data.name=files has no such setting"),
    ({"train": "test.csv", "test": "damaged.parquet"}, {}, "data.test: .*damaged.parquet cannot be read as parquet"),
    ({"train": "empty.csv"}, {}, "data.train=empty.csv: has no text"),
    ({"train": "gap.csv"}, {}, "data.label=label: .*gap.csv has no value in row 2"),
    ({"train": "nan.parquet"}, {}, "data.label=label: .*nan.parquet has no value in row 2"),
    ({"train": "list.parquet"}, {}, "data.text=text: .*list.parquet has a list in row 1"),
    ({"train": "twice.csv"}, {}, "twice.csv"),
    ({"text": "label"}, {}, "data.label=label: is the column of the text as well"),
    ({"validation": 0.001}, {}, "data.validation=0.001: of 90 texts that leaves none for one of the two"),
    ({"train": "?"}, {}, r"data.train=\?: no such file"),
    ({}, {"model": "transformer", "max_length": 1}, "recipe.max_length=1: must be ≥ 2"),
    ({"train": "one.csv"}, {}, "data.label=label: has the one class sea"),
    ({"train": "two.csv"}, {}, "data.test=test.csv: has the class wood, which the training split has not"),
]


@pytest.mark.parametrize(("data", "settings", "told"), BAD, ids=lambda v: v[:30] if isinstance(v, str) else "")
def test_what_does_not_fit_is_named(data, settings, told, tables):
    root = Path(tables["root"])
    (root / "damaged.parquet").write_text("no parquet")
    (root / "one.csv").write_text("label,text\n" + "sea,wave\n" * 40)
    (root / "empty.csv").write_text("label,text\n" + 'sea,""\nsky," "\n' * 20)
    (root / "gap.csv").write_text("label,text\nsea,wave\n,star\n" + "sky,star\n" * 20)
    (root / "twice.csv").write_text("label,text,text\nsea,wave,wave\n")
    parquet.write_table(pa.table({"label": [1.0, float("nan")], "text": ["wave", "star"]}), root / "nan.parquet")
    parquet.write_table(pa.table({"label": ["sea"], "text": [["wave"]]}), root / "list.parquet")
    (root / "two.csv").write_text("label,text\n" + "sea,wave\nsky,star\n" * 20)
    with pytest.raises(ValueError, match=told):
        text({**tables, **data}, **settings)


def test_a_pretrained_folder_is_fine_tuned(tables, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "wave", "ship", "tree", "star", "moon", "leaf"]
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    own = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    base = BertModel(BertConfig(vocab_size=8, max_position_embeddings=12, **small), add_pooling_layer=False)
    folder = tmp_path / "model"
    own.save_pretrained(folder)
    base.save_pretrained(folder)
    shape = {"path": str(folder), "download": False}
    recipe = text(tables, "pretrained", shape, vocabulary=None)
    weights = recipe.networks()["model"].state_dict()
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(weights[f"model.bert.{name}"], base.state_dict()[name])
    ((found,), _) = train(recipe, tmp_path, RunSpec(0, ADAMW))
    assert not torch.equal(found["model"][f"model.bert.{name}"], base.state_dict()[name])
    for wrong in ({"dropout": 0.1}, {"tokenizer": "words"}, {"vocabulary": 20}):
        with pytest.raises(ValueError, match=f"recipe.{next(iter(wrong))}=.*a pretrained model has its own"):
            text(tables, "pretrained", shape, **{"vocabulary": None, **wrong})
    with pytest.raises(ValueError, match=f"recipe.max_length=13: the model of model.path={folder} takes ≤ 12"):
        text(tables, "pretrained", shape, vocabulary=None, max_length=13)

    def refused(told, **config):
        """The folder with another configuration beside its weights."""
        BertConfig(**{"vocab_size": 8, "max_position_embeddings": 12, **small, **config}).save_pretrained(folder)
        with pytest.raises(ValueError, match=f"model.path={folder}: {told}"):
            text(tables, "pretrained", shape, vocabulary=None)

    refused("its weights do not fit its configuration: .* are missing", num_hidden_layers=2)
    refused("its weights do not fit its configuration: .* are missing", hidden_size=16)
    BertModel(BertConfig(vocab_size=7, **small)).save_pretrained(folder)
    refused("its tokenizer has 8 tokens, its embeddings 7", vocab_size=7, max_position_embeddings=512)
    base.save_pretrained(folder)
    base.save_pretrained(tmp_path / "mute")
    with pytest.raises(ValueError, match=r"model.path=.*mute: has no tokenizer"):
        text(tables, "pretrained", {**shape, "path": str(tmp_path / "mute")}, vocabulary=None)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=f"model.path={folder}: cannot be loaded"):
        text(tables, "pretrained", shape, vocabulary=None)
