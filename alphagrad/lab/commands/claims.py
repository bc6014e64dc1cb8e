"""`alphagrad claims`: the paper's claims, what the runs say of each, and the runs that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from alphagrad.common.errors import ConfigError, StorageLost, Terminated
from alphagrad.common.files import check_target, is_folder
from alphagrad.common.words import cut, say, squeezed
from alphagrad.lab.commands.arguments import parser

if TYPE_CHECKING:
    from pandas import DataFrame

    from alphagrad.lab.evidence.claims.data import Origin
    from alphagrad.lab.evidence.claims.ledger import Claim
    from alphagrad.lab.evidence.claims.page import Evidence
    from alphagrad.lab.evidence.claims.verdict import Verdict

ABOUT = """The paper's claims with their verdicts, from the evidence kept, or from a store that --uri or
--output-root names. With --run what is missing is run first, and the evidence is replaced. That of C4, C5 and C9 is
written by a script."""


def main(argv: list[str]) -> None:
    """`alphagrad claims`."""
    p = parser("claims", ABOUT, "alphagrad claims C1 C9")
    p.add_argument("claim", nargs="*", help="C1 to C15; default: all")
    how = p.add_mutually_exclusive_group()
    how.add_argument(
        "--run", action="store_true", help="make the runs of these claims, or go on with them, and keep what they say"
    )
    how.add_argument("--gather", action="store_true", help="keep what a store has of these runs, and run nothing")
    p.add_argument(
        "--page", metavar="FILE.md", help="also write a page in Markdown, with a figure for each claim beside it"
    )
    p.add_argument("--figures", metavar="FOLDER", help="also draw each claim, as FOLDER/C1.svg")
    p.add_argument("--evidence", metavar="FOLDER", help="of the evidence; default evidence")
    p.add_argument("--uri", help="MLflow store of the runs (default: $MLFLOW_TRACKING_URI, else OUTPUT_ROOT/mlflow.db)")
    p.add_argument("--output-root", help="default outputs")
    args = p.parse_args(argv)
    from alphagrad.lab.evidence.claims.data import commands
    from alphagrad.lab.evidence.claims.ledger import claim, names
    from alphagrad.lab.evidence.claims.page import verdict_table, write_page
    from alphagrad.lab.evidence.claims.verdict import decide
    from alphagrad.lab.evidence.tables import show

    figures = None if args.figures is None else _writable("--figures", _folder("--figures", args.figures))
    stored = args.uri is not None or args.output_root is not None
    root = "outputs" if args.output_root is None else str(_folder("--output-root", args.output_root))
    if (args.run or args.gather or stored) and not args.claim:
        flag = "--run" if args.run else "--gather" if args.gather else "--uri and --output-root"
        raise ConfigError(f"{flag}: which claims? Name them, as in alphagrad claims C1 C9")
    chosen = [claim(name) for name in dict.fromkeys(args.claim or names())]
    page = None if args.page is None else _page(args.page, [one.name for one in chosen])
    if stored and args.evidence is not None and not (args.run or args.gather):
        raise ConfigError(f"--evidence={args.evidence}: is not looked at where --uri or --output-root names a store")
    kept = Kept(_folder("--evidence", "evidence" if args.evidence is None else args.evidence), args.uri, root)
    if args.run:
        kept.run(chosen)
    elif args.gather:
        kept.gather(chosen)
    evidence = [kept.in_store(one) for one in chosen] if stored and not (args.run or args.gather) else kept.read(chosen)
    verdicts = [
        decide(one, table, origin is None or origin.whole)
        for one, (table, origin) in zip(chosen, evidence, strict=True)
    ]
    show(verdict_table(verdicts))
    for one in chosen:
        if len(chosen) > 1:
            say(f"# {one.name}")
        for words in commands(one):
            say(words)
    if figures is not None:
        _draw(verdicts, figures)
    if page is not None:
        write_page(verdicts, evidence, page)
        say(f"{page}: {', '.join(verdict.claim.name for verdict in verdicts)}")


def _draw(verdicts: Sequence[Verdict], folder: Path) -> None:
    from alphagrad.lab.evidence.claims.page import write_figures

    try:
        drawn = [file for file in write_figures(verdicts, folder) if file is not None]
    except OSError as error:
        raise ConfigError(f"--figures={folder}: cannot be written ({error.strerror or error})") from error
    say(f"figures are in {folder}: {len(drawn)}", err=True)


def _writable(flag: str, folder: Path) -> Path:
    """Checked before hours of runs."""
    from alphagrad.lab.store.connection import check_writable

    check_writable(flag, cut(folder), folder)
    return folder


def _folder(flag: str, given: str) -> Path:
    if not given:
        raise ConfigError(f"{flag}=: has to be a folder")
    return Path(given)


def _page(given: str, names: Sequence[str]) -> Path:
    """Checked before hours of runs."""
    from alphagrad.lab.evidence.claims.marks import page_of

    file = Path(given)
    if file.suffix != ".md":
        raise ConfigError(f"--page={given}: has to end in .md")
    check_target("--page", file)
    page_of(file, names)
    return file


@dataclass(frozen=True)
class Kept:
    """The evidence in a folder, and the store that it comes from."""

    folder: Path
    uri: str | None
    output_root: str

    def read(self, claims: Sequence[Claim]) -> Sequence[Evidence]:
        """What the folder has of each claim."""
        from alphagrad.lab.evidence.claims.data import read

        if not is_folder(self.folder):
            raise ConfigError(f"--evidence={self.folder}: there is no such folder; it is the repository's evidence/")
        found = [read(self.folder, one) for one in claims]
        for one, (table, _) in zip(claims, found, strict=True):
            if table is None:
                say(f"alphagrad: {one.name}: {self.folder} has no evidence of it; {one.again} makes it", err=True)
        return found

    def run(self, claims: Sequence[Claim]) -> None:
        """Makes the runs that are missing, and keeps their evidence after each study."""
        self._check(claims)
        for one in claims:
            planned = _planned(one)
            for number, study in enumerate(one.studies, start=1):
                self._run(one, study)
                table, origin = self.in_store(one, planned, number)
                if number == len(one.studies) or not self._has_more(one, table, origin):
                    self._keep(one, table, origin)

    def _run(self, one: Claim, study: Sequence[str]) -> None:
        from alphagrad.lab.commands.run import run

        where = [f"output_root={self.output_root}", f"tracking.experiment='{_experiment(one)}'", "study.rerun=missing"]
        try:
            run(["-m", *study, *where, *([f"tracking.uri={self.uri}"] if self.uri else [])])
        except (ConfigError, StorageLost, OSError, MemoryError):
            raise
        except (KeyboardInterrupt, Terminated):
            say(f"alphagrad: the same `alphagrad claims --run {one.name}` goes on, and keeps what it says", err=True)
            raise
        except Exception as error:  # a run that diverged or failed counts, too
            told = f"not every run finished ({squeezed(error, 200)}); these count as its worst"
            say(f"alphagrad: {one.name}: {told}", err=True)

    def gather(self, claims: Sequence[Claim]) -> None:
        """Keeps what the store has; of none, if it lacks one."""
        self._check(claims)
        for one, (table, origin) in [(one, self.in_store(one)) for one in claims]:
            self._keep(one, table, origin)

    def in_store(
        self, one: Claim, planned: Mapping[str, Set[str]] | None = None, first: int | None = None
    ) -> tuple[DataFrame, Origin]:
        """What the store has of a claim's runs.

        Args:
            one: the claim.
            planned: its studies, each with the keys of its jobs; None: they are composed.
            first: so many studies are looked at; None: all. One that was stopped may follow.

        Raises:
            ConfigError: it has none, or not all have ended.
        """
        from alphagrad.lab.evidence.claims.data import (
            COMMIT,
            PACKAGES,
            STARTED,
            VERSION,
            Origin,
            as_kept,
            commands,
            gathered,
        )
        from alphagrad.lab.store.address import store_uri

        planned = _planned(one) if planned is None else planned
        looked = dict(islice(planned.items(), first))
        table, made, others = gathered(one, store_uri(self.uri, self.output_root), _experiment(one), looked)
        if others:
            told = f"{others} runs of its studies are of another configuration, and do not count"
            say(f"alphagrad: {one.name}: {told}", err=True)
        if table.empty:
            raise ConfigError(f"{one.name}: the store has no runs of it; alphagrad claims --run {one.name} makes them")
        missing = sum(len(jobs) - made.get(name, 0) for name, jobs in planned.items())
        noted = {name: sorted({*table.pop(VERSION + name)} - {"", "not installed"}) for name in PACKAGES}
        versions = {name: ", ".join(found) for name, found in noted.items() if found}
        commit, days = ", ".join(sorted(set(table.pop(COMMIT)))), table.pop(STARTED).dt.strftime("%Y-%m-%d")
        measured = " to ".join(dict.fromkeys((days.min(), days.max())))
        return as_kept(table), Origin(commands(one), commit, versions, len(table), measured, len(table) + missing)

    def _keep(self, one: Claim, table: DataFrame, origin: Origin) -> None:
        """Never fewer runs of the same commands than are kept."""
        from alphagrad.lab.evidence.claims.data import keep

        if self._has_more(one, table, origin):
            less = f"the store has {origin.runs} runs of it, fewer than {self.folder} has, or fewer that finished"
            raise ConfigError(f"{one.name}: {less}; give another --evidence")
        keep(self.folder, one, table, origin)

    def _has_more(self, one: Claim, table: DataFrame, origin: Origin) -> bool:
        """Whether the folder has more runs of the same commands, or more that finished.

        Raises:
            ConfigError: what it has is damaged.
        """
        from alphagrad.lab.evidence.claims.data import read

        there, kept = read(self.folder, one, older=True)
        if there is None or kept is None or kept.commands != origin.commands:
            return False
        return kept.runs > origin.runs or _finished(there) > _finished(table)

    def _check(self, claims: Sequence[Claim]) -> None:
        """Before hours of runs."""
        from alphagrad.lab.evidence.claims.data import read
        from alphagrad.lab.store.address import NONE, store_uri

        if store_uri(self.uri, self.output_root) == NONE:
            raise ConfigError(f"--uri={NONE}: a claim's runs have to be in a store")
        for one in claims:
            _check_has_studies(one)
        _writable("--evidence", self.folder)
        for one in claims:
            read(self.folder, one, older=True)  # what is damaged would be found after the runs


def _planned(one: Claim) -> dict[str, Set[str]]:
    """Study → the keys of its jobs; to compose a thousand of them takes ten seconds."""
    from alphagrad.lab.config import compose, sweep
    from alphagrad.lab.config.alike import compose_all
    from alphagrad.lab.launching.study import name_of

    _check_has_studies(one)
    with compose.hydra_initialized():
        jobs = {name_of(study): sweep.jobs_of([*sweep.sweep_parameters(study), *study]) for study in one.studies}
        return {name: {compose.job_key(config) for config in compose_all(words)} for name, words in jobs.items()}


def _finished(table: DataFrame) -> int:
    return int((table["status"] == "finished").sum())


def _check_has_studies(one: Claim) -> None:
    if not one.studies:
        raise ConfigError(f"{one.name}: its evidence is written by a script: {one.script}")


def _experiment(one: Claim) -> str:
    return f"claim {one.name}"
