"""`alphagrad export-model`: the trained network of a run as an ONNX file, judged by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import atomic, check_target
from alphagrad.common.words import cut, listed, say, squeezed
from alphagrad.lab.commands.arguments import add_store_options, parser

if TYPE_CHECKING:
    from alphagrad.exporting.network import Network


def main(argv: list[str]) -> None:
    """`alphagrad export-model`."""
    description = (
        "Writes the trained network of a run to an ONNX file, runs it by onnxruntime on the test examples, and says "
        "its accuracy, its bytes and how long one example takes."
    )
    p = parser("export-model", description, "alphagrad export-model 3f2a --to digits.onnx")
    p.add_argument("what", metavar="RUN", help="a run id or its beginning, or a run's folder")
    p.add_argument("--to", metavar="FILE", help="FILE.onnx (default: model.onnx in the run's folder)")
    add_store_options(p, experiment=False)
    args = p.parse_args(argv)
    for line in export(args.what, args.uri, args.output_root, args.to):
        say(line)


def export(what: str, uri: str | None, output_root: str, to: str | None) -> Iterator[str]:
    """Writes the file whole or not at all; says in lines what it is.

    Raises:
        ConfigError: the run cannot be exported, or not to this file; nothing is written.
    """
    from alphagrad.exporting import onnx_file
    from alphagrad.lab.launching.resume import folder_named
    from alphagrad.lab.records.folder import CONFIG
    from alphagrad.lab.store.address import store_uri

    if lacking := onnx_file.missing():
        raise ConfigError(f"alphagrad export-model: needs {listed(lacking)}; pip install 'alphagrad[export]'")
    folder = folder_named(what, store_uri(uri, output_root))
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{folder}: is not the folder of a run, it has no {CONFIG}")
    file = _checked(Path(to) if to else folder / "model.onnx")
    network, before = _network(folder), _recorded(folder)
    try:
        with atomic(file) as unfinished:
            try:
                onnx_file.write(network, unfinished)
                session = onnx_file.Session(unfinished)
            except Exception as error:  # the exporter and onnxruntime complain in many ways of what they do not know
                raise ConfigError(f"{folder}: cannot be said in ONNX ({squeezed(error, 300)})") from error
            there, here = network.score(session), network.score(network.module)
            seconds, size = session.latency(network.example), unfinished.stat().st_size
    except OSError as error:
        raise ConfigError(f"--to={file}: cannot be written ({error.strerror or error})") from error
    yield f"{file}: {size:,} bytes, {1000 * seconds:.3g} ms for one example (median of {onnx_file.REPEATS})"
    name = network.metric
    told = f"{before[name]:.4f} when it was trained" if name in before else "the store has none of its training"
    yield f"{name}: {there[name]:.4f} by onnxruntime, {here[name]:.4f} by torch, {told}"


def _checked(file: Path) -> Path:
    """The file, if it can be written; :class:`ConfigError` otherwise."""
    if file.suffix != ".onnx":
        raise ConfigError(f"--to={cut(file)}: must end in .onnx")
    check_target("--to", file)
    return file


def _network(folder: Path) -> Network:
    """What a run's recipe hands over."""
    from omegaconf import OmegaConf

    from alphagrad.harness.recipe import Capability
    from alphagrad.lab.config.build import build_recipe
    from alphagrad.lab.records.checkpoint import load_safely
    from alphagrad.lab.training.begun import naming, plain_config
    from alphagrad.lab.training.log import CHECKPOINT

    config = OmegaConf.create(plain_config(folder))
    with naming(folder):
        recipe: Any = build_recipe(config)
    if Capability.EXPORTED not in recipe.capabilities:
        raise ConfigError(
            f"{folder}: recipe {config.recipe.name} has no network that can be exported; recipe=image has"
        )
    file = folder / CHECKPOINT
    if not file.exists():
        raise ConfigError(f"{folder}: has no {CHECKPOINT} yet; a run leaves one when it is finished")
    checkpoint = load_safely(file)
    try:
        found: Network = recipe.exported(checkpoint)
    except Exception as error:  # torch complains in many ways of what is missing or of another shape
        told = f"{type(error).__name__}: {squeezed(error, 200)}"
        raise ConfigError(
            f"{file}: is no checkpoint of recipe {config.recipe.name} with these settings ({told})"
        ) from error
    return found


def _recorded(folder: Path) -> dict[str, float]:
    """The last values of a run's metrics in the store that it noted; none where there is no such store or run."""
    from alphagrad.lab.records.folder import run_id_of
    from alphagrad.lab.records.search import recorded
    from alphagrad.lab.store.address import NONE, sqlite_file, store_uri
    from alphagrad.lab.store.connection import open_existing
    from alphagrad.lab.training.begun import plain_config

    plain, run_id = plain_config(folder), run_id_of(folder)
    uri = store_uri(plain["tracking"]["uri"], plain["output_root"])
    file = sqlite_file(uri)
    if run_id is None or uri == NONE or (file is not None and not file.exists()):
        return {}
    run = recorded(open_existing(uri), run_id)
    return {} if run is None else dict(run.data.metrics)
