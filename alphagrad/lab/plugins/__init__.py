"""Hydra plugins; installed as ``hydra_plugins.alphagrad``, the only place Hydra takes plugins from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from alphagrad.common.errors import JobFailed
from alphagrad.lab.config.alike import Alike
from alphagrad.lab.launching.jobs import to_run

if TYPE_CHECKING:
    from alphagrad.lab.training.job import Assignment, Outcome


class StudySweeper(BasicSweeper):
    """Hydra's own sweeper, which hands out the jobs that were checked (:mod:`alphagrad.lab.launching.jobs`)."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """The batches of jobs, each job a list of overrides."""
        jobs = to_run()
        if not jobs:
            return []
        return [list(batch) for batch in BasicSweeper.split_overrides_to_chunks(jobs, max_batch_size)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: the jobs were composed and checked before Hydra was called, and composing takes its time."""


class RunLauncher(Launcher):
    """Composes the jobs here and leaves their training to :meth:`outcomes`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before :meth:`launch`."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def outcomes(self, assignments: Sequence[Assignment], folder: Path) -> list[Outcome]:
        """How each job ended; ``folder`` is the study's."""
        raise NotImplementedError

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs; a failed one carries its exception, as Hydra expects."""
        from alphagrad.lab.training.job import assignment_of

        returns, assignments = [], []
        study = Path(self.config.hydra.sweep.dir).expanduser().resolve()
        loader = self.hydra_context.config_loader
        assert isinstance(loader, ConfigLoaderImpl)
        alike = Alike(lambda job: loader.load_sweep_config(self.config, job), loader)
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = alike(overrides)
            with open_dict(config):
                config.hydra.job.id = f"alphagrad-{number}"
                config.hydra.job.num = number
            folder = study / config.hydra.sweep.subdir
            folder.mkdir(parents=True, exist_ok=True)
            assignments.append(assignment_of(config, overrides, folder))
            returns.append(JobReturn(overrides=overrides, cfg=config, hydra_cfg=config, working_dir=str(folder)))
        for job, outcome in zip(returns, self.outcomes(assignments, study), strict=True):
            if outcome.failure is None:
                job.status, job.return_value = JobStatus.COMPLETED, outcome.score
            else:
                job.status, job.return_value = JobStatus.FAILED, JobFailed(outcome.failure)
        return returns


class StackedLauncher(RunLauncher):
    """Trains the jobs that differ in seed and optimizer alone as stacks (:mod:`alphagrad.lab.launching.plan`)."""

    def outcomes(self, assignments: Sequence[Assignment], folder: Path) -> list[Outcome]:
        from alphagrad.lab.launching.dispatch import Announced
        from alphagrad.lab.launching.workers import run_stacks

        ended = Announced(assignments, self.config.study.fail_fast)
        return run_stacks(assignments, self.config.stack.max_runs, self.config.stack.processes, ended)


class FarmLauncher(RunLauncher):
    """Sends the jobs, or stacks of them, to other processes or machines (:mod:`alphagrad.lab.launching.farms`)."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def outcomes(self, assignments: Sequence[Assignment], folder: Path) -> list[Outcome]:
        from alphagrad.lab.launching.dispatch import run_on_farm

        return run_on_farm(self.options, assignments, folder, self.config.study.fail_fast)


def register() -> None:
    """Makes sweeper and launchers known to Hydra, whose own search does not see through an editable install."""
    for plugin in (StudySweeper, StackedLauncher, FarmLauncher):
        Plugins.instance().register(plugin)
