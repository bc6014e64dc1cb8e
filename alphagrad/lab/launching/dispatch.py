"""Jobs handed to other processes and machines: what goes out, what comes back, and what is left of a broken one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alphagrad.common.errors import ConfigError, FailFast
from alphagrad.common.interrupts import closing_runs_on_signals
from alphagrad.common.own import importable, user_conf
from alphagrad.common.warned import SHOWN, show_once
from alphagrad.common.words import cut
from alphagrad.lab.config.build import validated
from alphagrad.lab.config.targets import ALLOWED, names_in
from alphagrad.lab.launching.apart import run_apart
from alphagrad.lab.launching.board import Board, Reporter, Reports, announce, names_of
from alphagrad.lab.launching.farms import FARMS
from alphagrad.lab.launching.plan import planned
from alphagrad.lab.records.run import PARENT_RUN, reason_of
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.training.job import Assignment, Outcome

STORE = "MLFLOW_TRACKING_URI"
HANDED = (PARENT_RUN, STORE, ALLOWED, SHOWN)
"""Variables of the environment that workers take from the study's main process."""


@dataclass(frozen=True)
class Parcel:
    """One farm job: the runs it trains as a stack, and what it takes from the main process's environment."""

    assignments: list[Assignment]
    environment: dict[str, str]
    modules: str | None = None
    """The folder of the user's own modules, as it is called here."""
    report: str = ""
    """The file that takes its progress."""


def check_farm(launcher: DictConfig) -> None:
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
        raise ConfigError(f"hydra.launcher.farm={cut(name)}: must be one of {', '.join(FARMS)}")
    options = validated(FARMS[name].options, plain, "hydra.launcher.")
    if find_spec(FARMS[name].package) is None:
        raise ConfigError(
            f"hydra/launcher={options.choice}: needs the package {FARMS[name].package}; "
            f"pip install 'alphagrad[{FARMS[name].package}]'"
        )
    options.check_here()
    return options


def run_on_farm(
    launcher: Mapping[str, Any], assignments: Sequence[Assignment], folder: Path, fail_fast: bool = False
) -> list[Outcome]:
    """Trains the jobs on the farm that ``launcher`` names; returns how each ended, in their order.

    A job that fails, or whose process dies, does not stop the others. When interrupted, the farm's jobs are
    told to close their runs and waited for.

    Raises:
        FailFast: a job failed under ``fail_fast``; what trained then was interrupted and can go on.
    """
    options = options_of(launcher)
    stacks = planned(assignments, options.runs_per_job, 1)
    board = Board.of(stacks)
    outcomes: dict[int, Outcome] = {}
    ended = Announced(assignments, fail_fast)

    def done(index: int, results: Sequence[Outcome] | str) -> None:
        told = stacks[index].outcomes(results)
        outcomes.update(told)
        board.ended(index)
        if ended(told):
            raise FailFast(ended.failure)

    with board, Reports(board, folder, len(stacks)) as reports:
        parcels = [parcel(stack.assignments, file) for stack, file in zip(stacks, reports.files, strict=True)]
        FARMS[str(launcher["farm"])].run(train, parcels, options, folder, done)
    return [outcomes[number] for number in range(len(assignments))]


class Announced:
    """Prints how jobs end as they end; called with number → outcome, it says whether the rest is not to begin."""

    def __init__(self, assignments: Sequence[Assignment], fail_fast: bool) -> None:
        self._assignments, self._fail_fast = assignments, fail_fast
        self._names = names_of([assignment.named for assignment in assignments])
        self.failure = ""
        """Of the first job that failed."""

    def __call__(self, outcomes: Mapping[int, Outcome]) -> bool:
        for number, outcome in outcomes.items():
            place = "" if outcome.life.finished else self._assignments[number].folder
            announce(self._names[number], outcome.told, place)
            self.failure = self.failure or (outcome.life.reason if outcome.life.failed else "")
        return self._fail_fast and bool(self.failure)


def parcel(assignments: list[Assignment], report: str = "") -> Parcel:
    """The jobs with the store and the parent run as they are here, whatever the worker's own environment says."""
    config = assignments[0].config
    environment = {name: os.environ[name] for name in (PARENT_RUN, SHOWN) if name in os.environ}
    if config["tracking"]["uri"] is None:
        environment[STORE] = store_uri(None, config["output_root"])
    # what was allowed here is allowed there, where $ALPHAGRAD_CONF may be another
    allowed = {name for assignment in assignments for name in names_in(assignment.config)}
    if allowed:
        environment[ALLOWED] = ",".join(sorted(allowed))
    own = user_conf()
    return Parcel(assignments, environment, str(own) if own else None, report)


def train(parcel: Parcel) -> list[Outcome]:
    """In the worker: trains the runs of a parcel; every way of failing is an outcome."""
    importable(parcel.modules)
    show_once()
    with driver_environment(parcel.environment), closing_runs_on_signals():
        try:
            return run_apart(parcel.assignments, Reporter(parcel.report))
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            return [Outcome.failed(reason_of(error))] * len(parcel.assignments)


@contextmanager
def driver_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The main process's parent run, store and allowed targets in place of this process's own, until the end.

    A worker may serve one study after another.
    """
    own = {name: os.environ.pop(name) for name in HANDED if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in HANDED:
            os.environ.pop(name, None)
        os.environ.update(own)
