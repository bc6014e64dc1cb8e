"""Where a number comes from: the commit and the versions that a run trained with, as tags."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VERSIONS = (
    "alphagrad",
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "transformers",
    "mlflow",
    "hydra-core",
    "pytorch-optimizer",
)


def provenance(command: str = "run") -> dict[str, str]:
    """Tags that let a number be traced: command, commit and package versions; MLflow's own where it has one."""
    tags = {
        "mlflow.source.name": "alphagrad",
        "mlflow.source.type": "LOCAL",
        "mlflow.project.entryPoint": command,
        "python": platform.python_version(),
    }
    for package in VERSIONS:
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            tags[f"version.{package}"] = "not installed"
    commit = git_commit()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return tags


CODE = (":(top)", ":(top,exclude)evidence")
"""What changes a run: all but what `alphagrad claims` keeps after each study, which no run reads."""


def git_commit() -> str | None:
    """The commit of the checkout alphagrad runs from, marked ``-dirty`` if it was changed; None outside one."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "--", *CODE],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit
