"""What is recorded of runs that were resumed or repeated: as of those that were not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rich.console import Console

from alphagrad.harness import metrics
from alphagrad.lab.evidence import report
from alphagrad.lab.evidence.results import Comparison, grouped
from alphagrad.lab.records.lifecycle import PAUSED, seconds_of
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store

EVERY = ("checkpoint.every_steps=10", "recipe.compile=false")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "words",
    [
        ("recipe=dqn_cartpole", "optimizer=saturation", "env.kwargs.max_episode_steps=70"),
        ("recipe=image", "optimizer=hybrid", "recipe.epochs=1", "model.hidden=[4]"),
    ],
)
@pytest.mark.long
def test_a_resumed_runs_parameters_are_an_uninterrupted_runs(cli, at, lab, root, tiny, store_runs, words):
    if "recipe=dqn_cartpole" in words:
        words = (*words, *tiny)
    words = (*words, "checkpoint.every_steps=5", f"output_root={root}")
    assert cli("run", *words).status == 0
    at(10, interrupt)
    assert cli("run", *words, f"hydra.run.dir={root / 'run'}").status == 130
    assert cli("resume", str(root / "run"), "--output-root", str(root)).status == 0
    whole, resumed = store_runs(root)
    assert resumed.info.status == "FINISHED"
    assert resumed.data.params == whole.data.params
    assert len(whole.data.params) > 30
    between = seconds_of(resumed) + float(resumed.data.tags[PAUSED])
    assert between == pytest.approx((resumed.info.end_time - resumed.info.start_time) / 1000, abs=0.01)
    assert float(resumed.data.tags[PAUSED]) > 0
    assert PAUSED not in whole.data.tags


@pytest.mark.long
def test_a_resume_with_another_number_of_processes_is_told_and_recorded(cli, at, root, tiny, store_runs):
    words = (*tiny, *EVERY, f"output_root={root}", f"hydra.run.dir={root / 'run'}")
    at(70, interrupt)
    stopped = cli("run", *words)
    assert "process" not in stopped.err
    (run,) = store_runs(root)
    assert run.data.tags["processes"] == "1"
    open_store(store_uri(None, root)).set_tag(run.info.run_id, "processes", "2")  # as torchrun would have left it
    resumed = cli("resume", str(root / "run"), "--output-root", str(root))
    assert resumed.status == 0, resumed.err
    assert "run: trained by 1 process, after 2" in resumed.err
    assert store_runs(root)[0].data.tags["processes"] == "2, 1"


def entry(configuration: str, seed: int, digest: str, status: str = "FINISHED", **values: float) -> SimpleNamespace:
    """A run as MLflow's search returns it."""
    tags = {"seed": str(seed), "configuration": configuration, "config_hash": digest}
    return SimpleNamespace(
        info=SimpleNamespace(
            run_id=f"{digest}{seed}",
            run_name="x",
            experiment_id="1",
            status=status,
            lifecycle_stage="active",
            start_time=0,
            end_time=None,
        ),
        data=SimpleNamespace(tags=tags, params={}, metrics={metrics.EVAL_RETURN: 1.0, **values}),
    )


def shown(table) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_of_the_runs_of_one_job_the_newest_counts():
    found = [
        entry("adam", 1, "a", **{"m": 5.0}),
        entry("adam", 0, "a", **{"m": 3.0}),
        entry("adam optimizer_defaults.lr=1e-3", 0, "a", **{"m": 100.0}),  # the same job in other words
        entry("adam", 0, "a", "FAILED", **{"m": 100.0}),
        entry("sgd", 0, "b", **{"m": 7.0}),
    ]
    found.insert(0, entry("sgd", 1, "b", **{"m": 8.0}))
    sgd, adam = grouped(found)
    assert (adam.label, adam.earlier, [r.seed for r in adam.runs], adam.values("m")) == ("adam", 2, [0, 1], [3.0, 5.0])
    assert (sgd.label, sgd.earlier, sgd.values("m")) == ("sgd", 0, [7.0, 8.0])
    assert "of runs of one job the newest counts, 2 earlier left out" in " ".join(
        shown(report.study_table(Comparison("s", [sgd, adam]))).split()
    )
    assert "left out" not in shown(report.study_table(Comparison("s", [sgd])))
