"""Pages made of what stands elsewhere: variants, recipes, the commands' help. So nothing is said twice."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from importlib.resources import files
from io import StringIO
from pathlib import Path

import curves
import torch
import yaml

import alphagrad_cli
from alphagrad import variants
from alphagrad.lab.commands import NAMES
from alphagrad.lab.config.catalogue import catalogue, options_of

CONF = Path(str(files("alphagrad.conf")))


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
