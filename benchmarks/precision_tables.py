"""The tables of docs/precision.md from its results, run by run.

    python benchmarks/precision_tables.py
    python benchmarks/precision_tables.py --add OUTPUT_ROOT --study formats

``--add`` takes the finished runs of a folder into the results first. Test accuracies (of ``lm`` validation losses),
mean and 95 % interval over seeds, and what half precision lost: mean shares over seeds and measured steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from alphagrad.harness import metrics
from alphagrad.instruments import quantities
from alphagrad.lab.evidence import frame
from alphagrad.lab.evidence.report import mean_and_interval
from alphagrad.lab.evidence.results import Results
from alphagrad.lab.store.address import store_uri

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
SCORES, LOST = RESULTS / "precision.csv", RESULTS / "precision_lost.csv"
KEYS = ["study", "data", "optimizer", "rate", "setting", "seed"]
NAMES = {
    "adam": "Adam",
    "sgd": "SGD",
    "signsgd": "signSGD",
    "alphagrad": "AlphaGrad",
    "sqrt_dim": "AlphaGrad, `sqrt_dim`",
    "fixed_point": "AlphaGrad, `fixed_point`",
}
FORMATS = ("float32", "amp_bfloat16", "amp_float16", "amp_float16_unscaled", "bfloat16")
ROUNDINGS = ("nearest", "stochastic", "kahan")
COUNTED = (*FORMATS[1:4], *ROUNDINGS)
QUANTIZATIONS = ("none", "int8", "int4_weights")
TABLES = (
    ("formats", "digits", FORMATS, "accuracy"),
    ("rounding", "digits", ROUNDINGS, "accuracy"),
    ("rounding, 20 epochs", "digits", ("float32", *ROUNDINGS), "accuracy"),
    ("lm", "topics", ("float32", "amp_bfloat16", *ROUNDINGS), "loss"),
    ("qat", "digits", QUANTIZATIONS, "accuracy"),
    ("qat", "fashion_mnist", QUANTIZATIONS, "accuracy"),
)
"""Study, data, settings in the order of the columns, and the score."""
PARTS = {quantity: f"{quantities.summary(quantity, 'all')}/{quantities.NETWORK}" for quantity in quantities.LOSSES}
"""Column of the results → metric."""


def by_rate(scores: pd.DataFrame, columns: Sequence[str], told: str) -> Iterator[str]:
    """A table's lines: a row for each optimizer and rate."""
    yield "| optimizer | rate | " + " | ".join(f"`{c}`" for c in columns) + " |"
    yield "|" + "---|" * (len(columns) + 2)
    for optimizer in [name for name in NAMES if name in set(scores.optimizer)]:
        own = scores[scores.optimizer == optimizer]
        for row, rate in enumerate(sorted(own.rate.unique())):
            parts = [own[(own.rate == rate) & (own.setting == c)][told].tolist() for c in columns]
            cells = [mean_and_interval(values, 3) if values else "—" for values in parts]
            yield f"| {NAMES[optimizer] if not row else ''} | {rate:g} | " + " | ".join(cells) + " |"


def in_integers(scores: pd.DataFrame) -> Iterator[str]:
    """The lines of the table of the update in integers."""
    yield "| optimizer | rate | weights | test accuracy | test loss |"
    yield "|---|---|---|---|---|"
    for optimizer in reversed(NAMES):
        own = scores[scores.optimizer == optimizer]
        for setting in own.setting.unique():
            runs = own[own.setting == setting]
            cells = [mean_and_interval(runs[told].tolist(), 3) for told in ("accuracy", "loss")]
            yield f"| {NAMES[optimizer]} | {runs.rate.iloc[0]:g} | {setting} | " + " | ".join(cells) + " |"


def share(value: float) -> str:
    """In per cent."""
    return "0" if value == 0 else f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def lost(shares: pd.DataFrame) -> Iterator[str]:
    """The lines of the table of what was lost: overflow, underflow and lost updates in each cell."""
    columns = [c for c in COUNTED if c in set(shares.setting)]
    yield "| optimizer | rate | " + " | ".join(f"`{c}`" for c in columns) + " |"
    yield "|" + "---|" * (len(columns) + 2)
    for optimizer in [name for name in NAMES if name in set(shares.optimizer)]:
        for rate in sorted(shares[shares.optimizer == optimizer].rate.unique()):
            own = shares[(shares.optimizer == optimizer) & (shares.rate == rate)]
            means = [own[own.setting == c][[*PARTS]].mean() for c in columns]
            cells = ["—" if m.isna().any() else " / ".join(share(v) for v in m) for m in means]
            yield f"| {NAMES[optimizer]} | {rate:g} | " + " | ".join(cells) + " |"


def tables() -> Iterator[str]:
    """All lines of the studies that there are results of, an empty one after each table."""
    scores, shares = pd.read_csv(SCORES), pd.read_csv(LOST)
    made = [
        by_rate(scores[(scores.study == study) & (scores.data == data)], columns, told)
        for study, data, columns, told in TABLES
    ]
    for table in (*made, in_integers(scores[scores.study == "fixed_point"]), lost(shares)):
        lines = list(table)
        if len(lines) > 2:
            yield from (*lines, "")


def setting_of(study: str, run: pd.Series) -> str:
    """What the study varied beside optimizer and rate."""
    if study == "qat":
        return str(run["params.recipe.quantization"])
    if study == "fixed_point":
        if run["params.optimizer.name"] != "fixed_point":
            return "float32"
        rounding = {"stochastic": "at random", "nearest": "to the nearest"}[run["params.optimizer.rounding"]]
        return f"int16, {run['params.optimizer.weight_bits']} bits, {rounding}"
    precision, rounding = run["params.recipe.precision"], run["params.recipe.rounding"]
    if study == "formats" or precision != "bfloat16":
        return str(precision)
    return str(rounding)


def add(root: Path, study: str) -> None:
    """Takes finished runs into the results, in place of earlier ones of the same settings."""
    studies = [one.info.run_id for one in Results(store_uri(None, root)).studies()]
    runs = pd.concat([frame(one, output_root=root) for one in studies])
    shares = pd.DataFrame()
    if study == "lost":
        curves = pd.concat([frame(one, output_root=root, curves=[*PARTS.values()]) for one in studies])
        # the rate of the first step is 0
        shares = curves[curves.step > 0].groupby("run_id")[[*PARTS.values()]].mean()
    rows = []
    for _, run in runs[runs.status == "finished"].iterrows():
        rows.append(
            {
                "study": study,
                "data": run["params.data.name"],
                "optimizer": run["params.optimizer.name"],
                "rate": float(run["params.optimizer.lr"]),
                "setting": setting_of(study, run),
                "seed": int(run["seed"]),
                "accuracy": run.get(f"metrics.{metrics.EVAL_ACCURACY}"),
                "loss": run.get(f"metrics.{metrics.EVAL_LOSS}"),
                **{part: shares[name].get(run["run_id"]) for part, name in PARTS.items() if study == "lost"},
                "commit": run["commit"][:7],
            }
        )
    file = LOST if study == "lost" else SCORES
    old, new = pd.read_csv(file) if file.exists() else pd.DataFrame(), pd.DataFrame(rows)
    both = pd.concat([old, new.drop(columns=["accuracy", "loss"]) if study == "lost" else new])
    both = both.drop_duplicates(KEYS, keep="last").sort_values(KEYS, kind="stable")
    both.round(6).to_csv(file, index=False)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--add", type=Path, metavar="OUTPUT_ROOT", help="a folder of runs to take in first")
    parser.add_argument("--study", default="formats", help="formats, rounding, lm, qat, fixed_point or lost")
    asked = parser.parse_args()
    if asked.add is not None:
        add(asked.add, asked.study)
    for line in tables():
        print(line)


if __name__ == "__main__":
    main()
