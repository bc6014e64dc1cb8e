"""Runs looked up in the store, and the tags by which they are found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from alphagrad.common.errors import ConfigError

LOG = logging.getLogger("alphagrad")
NUMBER = "alphagrad.number"
"""Tag that counts the runs of a store up: their order, whatever the clocks said."""
NEWEST_FIRST = (f"tags.`{NUMBER}` DESC", "attributes.start_time DESC")
JOB_KEY = "alphagrad.job"
"""Tag of a job: equal for equal configurations and seeds."""
RECIPE, VARIANT, CONFIGURATION, CELL, SEED = "recipe", "variant", "configuration", "cell", "seed"
"""Tags that say what a run is: its configuration is the variant and what was set, its cell what of it differs in the
study, so that the runs of a cell differ in their seeds alone."""
FOLDER, HOST = "output_folder", "host"
"""Tags that say where a run is written, and on which machine it trains."""
PARENT = "mlflow.parentRunId"
"""Tag that names the study of a run."""
PAGE = 1000
"""Runs or experiments in one answer of the store."""


def search(client: Any, tag: str = "", value: str = "", experiments: Sequence[str] | None = None) -> list[Any]:
    """All runs, or those whose tag has this value; newest first.

    Args:
        client: of the store.
        tag: by which they are looked for; empty: all there are.
        value: of the tag.
        experiments: where; None: in all there are, because a study's runs may be of several recipes.
    """
    quote = '"' if "'" in value else "'"
    condition = f"tags.`{tag}` = {quote}{value}{quote}" if tag and quote not in value else ""
    where = experiment_ids(client) if experiments is None else list(experiments)
    order = list(NEWEST_FIRST)
    found = list(_pages(lambda token: client.search_runs(where, condition, 1, PAGE, order, token)))
    return [run for run in found if not tag or run.data.tags.get(tag) == value]


def experiment_ids(client: Any) -> list[str]:
    """The experiments there are."""
    return [str(e.experiment_id) for e in _pages(lambda token: client.search_experiments(1, PAGE, page_token=token))]


def _pages(page: Callable[[str | None], Any]) -> Iterator[Any]:
    """What the store answers, page after page."""
    token = None
    while True:
        answer = page(token)
        yield from answer
        token = answer.token
        if not token:
            return


def next_number(client: Any) -> int:
    """What comes after the runs there are, deleted ones too; see :data:`NUMBER`."""
    found = client.search_runs(experiment_ids(client), "", 3, 1, list(NEWEST_FIRST))
    return int(found[0].data.tags.get(NUMBER, "0")) + 1 if found else 1


def newest(client: Any, tag: str, value: str) -> Any:
    """The newest run with this tag; None if there is none."""
    return next(iter(search(client, tag, value)), None)


def find_run(client: Any, run_id: str) -> Any:
    """The run with this id, or whose id alone begins so.

    Raises:
        ConfigError: there is none, or several.
    """
    found = [run for run in search(client) if run.info.run_id.startswith(run_id)]
    if len(found) != 1:
        raise ConfigError(f"{run_id}: {len(found)} runs have an id that begins so, and it is no folder; give one run's")
    return found[0]


def recorded(client: Any, run_id: str, warn: bool = True) -> Any:
    """A run of the store; None, with a warning if asked, if it has none of this id, as one that was set up anew."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        if warn:
            LOG.warning("run %s is not in the store any more", run_id)
        return None
