"""Hydra as it is, but for its memory: a shipped file is read once for all tests, and files are merged once.

Composing a job takes Hydra 0.2 s, most of it to read the same twenty files again and to merge them in the same order;
the tests do it thousands of times. What is chosen, and all settings, are still worked out by Hydra itself each time.
Files of a test's own are always read. Copies are made by :mod:`pickle`, which is six times as fast as a deep copy.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import Overrides
from hydra.core.default_element import ConfigDefault, InputDefault, ResultDefault
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

SHIPPED = ("alphagrad.conf", "hydra.conf")
"""Packages whose files no test changes."""

READ, MERGE = ConfigRepository.load_config, ConfigLoaderImpl._compose_config_from_defaults_list
CHOICES = defaults_list._create_interpolation_map
"""What Hydra does itself."""


@contextmanager
def recalled() -> Iterator[None]:
    """While it is entered, what was read and merged is handed out as copies."""
    files: dict[tuple[str, str], bytes] = {}
    configs: dict[str, bytes] = {}
    choices: dict[str, DictConfig] = {}

    def load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.path not in SHIPPED:
            return READ(self, config_path)
        key = source.path, config_path
        if key not in files:
            files[key] = pickle.dumps(READ(self, config_path))
        return pickle.loads(files[key])

    def merged(self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        sources = [source for source in repo.get_sources() if source.scheme() != "structured"]
        if any(source.path not in SHIPPED for source in sources):
            return MERGE(self, defaults, repo)
        key = repr(([source.path for source in sources], defaults))
        if key not in configs:
            configs[key] = pickle.dumps(MERGE(self, defaults, repo))
        return pickle.loads(configs[key])

    def chosen(overrides: Overrides, defaults: list[InputDefault], self_added: bool) -> DictConfig:
        """The choices made so far, which names of files may refer to; they are only read."""
        own = [d for d in defaults if not (self_added and d.is_self())]
        named = [d.get_config_path() if isinstance(d, ConfigDefault) else (d.get_override_key(), d.value) for d in own]
        key = repr((overrides.known_choices, named))
        if key not in choices:
            choices[key] = CHOICES(overrides, defaults, self_added)
        return choices[key]

    def caching(self: CachingConfigRepository, delegate: IConfigRepository) -> None:
        """A copy that may have other sources; Hydra copies the sources as well, which never change."""
        self.delegate, self.cache = copy.copy(delegate), {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CachingConfigRepository, "__init__", caching)
        patch.setattr(ConfigRepository, "load_config", load_config)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merged)
        patch.setattr(defaults_list, "_create_interpolation_map", chosen)
        yield
