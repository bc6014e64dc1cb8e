"""What MLflow's UI is given to compare a study by: names, cells, charts, a description, figures."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import zlib

import pytest

from alphagrad.lab.store.connection import open_existing
from alphagrad.lab.store.view import PREFIX, view, view_key

STUDY = ("recipe=odd", "optimizer=sgd,adam", "optimizer.lr=0.1,0.01", "seed=range(2)", "recipe.total_steps=4")


def unpacked(tag: str) -> dict:
    assert tag.startswith("deflate;")
    return json.loads(zlib.decompress(base64.b64decode(tag.removeprefix("deflate;"))))


def study_in(store_runs, root) -> tuple:
    runs = store_runs(root)
    parents = [run for run in runs if run.data.tags.get("alphagrad.kind") == "study"]
    return parents[-1], [run for run in runs if "seed" in run.data.tags]


def seen(root, parent) -> dict:
    """The view that a study's experiment has of it."""
    tags = open_existing(f"sqlite:///{root}/mlflow.db").get_experiment(parent.info.experiment_id).tags
    return unpacked(tags[PREFIX + view_key(parent.info.run_id)])


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["basic", pytest.param("stacked", marks=pytest.mark.slow)])
def test_a_study_can_be_compared_in_the_ui(cli, odd, root, store_runs, launcher):
    where = (f"output_root={root}", f"hydra/launcher={launcher}")
    assert cli("run", "-m", *STUDY, *where).status == 0
    parent, runs = study_in(store_runs, root)
    cells = ["sgd optimizer.lr=0.1", "sgd optimizer.lr=0.01", "adam optimizer.lr=0.1", "adam optimizer.lr=0.01"]
    assert sorted(run.data.tags["cell"] for run in runs) == sorted(cells * 2)  # what is the same in all is in none
    for run in runs:
        assert run.info.run_name == f"{run.data.tags['cell']} seed={run.data.tags['seed']}"
        assert run.data.tags["mlflow.source.name"] == "alphagrad"
        assert run.data.tags["mlflow.project.entryPoint"] == "run"
    state = seen(root, parent)
    assert state["searchFilter"] == f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "cell"}]
    charts = {chart["metricKey"]: chart for chart in state["compareRunCharts"]}
    assert (charts["eval/return"]["type"], charts["eval/return"]["deleted"]) == ("LINE", False)
    assert state["compareRunCharts"][0]["metricKey"] == "eval/return"
    hidden = {name for name, chart in charts.items() if chart["deleted"]}
    assert {"stack", "omp", "resumed"} <= hidden
    note = parent.data.tags["mlflow.note.content"]
    assert "| sgd optimizer.lr=0.01 | 2/2 |" in note
    assert f"viewStateShareKey={view_key(parent.info.run_id)}" in note
    assert "alphagrad run -m recipe=odd optimizer=sgd,adam" in note
    means = {name: value for name, value in parent.data.metrics.items() if name.startswith("eval/return/")}
    assert means["eval/return/sgd optimizer.lr 0.01"] == pytest.approx(0)
    assert means["eval/return/adam optimizer.lr 0.1"] == pytest.approx(-1)
    client = open_existing(f"sqlite:///{root}/mlflow.db")
    assert [f.path for f in client.list_artifacts(parent.info.run_id, "figures")] == ["figures/eval_return.png"]


@pytest.mark.long
def test_a_study_ends_with_its_report(cli, odd, lab, root, store_runs):
    """Unless it would take long, which the description says."""
    words = ("recipe=odd", "seed=range(2)", "recipe.total_steps=4", f"output_root={root}")
    client = open_existing(f"sqlite:///{root}/mlflow.db")
    for most, made in ((2, True), (1, False)):
        lab.setattr("alphagrad.lab.evidence.conclusion.MOST_RUNS", most)
        assert cli("run", "-m", *words).status == 0
        parent, _ = study_in(store_runs, root)
        own = parent.info
        note = parent.data.tags["mlflow.note.content"]
        assert ("report.html" in [file.path for file in client.list_artifacts(own.run_id)]) == made
        assert (f"(#/experiments/{own.experiment_id}/runs/{own.run_id}/artifacts/report.html)" in note) == made
        assert (f"`alphagrad report {own.run_id[:8]} --html report.html`" in note) != made


@pytest.mark.long
def test_an_experiment_a_recipe_unless_it_is_chosen(cli, odd, root, store_runs):
    """A study of two recipes is one all the same, and so is what is asked of the store without an experiment."""
    client = open_existing(f"sqlite:///{root}/mlflow.db")

    def experiment(run) -> str:
        return client.get_experiment(run.info.experiment_id).name

    words = ("seed=0,1", "recipe.total_steps=4", f"output_root={root}")
    assert cli("run", "-m", "recipe=odd,together", *words).status == 0
    parent, runs = study_in(store_runs, root)
    assert sorted(experiment(run) for run in runs) == ["odd", "odd", "together", "together"]
    assert sorted({run.data.tags["cell"] for run in runs}) == ["odd", "together"]
    for run in runs:
        assert PREFIX + view_key(parent.info.run_id) in client.get_experiment(run.info.experiment_id).tags
    assert "4 jobs: 4 finished" in cli("status", "--output-root", str(root)).out
    told = cli("report", "--output-root", str(root)).out
    assert [line.split()[0] for line in told.splitlines() if " 2/2 " in line] == ["odd", "together"]
    assert cli("run", "recipe=odd", "tracking.experiment=mine", f"output_root={root}").status == 0
    (chosen,) = [run for run in store_runs(root) if "seed" in run.data.tags and experiment(run) == "mine"]
    assert chosen.info.run_name == "odd alphagrad seed=0"  # a page of several recipes tells them apart
    assert "0 studies" not in cli("report", "--experiment", "mine", "--output-root", str(root)).err


@pytest.mark.long
def test_a_study_is_in_the_ui_while_it_runs(cli, odd, root, store_runs):
    """Also one whose jobs fail: its description says how many are there."""
    words = ("recipe=odd", "seed=0,1", "recipe.raising=[0,1]", f"output_root={root}")
    assert cli("run", "-m", *words).status == 1
    parent, _ = study_in(store_runs, root)
    assert seen(root, parent)["compareRunCharts"][0]["metricKey"] == "eval/return"
    assert "| 0/2 |" in parent.data.tags["mlflow.note.content"]


@pytest.mark.long
def test_a_study_of_which_no_run_began_keeps_its_error(cli, odd, lab, root, store_runs):
    """There is nothing to draw then, and what went wrong is what is told."""
    from alphagrad.lab.training import runner

    def fail(*_):
        raise OSError("no room for a lock")

    lab.setattr(runner._Stack, "claim", fail)
    done = cli("run", "-m", "recipe=odd", "seed=0,1", f"output_root={root}")
    assert done.status == 1
    assert "no room for a lock" in done.err + done.out
    assert "nothing to draw" not in done.err
    (parent,) = store_runs(root)
    assert parent.info.status == "FAILED"


def test_a_view_fits_into_a_tag():
    names = [f"layer{base64.b64encode(os.urandom(120)).decode()}" for _ in range(400)]
    tag = view("", "cell", ["eval/return"], ["final/return"], names)
    assert len(tag) <= 20_000
    charts = unpacked(tag)["compareRunCharts"]
    assert [chart["metricKey"] for chart in charts[:2]] == ["eval/return", "final/return"]
    assert len(charts) > 10


@pytest.mark.long
def test_system_metrics_where_mlflow_is_asked_for_them(cli, odd, lab, root, store_runs):
    words = ("recipe=odd", "recipe.total_steps=4", f"output_root={root}")
    assert cli("run", *words).status == 0
    lab.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    lab.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    assert cli("run", *words, "recipe.pause=0.1").status == 0
    without, with_them = store_runs(root)
    assert not [name for name in without.data.metrics if name.startswith("system/")]
    assert with_them.data.metrics["system/system_memory_usage_megabytes"] > 0
    client = open_existing(f"sqlite:///{root}/mlflow.db")
    history = client.get_metric_history(with_them.info.run_id, "system/cpu_utilization_percentage")
    steps = [point.step for point in history]
    assert steps == list(range(len(steps)))
    assert len(steps) > 2


def test_data_is_told_as_mlflow_has_it(lab, root, composed):
    from alphagrad.lab.records.run import Tracker
    from alphagrad.lab.store.address import store_uri
    from alphagrad.lab.store.datasets import note_dataset

    with Tracker(store_uri(None, root), "image").run("a run", {}, {}) as tracker:
        for words in ((), ("data.flip=true",)):
            note_dataset(tracker.client, tracker.run_id, composed("recipe=image", *words).data)
        inputs = tracker.client.get_run(tracker.run_id).inputs.dataset_inputs
    first, second = (found.dataset for found in inputs)
    assert (first.name, second.name) == ("digits", "digits")
    assert first.digest != second.digest
    assert {json.loads(first.source)["flip"], json.loads(second.source)["flip"]} == {True, False}
    assert inputs[0].tags[0].value == "training"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_ui_in_a_browser(cli, odd, lab, root, store_runs, tmp_path):
    """`alphagrad ui` prints an address at which a study's groups and charts are there to compare."""
    from servers import free_port

    lab.setattr("alphagrad.lab.evidence.conclusion.MOST_RUNS", 100)  # with its report
    assert cli("run", "-m", *STUDY, f"output_root={root}").status == 0
    parent, _ = study_in(store_runs, root)
    command = [sys.executable, "-m", "alphagrad_cli", "ui", "--output-root", str(root), "--port", str(free_port())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)

    def opened(address: str) -> str:
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser")
        sized = ("--window-size=1600,1200", "--virtual-time-budget=60000", "--dump-dom")
        return subprocess.run(["chromium", *flags, *sized, address], capture_output=True, text=True, check=True).stdout

    try:
        address = next(line.strip() for line in process.stdout if "viewStateShareKey" in line)
        home = address.partition("/runs?")[0]
        comparison = opened(address)
        experiment = opened(f"{home}/runs?workflowType=machine_learning")
        artifact = opened(f"{home}/runs/{parent.info.run_id}/artifacts/report.html")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    for text in ("Headline metrics", "eval/return", "sgd optimizer.lr=0.1", "adam optimizer.lr=0.01", "Model training"):
        assert text in comparison
    assert "No charts in this section" not in comparison.split("Headline metrics")[1][:5000]
    assert "(2)" in comparison or ">2<" in comparison  # seeds of a group
    assert parent.info.run_name.split()[0] in experiment
    assert '<iframe src="blob:' in artifact  # MLflow shows the page itself
    (report,) = (root / "artifacts").rglob("report.html")
    page = opened(f"file://{report}")
    for text in ("Final results", "Pairwise comparison", "sgd optimizer.lr=0.1", "data:image/svg+xml"):
        assert text in page
