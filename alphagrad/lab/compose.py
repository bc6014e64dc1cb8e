"""Configuration composed by Hydra, and its errors said in one line."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alphagrad.lab import open_settings
from alphagrad.lab.errors import ConfigError

CONFIG_MODULE = "alphagrad.conf"
CONFIG_NAME = "config"
# What does not change the numbers of a run: where it is written and by what it is followed.
BOOKKEEPING = ("seed", "output_root", "tracking", "checkpoint", "study", "stack", "hydra")
JOB_KEY = "alphagrad.job"
"""Tag of a job: equal for equal configurations and seeds."""
SLOTS = ("normalization", "alpha", "transform")
DATA = ("data", "model")
"""Groups of recipes that learn from examples."""


class UserConf(SearchPathPlugin):
    """Puts $ALPHAGRAD_CONF, a folder with the same groups, before the shipped configuration."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        folder = user_conf()
        if folder is not None:
            search_path.prepend(provider="ALPHAGRAD_CONF", path=f"file://{folder}")


def user_conf() -> Path | None:
    """The folder $ALPHAGRAD_CONF, if set; :class:`ConfigError` if it is not a folder."""
    value = os.environ.get("ALPHAGRAD_CONF")
    if not value:
        return None
    folder = Path(value).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"ALPHAGRAD_CONF={value}: no such folder")
    return folder


def register() -> None:
    """Makes our resolver and search path known to Hydra; needed before anything is composed."""
    plugins = Plugins.instance()  # its search loads Hydra's modules anew: ours may be imported only after it
    from hydra_plugins.alphagrad import FarmLauncher, StackedLauncher, StudySweeper

    # registered by hand, because that search does not see through an editable install
    for plugin in (UserConf, StudySweeper, StackedLauncher, FarmLauncher):
        plugins.register(plugin)
    open_settings.register()
    OmegaConf.register_new_resolver("alphagrad.hash", lambda *, _root_: config_hash(_root_), replace=True)


def config_hash(config: DictConfig) -> str:
    """Eight hexadecimal digits of the configuration, :data:`BOOKKEEPING` left out: equal for replicas."""
    plain = OmegaConf.to_container(_without_hydra(config), resolve=True)
    assert isinstance(plain, dict)
    plain = {key: value for key, value in plain.items() if key not in BOOKKEEPING}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def job_key(config: DictConfig) -> str:
    """What identifies a job within a study: its configuration and seed."""
    return f"{config_hash(config)}-{config.seed}"


def _without_hydra(config: DictConfig) -> DictConfig:
    copied = OmegaConf.create({k: v for k, v in config.items_ex(resolve=False) if k != "hydra"})
    assert isinstance(copied, DictConfig)
    return copied


def settings_of(config: DictConfig) -> dict[str, Any]:
    """The configuration as a flat mapping ``a.b.c`` → value, resolved, each setting once.

    A node that is another's copy (env: ${env}) is told where that one stands, at the top; so the configuration
    that a run has noted, in which nothing points to anything any more, gives the same settings.
    """
    flat: dict[str, Any] = {}
    own = _without_hydra(config)
    tops = [value for value in own.values() if isinstance(value, DictConfig)]

    def walk(node: DictConfig, prefix: str) -> None:
        for key in node:
            name = prefix + str(key)
            value = node[key]
            if isinstance(value, DictConfig):
                told = OmegaConf.is_interpolation(node, str(key)) or (prefix and value in tops)
                if not told:
                    walk(value, f"{name}.")
            else:
                flat[name] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    walk(own, "")
    return flat


@contextmanager
def hydra_initialized(config_dir: str | None = None) -> Iterator[None]:
    """Hydra's compose API on our configuration."""
    GlobalHydra.instance().clear()
    register()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        if config_dir is not None:
            if not Path(config_dir).is_dir():
                raise ConfigError(f"--config-dir={config_dir}: no such folder")
            loader = GlobalHydra.instance().config_loader()
            assert isinstance(loader, ConfigLoaderImpl)
            # where Hydra puts it; the loader looked its sources up when it was made
            path, anchor = f"file://{Path(config_dir).resolve()}", SearchPathQuery(provider="schema")
            loader.get_search_path().prepend("command-line", path, anchor)
            loader.repository.initialize_sources(loader.get_search_path())
        yield


def compose(overrides: Sequence[str]) -> DictConfig:
    """One job's configuration; call it under :func:`hydra_initialized`.

    Raises:
        ConfigError: an override names what does not exist, or has a value that cannot be used.
    """
    try:
        config = hydra_compose(CONFIG_NAME, overrides=list(overrides))
        OmegaConf.to_container(config, resolve=True)  # dangling ${...} show here
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error, overrides)) from error
    return config


def compose_all(jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """Each job's configuration, as :func:`compose` has it; those that differ in seed are composed once."""
    known: dict[tuple[str, ...], DictConfig] = {}
    configs: list[DictConfig] = []
    for job in jobs:
        seed = [o for o in job if o.startswith("seed=")]
        rest = tuple(o for o in job if o not in seed)
        plain = re.fullmatch(r"seed=(0|[1-9]\d*)", seed[0]) if len(seed) == 1 else None
        if rest in known and plain:
            config = copy.deepcopy(known[rest])
            config.seed = int(plain[1])
        else:
            config = known[rest] = compose(job)
        configs.append(config)
    return configs


def hydra_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration with Hydra's own part; errors are Hydra's."""
    return hydra_compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)


def one_line(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message as one line that names the setting and what is allowed."""
    text = str(error)
    missing = re.search(r"Could not find '([^']+)'", text)
    if missing:
        group, _, option = missing[1].rpartition("/")
        listed = text.partition("Available options")[2].partition("Config search path")[0]
        options = [line.strip() for line in listed.splitlines() if line.startswith("\t")]
        options = [o for o in options if not o.startswith("_")]
        return f"{group}={option}: no such {group}; {_nearest(option, options)}there are {', '.join(options)}"
    struct = re.search(r"Could not override '([^']+)'", text)
    if struct:
        key = struct[1]
        source = f"{error.__cause__}" if error.__cause__ else text
        slot = key.partition(".")[0]
        if slot in DATA and ("No match in the defaults list" in text or f"Key '{slot}'" in source + text):
            recipe = next((o for o in overrides if o.startswith("recipe=")), "the recipe")
            return f"{key}: {recipe} has no {slot}, recipe=image has"
        if "No match in the defaults list" in text or (slot in SLOTS and "not in struct" in source + text):
            optimizer = next((o for o in overrides if o.startswith("optimizer=")), "the optimizer")
            if "No match in the defaults list" in text or f"Key '{slot}'" in source + text:
                return f"{key}: {optimizer} has no {slot}, only the variants of AlphaGrad that use it do"
        if "not in struct" in source + text:
            return f"{key}: no such setting{_siblings(key, overrides)}"
        return f"{key}: {_squeeze(source)}"
    names = ", ".join(o for o in overrides if not o.startswith("hydra."))
    return f"{names}: {_squeeze(text)}" if isinstance(error, HydraException) else _squeeze(text)


def _siblings(key: str, overrides: Sequence[str]) -> str:
    """What stands where ``key`` was looked for."""
    groups = [
        o
        for o in overrides
        if o != key
        and re.match(r"(recipe|optimizer|experiment|normalization|alpha|transform|data|model|hydra/launcher)=", o)
    ]
    try:
        config = hydra_config(groups)
    except (HydraException, OmegaConfBaseException):
        return ""  # the groups are wrong as well; the setting is named all the same
    parent, _, name = key.rpartition(".")
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        parent, _, name = parent.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    names = [str(k) for k in node if not str(k).startswith("_") and k != "hydra"]
    return f"; {_nearest(name, names)}{parent or 'the configuration'} has {', '.join(names) or 'none'}"


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}? " if near else ""


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
