"""Images and the files that they come in."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
import yaml
from alphagrad.recipes.vision.batches import Images
from alphagrad.recipes.vision.data import DataSettings

CONF = Path(__file__).resolve().parents[2] / "conf/data"
CPU = torch.device("cpu")


def settings(root: Path | None = None, **changed) -> DataSettings:
    values = yaml.safe_load((CONF / "digits.yaml").read_text())
    return DataSettings(**{**values, "root": root and str(root), "download": False, **changed})


def images(count: int, side: int = 6, channels: int = 1) -> Images:
    pixels = np.random.default_rng(0).integers(256, size=(count, side, side, channels), dtype=np.uint8)
    return Images.of(pixels, np.arange(count) % 3)


def write_npz(folder: Path, count: int = 12, **changed) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    split = images(count)
    arrays = {"images": split.images.numpy(), "labels": split.labels.numpy(), **changed}
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", **arrays)


def write_idx(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """MNIST's own format."""
    raw = folder / "MNIST/raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, *images.shape) + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, len(labels)) + labels.tobytes())
