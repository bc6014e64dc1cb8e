"""What was run: commands, seeds, versions, machines, what differs and what is the same; and how the runs ended."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from alphagrad.common.words import cut
from alphagrad.lab.evidence.page.blocks import Block, Code, Section, Table, Text
from alphagrad.lab.evidence.page.subject import Subject
from alphagrad.lab.records.search import CONFIGURATION, HOST, RECIPE
from alphagrad.lab.records.study import KIND
from alphagrad.lab.records.writer import STEP

VERSION = "version."
PLACES = ("output_root", "tracking.", "seed", "stack.", "study.", "checkpoint.")
"""Beginnings of the names of settings that say where and how runs are done, and change no number."""
LONGEST = 2_000
"""Characters of a command."""
DISTINCT = 12
"""Values that are told one by one."""
MOST = 100
"""Runs that did not finish that are listed."""
LONGEST_REASON = 300
"""Characters of a reason."""


def commands(parents: Sequence[Any], subjects: Sequence[Subject]) -> list[str]:
    """What trains these runs again, a line for each study or run."""
    found = []
    for parent in parents:
        tags = parent.data.tags
        if KIND in tags:
            found.append(f"alphagrad run -m {shlex.join(parent.info.run_name.split())}")
        else:
            found.append(_single(tags))
    if not parents:
        found = [_single(run.tags) for subject in subjects for run in subject.runs][:DISTINCT]
    return [cut(command, LONGEST) for command in found]


def _single(tags: Any) -> str:
    variant, *words = tags.get(CONFIGURATION, "").split() or [""]
    return "alphagrad run " + shlex.join(
        [f"recipe={tags.get(RECIPE, '')}", f"optimizer={variant}", *words, f"seed={tags.get('seed', '')}"]
    )


def origin(parents: Sequence[Any], subjects: Sequence[Subject]) -> Section:
    """The section."""
    runs = [run for subject in subjects for run in subject.runs]
    finished = sum(run.life.finished for run in runs)
    rows = [["runs", f"{len(runs)}, of which {finished} finished"]]
    rows += [[f"recipe {subject.recipe}", f"{len(subject.groups)} configurations"] for subject in subjects]
    rows.append(["seeds", _distinct(str(seed) for seed in sorted({run.seed for run in runs}))])
    for heading, tag in (("machine", HOST), ("device", "device"), ("python", "python")):
        rows.append([heading, _distinct(run.tags.get(tag, "") for run in runs)])
    rows.append(["commit", _distinct(run.tags.get("mlflow.source.git.commit", "")[:18] for run in runs)])
    packages = sorted({tag for run in runs for tag in run.tags if tag.startswith(VERSION)})
    rows += [[tag.removeprefix(VERSION), _distinct(run.tags.get(tag, "") for run in runs)] for tag in packages]
    earlier = sum(group.earlier for subject in subjects for group in subject.groups)
    if earlier:
        rows.append(["left out", f"{earlier} earlier runs of jobs that ran again"])
    blocks: list[Block] = [Code("\n".join(commands(parents, subjects))), Table(["", ""], rows, words=2)]
    for subject in subjects:
        blocks += _settings(subject)
    return Section("What was run", blocks)


def _settings(subject: Subject) -> list[Block]:
    names = sorted({name for run in subject.runs for name in run.settings})
    values = {name: [run.settings.get(name, "") for run in subject.runs] for name in names}
    differ = [name for name in names if len(set(values[name])) > 1 and not name.startswith(PLACES)]
    same = [name for name in names if len(set(values[name])) == 1 and not name.startswith(PLACES)]
    told = f"In recipe {subject.recipe} " if subject.recipe else ""
    blocks: list[Block] = []
    if differ:
        blocks.append(
            Text(f"{told}{len(differ)} settings differ between configurations; (none): it has no such setting.")
        )
        blocks.append(Table(["what differs", "values"], [[name, _distinct(values[name])] for name in differ], words=2))
    if same:
        rows = [[name, cut(values[name][0])] for name in same]
        blocks.append(Table(["what is held fixed", "value"], rows, words=2, folded=f"{len(same)} settings held fixed"))
    return blocks


def _distinct(values: Iterable[str]) -> str:
    listed = [value or "(none)" for value in dict.fromkeys(values)]
    more = f" and {len(listed) - DISTINCT} more" if len(listed) > DISTINCT else ""
    return ", ".join(map(cut, listed[:DISTINCT])) + more


def endings(subject: Subject) -> Section:
    """A line for each run that did not finish, and how many of each configuration did not."""
    unfinished = [(group, run) for group in subject.groups for run in group.runs if not run.life.finished]
    if not unfinished:
        return Section("Failures and divergence", [Text(f"All {len(subject.runs)} runs finished; none diverged.")])
    kinds = sorted({str(run.life.standing) for _, run in unfinished})
    rows = []
    for group in subject.groups:
        counts = Counter(str(run.life.standing) for run in group.runs)
        if sum(counts.values()) > counts["finished"]:
            rows.append([group.label, f"{len(group.runs)}", *[f"{counts[kind]}" for kind in kinds]])
    blocks: list[Block] = [Table(["configuration", "runs", *kinds], rows)]
    listed = [
        [
            group.label,
            cut(run.life.reason, LONGEST_REASON) or "–",
            str(run.seed),
            str(run.life.standing),
            run.tags.get(STEP, "–"),
        ]
        for group, run in unfinished[:MOST]
    ]
    blocks.append(Table(["configuration", "reason", "seed", "how it ended", "step"], listed, words=2))
    if len(unfinished) > MOST:
        blocks.append(Text(f"{len(unfinished) - MOST} more did not finish; `alphagrad status` lists all."))
    return Section("Failures and divergence", blocks)
