"""What the store's records of runs mean: which is the newest, which can go on, which is over."""

from __future__ import annotations

import logging
from typing import Any

LOG = logging.getLogger("alphagrad")
REASON = "alphagrad.reason"
"""Tag that says why a run did not finish."""
NUMBER = "alphagrad.number"
"""Tag that counts the runs of an experiment up: their order, whatever the clocks said."""
NEWEST_FIRST = (f"tags.`{NUMBER}` DESC", "attributes.start_time DESC")
PRUNED = "pruned"
"""How the reason of a run that a tuning ended begins: KILLED, yet it does not go on."""
DIVERGED = "diverged"
"""How the reason of a run that turned non-finite begins: FAILED, and it cannot go on."""
FOLDER, HOST = "output_folder", "host"
"""Tags that say where a run is written, and on which machine it trains."""


def next_number(client: Any, experiment: str) -> int:
    """What comes after the runs there are; see :data:`NUMBER`."""
    found = client.search_runs([experiment], "", run_view_type=3, max_results=1, order_by=list(NEWEST_FIRST))
    return int(found[0].data.tags.get(NUMBER, "0")) + 1 if found else 1


def newest(client: Any, experiment: str, tag: str, value: str) -> Any:
    """The newest run with this tag; None if there is none."""
    quote = '"' if "'" in value else "'"
    condition = f"tags.`{tag}` = {quote}{value}{quote}" if quote not in value else f"tags.`{tag}` LIKE '%'"
    found = client.search_runs([experiment], condition, order_by=list(NEWEST_FIRST))
    return next((run for run in found if run.data.tags[tag] == value), None)


def is_over(status: str, reason: str) -> bool:
    """Whether a run of this status and reason can never go on, whoever asks for it."""
    return status == "FINISHED" or reason.startswith((DIVERGED, PRUNED))


def can_go_on(run: Any) -> bool:
    """Whether a run of the store was stopped, or still trains; one that was pruned has ended."""
    over = is_over(run.info.status, run.data.tags.get(REASON, ""))
    return run.info.status in ("RUNNING", "KILLED") and not over and not is_deleted(run)


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


def is_deleted(run: Any) -> bool:
    """Whether a run of the store was taken back, by :meth:`Tracker.take_back` or by the user."""
    return bool(run.info.lifecycle_stage != "active")
