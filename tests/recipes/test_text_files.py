"""Text in files reaches the tokenizer as it stands there, whatever the format, or is refused by row or byte."""

from __future__ import annotations

import csv
import decimal
import json
from pathlib import Path

import pyarrow as pa
import pytest
from alphagrad.recipes.language import data as language
from alphagrad.recipes.language import files, tables
from alphagrad.recipes.language.data import DataSettings, corpus, labelled
from alphagrad.recipes.language.files import files_of, read_text
from alphagrad.recipes.language.tables import columns_of
from pyarrow import parquet

TEXTS = [
    "plain", " blanks around\t", "NA", "null", "NaN", "None", "007", "1.10", "1e5", "true", "-", " ", "", "b'x'", "\\n",
    "2020-01-01", "2020-01-01T00:00:00Z", 'say "so", he said', "#no comment", "\ufeffmark", "ä, 漢字, 🙂",
    "two\nlines", "two\r\nlines", "one\rline", "\u2028 and \x85",
]  # fmt: skip
LABELS = [["NA", "null", "007", "0", "1.0", "true"][k % 6] for k in range(len(TEXTS))]
NAMES = [("data.text", "text"), ("data.label", "label")]


def write_csv(file: Path, mark: str = "") -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        opened.write(mark)
        rows = csv.writer(opened, quoting=csv.QUOTE_MINIMAL)
        rows.writerows([["label", "text"], *zip(LABELS, TEXTS, strict=True)])


def write_json(file: Path, mark: str = "") -> None:
    rows = [{"text": t, "label": y} for t, y in zip(TEXTS, LABELS, strict=True)]
    told = (
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) if file.suffix == ".jsonl" else json.dumps(rows)
    )
    file.write_text(mark + told, encoding="utf-8", newline="")


def write_parquet(kind: pa.DataType):
    def write(file: Path, mark: str = "") -> None:
        texts = pa.array([t.encode() for t in TEXTS] if pa.types.is_binary(kind) else TEXTS)
        labels = pa.array(LABELS).dictionary_encode()
        parquet.write_table(pa.table({"label": labels, "text": texts.cast(kind)}), file)

    return write


WRITERS = {
    "a.csv": write_csv,
    "a.json": write_json,
    "a.jsonl": write_json,
    "text.parquet": write_parquet(pa.string()),
    "large.parquet": write_parquet(pa.large_string()),
    "bytes.parquet": write_parquet(pa.binary()),
}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_give_the_same_texts(name, mark, tmp_path):
    WRITERS[name](tmp_path / name, mark)
    assert columns_of("data.train", tmp_path / name, NAMES) == [TEXTS, LABELS]


def test_numbers_and_truths_are_as_they_stand_in_the_file(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(
        '{"text": 1.10, "label": true}\n{"text": 1e5, "label": 7}\n{"text": 123456789012345678901, "label": 7.0}'
    )
    assert columns_of("data.train", file, NAMES) == [["1.10", "1e5", "123456789012345678901"], ["true", "7", "7.0"]]
    file = tmp_path / "a.parquet"
    table = {"text": pa.array([0.1, 2.0], pa.float32()), "label": [True, False], "n": [7, 8], "x": [0.1, 1.0]}
    table["d"] = pa.array([decimal.Decimal("1.10"), decimal.Decimal("2.00")])
    parquet.write_table(pa.table(table), file)
    names = [("data.text", name) for name in ("text", "label", "n", "x", "d")]
    expected = [["0.1", "2.0"], ["true", "false"], ["7", "8"], ["0.1", "1.0"], ["1.10", "2.00"]]
    assert columns_of("data.train", file, names) == expected


BAD_ROWS = [
    (
        "a.jsonl",
        b'{"text": "a", "label": "x"}\n{"text": "\\ud800", "label": "y"}',
        "has a value in row 2 that is no UTF-8",
    ),
    ("a.jsonl", b'{"text": "a", "text": "b", "label": "x"}', "a row has two values of text"),
    ("a.jsonl", b'{"text": ["a"], "label": "x"}', "has a list in row 1, no text"),
    ("a.jsonl", b'{"label": "x"}\n{"text": null, "label": "x"}', "has no value in row 1"),
    ("a.json", b'["a"]', "row 1 is no object; it must be an array of objects"),
    ("a.json", b'{"text": {"0": "a"}}\n', "has no such column"),
    ("a.csv", "label,text\nx,Grüße\n".encode("latin-1"), "must be UTF-8, and byte 15 of it, 0xfc, is not; iconv"),
    ("a.csv", "label,text\nx,a\n".encode("utf-16"), "must be UTF-8, and is UTF-16; iconv -f UTF-16"),
    ("a.csv", "label,text\nx,a\n".encode("utf-16-le"), "byte 1 of it is zero: it is UTF-16 or UTF-32 without a mark"),
    ("a.jsonl", '{"text": "a", "label": "x"}'.encode("utf-32"), "must be UTF-8, and is UTF-32"),
]


@pytest.mark.parametrize(("name", "content", "told"), BAD_ROWS)
def test_what_is_no_text_is_refused_by_row_or_byte(name, content, told, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told) as caught:
        columns_of("data.train", tmp_path / name, [NAMES[1], NAMES[0]])
    assert str(caught.value).startswith("data.")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_utf8_are_refused(tmp_path):
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": [b"a", "Grüße".encode("latin-1")], "label": ["x", "y"]}), file)
    with pytest.raises(ValueError, match=r"data.text=text: .*a.parquet has a value in row 2 that is no UTF-8 text"):
        columns_of("data.train", file, NAMES)


def test_a_text_file_is_its_text(tmp_path):
    file = tmp_path / "a.txt"
    text = "\r\n one\r\ntwo\u2028three \n\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_text("data.train", file) == text
    file.write_bytes("Grüße".encode("utf-16"))
    with pytest.raises(ValueError, match=r"data\.train: .*a.txt must be UTF-8, and is UTF-16"):
        read_text("data.train", file)


def test_labels_that_differ_in_blanks_alone_are_told(tmp_path, capsys):
    (tmp_path / "train.csv").write_text("label,text\nsea,wave\nsea ,ship\nsky,star\n")
    (tmp_path / "test.csv").write_text("label,text\nsea,wave\n")
    s = DataSettings(name="files", root=str(tmp_path), train="train.csv", test="test.csv", text="text", label="label")
    assert labelled(s).classes == ["sea", "sea ", "sky"]
    assert "the classes 'sea' and 'sea ' differ in blanks alone, and count as 2" in capsys.readouterr().err
    (tmp_path / "test.csv").write_text("label,text\n sea,wave\n")
    labelled.cache_clear()
    with pytest.raises(ValueError, match="has the class  sea, which the training split has not; it has 'sea'"):
        labelled(s)


def test_hub_values_are_texts_too(monkeypatch):
    import datasets

    features = datasets.Features(
        {
            "text": datasets.Value("binary"),
            "label": datasets.ClassLabel(names=["sea", "sky"]),
            "n": datasets.Value("int64"),
        }
    )
    rows = {"text": ["wäve".encode(), b"star"], "label": [0, 1], "n": [7, None]}
    held = datasets.Dataset.from_dict(rows, features)
    monkeypatch.setattr(language, "load_split", lambda *_: held)
    hub = {"name": "hub", "repo": "a/b", "train": "train", "test": "test"}
    assert labelled(DataSettings(**hub, text="text", label="label")).train.texts == ["wäve", "star"]
    assert corpus(DataSettings(**hub, text="text")) == (["wäve", "star"], ["wäve", "star"])
    with pytest.raises(ValueError, match=r"data\.repo=a/b: split train: column n has no value in row 2"):
        corpus(DataSettings(**hub, text="n"))
    held = datasets.Dataset.from_dict({**rows, "label": [0, -1]}, features)
    with pytest.raises(ValueError, match="column label has no value in row 2"):
        labelled(DataSettings(**hub, config="other", text="text", label="label"))


def test_a_path_that_exists_is_that_file_and_only_then_a_pattern(tmp_path):
    names = [
        "tr [1].csv",
        "tr 1.csv",
        "a*.csv",
        "ab.csv",
        "q?.csv",
        "[!x].csv",
        "in [2]/x.csv",
        "in 2/x.csv",
        "**/x.csv",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("label,text\n")

    def found(pattern: str) -> list[str]:
        return [str(f.relative_to(tmp_path)) for f in files_of("data.train", pattern, str(tmp_path))]

    for name in names:
        assert found(name) == [name]
        assert found(str(tmp_path / name)) == [name]
    assert found("in [2]/*.csv") == ["in [2]/x.csv"]
    assert found("tr [0-9].csv") == ["tr 1.csv"]
    assert found("*b.csv") == ["ab.csv"]
    assert found("in [0-9]/x.csv") == ["in 2/x.csv"]
    for wrong in ("in 2", ".", "x" * 5000, "nowhere/*.csv"):
        with pytest.raises(ValueError, match=r"data\.train="):
            found(wrong)


def test_json_that_is_too_long_to_be_parsed_at_once(tmp_path, monkeypatch):
    """An array or a row; rows one after the other may be as many as they like."""
    monkeypatch.setattr(tables, "LONGEST_JSON", 100)
    rows = [{"text": "a text", "label": "a"}] * 10
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "row.jsonl").write_text(json.dumps({"text": "a" * 100, "label": "a"}))
    for name, what in (("a.json", "an array"), ("row.jsonl", "a row")):
        with pytest.raises(ValueError, match=f"{what} of [0-9]+ characters, .* at most 100 are read at once"):
            columns_of("data.train", tmp_path / name, NAMES)
    (tmp_path / "many.json").write_text("\n".join(map(json.dumps, rows)))
    assert columns_of("data.train", tmp_path / "many.json", NAMES) == [["a text"] * 10, ["a"] * 10]


@pytest.mark.parametrize("content", ["[" * 1_000_000, '{"text": ' + '{"a":' * 1_000_000, "[" * 500 + "]" * 500])
def test_json_that_is_deeply_nested_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"data\.train: .*a\.json cannot be read as json") as told:
        columns_of("data.train", tmp_path / "a.json", NAMES)
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json"])
def test_a_text_that_memory_cannot_hold_is_refused_before_it_is_read(tmp_path, monkeypatch, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(10**6)  # a hole: zeros, were it read
    monkeypatch.setattr(files, "memory", lambda: 3.9e6)
    with pytest.raises(ValueError, match=r"has 1 MB, and this machine has memory for 975 kB of text"):
        read_text("data.train", tmp_path / name)
    monkeypatch.setattr(files, "memory", lambda: 4e6)
    with pytest.raises(ValueError, match="byte 0 of it is zero"):
        read_text("data.train", tmp_path / name)
