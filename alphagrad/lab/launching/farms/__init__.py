"""Where jobs can be sent: processes of this machine (joblib), submitit (local or SLURM), Ray.

A farm is a function ``run(train, parcels, options, folder, done)``: it has ``train(parcel)`` called in a worker
for every parcel, and calls ``done(index, result)`` for each as it ends, with a text instead of the result where
the worker died. It goes on with the others then. Interrupted, it tells the workers to close their runs (SIGTERM,
or what the farm has in its place), waits for that and raises. The libraries are used directly, not through
Hydra's launcher plugins: hydra-ray-launcher wants cloudpickle < 3, which current joblib refuses, and none of the
plugins tells a dead worker from a failed job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from alphagrad.lab.launching.farms.base import FarmOptions
from alphagrad.lab.launching.farms.joblib import JoblibOptions, run_joblib
from alphagrad.lab.launching.farms.ray import RayOptions, run_ray
from alphagrad.lab.launching.farms.submitit import SubmititOptions, run_submitit


@dataclass(frozen=True)
class Farm:
    """A farm, its options, and the package and extra it needs."""

    run: Callable[..., None]
    options: type[FarmOptions]
    package: str


FARMS = {
    "joblib": Farm(run_joblib, JoblibOptions, "joblib"),
    "submitit": Farm(run_submitit, SubmititOptions, "submitit"),
    "ray": Farm(run_ray, RayOptions, "ray"),
}
