"""Hydra as it is, but for its memory: a shipped file is read once for all tests, and files are merged once.

Composing a job takes Hydra 0.2 s, most of it to read the same twenty files again and to merge them in the same order;
the tests do it thousands of times. What is chosen, and all settings, are still worked out by Hydra itself each time.
Files of a test's own are always read.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

SHIPPED = ("alphagrad.conf", "hydra.conf")
"""Packages whose files no test changes."""

READ, MERGE = ConfigRepository.load_config, ConfigLoaderImpl._compose_config_from_defaults_list
"""What Hydra does itself."""


@contextmanager
def recalled() -> Iterator[None]:
    """While it is entered, what was read and merged is handed out as copies."""
    files: dict[tuple[str, str], Any] = {}
    configs: dict[str, DictConfig] = {}

    def load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.path not in SHIPPED:
            return READ(self, config_path)
        key = source.path, config_path
        if key not in files:
            files[key] = READ(self, config_path)
        return copy.deepcopy(files[key])

    def merged(self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        sources = [source for source in repo.get_sources() if source.scheme() != "structured"]
        if any(source.path not in SHIPPED for source in sources):
            return MERGE(self, defaults, repo)
        key = repr(([source.path for source in sources], defaults))
        if key not in configs:
            configs[key] = MERGE(self, defaults, repo)
        return copy.deepcopy(configs[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", load_config)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merged)
        yield
