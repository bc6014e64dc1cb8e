"""A store of an older version, unpacked."""

from __future__ import annotations

import lzma
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import torch

PLACE = "/alphagrad-test-place"
"""What stands in the archive for the folder that holds all."""
COUNTS = {
    "finished": "1 job: 1 finished",
    "diverged": "1 job: 1 failed",
    "failed": "1 job: 1 failed",
    "terminated": "1 job: 1 killed",
    "killed": "1 job: 1 killed",
    "interrupted": "1 job: 1 killed",
    "half": "3 jobs: 1 finished, 1 killed, 1 not begun",
    "stacked": "4 jobs: 4 finished",
    "stopped": "4 jobs: 4 killed",
}
REASONS = {
    "diverged": "diverged at step 99: non-finite loss/td_mean",
    "failed": "RuntimeError: env.id=odd_recipe:Fragile-v0",
    "terminated": "Terminated",
    "killed": "its process ended without a word",
    "interrupted": "KeyboardInterrupt",
    "half": "Terminated",
    "stopped": "Terminated",
}
Numbers = dict[str, list[tuple[int, float]]]
"""Metric → (step, value) of all its points."""


class Older:
    """An older store, unpacked."""

    def __init__(self, archive: Path, place: Path) -> None:
        self.archive, self.place, self.root = archive, place, place / "outputs"

    def told(self, experiment: str, command: str) -> str:
        """What the alphagrad that made the store said."""
        return (self.place / "told" / f"{experiment}.{command}").read_text()

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(f"sqlite:///{self.root / 'mlflow.db'}")

    def runs(self, experiment: str) -> dict[str, list[Any]]:
        """Variant and seed → its runs, the first begun first; a study's own is not among them."""
        found: dict[str, list[Any]] = {}
        ids = [self.client.get_experiment_by_name(experiment).experiment_id]
        for run in self.client.search_runs(ids, order_by=["attributes.start_time ASC"]):
            if "seed" in run.data.tags:
                found.setdefault(f"{run.data.tags['variant']} {run.data.tags['seed']}", []).append(run)
        return found

    def numbers(self, run: Any) -> Numbers:
        """A run's metrics but times: every point, and so one that is there twice as well."""
        names = [name for name in run.data.metrics if not name.startswith(("time/", "cost/"))]
        return {n: sorted((p.step, p.value) for p in self.client.get_metric_history(run.info.run_id, n)) for n in names}

    def model(self, run: Any) -> dict[str, Any]:
        """A finished run's model."""
        return torch.load(Path(run.data.tags["output_folder"]) / "checkpoint.pt", weights_only=True)

    def sql(self, command: str) -> None:
        """Changes the store."""
        with closing(sqlite3.connect(self.root / "mlflow.db")) as store, store:
            store.execute(command)


def unpacked(archive: Path, place: Path) -> Older:
    """An older store in a folder, with the places that it names put right."""
    with lzma.open(archive) as packed, tarfile.open(fileobj=packed) as tar:
        tar.extractall(place, filter="data")
    for file in place.rglob("*"):
        if file.is_file() and file.suffix != ".pt":
            content = file.read_bytes()
            if PLACE.encode() in content:
                file.write_bytes(content.replace(PLACE.encode(), str(place).encode()))
    dump = place / "outputs/mlflow.sql"
    with closing(sqlite3.connect(dump.with_suffix(".db"))) as store:
        store.executescript(dump.read_text())
    return Older(archive, place)
