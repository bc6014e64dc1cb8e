"""`alphagrad claims`: the paper's claims, what the runs say of each, and the runs that are missing."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from alphagrad.common.errors import ConfigError, StorageLost
from alphagrad.common.words import say, squeezed
from alphagrad.lab.commands.arguments import parser

if TYPE_CHECKING:
    from alphagrad.lab.evidence.claims.ledger import Claim


def main(argv: list[str]) -> None:
    """`alphagrad claims`."""
    text = "The paper's claims with their verdicts, from the evidence kept; with --run what is missing is run first."
    p = parser("claims", text, "alphagrad claims C1 C9")
    p.add_argument("claim", nargs="*", help="C1 to C15; default: all")
    p.add_argument(
        "--run", action="store_true", help="make the runs of these claims, or go on with them, and keep what they say"
    )
    p.add_argument("--gather", action="store_true", help="keep what a store has of these claims' runs, and run nothing")
    p.add_argument(
        "--page", metavar="FILE", help="also write a page in Markdown, with a figure for each claim beside it"
    )
    p.add_argument("--evidence", default="evidence", metavar="FOLDER", help="of the evidence; default %(default)s")
    p.add_argument("--uri", help="MLflow store of the runs (default: $MLFLOW_TRACKING_URI, else OUTPUT_ROOT/mlflow.db)")
    p.add_argument("--output-root", default="outputs", help="default %(default)s")
    args = p.parse_args(argv)
    from alphagrad.lab.evidence.claims.data import read
    from alphagrad.lab.evidence.claims.ledger import claim, names
    from alphagrad.lab.evidence.claims.page import verdict_table, write_page
    from alphagrad.lab.evidence.claims.verdict import decide
    from alphagrad.lab.evidence.tables import show

    chosen = [claim(name) for name in args.claim or names()]
    folder = Path(args.evidence)
    if (args.run or args.gather) and not args.claim:
        raise ConfigError("--run: which claims? Name them: alphagrad claims --run C1")
    for one in chosen if args.run or args.gather else ():
        obtain(one, folder, args.uri, args.output_root, runs=args.run)
    found = [read(folder, one) for one in chosen]
    verdicts = [decide(one, table) for one, (table, _) in zip(chosen, found, strict=True)]
    show(verdict_table(verdicts))
    if len(chosen) == 1:
        for words in commands(chosen[0]):
            say(words)
    if args.page:
        file = Path(args.page)
        if not file.absolute().parent.is_dir():
            raise ConfigError(f"--page={file}: has to be in a folder that exists")
        write_page(verdicts, [origin for _, origin in found], file)
        say(f"{len(verdicts)} claims are in {file}")


def commands(one: Claim) -> list[str]:
    """What makes a claim's runs."""
    words = [f"alphagrad run -m {shlex.join(study)}" for study in one.studies]
    return [*words, *([one.script] if one.script else [])]


def obtain(one: Claim, folder: Path, uri: str | None, output_root: str, runs: bool) -> None:
    """Makes the runs of a claim, those that are missing, and keeps its evidence after each of its studies."""
    from alphagrad.lab.commands.run import run
    from alphagrad.lab.store.address import store_uri

    if not one.studies:
        raise ConfigError(f"{one.name}: its evidence is written by a script: {one.script}")
    experiment = f"claim {one.name}"
    store = store_uri(uri, output_root)
    where = [f"output_root={output_root}", f"tracking.experiment='{experiment}'", "study.rerun=missing"]
    for study in one.studies if runs else ():
        given = [*study, *where, *([f"tracking.uri={uri}"] if uri else [])]
        try:
            run(["-m", *given])
        except (ConfigError, StorageLost):
            raise
        except Exception as error:  # a run that diverged or failed counts, too
            say(
                f"alphagrad: {one.name}: not every run finished ({squeezed(error, 200)}); these count as its worst",
                err=True,
            )
        keep_evidence(one, folder, store, experiment)
    if not runs:
        keep_evidence(one, folder, store, experiment)


def keep_evidence(one: Claim, folder: Path, store: str, experiment: str) -> None:
    """Gathers what the store has of a claim, and writes it."""
    from datetime import UTC, datetime

    from alphagrad.lab.evidence.claims.data import COMMIT, Origin, gathered, keep
    from alphagrad.lab.records.provenance import provenance

    table = gathered(one, store, experiment)
    if table.empty:
        raise ConfigError(f"{one.name}: the store has no runs of it; alphagrad claims --run {one.name} makes them")
    tags = provenance()
    versions = {
        package: tags[f"version.{package}"] for package in ("torch", "alphagrad") if f"version.{package}" in tags
    }
    origin = Origin(
        tuple(commands(one)),
        ", ".join(sorted(set(table[COMMIT]))),
        versions,
        len(table),
        f"{datetime.now(UTC):%Y-%m-%d}",
    )
    keep(folder, one, table.drop(columns=COMMIT), origin)
