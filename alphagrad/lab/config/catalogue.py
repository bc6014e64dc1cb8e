"""What `alphagrad ls` shows: recipes, variants and baselines, each with the first comment of its file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import text_of
from alphagrad.common.words import say
from alphagrad.lab.config.compose import user_conf


def options_of(group: str) -> dict[str, tuple[str, str]]:
    """Option → (description, text of its file) for a configuration group, the user's own first."""
    folders = [Path(str(files("alphagrad.conf"))) / group]
    own = user_conf()
    if own is not None:
        folders.insert(0, own / group)
    found: dict[str, tuple[str, str]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.yaml")):
            if not file.stem.startswith("_") and file.stem not in found:
                try:
                    text = text_of(file)
                except ConfigError as error:  # the others are as they were
                    say(f"alphagrad: {error}", err=True)
                    continue
                found[file.stem] = (description(text), text)
    return found


def description(text: str) -> str:
    """The first comment of a configuration file that is not a Hydra header."""
    comments = (line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    return next((c for c in comments if not c.startswith("@")), "")


def catalogue() -> dict[str, dict[str, str]]:
    """Heading → name → description."""
    optimizers = options_of("optimizer")
    variants = {name for name, (_, text) in optimizers.items() if "_alphagrad" in text or "alphagrad.AlphaGrad" in text}
    return {
        "Recipes (recipe=...)": {name: d for name, (d, _) in options_of("recipe").items()},
        "Variants of AlphaGrad (optimizer=...)": {n: d for n, (d, _) in optimizers.items() if n in variants},
        "Baselines (optimizer=...)": {n: d for n, (d, _) in optimizers.items() if n not in variants},
        "Data sets (data=...)": {name: d for name, (d, _) in options_of("data").items()},
        "Models (model=...)": {name: d for name, (d, _) in options_of("model").items()},
        "Problems (problem=...)": {name: d for name, (d, _) in options_of("problem").items()},
        "Studies (experiment=...)": {name: d for name, (d, _) in options_of("experiment").items()},
    }


def render() -> str:
    """The catalogue as text."""
    sections = []
    for heading, entries in catalogue().items():
        if entries:
            width = max(map(len, entries)) + 2
            sections.append("\n".join([heading, *(f"  {n:<{width}}{d}" for n, d in entries.items())]))
    return "\n\n".join(sections)
