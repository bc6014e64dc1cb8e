"""What a study's own run in the store shows once its jobs have ended: its description, figures and charts."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut
from alphagrad.lab.evidence.figures import plot
from alphagrad.lab.evidence.page.making import page_of
from alphagrad.lab.evidence.page.rendering import html, write
from alphagrad.lab.evidence.report import SAYS, mean_and_interval
from alphagrad.lab.evidence.results import Comparison, Results
from alphagrad.lab.records.search import CELL, PARENT
from alphagrad.lab.store.view import PREFIX, page, view, view_key

NOTE = "mlflow.note.content"
FIGURES = "figures"
"""Folder of a study's artifacts."""
LONGEST_NAME, FOREIGN = 250, re.compile(r"[^\w\-. /:]")
"""Of a metric: the most characters, and what MLflow takes in none."""
REPORT = "report.html"
"""Artifact of a study."""
MOST_RUNS = 400
"""Of a study whose report is made at its end; of more it would hold up the command for more than half a minute."""
LONGEST = 7_500
"""Characters of a description; MLflow takes 8,000."""


def conclude(results: Results, parent: Any, arguments: Sequence[str]) -> None:
    """Writes description, figures and charts of a study from the runs that the store has of it.

    Args:
        results: the store.
        parent: the study's run.
        arguments: of the command that started it.
    """
    client, run_id = results.client, parent.info.run_id
    study = results.comparison(parent)
    if not study.groups:  # nothing has begun
        return
    lines, bars = curves_and_values(results, study)
    shown = view(f"tags.`{PARENT}` = '{run_id}'", CELL, lines, bars, constant(results, study, {*lines, *bars}))
    for experiment in {run.experiment for run in study.runs()}:
        client.set_experiment_tag(experiment, PREFIX + view_key(run_id), shown)
    with tempfile.TemporaryDirectory() as folder:
        for metric in lines:
            file = Path(folder, metric.replace("/", "_") + ".png")
            try:
                plot(results, study, metric, file)
            except ConfigError:  # no finished run has it
                continue
            client.log_artifact(run_id, str(file), FIGURES)
        reported = len(study.runs()) <= MOST_RUNS
        if reported:
            file = Path(folder, REPORT)
            write(page_of(results, [parent]), file, "--html", html)
            client.log_artifact(run_id, str(file))
    for name, value in means(study).items():
        client.log_metric(run_id, name, value)
    client.set_tag(run_id, NOTE, description(study, parent, arguments, reported))


def description(study: Comparison, parent: Any, arguments: Sequence[str], reported: bool) -> str:
    """The study in Markdown: command, results, and where its charts and its report are."""
    charts = page(parent.info.experiment_id, view_key(parent.info.run_id))
    own = parent.info
    report = f"[**The report**](#/experiments/{own.experiment_id}/runs/{own.run_id}/artifacts/{REPORT})"
    if not reported:
        report = f"Its report, which would have taken long: `alphagrad report {own.run_id[:8]} --html {REPORT}`"
    above = f"[**All its charts**]({charts.removeprefix('/')}) · {report}\n\n"
    below = (
        "\n\nIn the charts a line is a configuration's mean, in a band from the least seed to the largest. "
        f"Figures with 95 % intervals are among the artifacts, in `{FIGURES}/`.\n\n"
        f"```\n{cut(f'alphagrad run {shlex.join(arguments)}', 3000)}\n```\n"
    )
    most = len(study.groups)
    while len(text := above + markdown(study, most) + below) > LONGEST and most:
        most //= 2
    return text


def means(study: Comparison) -> dict[str, float]:
    """The mean of each headline metric in each configuration: ``eval/return/sin_tanh`` is a name."""
    told = {}
    for group in study.groups:
        for metric in study.headlines():
            if values := group.values(metric):
                told[f"{metric}/{FOREIGN.sub(' ', group.label)}"[:LONGEST_NAME]] = float(np.mean(values))
    return told


def markdown(study: Comparison, most: int) -> str:
    """The table of a study in Markdown, with so many configurations at most."""
    headlines = study.headlines()
    present = [m for m in headlines if any(group.values(m) for group in study.groups)]
    rows = [["configuration", "runs", *present]]
    for group in study.groups[:most]:
        numbers = [mean_and_interval(group.values(metric), headlines[metric]) for metric in present]
        rows.append([group.label.replace("|", "\\|"), f"{len(group.finished())}/{len(group.runs)}", *numbers])
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    more = f" {len(study.groups) - most} more configurations: `alphagrad report`." if most < len(study.groups) else ""
    return f"{table}\n\n{SAYS[:1].upper()}{SAYS[1:]}.{more}"


def curves_and_values(results: Results, study: Comparison) -> tuple[list[str], list[str]]:
    """The headline metrics with more than one step, the objective first; and those with one."""
    known = [study.objective(), *study.headlines()]
    lines: list[str] = []
    bars: list[str] = []
    for metric in dict.fromkeys(known):
        run = next((run for run in study.runs() if metric in run.metrics), None)
        if run is not None:
            (lines if len(results.history(run, metric)[0]) > 1 else bars).append(metric)
    return lines, bars


def constant(results: Results, study: Comparison, but: set[str]) -> list[str]:
    """The metrics that no run ever changes, as the first run of each configuration has them."""
    names = {name for run in study.runs() for name in run.metrics} - but
    varied = {name for group in study.groups for name in names if len(set(group.values(name))) > 1}
    left = sorted(names - varied)
    found = results.histories([group.runs[0] for group in study.groups], left)
    varied |= {name for (_, name), (_, values) in found.items() if len(np.unique(values)) > 1}
    return [name for name in left if name not in varied]
