"""A checkpointed policy, rendered to a video file without a screen."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import atomic, check_target
from alphagrad.common.words import cut, squeezed
from alphagrad.lab.launching.resume import folder_named
from alphagrad.lab.records.folder import CONFIG, RUN_ID, run_id_of
from alphagrad.lab.records.search import recorded
from alphagrad.lab.store.address import masked, store_uri
from alphagrad.lab.store.connection import open_existing

SUFFIXES = (".mp4", ".gif", ".webm")
CHECKPOINTS = ("checkpoint.pt", "best.pt")
"""What is watched, the first that is there: a finished run's last policy, else the best so far."""


@dataclass(frozen=True)
class Watched:
    """A video and what it shows."""

    file: Path
    checkpoint: Path
    returns: list[float]
    """Episodic return of each episode."""


def watch(
    what: str, uri: str | None, output_root: str, out: Path | None, episodes: int, seed: int, best: bool, artifact: bool
) -> Watched:
    """Renders episodes of a run's policy, without exploration noise.

    Args:
        what: a run's folder, or its run id or the beginning of it.
        uri: the store to look a run id up in; None for the default.
        output_root: the folder of the default store.
        out: the video, its kind by suffix; None for ``watch.mp4`` in the run's folder.
        episodes: how many, one after the other.
        seed: of the first episode's environment; the next ones count up.
        best: the best evaluated policy instead of the last.
        artifact: also log the video to the run.

    Raises:
        ConfigError: no such run or checkpoint, a recipe without pictures, or nothing here can render.
    """
    folder = folder_named(what, store_uri(uri, output_root))
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{folder}: is not the folder of a run, it has no {CONFIG}")
    file = _checked_file(folder / "watch.mp4" if out is None else out)
    if episodes < 1:
        raise ConfigError(f"--episodes={episodes}: must be at least 1")
    checkpoint = _checkpoint(folder, best)
    render_offscreen()
    from alphagrad.harness.recipe import Capability
    from alphagrad.lab.config.build import build_recipe
    from alphagrad.lab.records.checkpoint import load_safely
    from alphagrad.lab.training.begun import plain_config

    config = OmegaConf.create(plain_config(folder))
    recipe: Any = build_recipe(config)
    if Capability.PLAYED not in recipe.capabilities:
        raise ConfigError(f"{folder}: recipe {config.recipe.name} has no environment to watch")
    if artifact:  # found out before minutes of rendering
        client, run_id = _run_of(folder, config)
    model = load_safely(checkpoint)
    try:
        recipe.policy(model)
    except Exception as error:  # torch and the recipes complain in many ways of what is missing or of another shape
        raise ConfigError(
            f"{checkpoint}: is no checkpoint of recipe {config.recipe.name} with these settings "
            f"({type(error).__name__}: {squeezed(error, 200)})"
        ) from error
    returns = _write(recipe, model, file, range(seed, seed + episodes))
    if artifact:
        client.log_artifact(run_id, str(file), "videos")
    return Watched(file, checkpoint, returns)


def _checked_file(file: Path) -> Path:
    """The video's; :class:`ConfigError` for one that cannot be written or is of no kind that is known."""
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"--out={cut(file)}: must end in {', '.join(SUFFIXES)}")
    check_target("--out", file)
    return file


def _run_of(folder: Path, config: Any) -> tuple[Any, str]:
    """The store and the run in it that a folder belongs to; :class:`ConfigError` if there is none."""
    run_id = run_id_of(folder)
    if run_id is None:
        raise ConfigError(f"{folder}: does not say which run of the store it belongs to; watch without --artifact")
    client = open_existing(uri := store_uri(config.tracking.uri, config.output_root))
    if recorded(client, run_id, warn=False) is None:
        raise ConfigError(
            f"{folder / RUN_ID}: names the run {run_id}, which is not in the store {masked(uri)}; "
            "watch without --artifact"
        )
    return client, run_id


def render_offscreen() -> None:
    """Lets MuJoCo and pygame draw without a screen, unless the user has chosen otherwise; before they are imported."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")


def _checkpoint(folder: Path, best: bool) -> Path:
    names = CHECKPOINTS[1:] if best else CHECKPOINTS
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise ConfigError(f"{folder}: has no {' or '.join(names)} yet; a run leaves one when it is evaluated or finished")


def _write(recipe: Any, model: dict[str, Any], file: Path, seeds: range) -> list[float]:
    """Writes the video whole or not at all; returns each episode's return."""
    import imageio.v2 as imageio
    from rich.console import Console

    from alphagrad.harness.recipe import NotDrawable

    rate = recipe.frames_per_second()
    options: dict[str, Any] = {"fps": rate, "codec": "libx264", "macro_block_size": 2, "ffmpeg_log_level": "error"}
    if file.suffix == ".webm":
        options["codec"] = "libvpx-vp9"
    elif file.suffix == ".gif":
        options = {"duration": 1000 / rate, "loop": 0}
    returns: list[float] = []
    try:
        with (
            atomic(file) as temporary,
            Console(stderr=True).status("") as shown,
            imageio.get_writer(temporary, **options) as video,
        ):
            for episode, seed in enumerate(seeds, start=1):
                total = 0.0
                for frames, (frame, reward) in enumerate(recipe.play(model, seed), start=1):
                    total += reward
                    video.append_data(frame)  # type: ignore[attr-defined]
                    shown.update(f"episode {episode} of {len(seeds)}, frame {frames}")
                returns.append(total)
    except NotDrawable as error:
        raise ConfigError(str(error)) from error
    except Exception as error:
        if cannot_render(error):
            raise ConfigError(no_renderer(error)) from error
        raise
    return returns


def cannot_render(error: Exception) -> bool:
    """Whether an error is MuJoCo's, PyOpenGL's or GLFW's of having nothing to draw with; each has its own."""
    words = f"{type(error).__module__}.{type(error).__name__}: {error}"
    return isinstance(error, ImportError) or any(name in words for name in ("OpenGL", "MUJOCO_GL", "egl", "glfw"))


def no_renderer(error: Exception) -> str:
    """What to install where nothing can draw."""
    chosen = os.environ.get("MUJOCO_GL", "the default")
    return (
        f"MUJOCO_GL={chosen}: cannot render here ({' '.join(str(error).split())}); install EGL "
        "(Debian: libegl1 libgl1-mesa-dri), or libosmesa6 and set MUJOCO_GL=osmesa"
    )
