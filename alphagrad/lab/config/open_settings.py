"""Settings whose names the configuration does not know beforehand: the arguments of an environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override, OverrideType

OPEN = ("env.kwargs.",)
"""Below these any name can be set without Hydra's ``+``."""


def register() -> None:
    """Makes Hydra take ``env.kwargs.gain=5`` as ``++env.kwargs.gain=5``."""
    if getattr(ConfigLoaderImpl, "alphagrad_open", False):
        return
    apply = ConfigLoaderImpl._apply_overrides_to_config

    def opened(overrides: Sequence[Override], cfg: Any) -> None:
        for override in overrides:
            if override.key_or_group.startswith(OPEN) and override.type == OverrideType.CHANGE:
                override.type = OverrideType.FORCE_ADD
        apply(list(overrides), cfg)

    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(opened)  # type: ignore[method-assign]
    ConfigLoaderImpl.alphagrad_open = True  # type: ignore[attr-defined]
