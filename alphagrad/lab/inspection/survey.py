"""The loss around the weights of runs: read from their folders, looked at along shared directions, drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import atomic, check_target
from alphagrad.common.words import cut, listed, squeezed
from alphagrad.harness.device import device_of
from alphagrad.harness.recipe import Capability
from alphagrad.lab.config.build import build_recipe
from alphagrad.lab.launching.resume import folder_named
from alphagrad.lab.records.checkpoint import load_safely, trajectory_of
from alphagrad.lab.records.folder import CONFIG
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.training.begun import naming, plain_config
from alphagrad.lab.training.log import CHECKPOINT
from alphagrad.lab.training.progress import ProgressLine
from alphagrad.landscape.directions import coordinates, principal_directions, random_directions
from alphagrad.landscape.loss import FixedLoss
from alphagrad.landscape.picture import View, draw, write_data
from alphagrad.landscape.sharpness import largest_eigenvalues, worst_in_ball
from alphagrad.landscape.surface import axis, extent, surface

SUFFIXES = (".png", ".svg", ".pdf")
POINTS = {1: 51, 2: 21}
MOST_POINTS = 1001
"""Along an axis."""
AGAIN = "train it with checkpoint.trajectory_every=STEPS, which keeps its models on the way"


@dataclass(frozen=True)
class Wanted:
    """What is to be seen; see `alphagrad landscape --help`."""

    to: str | None
    dims: int
    directions: str
    points: int | None
    span: float | None
    seed: int
    examples: int
    eigenvalues: int
    rho: float

    def check(self) -> None:
        """:class:`ConfigError` for a number that cannot be used."""
        points = self.points
        if points is not None and not 3 <= points <= MOST_POINTS:
            raise ConfigError(f"--points={points}: must be between 3 and {MOST_POINTS:,}")
        if self.span is not None and not (np.isfinite(self.span) and self.span > 0):
            raise ConfigError(f"--span={self.span}: must be a number above 0")
        if not (np.isfinite(self.rho) and self.rho >= 0):
            raise ConfigError(f"--rho={self.rho}: must be at least 0")
        for name, least in (("examples", 1), ("eigenvalues", 0), ("seed", 0)):
            if not least <= (value := getattr(self, name)) < 2**63:
                raise ConfigError(f"--{name}={value}: must be at least {least}")


@dataclass(frozen=True)
class Run:
    """A run whose loss is looked at."""

    folder: Path
    title: str
    kind: str
    """Equal for runs that have one loss."""
    loss: FixedLoss
    end: Tensor
    path: list[Tensor]
    """Its weights on the way, the last of them its end; nothing where they are not asked for."""


def survey(what: Sequence[str], uri: str | None, output_root: str, wanted: Wanted) -> Iterator[str]:
    """Draws what is wanted; says in lines what was found.

    Args:
        what: runs' folders, or their ids or the beginnings of them.
        uri: the store to look ids up in; None for the default.
        output_root: the folder of the default store.
        wanted: what is to be seen.

    Raises:
        ConfigError: a run cannot be looked at, or a wish not be met; nothing is written.
    """
    wanted.check()
    folders = [folder_named(name, store_uri(uri, output_root)) for name in what]
    for folder in folders:
        if not (folder / CONFIG).exists():
            raise ConfigError(f"{folder}: is not the folder of a run, it has no {CONFIG}")
    picture = _checked_file(Path(wanted.to) if wanted.to else folders[0] / "landscape.png")
    runs = [_read(folder, wanted) for folder in folders]
    for run in runs[1:]:
        if run.loss.shapes != runs[0].loss.shapes:
            raise ConfigError(f"{run.folder}: has other weights than {runs[0].folder}; compared runs have one network")
    with ProgressLine("landscape") as line:
        axes, views, about, names = _seen(runs, wanted, line)
    data = picture.with_suffix(".npz")
    with atomic(data) as first, atomic(picture) as second:
        write_data(first, axes, views, about)
        draw(second, axes, views, names)
    for view in views:
        yield f"{view.title}: {_told(view.sharpness, wanted.rho)}"
    yield f"{picture}: {len(axes[0]) ** len(axes):,} points of {names[0]}{f', {names[1]}' if names[1:] else ''}"
    yield f"{data}: the numbers"


def _checked_file(file: Path) -> Path:
    """The picture's; :class:`ConfigError` for one that cannot be written or is of no kind that is known."""
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"--to={cut(file)}: must end in {', '.join(SUFFIXES)}")
    for place in (file, file.with_suffix(".npz")):
        check_target("--to", place)
    return file


def _read(folder: Path, wanted: Wanted) -> Run:
    """A run's loss and weights."""
    plain = plain_config(folder)
    with naming(folder):
        config = OmegaConf.create(plain)
        recipe: Any = build_recipe(config)
        device = device_of(plain["device"])
    if Capability.SURVEYED not in recipe.capabilities:
        raise ConfigError(
            f"{folder}: recipe {config.recipe.name} has no loss on fixed examples; an agent's change with its policy"
            if Capability.PLAYED in recipe.capabilities
            else f"{folder}: recipe {config.recipe.name} has no loss on fixed examples"
        )
    file = folder / CHECKPOINT
    if not file.exists():
        raise ConfigError(f"{folder}: has no {CHECKPOINT} yet; a run leaves one when it is finished")
    checkpoint = load_safely(file)
    try:
        loss = recipe.fixed_loss(checkpoint, wanted.examples, device)
    except Exception as error:  # torch and the recipes complain in many ways of what is missing or of another shape
        raise ConfigError(_misfit(file, config.recipe.name, error)) from error
    path = [] if wanted.directions == "random" else [*_on_the_way(folder, loss), loss.start]
    kind = json.dumps([plain["recipe"], wanted.examples], sort_keys=True)
    return Run(folder, f"{config.optimizer.name} seed={config.seed}", kind, loss, loss.start, path)


def _on_the_way(folder: Path, loss: FixedLoss) -> Iterator[Tensor]:
    files = trajectory_of(folder)
    if not files:
        raise ConfigError(f"{folder}: has no path to take the principal components of; {AGAIN}")
    for file in files:
        saved = load_safely(file).get("model")
        try:
            yield loss.vector(saved if isinstance(saved, Mapping) else {})
        except ValueError as error:
            raise ConfigError(f"{file}: is no model of this run ({squeezed(error, 200)})") from error


def _misfit(file: Path, recipe: str, error: Exception) -> str:
    told = f"{type(error).__name__}: {squeezed(error, 200)}"
    return f"{file}: is no checkpoint of recipe {recipe} with these settings ({told})"


def _seen(
    runs: Sequence[Run], wanted: Wanted, line: ProgressLine
) -> tuple[list[np.ndarray], list[View], dict[str, Any], list[str]]:
    """The axes, what is seen of each run, what is noted of the directions, and the axes' names."""
    looked = _random(runs, wanted) if wanted.directions == "random" else _principal(runs, wanted)
    axes, centres, directions, paths, about = looked
    names = [f"direction {k + 1}, in norms of the filters" for k in range(wanted.dims)]
    if wanted.directions == "pca":
        names = [f"component {k + 1}, {share:.0%} of the paths" for k, share in enumerate(about["explained"])]
    # runs of one loss share a plane of principal components
    keys = [(run.kind, None if wanted.directions == "pca" else k) for k, run in enumerate(runs)]
    points = int(np.prod([len(places) for places in axes]))
    line.start(points * len(set(keys)) + len(runs))
    done, losses, views = 0, {}, []

    def tell(shown: str = "") -> None:
        nonlocal done
        done += 1
        line.update(done, shown)

    for k, run in enumerate(runs):
        if keys[k] not in losses:
            losses[keys[k]] = surface(run.loss, centres[k], directions[k], axes, partial(tell, run.title))
        line.note(f"{run.title}: eigenvalues and the worst loss")
        sharpness = _sharpness(run, wanted)
        tell(run.title)
        path = paths[k] if paths else None
        end = np.zeros(wanted.dims) if path is None else path[-1]
        views.append(View(_title(runs, k), losses[keys[k]], path, end, sharpness))
    return axes, views, about, names


Looked = tuple[list[np.ndarray], list[Tensor], list[Tensor], list[np.ndarray], dict[str, Any]]
"""Axes, each run's centre and directions [dims, D], the runs' paths, and what is noted."""


def _random(runs: Sequence[Run], wanted: Wanted) -> Looked:
    """Around each run's own weights: the same draws, in norms of its own filters."""
    points = wanted.points or POINTS[wanted.dims]
    axes = [axis(0.0, wanted.span or 1.0, points) for _ in range(wanted.dims)]
    directions = []
    for run in runs:
        drawn = random_directions(run.loss.named(run.end), wanted.dims, wanted.seed)
        directions.append(torch.stack([run.loss.vector(direction) for direction in drawn]))
    return axes, [run.end for run in runs], directions, [], {"directions": "random", "seed": wanted.seed}


def _principal(runs: Sequence[Run], wanted: Wanted) -> Looked:
    """One line or plane for all: the principal components of their paths around the middle of their ends."""
    centre = torch.stack([run.end for run in runs]).mean(0)
    every = [point for run in runs for point in run.path]
    try:
        directions, explained = principal_directions(every, centre, wanted.dims)
    except ValueError as error:
        raise ConfigError(f"--directions=pca --dims={wanted.dims}: {error}; {AGAIN}") from error
    paths = [coordinates(run.path, centre, directions).numpy() for run in runs]
    points = wanted.points or POINTS[wanted.dims]
    ranges = [(middle, wanted.span or half) for middle, half in extent(np.concatenate(paths))]
    axes = [axis(middle, half, points) for middle, half in ranges]
    about = {"directions": "pca", "explained": explained}
    return axes, [centre] * len(runs), [directions] * len(runs), paths, about


def _sharpness(run: Run, wanted: Wanted) -> dict[str, Any]:
    """The loss at a run's weights, and how sharp it is there."""
    found: dict[str, Any] = {"loss_at_end": run.loss.value(run.end)}
    toward: list[Tensor] = []
    if not np.isfinite(found["loss_at_end"]):
        return found
    if wanted.eigenvalues:
        try:
            values, vectors = largest_eigenvalues(run.loss, run.end, wanted.eigenvalues, wanted.seed)
        except (ArithmeticError, NotImplementedError) as error:
            raise ConfigError(f"{run.folder}: {squeezed(error, 200)}; give --eigenvalues 0") from error
        found["eigenvalues"], toward = values, [vectors[0]]
    if wanted.rho:
        found["worst_loss"] = worst_in_ball(run.loss, run.end, wanted.rho, toward)
    return found


def _told(sharpness: Mapping[str, Any], rho: float) -> str:
    """The numbers of a run in words."""
    told = [f"loss {sharpness['loss_at_end']:.4g}"]
    if "eigenvalues" in sharpness:
        several = len(sharpness["eigenvalues"]) > 1
        values = listed([f"{value:.4g}" for value in sharpness["eigenvalues"]])
        told.append(f"largest eigenvalue{'s' if several else ''} {values}")
    if "worst_loss" in sharpness:
        told.append(f"worst loss within {rho:g}: {sharpness['worst_loss']:.4g}")
    return ", ".join(told)


def _title(runs: Sequence[Run], k: int) -> str:
    """A run's, with its folder where others have the same."""
    title = runs[k].title
    return title if sum(run.title == title for run in runs) == 1 else f"{title} ({runs[k].folder.name})"
