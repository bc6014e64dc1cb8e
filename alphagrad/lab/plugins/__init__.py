"""Hydra plugins; installed as ``hydra_plugins.alphagrad``, the only place Hydra takes plugins from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from alphagrad.lab.sweep import jobs_of, missing


class StudySweeper(BasicSweeper):
    """Hydra's own sweeper, except that a setting reaches the optimizers that have it (:func:`jobs_of`).

    Of an interrupted study it hands out what is missing (:func:`alphagrad.lab.sweep.missing`).
    """

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """The batches of jobs, each job a list of overrides."""
        jobs = missing(jobs_of([override.input_line or "" for override in overrides]))
        if not jobs:
            return []
        return [list(batch) for batch in BasicSweeper.split_overrides_to_chunks(jobs, max_batch_size)]


class StackedLauncher(Launcher):
    """Trains the jobs that differ in seed and optimizer alone as stacks (:mod:`alphagrad.lab.stacking`)."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before :meth:`launch`."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs; a failed one carries its exception, as Hydra expects."""
        from alphagrad.lab import metrics
        from alphagrad.lab.runner import assignment_of
        from alphagrad.lab.stacking import run_stacks

        returns, assignments = [], []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            loader = self.hydra_context.config_loader
            config = loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = f"stacked-{number}"
                config.hydra.job.num = number
            folder = Path(config.hydra.sweep.dir).expanduser().resolve() / config.hydra.sweep.subdir
            folder.mkdir(parents=True, exist_ok=True)
            assignments.append(assignment_of(config, overrides, folder))
            returns.append(JobReturn(overrides=overrides, cfg=config, hydra_cfg=config, working_dir=str(folder)))
        stack = self.config.stack
        outcomes = run_stacks(assignments, stack.max_runs, stack.processes)
        for job, assignment, outcome in zip(returns, assignments, outcomes, strict=True):
            if outcome.failure is None:
                job.status, job.return_value = JobStatus.COMPLETED, metrics.objective(outcome.metrics)
                print(f"{assignment.folder}: {metrics.headline(outcome.metrics)}")
            else:
                job.status, job.return_value = JobStatus.FAILED, RuntimeError(outcome.failure)
                print(f"{assignment.folder}: failed, {outcome.failure}")
        return returns
