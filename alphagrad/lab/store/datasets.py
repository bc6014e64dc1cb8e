"""What a run trains on, as MLflow's own kind of entry, by which its UI groups and filters runs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alphagrad.lab.store.address import hide

KIND = "alphagrad"
"""What MLflow calls the type of the source: settings of ``data`` of `alphagrad run`."""
LONGEST = 60_000
"""Characters of a source; MLflow takes 65,535."""


def note_dataset(client: Any, run_id: str, settings: DictConfig) -> None:
    """Records the data set of a run: its name, its settings, and a digest of these (not of the examples).

    Args:
        client: of the store.
        run_id: the run.
        settings: those of ``data``, with its ``name``.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    plain = OmegaConf.to_container(settings, resolve=True)
    told = hide(json.dumps(plain, sort_keys=True, default=str))
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    dataset = Dataset(str(settings.get("name") or "data"), digest, KIND, told[:LONGEST])
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
