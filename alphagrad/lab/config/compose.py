"""Configuration composed by Hydra."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import is_folder
from alphagrad.common.own import user_conf
from alphagrad.common.words import cut
from alphagrad.lab.config import complaints
from alphagrad.lab.config.overrides import parsed
from alphagrad.lab.config.shape import DEFAULTS, check_shape, check_used, identity

CONFIG_MODULE = "alphagrad.conf"
CONFIG_NAME = "config"
# What does not change the numbers of a run: where it is written and by what it is followed.
BOOKKEEPING = ("seed", "output_root", "tracking", "checkpoint", "study", "stack", "hydra")
SLOTS = complaints.SLOTS
VARIANT = "alphagrad.AlphaGrad"
BASELINES_CLIP = "${oc.select:optimizer_defaults.clip_grad_norm,null}"
OPEN = ("env.kwargs.", "model.kwargs.", "data.kwargs.")
"""Below these any name can be set without Hydra's ``+``."""


class UserConf(SearchPathPlugin):
    """Puts $ALPHAGRAD_CONF, a folder with the same groups, before the shipped configuration."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        folder = user_conf()
        if folder is not None:
            search_path.prepend(provider="ALPHAGRAD_CONF", path=f"file://{folder}")


def register() -> None:
    """Makes our resolver and search path known to Hydra; needed before anything is composed."""
    Plugins.instance().register(UserConf)
    _open_settings()
    OmegaConf.register_new_resolver("alphagrad.hash", lambda *, _root_: config_hash(_root_), replace=True)


def _open_settings() -> None:
    """Makes Hydra take ``env.kwargs.gain=5`` as ``++env.kwargs.gain=5``, and ``seed=1e1`` as ``seed=10``.

    Optimizers are given what all of them have.
    """
    if getattr(ConfigLoaderImpl, "alphagrad_open", False):
        return
    apply = ConfigLoaderImpl._apply_overrides_to_config

    def opened(overrides: Sequence[Override], cfg: Any) -> None:
        _complete(cfg)
        for override in overrides:
            if f"{override.key_or_group}.".startswith(OPEN) and override.type == OverrideType.CHANGE:
                override.type = OverrideType.FORCE_ADD
            if not override.is_delete() and not override.is_sweep_override():
                override._value = whole(override.value(), _standing(cfg, override.key_or_group))
        apply(list(overrides), cfg)

    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(opened)  # type: ignore[method-assign]
    ConfigLoaderImpl.alphagrad_open = True  # type: ignore[attr-defined]


def _complete(config: Any) -> None:
    """Gives the optimizer of a user's own file what that may leave out, as the shipped optimizers have it."""
    plain = OmegaConf.to_container(config, resolve=False)
    optimizer = plain.get("optimizer") if isinstance(plain, dict) else None
    if not isinstance(optimizer, dict):
        return
    variant = optimizer.get("_target_") == VARIANT
    ours = {
        "stacking": "batch_dims" if variant else "per_run",
        "clip_grad_norm": None if variant else BASELINES_CLIP,
    }
    with open_dict(config):
        for name, value in ours.items():
            if name not in optimizer:
                config.optimizer[name] = value


def _standing(config: Any, key: str) -> Any:
    """What stands in a configuration under a key; NaN where nothing does, or nothing that can be read."""
    try:
        found = OmegaConf.select(config, key, default=math.nan)
        return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
    except OmegaConfBaseException:
        return math.nan


def whole(value: Any, standing: Any) -> Any:
    """A value, with numbers such as 1e5 as whole ones where a whole number, or nothing yet, stands."""
    if isinstance(value, list):
        like = standing[0] if isinstance(standing, list) and standing else standing
        return [whole(part, None if like == [] else like) for part in value]
    if isinstance(value, dict):
        known = standing if isinstance(standing, dict) else {}
        return {key: whole(part, known.get(key, math.nan)) for key, part in value.items()}
    meant = standing is None or (isinstance(standing, int) and not isinstance(standing, bool))
    return int(value) if meant and isinstance(value, float) and value.is_integer() else value


def config_hash(config: DictConfig) -> str:
    """Eight hexadecimal digits of the configuration, :data:`BOOKKEEPING` left out: equal for replicas."""
    plain = {key: _plain(config, key) for key in map(str, config) if key not in BOOKKEEPING}
    return hashlib.sha256(identity(plain).encode()).hexdigest()[:8]


def _plain(config: DictConfig, key: str) -> Any:
    """A section, or a value, as plain data; nothing else is resolved."""
    if OmegaConf.is_missing(config, key):
        return "???"
    value = config[key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


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
    that a run has noted, in which nothing points to anything any more, gives the same settings. What optimizers take
    by default is left out: they tell what they took.
    """
    flat: dict[str, Any] = {}
    own = _without_hydra(config)
    tops = [value for value in own.values() if isinstance(value, DictConfig)]

    def walk(node: DictConfig, prefix: str) -> None:
        for key in node:
            name = prefix + str(key)
            value = node[key]
            if isinstance(value, DictConfig):
                told = name == DEFAULTS or OmegaConf.is_interpolation(node, str(key)) or (prefix and value in tops)
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
            if not is_folder(config_dir):
                raise ConfigError(f"--config-dir={cut(config_dir)}: no such folder")
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
    return checked(composed(overrides), overrides)


def checked(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The composed configuration; :class:`ConfigError` where it is none that a job can have."""
    try:
        check_shape(config)  # dangling ${...} show here
        check_used(config)  # only here: in what a run has noted nothing points to anything any more
    except ConfigError as error:
        raise ConfigError(complaints.as_set(str(error), overrides)) from error
    return config


def composed(overrides: Sequence[str], whole: bool = False) -> DictConfig:
    """What Hydra makes of the overrides; with its own part if ``whole``. Raises as :func:`compose`."""
    complaints.check_choices(parsed(overrides), hydra_config)
    try:
        return hydra_compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=whole)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, OSError, RecursionError) as error:
        raise ConfigError(complaints.one_line(error, overrides, hydra_config)) from error


def hydra_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration with Hydra's own part; raises as :func:`compose`."""
    return composed(overrides, whole=True)
