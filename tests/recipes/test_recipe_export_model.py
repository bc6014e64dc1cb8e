"""`alphagrad export-model`: the file does what the network did in training; what cannot be is a line."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from alphagrad.recipes.supervised import deployed
from alphagrad.recipes.supervised.quantized import Inputs, QuantizedConv2d, QuantizedLinear
from image_cases import ADAM, Recorder, recipe

import alphagrad_cli
from alphagrad.exporting import onnx_file
from alphagrad.harness.stack import RunSpec, RunStack

IMAGE = ("recipe=image", "recipe.epochs=1", "instruments=none", "recipe.eval_every=0", "recipe.gap_images=0")
SMALL = {"mlp": ("model.hidden=[24]",), "cnn": ("model=cnn", "model.channels=[4,6]", "model.hidden=[8]")}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The folder of a run."""
    root = tmp_path_factory.mktemp("classifier")
    assert alphagrad_cli.main(["run", *IMAGE, *SMALL["mlp"], "tracking=none", f"output_root={root}"]) == 0
    return next(root.rglob("checkpoint.pt")).parent


@pytest.fixture
def folder(classifier, tmp_path):
    """A copy of it, to do with as one likes."""
    return shutil.copytree(classifier, tmp_path / "run")


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("width", ["int8", "int4_weights"])
def test_the_graph_is_the_network_in_integers(monkeypatch, model, width):
    """With ONNX's operations as their definition has them, in place of the exporter's."""

    def operation(name, inputs, attrs=None, *, dtype, shape):
        x, scale, *zero = (t.float() for t in inputs)
        if attrs:
            assert (name, attrs) == ("DequantizeLinear", {"axis": 0})
            return x * scale.reshape(-1, *[1] * (x.dim() - 1))
        if name == "QuantizeLinear":
            return ((x / scale).round() + zero[0]).clamp(-128, 127).to(dtype)
        return (x - zero[0]) * scale

    monkeypatch.setattr(deployed, "symbolic", operation)
    image = recipe(model, quantization=width)
    (result,) = image.train(RunStack([RunSpec(0, ADAM)]), Recorder())
    network = image.exported(result)
    kept = network.graph.state_dict()
    layers = [m for m in network.module.modules() if isinstance(m, QuantizedLinear | QuantizedConv2d)]
    assert len([t for t in kept.values() if t.dtype == torch.int8 and t.dim() > 1]) == len(layers)
    assert not any(name.endswith(".weight") for name in kept)
    assert len(network.narrow) == (len(layers) if width == "int4_weights" else 0)
    images = torch.randn(50, *image.data.shape)
    assert torch.equal(network.graph(images), network.module(images))
    assert any(isinstance(m, Inputs) for m in network.module.modules()) == (width == "int8")


def test_the_average_is_what_is_exported():
    image = recipe(ema=0.9)
    (result,) = image.train(RunStack([RunSpec(0, ADAM)]), log := Recorder())
    network = image.exported(result)
    assert all(torch.equal(t, result["average"][name]) for name, t in network.module.state_dict().items())
    assert network.score(network.module)["eval/accuracy"] == list(log.of(0, "eval/accuracy").values())[-1]


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("width", ["none", "int8", "int4_weights"])
def test_the_file_has_the_accuracy_that_training_told(cli, root, store_runs, model, width):
    import onnx
    from onnx import TensorProto

    words = (*IMAGE, *SMALL[model], f"recipe.quantization={width}", "recipe.epochs=4", "optimizer.lr=5e-3")
    assert cli("run", *words, f"output_root={root}").status == 0
    (run,) = store_runs(root)
    told = run.data.metrics["eval/accuracy"]
    file = root / "it.onnx"
    done = cli("export-model", run.info.run_id[:6], "--to", str(file), "--output-root", str(root))
    assert done.status == 0, done.err
    first, second = done.out.splitlines()
    assert first.startswith(f"{file}: {file.stat().st_size:,} bytes, ")
    assert second == f"eval/accuracy: {told:.4f} by onnxruntime, {told:.4f} by torch, {told:.4f} when it was trained"
    assert told > 0.3
    saved = onnx.load(file)
    onnx.checker.check_model(saved, full_check=True)
    kinds = {t.data_type for t in saved.graph.initializer if len(t.dims) > 1}
    wanted = {"none": TensorProto.FLOAT, "int8": TensorProto.INT8, "int4_weights": TensorProto.INT4}[width]
    assert kinds == {wanted}
    assert ("QuantizeLinear" in {node.op_type for node in saved.graph.node}) == (width == "int8")
    assert not any(noted.metadata_props for noted in (saved, saved.graph, *saved.graph.node, *saved.graph.value_info))
    assert b"site-packages" not in saved.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("model.norm=batch", "recipe.ema=0.9"), ("model=resnet18", "model.stem=small")])
def test_other_networks_are_exported(cli, root, words):
    words = (*SMALL["cnn"], *words) if words[0] == "model.norm=batch" else words
    assert cli("run", *IMAGE, *words, "tracking=none", f"output_root={root}").status == 0
    done = cli("export-model", str(next(root.rglob("checkpoint.pt")).parent))
    assert done.status == 0, done.err
    by = re.search(r"accuracy: (\S+) by onnxruntime, (\S+) by torch, the store has none", done.out)
    assert by[1] == by[2]


def refused(cli, *words):
    done = cli("export-model", *map(str, words))
    assert (done.status, len(done.err.splitlines())) == (2, 1), done.err
    return done.err


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(onnx_file, "missing", list)


@pytest.mark.long
def test_packages_that_are_missing_are_named(cli, folder, monkeypatch):
    monkeypatch.setattr(onnx_file, "PACKAGES", ("torch", "no_such_onnx"))
    assert refused(cli, folder) == (
        "alphagrad: alphagrad export-model: needs no_such_onnx; pip install 'alphagrad[export]'\n"
    )


def test_wrong_words_are_named(cli, folder, installed, tmp_path):
    for words, said in [
        (("--to", "x.pt"), "--to=x.pt: must end in .onnx"),
        (("--to", "nowhere/x.onnx"), "--to=nowhere/x.onnx: has to be a file in a folder that exists"),
        (("--to", "x" * 300 + ".onnx"), "is longer than a file's name may be"),
    ]:
        assert said in refused(cli, folder, *words)
    assert "is neither a folder nor a run id" in refused(cli, "no/such/run")
    assert f"{tmp_path}: is not the folder of a run, it has no config.yaml" in refused(cli, tmp_path)
    torch.save({"model": {"a": torch.zeros(3)}}, folder / "checkpoint.pt")
    assert f"{folder / 'checkpoint.pt'}: is no checkpoint of recipe image" in refused(cli, folder)
    (folder / "checkpoint.pt").unlink()
    assert "has no checkpoint.pt yet; a run leaves one when it is finished" in refused(cli, folder)
    assert not list(folder.glob("*.onnx"))


@pytest.mark.long
def test_a_recipe_without_a_classifier(cli, root, installed):
    words = ("recipe=regression", "recipe.hidden=[4]", "recipe.total_steps=5", "tracking=none")
    assert cli("run", *words, f"output_root={root}").status == 0
    folder = next(root.rglob("checkpoint.pt")).parent
    assert "recipe regression has no network that can be exported; recipe=image has" in refused(cli, folder)


def test_what_stood_there_stays_where_the_exporter_fails(cli, folder, installed, monkeypatch):
    def fail(network, file):
        file.write_bytes(b"half")
        raise RuntimeError("no such operation\nin ONNX")

    monkeypatch.setattr(onnx_file, "write", fail)
    file = folder / "model.onnx"
    file.write_bytes(b"before")
    assert f"{folder}: cannot be said in ONNX (no such operation in ONNX)" in refused(cli, folder)
    assert file.read_bytes() == b"before"
    assert not list(folder.glob(".tmp*"))
