"""Runs looked up in the store, and the tags by which they are found."""

from __future__ import annotations

import logging
from typing import Any

from alphagrad.common.errors import ConfigError

LOG = logging.getLogger("alphagrad")
NUMBER = "alphagrad.number"
"""Tag that counts the runs of an experiment up: their order, whatever the clocks said."""
NEWEST_FIRST = (f"tags.`{NUMBER}` DESC", "attributes.start_time DESC")
JOB_KEY = "alphagrad.job"
"""Tag of a job: equal for equal configurations and seeds."""
FOLDER, HOST = "output_folder", "host"
"""Tags that say where a run is written, and on which machine it trains."""
PARENT = "mlflow.parentRunId"
"""Tag that names the study of a run."""
PAGE = 1000
"""Runs in one answer of the store."""


def search(client: Any, experiment: str, tag: str = "", value: str = "") -> list[Any]:
    """All runs of an experiment, or those whose tag has this value; newest first."""
    quote = '"' if "'" in value else "'"
    condition = f"tags.`{tag}` = {quote}{value}{quote}" if tag and quote not in value else ""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment], condition, max_results=PAGE, order_by=list(NEWEST_FIRST), page_token=token
        )
        found += page
        token = page.token
        if not token:
            return [run for run in found if not tag or run.data.tags.get(tag) == value]


def next_number(client: Any, experiment: str) -> int:
    """What comes after the runs there are, deleted ones too; see :data:`NUMBER`."""
    found = client.search_runs([experiment], "", run_view_type=3, max_results=1, order_by=list(NEWEST_FIRST))
    return int(found[0].data.tags.get(NUMBER, "0")) + 1 if found else 1


def newest(client: Any, experiment: str, tag: str, value: str) -> Any:
    """The newest run with this tag; None if there is none."""
    return next(iter(search(client, experiment, tag, value)), None)


def find_run(client: Any, run_id: str) -> Any:
    """The run with this id, or whose id alone begins so.

    Raises:
        ConfigError: there is none, or several.
    """
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = [run for e in experiments for run in search(client, e) if run.info.run_id.startswith(run_id)]
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
