"""What is read of the store."""

from __future__ import annotations

from pathlib import Path

from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store


def history(root: Path, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """All points of a run: metric → (step, value) in the order of steps."""
    client = open_store(store_uri(None, root))
    names = client.get_run(run_id).data.metrics
    return {n: sorted((p.step, p.value) for p in client.get_metric_history(run_id, n)) for n in names}


def parent_and_children(runs: list) -> tuple:
    (parent,) = [r for r in runs if r.data.tags.get("alphagrad.kind") == "study"]
    children = [r for r in runs if r is not parent]
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parent.info.run_id}
    return parent, children
