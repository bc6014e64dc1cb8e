"""Pages made of what stands elsewhere: variants, recipes, the commands' help. So nothing is said twice.

`python docs/pages.py` writes `docs/metrics.md` anew, which is kept in the repository; a test says when that is due.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from importlib.resources import files
from io import StringIO
from itertools import pairwise
from pathlib import Path

import curves
import torch
import yaml

import alphagrad_cli
from alphagrad import variants
from alphagrad.harness import metrics as names
from alphagrad.instruments import quantities
from alphagrad.lab.commands import NAMES
from alphagrad.lab.config.build import recipe_class
from alphagrad.lab.config.catalogue import catalogue, options_of

CONF = Path(str(files("alphagrad.conf")))
UNITS = {
    r"\(nats\)": "nats",
    r"\(s\)": "seconds",
    r"\(bytes\)": "bytes",
    r"per second": "1/s",
    r"\(steps\)|optimizer steps": "steps",
    r"share|accuracy\)|over peak": "share",
    r"\(count\)": "count",
    r"\breturn\b": "sum of rewards",
    r"bits per byte": "bits/byte",
}
"""What stands in a metric's title → its unit; of the others it is a plain number."""


def write_all(folder: Path) -> None:
    """Writes every page and picture below a folder; what the user's own environment would add is left out."""
    os.environ.pop("ALPHAGRAD_CONF", None)
    os.environ["COLUMNS"] = "100"
    torch.set_num_threads(1)  # the tensors are small
    for name in variants.__all__:
        write(folder / f"variants/{name}.md", variant(name))
        picture = folder / f"variants/{name}.svg"
        if not picture.exists() or picture.stat().st_mtime < Path(curves.__file__).stat().st_mtime:
            curves.draw(name, picture)
    write(folder / "recipes.md", recipes())
    write(folder / "optimizers.md", optimizers())
    write(folder / "commands.md", commands())


def write(file: Path, text: str) -> None:
    """Writes a page, unless it is there: Sphinx reads again what is newer than what it has built."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def settings(text: str, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """The settings of a configuration file, (dotted name, default, comment) each, from the text itself."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = re.fullmatch(r"( *)(\w+):(?: +([^#]*[^#\s]))?(?: +# (.*))?", line)
        if not found:
            continue
        depth, key, value, comment = len(found[1]), found[2], found[3], found[4] or ""
        above = [(d, k) for d, k in above if d < depth]
        if value is None:
            above.append((depth, key))
        elif not key.startswith("_") and not value.startswith("${") and key != "name":
            yield ".".join([*filter(None, [prefix]), *(k for _, k in above), key]), value, comment


def table(rows: list[tuple[str, str, str]]) -> str:
    """A table of settings."""
    lines = [f"| `{name}` | `{default}` | {comment.replace('|', '∣')} |" for name, default, comment in rows]
    return "\n".join(["| setting | default | |", "|---|---|---|", *lines])


def slots(name: str) -> dict[str, str]:
    """Group → option that an optimizer's configuration file chooses."""
    chosen = yaml.safe_load((CONF / f"optimizer/{name}.yaml").read_text(encoding="utf-8")).get("defaults", [])
    pairs = [pair for entry in chosen if isinstance(entry, dict) for pair in entry.items()]
    return {group.strip("/"): option for group, option in pairs if "@" not in group}


def variant(name: str) -> str:
    """The page of a variant: its module's docstring, its curves, its settings, its function."""
    rows: list[tuple[str, str, str]] = []
    for group, option in slots(name).items():
        text = (CONF / f"{group}/{option}.yaml").read_text(encoding="utf-8")
        rows += [(f"{group}", option, ""), *settings(text, group)]
    own = [(key, default) for key, default, _ in rows if "." in key]
    first = next((pair for group in ("transform.", "alpha.") for pair in own if pair[0].startswith(group)), None)
    changed = f" {first[0]}={first[1]}" if first else ""
    return f"""# {name}

```{{eval-rst}}
.. automodule:: alphagrad.variants.{name}
   :no-members:
```

## Transfer curve

![One component of the update over the same component of the gradient]({name}.svg)

Drawn from a step of the optimizer. In a tensor of {curves.D:,} elements a typical component is
±{curves.D**-0.5:g} of the norm.

## Run it

```sh
alphagrad run optimizer={name}{changed}
```

{table(rows)}

The settings that all variants share: [optimizers](../optimizers.md). The choices of each slot:
[rules](../../api/rules.md).

## In your own loop

```{{eval-rst}}
.. autofunction:: alphagrad.variants.{name}.{name}
```
"""


def optimizers() -> str:
    """The page of the settings that all variants share, and of the baselines."""
    groups = catalogue()
    baselines = next(entries for heading, entries in groups.items() if heading.startswith("Baselines"))
    lines = [f"| `{name}` | {description} |" for name, description in baselines.items()]
    rate = ("optimizer.lr", "optimizer_defaults.alphagrad_lr", "learning rate η; without it `optimizer_defaults.lr`")
    shared = [rate, *settings((CONF / "optimizer/_alphagrad.yaml").read_text(encoding="utf-8"), "optimizer")]
    return "\n".join(
        [
            "# Optimizers",
            "",
            "## Settings of every variant",
            "",
            table(shared),
            "",
            "What each does is said at [AlphaGrad](../api/optimizer.md).",
            "",
            "## Baselines",
            "",
            "| `optimizer` | |",
            "|---|---|",
            *lines,
            "",
            "`alphagrad run --cfg job optimizer=NAME` prints the settings of one. Under any optimizer",
            "`optimizer.clip_grad_norm` clips the L2 norm of the whole gradient.",
            "",
        ]
    )


def recipes() -> str:
    """The page of the recipes: what each is, and its settings with their defaults."""
    parts = ["# Recipes", "", "What can be trained. `alphagrad ls` lists it too, your own recipes included."]
    for name, (description, text) in options_of("recipe").items():
        target = yaml.safe_load(text)["recipe"]["_target_"]
        parts += ["", f"## {name}", "", f"{description}.", "", "```sh", f"alphagrad run recipe={name}", "```", ""]
        parts += [table(list(settings(text))), "", f"The class: `{target}`."]
    for group, heading in (
        ("data", "Data sets"),
        ("model", "Models"),
        ("problem", "Problems"),
        ("experiment", "Studies"),
    ):
        listed = [f"| `{name}` | {description} |" for name, (description, _) in options_of(group).items()]
        parts += ["", f"## {heading}", "", f"| `{group}` | |", "|---|---|", *listed]
    return "\n".join([*parts, ""])


def metrics() -> str:
    """The page of the metrics: what each is, its unit, who logs it, and what a step counts."""
    logged = {name: recipe_class(yaml.safe_load(text)["recipe"]["_target_"]) for name, (_, text) in of_recipes()}
    said = remarks()
    rows = []
    for metric, title in names.TITLES.items():
        whose = [f"`{name}`" for name, recipe in logged.items() if metric in recipe.logs]
        if metric in (names.STATE_BYTES, names.PEAK_BYTES):
            whose = ["all, at the end"]  # logged by the laboratory itself
        rows.append(f"| `{metric}` | {said.get(metric, title)} | {unit(title)} | {' '.join(whose)} |")
    single = [f"| `{name}/TENSOR` | {title} | {unit(title)} |" for name, title in quantities.QUANTITIES.items()]
    for name, words in quantities.SUMMARIES.items():
        single.append(f"| `QUANTITY_{name}/NETWORK` | {words.format('the quantity', 'the network')} | its own |")
    steps = []
    for (name, (_, text)), recipe in zip(of_recipes(), logged.values(), strict=True):
        judged = f"`{recipe.objective.metric}`, {recipe.objective.better}"
        steps.append(f"| `{name}` | {step(recipe.logs)} | `{length(text)}` | {judged} |")
    return METRICS.format(steps="\n".join(steps), rows="\n".join(rows), single="\n".join(single))


METRICS = """# Metrics

What runs log, as `alphagrad report --metric NAME` and MLflow call it.

## What a step counts

Metrics are logged at a step. The first step is 0; at step 99 a hundred steps have been taken. Every run of a stack
counts its own steps.

| recipe | a step is | its default length | it is judged by |
|---|---|---|---|
{steps}

An environment step is one action. A gradient step is one update of the optimizer; `instruments.every` counts these.
In an epoch there are as many optimizer steps as whole batches in the training data.

## Metrics of a run

| metric | what it is | unit | recipes |
|---|---|---|---|
{rows}

## Metrics of single tensors

TENSOR is the tensor's name in its network, such as `0.weight`. NETWORK is `network`, or the name of the network where
a recipe has several optimizers (`actor` and `critics` of `td3_hopper`). Which are measured, and how often:
[instruments](howto/instruments.md).

| metric | what it is | unit |
|---|---|---|
{single}
"""
"""The page of the metrics, with gaps for what stands in the code."""


def of_recipes() -> list[tuple[str, tuple[str, str]]]:
    """(name, (description, text of its file)) of each recipe."""
    return list(options_of("recipe").items())


def remarks() -> dict[str, str]:
    """Metric → what the code says of it beside its title."""
    found, body = {}, ast.parse(inspect.getsource(names)).body
    for node, after in pairwise(body):
        if isinstance(node, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(node.targets[0], ast.Name)
            value = getattr(names, node.targets[0].id)
            text = " ".join(str(after.value.value).split()).removesuffix(".")
            if isinstance(value, str):
                found[value] = re.sub(r":data:`(\w+)`", lambda m: f"`{getattr(names, m[1])}`", text)
    return found


def unit(title: str) -> str:
    """The unit of a metric."""
    return next((unit for pattern, unit in UNITS.items() if re.search(pattern, title)), "number")


def step(logs: set[str]) -> str:
    """What the steps of a recipe count."""
    return "an environment step" if logs >= names.EPISODES else "an optimizer step"


def length(text: str) -> str:
    """The setting that says how long a recipe trains, with its default."""
    return next(
        f"{name}={value}" for name, value, _ in settings(text) if re.fullmatch(r"recipe\.(total_steps|epochs)", name)
    )


def commands() -> str:
    """The page of the commands: what `--help` prints."""
    parts = ["# Commands", "", "```text", shown("--help"), "```"]
    for name in NAMES:
        parts += ["", f"## alphagrad {name}", "", "```text", shown(name, "--help"), "```"]
    return "\n".join([*parts, ""])


def shown(*words: str) -> str:
    """What `alphagrad WORDS` prints, on a terminal of 100 columns."""
    with redirect_stdout(StringIO()) as out, suppress(SystemExit):
        status = alphagrad_cli.main(words)
        assert status == 0, f"alphagrad {' '.join(words)}: status {status}"
    return out.getvalue().rstrip()


METRICS_FILE = Path(__file__).with_name("metrics.md")
"""The page of the metrics, which is kept, so that it can be read and linked to where nothing is built."""

if __name__ == "__main__":
    write(METRICS_FILE, metrics())
