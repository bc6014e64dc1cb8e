"""What may be chosen: `alphagrad ls` shows it with the first comment of each file, `run --help` with the flags."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from pydantic import ValidationError

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import text_of
from alphagrad.common.own import user_conf
from alphagrad.common.words import cut, listed, say
from alphagrad.lab.config.complaints import DATA, GROUPS, options_in
from alphagrad.lab.config.compose import composed, hydra_initialized

HEADER = """\
alphagrad run: train one run, or with -m every combination of the values.

Examples
  alphagrad run recipe=dqn_cartpole optimizer=sin_tanh seed=3
  alphagrad run optimizer=alphagrad alpha=saturation recipe.total_steps=50000
  alphagrad run -m optimizer=adam,alphagrad 'seed=range(5)'
  alphagrad run optimizer=adam tracking.uri=http://127.0.0.1:5000
  alphagrad run --cfg job optimizer=hybrid    print the settings and stop

Choices (group=name); `alphagrad ls` describes them
"""
FLAGS = """\
Flags
  -m, --multirun        a study: each combination of values that commas part
  -c, --cfg job|hydra|all
                        print the configuration and stop
  --resolve             with --cfg: what refers to other settings is resolved
  -p, --package NAME    with --cfg: this part alone
  -i, --info WHAT       print what Hydra knows (all, config, defaults,
                        defaults-tree, plugins, searchpath) and stop
  -cd, --config-dir DIR one more folder of configuration
  --traceback           show the whole traceback of an error
  -h, --help            this text, with the settings of what is chosen
  --hydra-help          Hydra's own help
  --version             print Hydra's version and stop

Settings of the current choice (override with dots: recipe.total_steps=1000)
"""
NOT_CHOSEN = ("claim", "tune", "budget/recipe", "hydra")
"""Groups that other commands read, or that experiments choose from."""


def options_of(group: str) -> dict[str, tuple[str, str]]:
    """Option → (description, text of its file) for a configuration group, the user's own first."""
    folders = [Path(str(files("alphagrad.conf"))) / group]
    own = user_conf()
    if own is not None:
        folders.insert(0, own / group)
    found: dict[str, tuple[str, str]] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml"), key=lambda own: (len(own.parts), own)):
            name = file.relative_to(folder).with_suffix("").as_posix()
            if not file.stem.startswith("_") and name not in found:
                try:
                    text = text_of(file)
                except ConfigError as error:  # the others are as they were
                    say(f"alphagrad: {error}", err=True)
                    continue
                found[name] = (description(text), text)
    return found


def description(text: str) -> str:
    """The first comment of a configuration file, to its full stop; Hydra's headers and the file's own path are none."""
    told: list[str] = []
    for line in text.splitlines():
        comment = line[1:].strip() if line.startswith("#") else ""
        comment = re.sub(r"^(\S+\.yaml\b;? *)?(`alphagrad ls` shows this line: *)?", "", comment)
        if comment.startswith("@"):
            continue
        if told and not comment:
            break
        told += [comment] if comment else []
    return re.split(r"(?<=\w{2})\.(?:\s+(?=[A-Z])|$)", " ".join(told), maxsplit=1)[0]


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


def render(group: str | None = None) -> str:
    """The catalogue as text, or what is in it of one group.

    Raises:
        ConfigError: there is no such group in it.
    """
    sections, there = [], {heading.rpartition("(")[2].partition("=")[0] for heading in catalogue()}
    if group is not None and group not in there:
        raise ConfigError(f"{cut(group)}: no such group; there are {listed(sorted(there))}")
    for heading, entries in catalogue().items():
        if entries and (group is None or f"({group}=" in heading):
            width = max(map(len, entries)) + 2
            sections.append("\n".join([heading, *(f"  {n:<{width}}{d}" for n, d in entries.items())]))
    return "\n\n".join(sections)


@contextmanager
def explaining(overrides: Sequence[str]) -> Iterator[None]:
    """Within it a :class:`ConfigError` of what a group's choice has brought tells of the choice, and what to choose."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(_of_choices(str(error), overrides)) from error


def _of_choices(text: str, overrides: Sequence[str]) -> str:
    lines = text.splitlines()
    for word in overrides:
        group, _, value = word.partition("=")
        first = group.partition(".")[0]
        own = [line for line in lines if re.match(rf"{re.escape(group)}[.=:]", line)]
        if group in DATA and own:
            recipe = next((o for o in overrides if o.startswith("recipe=")), "the recipe")
            takes = taken([o for o in overrides if GROUPS.match(o) and not o.startswith(("data=", "model="))], group)
            if value not in takes:
                told = f"{cut(word)}: {recipe} takes no such {group}; it takes {listed(takes)}"
                lines = [told, *(line for line in lines if line not in own)]
        elif first != group and first not in DATA and own and value in options_in(first):
            lines = [f"{line}; {first} is a group: give {first}={value}" if line in own else line for line in lines]
    return "\n".join(lines)


def taken(choices: Sequence[str], group: str) -> list[str]:
    """The options of *data* or *model* that the recipe of these choices takes."""
    from alphagrad.lab.config.build import recipe_class

    found = []
    for option in options_in(group):
        try:
            config = composed([*choices, f"{group}={option}"])
            recipe = recipe_class(config.recipe._target_)
            values: Any = OmegaConf.to_container(config[group], resolve=False)
            recipe.Settings.model_fields[group].annotation.model_validate(values)
        except (ConfigError, ValidationError, KeyError, AttributeError):
            continue
        kinds: Any = getattr(recipe, "takes", {}).get(group)
        name = values.get("name")
        anything = kinds is None or "_target_" in values  # the user's own may have any name
        if anything or (name in kinds and all(values.get(setting) is not None for setting in kinds[name])):
            found.append(option)
    return found


def help_text(overrides: Sequence[str], config_dir: str | None = None) -> str:
    """The help for what these overrides choose, as wide as the terminal.

    Raises:
        ConfigError: an override cannot be used.
    """
    width = max(min(shutil.get_terminal_size().columns, 100), 40)
    with hydra_initialized(config_dir):
        config = composed(overrides)
        groups = {group: options_in(group) for group in [*_groups(""), "hydra/launcher"]}
    lines = [
        textwrap.fill(f"{group}: {', '.join(names)}", width, initial_indent="  ", subsequent_indent="    ")
        for group, names in groups.items()
    ]
    return "\n".join([HEADER, *lines, "", FLAGS, OmegaConf.to_yaml(config).rstrip()])


def _groups(parent: str) -> list[str]:
    found: list[str] = []
    loader: Any = GlobalHydra.instance().config_loader()
    for name in loader.list_groups(parent):
        group = f"{parent}/{name}" if parent else name
        if group not in NOT_CHOSEN and not name.startswith("_"):
            found += [group] if options_in(group) else []
            found += _groups(group)
    return found
