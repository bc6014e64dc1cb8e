"""Files that are made to run code, or to take all the memory there is."""

from __future__ import annotations

import builtins
import io
import json
import zipfile

import numpy as np
import pytest
from alphagrad.recipes.language.pretrained import load_classifier, load_tokenizer
from alphagrad.recipes.language.tables import columns_of
from alphagrad.recipes.vision.sources import read_npz

CODE = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
"""


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["custom", "bert"])
def test_a_models_own_code_is_neither_run_nor_asked_for(tmp_path, monkeypatch, name, kind):
    asked = []
    monkeypatch.setattr(builtins, "input", lambda *_: asked.append(1) or "y")
    own = {"AutoConfig": "evil.C", "AutoTokenizer": ["evil.T", None], "AutoModelForSequenceClassification": "evil.M"}
    for file in ("config.json", "tokenizer_config.json"):
        held = {"model_type": kind} | ({"auto_map": own} if file == name else {})
        (tmp_path / file).write_text(json.dumps(held))
    (tmp_path / "evil.py").write_text(CODE)
    with pytest.raises(ValueError, match=r"model\.path=.* \(auto_map\), which is not run"):
        load_tokenizer(str(tmp_path), False, 16)
    with pytest.raises(ValueError, match=r"model\.path=.* \(auto_map\), which is not run"):
        load_classifier(str(tmp_path), False, 2, 10, 16, 0)
    assert not asked
    assert not list(tmp_path.rglob("ran"))


def test_what_the_library_finds_is_not_run_either(tmp_path, monkeypatch):
    """Also where the file that names the code is read by the library alone."""
    from alphagrad.recipes.language import hub

    monkeypatch.setattr(hub, "_check_no_code", lambda *_: None)
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("asked"))
    held = {
        "model_type": "custom",
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M"},
    }
    (tmp_path / "config.json").write_text(json.dumps(held))
    (tmp_path / "evil.py").write_text(CODE)
    with pytest.raises(ValueError, match="code of its own, which is not run") as told:
        load_classifier(str(tmp_path), False, 2, 10, 16, 0)
    assert "trust_remote_code" not in str(told.value)
    with pytest.raises(ValueError, match=r"model\.path="):
        load_tokenizer(str(tmp_path), False, 16)
    assert not list(tmp_path.rglob("ran"))


def test_an_npz_that_expands_is_refused_unread(tmp_path, monkeypatch):
    file = tmp_path / "train.npz"
    np.savez_compressed(file, images=np.zeros((30_000, 28, 28, 1), np.uint8), labels=np.zeros(30_000, np.int64))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"images\.npy expands \d[\d,]*-fold"):
        read_npz(file)


def test_an_npz_whose_header_lies_is_refused_unread(tmp_path, monkeypatch):
    file = tmp_path / "train.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 28, 28, 1)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", header.getvalue() + b"\0" * 100)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"images\.npy says it has 784,000,000,000,000 bytes, and has 100"):
        read_npz(file)


def test_an_npz_as_it_ought_to_be_is_read(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (50, 8, 8, 1), dtype=np.uint8)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "train.npz", images=images, labels=np.arange(50))
        assert (read_npz(tmp_path / "train.npz")[0] == images).all()


def test_only_the_columns_asked_for_are_read(tmp_path, monkeypatch):
    from pyarrow import csv

    read, tables = csv.read_csv, []
    monkeypatch.setattr(csv, "read_csv", lambda *a, **k: tables.append(read(*a, **k)) or tables[-1])
    file = tmp_path / "wide.csv"
    others = [f"c{n}" for n in range(20_000)]
    file.write_text("\n".join([",".join(["text", *others, "label"]), *(",".join(["a", *"1" * 20_000, "x"]),) * 2]))
    assert columns_of("data.train", file, [("data.text", "text"), ("data.label", "label")]) == [["a", "a"], ["x", "x"]]
    assert tables[0].num_columns == 2
    with pytest.raises(ValueError, match=r"data\.text=nope: .* has no such column; .* \(20,002 columns\)") as told:
        columns_of("data.train", file, [("data.text", "nope")])
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize("header", [f"{'x' * 200_000},label", '"text,label'])
def test_a_damaged_header_is_told_in_one_line(tmp_path, header):
    file = tmp_path / "x.csv"
    for rows in (3, 50_000):
        file.write_text("\n".join([header, *["a,b"] * rows]))
        with pytest.raises(ValueError, match=rf"^data\.t(rain|ext)[^\n]*{file}[^\n]*$"):
            columns_of("data.train", file, [("data.text", "text"), ("data.label", "label")])
