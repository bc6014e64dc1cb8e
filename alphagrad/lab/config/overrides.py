"""The words of a command line, looked at before Hydra is: each is a setting that can be read and may be set."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, is_plain, listed, plain, shown, squeezed

HYDRA = ("hydra.", "hydra/")
"""How settings of Hydra's own begin; it applies them to every job itself."""
LAUNCHER = "hydra/launcher"
OURS = (LAUNCHER, "hydra.run.dir", "hydra.sweep.dir")
"""Settings of Hydra's own that may be given, besides those below :data:`BELOW`; its others say what code it runs,
where it looks for configuration and what it writes."""
BELOW = ("hydra.launcher.", "hydra.sweeper.params.")
CODE = ("_target_", "choice")
"""What a launcher is, which ``hydra/launcher`` chooses."""
STACKED = "hydra_plugins.alphagrad.StackedLauncher"
LAUNCHERS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    STACKED,
    "hydra_plugins.alphagrad.FarmLauncher",
)
LONGEST_NAME = 255
"""Bytes of a file's name."""
WHOLE_STUDY = ("output_root", "tracking", "study", "stack", "hydra", "experiment")
"""What all jobs of a study share."""


def parsed(words: Sequence[str]) -> list[Override]:
    """The words as Hydra reads them.

    Raises:
        ConfigError: one cannot be read, or sets what may not be set; it is named alone.
    """
    found = []
    for place, word in enumerate(words):
        try:
            found.append(_one(word))
        except ConfigError as error:
            raise ConfigError(_parted(words, place) or str(error)) from error
    return found


def _parted(words: Sequence[str], place: int) -> str:
    """What is meant where blanks have parted a setting, as in ``recipe = image`` or ``optimizer=adam, sgd``."""
    before = place and (
        words[place - 1].endswith("=") or words[place].startswith(",")
    )  # not a setting that is complete
    for start in range(place - 1 if before else place, place + 1):
        for end in range(start + 2, min(start + 9, len(words)) + 1):
            if end <= place or any("=" in word.strip("=") for word in words[start + 1 : end]):
                continue
            between = "=" if end == start + 2 and not any("=" in word for word in words[start:end]) else ""
            form = between.join(words[start:end])
            key, _, value = form.partition("=")
            if not re.fullmatch(r"[a-z_][\w./]*", key) or not value or value.endswith(",") or form.count("=") != 1:
                continue
            if _is_read(form):
                return f"{cut(' '.join(words[start:end]))}: a setting has no blanks in it; give {cut(quoted(form))}"
    return ""


def _is_read(form: str) -> bool:
    try:
        OverridesParser.create().parse_override(form)
    except (HydraException, ValueError, RecursionError, OverflowError):
        return False
    return True


def quoted(form: str) -> str:
    """A word as a shell takes it, with the fewest quotes."""
    return f'"{form}"' if "'" in form and not re.search(r'["$`\\!]', form) else shlex.quote(form)


def _one(word: str) -> Override:
    key = re.split(r"[=@]", word, maxsplit=1)[0].lstrip("+~").strip()
    if re.fullmatch(r"hydra/launcher[./][\w.]+", key):
        raise ConfigError(f"{cut(word)}: no such setting; give {cut(word.replace('/', '.', key.count('/')))}")
    if not is_plain(word):
        raise ConfigError(f"{cut(plain(word))}: holds control characters; only text is allowed")
    if not key or ("=" not in word and not word.startswith("~")):
        raise ConfigError(f"{cut(word) or 'an empty word'}: is no setting; give {cut(as_setting(word))}")
    try:
        override: Override = OverridesParser.create().parse_override(word)
    except (HydraException, ValueError, RecursionError, OverflowError) as error:
        raise ConfigError(_unreadable(word, error)) from error
    if len(key.encode()) > LONGEST_NAME:  # Hydra looks for a file of that name
        raise ConfigError(f"{cut(key)}: no such setting; it is longer than any")
    value = override.value()
    if isinstance(value, str) and len(value.encode()) > LONGEST_NAME and override.package is None and "." not in key:
        raise ConfigError(f"{key}={cut(value)}: is longer than any file's name")
    if key == "hydra" or key.startswith(HYDRA):
        _check_hydra(word, key, override)
    return override


def _check_hydra(word: str, key: str, override: Override) -> None:
    given = key in OURS or key.startswith(BELOW)
    if not given or key.rpartition(".")[2] in CODE or override.is_delete() or override.package is not None:
        value = override.value()
        name = value if key == "hydra.launcher" and isinstance(value, str) else "NAME"
        if (key.startswith("hydra.launcher") and key.count(".") == 1) or key.rpartition(".")[2] in CODE:
            raise ConfigError(f"{cut(word)}: a launcher is chosen by hydra/launcher={name}")
        raise ConfigError(
            f"{cut(word)}: may not be set; of Hydra's own settings there are {', '.join(OURS)}, "
            f"{' and '.join(f'{name}*' for name in BELOW)}"
        )
    if key.endswith(".dir") and not (isinstance(override.value(), str) and str(override.value()).strip()):
        raise ConfigError(f"{cut(word)}: must be a folder")
    if override.is_sweep_override():
        raise ConfigError(f"{cut(word)}: all jobs of a study share it; give one value")


def check_study(overrides: Sequence[Override]) -> None:
    """Raises :class:`ConfigError` where the jobs of a study would differ in what they share."""
    for override in overrides:
        key = override.get_key_element().lstrip("+~")
        if override.is_sweep_override() and re.split(r"[./]", key)[0] in WHOLE_STUDY:
            raise ConfigError(f"{cut(override.input_line)}: all jobs of a study share it; give one value")


def check_hydra(full: DictConfig, plain: DictConfig | None) -> None:
    """Raises :class:`ConfigError` where Hydra would run or write other than what alphagrad's configuration says.

    Args:
        full: the configuration with Hydra's part.
        plain: as it is without what ``--config-dir`` adds; None where nothing was added.
    """
    launcher = OmegaConf.select(full, "hydra.launcher._target_")
    if launcher not in LAUNCHERS:
        raise ConfigError(f"hydra.launcher._target_={shown(launcher)}: a launcher is chosen by hydra/launcher=NAME")
    unknown = [str(key) for key in full.hydra.launcher if key != "_target_"]
    if launcher != LAUNCHERS[-1] and unknown:
        raise ConfigError(
            f"hydra.launcher.{cut(unknown[0])}: this launcher has no settings; hydra/launcher=NAME chooses"
        )
    if plain is None:
        return
    for part in ("callbacks", "job_logging", "hydra_logging", "output_subdir", "sweeper._target_", "searchpath"):
        if _of(full, part) != _of(plain, part):
            raise ConfigError(f"hydra.{part}: may not be set in a folder given by --config-dir")
    for part in ("name", "chdir", "env_set", "env_copy"):
        if _of(full, f"job.{part}") != _of(plain, f"job.{part}"):
            raise ConfigError(f"hydra.job.{part}: may not be set in a folder given by --config-dir")


def _of(config: DictConfig, part: str) -> Any:
    hydra = OmegaConf.to_container(config.hydra, resolve=False)
    for name in part.split("."):
        hydra = hydra.get(name) if isinstance(hydra, dict) else None
    return hydra


def as_setting(word: str, value: str = "") -> str:
    """A word that is no setting as it may have been meant."""
    key, _, own = re.sub(r"^[-+~]+", "", word).replace(":", "=", 1).replace(" ", "=", 1).partition("=")
    return f"{key or 'SETTING'}={own.strip() or value or 'VALUE'}"


def _unreadable(word: str, error: Exception) -> str:
    """What is wrong with a word that the parser refuses, and the form that it takes."""
    if "integer string conversion" in str(error):
        return f"{cut(word)}: holds a number that is too long"
    key, _, value = word.partition("=")
    tidy = [f"{key.strip()}={value.strip()}"] if key != key.strip() or value != value.strip() else []
    bare = value.strip().strip("'\"=")
    escaped = bare.replace("\\", "\\\\").replace("'", "\\'")
    tidy += [f"{key.strip()}={value.strip().strip(',')}"] if value.strip(", ") != value.strip() else []
    tidy += [f"{key}={bare}"] if value.startswith("=") else []
    tidy += [] if re.match(r"[\[{$]|\w*\(", bare) else [f"{key.strip()}='{escaped}'"]
    for form in tidy:
        if _is_read(form):
            return f"{cut(word)}: cannot be read; give {cut(quoted(form))}"
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            return f"{cut(word)}: cannot be read; it has {opening} and {closing} in different numbers"
    grammar = re.search(r"viable|expecting|extraneous|mismatched|token recognition", str(error))
    told = squeezed(str(error).splitlines()[0] if str(error) else type(error).__name__, 200)
    return f"{cut(word)}: cannot be read" + ("; a value with signs in it takes quotes" if grammar else f" ({told})")


def without_effect(overrides: Sequence[Override], multirun: bool) -> list[str]:
    """A line for each setting that changes nothing of a single run, or of a study under its launcher."""
    keys = [override.key_or_group for override in overrides]
    idle = [key for key in keys if key == "hydra.run.dir"] if multirun else [key for key in keys if _of_studies(key)]
    lines = {o.key_or_group: cut(o.input_line) for o in overrides if o.key_or_group in idle}
    return [f"{line}: has no effect {'with' if multirun else 'without'} -m" for line in lines.values()]


def _of_studies(key: str) -> bool:
    launching = key in ("hydra/launcher", "hydra.sweep.dir") or key.startswith(BELOW)
    return launching or key.startswith(("stack.", "study."))


def not_of_launcher(
    key: str, overrides: Sequence[str], options: Sequence[str], compose: Callable[[Sequence[str]], DictConfig]
) -> str:
    """One line on a setting ``hydra.launcher.NAME`` that is not there; empty for other settings."""
    if not key.startswith(BELOW[0]):
        return ""
    name = key.removeprefix(BELOW[0])
    word = next((o for o in overrides if o.partition("=")[0].lstrip("+") == key), key)
    chosen = next((o for o in reversed(overrides) if o.startswith(f"{LAUNCHER}=")), f"{LAUNCHER}=basic")
    settings = {option: _settings(option, compose) for option in options}
    having = [option for option, names in settings.items() if name.partition(".")[0] in names]
    own = settings.get(chosen.partition("=")[2], [])
    others = " or ".join(f"{LAUNCHER}={option}" for option in having)
    told = f"give {others}" if having else f"it has {listed(own) or 'none'}"
    return f"{cut(word)}: {chosen} has no such setting; {told}"


def _settings(option: str, compose: Callable[[Sequence[str]], DictConfig]) -> list[str]:
    try:
        launcher = compose([f"{LAUNCHER}={option}"]).hydra.launcher
    except ConfigError:  # a file of the user's own that cannot be used
        return []
    return [str(name) for name in launcher if name not in ("_target_", "farm", "choice")]
