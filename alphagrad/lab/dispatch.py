"""Jobs handed to other processes and machines: what goes out, what comes back, and what is left of a broken one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alphagrad.lab import metrics
from alphagrad.lab.address import store_uri
from alphagrad.lab.apart import run_apart
from alphagrad.lab.build import checked
from alphagrad.lab.errors import ConfigError
from alphagrad.lab.farms import FARMS
from alphagrad.lab.interrupts import closing_runs_on_signals
from alphagrad.lab.runner import Assignment, Outcome
from alphagrad.lab.stacking import planned
from alphagrad.lab.tracking import PARENT_RUN, reason_of

STORE = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Parcel:
    """One farm job: the runs it trains as a stack, and what it takes from the driver's environment."""

    assignments: list[Assignment]
    environment: dict[str, str]


def check(launcher: DictConfig) -> None:
    """Raises :class:`ConfigError` if the configured launcher is a farm that cannot be used here."""
    if "farm" in launcher:
        options_of(launcher)


def options_of(launcher: Mapping[str, Any]) -> Any:
    """The checked options of a farm's section (``hydra.launcher``)."""
    plain = OmegaConf.to_container(OmegaConf.create(dict(launcher)), resolve=True)
    assert isinstance(plain, dict)
    name = str(plain.pop("farm"))
    plain.pop("_target_", None)
    if name not in FARMS:
        raise ConfigError(f"hydra.launcher.farm={name}: must be one of {', '.join(FARMS)}")
    options = checked(FARMS[name].options, plain, "hydra.launcher.")
    if find_spec(FARMS[name].package) is None:
        raise ConfigError(
            f"hydra/launcher={options.choice}: needs the package {FARMS[name].package}; "
            f"pip install 'alphagrad[{FARMS[name].package}]'"
        )
    options.check_here()
    return options


def run_on_farm(launcher: Mapping[str, Any], assignments: Sequence[Assignment], folder: Path) -> list[Outcome]:
    """Trains the jobs on the farm that ``launcher`` names; returns how each ended, in their order.

    A job that fails, or whose process dies, does not stop the others. When interrupted, the farm's jobs are
    told to close their runs and waited for.
    """
    options = options_of(launcher)
    stacks = planned(assignments, options.runs_per_job, 1)
    parcels = [parcel(stack.assignments) for stack in stacks]
    outcomes: dict[int, Outcome] = {}

    def done(index: int, results: Sequence[Outcome] | str) -> None:
        for number, outcome in stacks[index].outcomes(results).items():
            outcomes[number] = outcome
            announce(assignments[number], outcome)

    FARMS[str(launcher["farm"])].run(train, parcels, options, folder, done)
    return [outcomes[number] for number in range(len(assignments))]


def announce(assignment: Assignment, outcome: Outcome) -> None:
    """Prints how a job ended, in a line."""
    said = metrics.headline(outcome.metrics) if outcome.failure is None else f"failed, {outcome.failure}"
    print(f"{assignment.folder}: {said}", flush=True)


def parcel(assignments: list[Assignment]) -> Parcel:
    """The jobs with the store and the parent run as they are here, whatever the worker's own environment says."""
    config = assignments[0].config
    environment = {name: os.environ[name] for name in (PARENT_RUN,) if name in os.environ}
    if config["tracking"]["uri"] is None:
        environment[STORE] = store_uri(None, config["output_root"])
    return Parcel(assignments, environment)


def train(parcel: Parcel) -> list[Outcome]:
    """In the worker: trains the runs of a parcel; every way of failing is an outcome."""
    with driver_environment(parcel.environment), closing_runs_on_signals():
        try:
            return run_apart(parcel.assignments, Silent())
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            return [Outcome({}, reason_of(error))] * len(parcel.assignments)


@contextmanager
def driver_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The driver's parent run and store in place of this process's own, which come back at the end.

    A worker may serve one study after another.
    """
    own = {name: os.environ.pop(name) for name in (PARENT_RUN, STORE) if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in (PARENT_RUN, STORE):
            os.environ.pop(name, None)
        os.environ.update(own)


class Silent:
    """A progress line that shows nothing: many workers share one terminal, or have none."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def start(self, total: int) -> None:
        """See :class:`alphagrad.lab.progress.ProgressLine`."""

    def update(self, step: int, shown: str) -> None:
        """See :class:`alphagrad.lab.progress.ProgressLine`."""
