"""ONNX files: written by torch's exporter, run by onnxruntime."""

from __future__ import annotations

import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from .network import Network

OPSET = 21
"""The first with integers of 4 bits."""
LARGEST = 2**31 - 1
"""Bytes of a file of one part."""
REPEATS = 200
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing() -> list[str]:
    """The packages that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def write(network: Network, file: Path) -> None:
    """Writes a network to a file.

    Raises:
        ValueError: its numbers do not fit into one file.
        torch.onnx.OnnxExporterError: it does what cannot be said in ONNX.
    """
    from onnxscript import ir

    size = sum(t.numel() * t.element_size() for t in network.graph.state_dict().values())
    if size > LARGEST:
        raise ValueError(f"its {size:,} bytes are more than the {LARGEST:,} of one ONNX file")
    shapes = {axis: torch.export.Dim(name) for axis, name in network.dims.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own code
        program = torch.onnx.export(
            network.graph.eval(),
            (network.example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=network.names[:1],
            output_names=network.names[1:],
            dynamic_shapes=(shapes,),
        )
    assert program is not None
    model = program.model
    for name in network.narrow:
        value = model.graph.initializers[name]
        assert value.const_value is not None
        dtype = ir.DataType.INT4
        value.const_value = ir.Tensor(value.const_value.numpy().astype(dtype.numpy()), dtype=dtype, name=name)
        value.type = ir.TensorType(dtype)
    # what the exporter notes of its own, such as the files of this machine; more bytes than a small network's weights
    values = [value for node in model.graph for value in node.outputs]
    for noted in (model, model.graph, *model.graph, *values, *model.graph.inputs, *model.graph.initializers.values()):
        noted.metadata_props.clear()
    ir.save(model, file)


class Session:
    """A file at work, on one thread of the CPU."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs [B, ...] for inputs [B, ...]."""
        (outputs,) = self._session.run(None, {self._input: inputs.contiguous().numpy()})
        return torch.from_numpy(outputs)

    def latency(self, example: Tensor, repeats: int = REPEATS) -> float:
        """Seconds for inputs [1, ...], the median of repeats; as many are made before."""
        given = {self._input: example.contiguous().numpy()}
        taken = []
        for _ in range(2 * repeats):
            start = time.perf_counter()
            self._session.run(None, given)
            taken.append(time.perf_counter() - start)
        return median(taken[repeats:])
