"""Every way in which files of images can be wrong, and folders of images."""

from __future__ import annotations

import gc
import gzip
import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from alphagrad.recipes.vision.data import DataSettings, OnDisk, dataset
from alphagrad.recipes.vision.folders import _Files, find_folders, training_transform
from PIL import Image as Picture
from vision_cases import CPU, settings, write_idx, write_npz

from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack

NONE = OptimizerSpec("none", torch.optim.SGD)


def write_folders(folder: Path, each: int = 4, parts=("train", "val"), classes=("cat", "dog"), side: int = 24) -> None:
    rng = np.random.default_rng(0)
    for part in parts:
        for number, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for k in range(each):
                pixels = rng.integers(40 + 120 * number, 90 + 120 * number, size=(side, side + 8, 3), dtype=np.uint8)
                Picture.fromarray(pixels).save(folder / part / name / f"{k}.png")


def labels_of(*values: int) -> np.ndarray:
    return np.array([*values, *[0] * (12 - len(values))])


WRONG = {
    "labels 7": ({"labels": labels_of(0, 1, 2, 10)}, "training labels go to 10, but none is 3"),
    "labels negative": ({"labels": labels_of(0, 1, -1)}, "label is -1"),
    "one class": ({"labels": labels_of(0)}, "one class"),
    "labels float": ({"labels": np.zeros(12)}, "labels must be int64"),
    "labels 2d": ({"labels": np.zeros((12, 1), dtype=np.int64)}, "labels must be int64"),
    "labels short": ({"labels": np.arange(5)}, "12 images and 5 labels"),
    "images float": ({"images": np.zeros((12, 6, 6, 1))}, "must be uint8"),
    "images flat": ({"images": np.zeros((12, 36), dtype=np.uint8)}, "got uint8 [12, 36]"),
    "no height": ({"images": np.zeros((12, 0, 6, 1), dtype=np.uint8)}, "got uint8 [12, 0, 6, 1]"),
    "labels large": ({"labels": np.full(12, 2**64 - 1, dtype=np.uint64)}, "got 18446744073709551615"),
    "four channels": ({"images": np.zeros((12, 6, 6, 4), dtype=np.uint8)}, "1 or 3"),
    "channels first": ({"images": np.zeros((12, 3, 6, 6), dtype=np.uint8)}, "[N, H, W, 1 or 3]"),
    "empty": ({"images": np.zeros((0, 6, 6, 1), dtype=np.uint8), "labels": np.zeros(0, dtype=np.int64)}, "0 images"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_are_wrong(tmp_path, case):
    arrays, said = WRONG[case]
    write_npz(tmp_path / case, **arrays)
    refused(settings(tmp_path, name=case), said)


def refused(s: DataSettings, *said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said[0])) as caught:
        dataset(s)
    for part in said:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_wrong(tmp_path):
    write_npz(tmp_path / "cut")
    file = tmp_path / "cut/test.npz"
    file.write_bytes(file.read_bytes()[:-200])
    refused(settings(tmp_path, name="cut"), str(file), "cannot be read as npz")
    pretended = {"array": np.arange(3), "text": b"no archive", "objects": np.array([{}], dtype=object)}
    for kind, content in pretended.items():
        write_npz(tmp_path / kind)
        with (tmp_path / kind / "train.npz").open("wb") as written:
            if isinstance(content, bytes):
                written.write(content)
            elif content.dtype == object:
                np.savez(written, images=np.zeros((12, 6, 6, 1), dtype=np.uint8), labels=content)
            else:
                np.save(written, content)
        refused(settings(tmp_path, name=kind), str(tmp_path / kind / "train.npz"), "cannot be read as npz")
    write_npz(tmp_path / "half")
    (tmp_path / "half/test.npz").unlink()
    refused(settings(tmp_path, name="half"), "test.npz", "belong together")
    write_npz(tmp_path / "nameless")
    np.savez(tmp_path / "nameless/train.npz", pixels=np.zeros(3))
    refused(settings(tmp_path, name="nameless"), "no array images and no array labels")
    write_npz(tmp_path / "sizes")
    np.savez(tmp_path / "sizes/test.npz", images=np.zeros((3, 8, 8, 1), dtype=np.uint8), labels=np.arange(3))
    refused(settings(tmp_path, name="sizes"), "training images are [6, 6, 1], test images [8, 8, 1]")
    write_npz(tmp_path / "cifar10", images=np.zeros((12, 32, 32, 3), dtype=np.uint8), labels=labels_of(0, 1, 10))
    refused(settings(tmp_path, name="cifar10"), "label is 10; they must lie in 0 to 9")
    refused(settings(tmp_path / "nowhere", name="mine"), "data.name=mine", "nowhere/mine", "cifar100")
    refused(settings(tmp_path / "nowhere", name="mnist"), "data.download=false", "put mnist/{train,test}.npz")


def test_torchvisions_files_that_are_damaged(tmp_path):
    write_idx(tmp_path, np.zeros((4, 28, 28), dtype=np.uint8), np.zeros(4, dtype=np.uint8))
    file = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    refused(settings(tmp_path, name="mnist"), "mnist", "damaged", "put mnist/{train,test}.npz")


def test_the_files_that_are_packed_as_published(tmp_path):
    """torchvision unpacks nothing by itself: what is not unpacked counts as not there."""
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"x"))
    refused(settings(tmp_path, name="mnist"), f"has mnist damaged or in part ({tmp_path / 'MNIST'})")


def test_digits_are_the_embedded_ones(tmp_path):
    write_folders(tmp_path / "digits")
    assert dataset(settings(tmp_path, name="digits")).count == 1438
    write_folders(tmp_path / "mine")
    write_npz(tmp_path / "mine")  # arrays before folders
    assert dataset(settings(tmp_path, name="mine")).shape == (1, 6, 6)


FOLDER = {"name": "pets", "mean": [0.0], "std": [1 / 255], "size": 16, "flip": True}


def test_batches_that_are_no_longer_wanted_end_their_workers(tmp_path):
    """At once: no garbage has to be collected first."""
    write_folders(tmp_path / "pets")
    batches = dataset(settings(tmp_path, **FOLDER, workers=2)).batches(RunStack([RunSpec(0, NONE)]), 4, (0, 1))
    before = multiprocessing.active_children()
    gc.disable()
    try:
        batches.at(0)
        assert len(multiprocessing.active_children()) == len(before) + 2
        del batches
        assert multiprocessing.active_children() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("workers", [0, 2])
def test_folders_of_images(tmp_path, workers):
    write_folders(tmp_path / "pets")
    data = dataset(settings(tmp_path, **FOLDER, workers=workers))
    assert isinstance(data, OnDisk)
    assert (data.shape, data.count, data.classes) == ((3, 16, 16), 8, ["cat", "dog"])
    stack = RunStack([RunSpec(0, NONE), RunSpec(1, NONE)])
    loader, again = data.batches(stack, 4, (0, 1)), data.batches(stack, 4, (0, 1))
    seen = [loader.at(step) for step in range(4)]
    for pixels, labels in seen:
        assert pixels.shape == (2, 4, 3, 16, 16)
        assert torch.equal((pixels.mean((2, 3, 4)) > 120).long(), labels)  # dogs are brighter
    assert torch.equal(torch.cat([seen[0][1], seen[1][1]], dim=1).sum(1), torch.tensor([4, 4]))
    # from any step on, and for a run alone, the same
    for one, two in zip(seen[3], again.at(3), strict=True):
        assert torch.equal(one, two)
    alone = data.batches(RunStack([RunSpec(1, NONE)]), 4, (0, 1)).at(2)
    assert torch.equal(alone[0][0], seen[2][0][1])
    halves = [data.batches(stack, 4, (rank, 2)).at(1) for rank in (0, 1)]
    assert torch.equal(torch.cat([half[0] for half in halves], dim=1), seen[1][0])


def test_test_images_are_the_middle(tmp_path):
    from torchvision.transforms.v2.functional import center_crop, resize

    write_folders(tmp_path / "pets")
    data = dataset(settings(tmp_path, **FOLDER))
    test = data.test(CPU, 3)
    pixels, labels = (torch.cat(parts) for parts in zip(*test, strict=True))
    assert labels.tolist() == [0] * 4 + [1] * 4
    original = torch.from_numpy(np.array(Picture.open(tmp_path / "pets/val/dog/0.png"))).permute(2, 0, 1)
    expected = center_crop(resize(original, [18], antialias=True), [16, 16])
    assert torch.equal(pixels[4], expected.float())
    assert torch.equal(test.picture(4), expected.permute(1, 2, 0))
    assert len([*data.sample(CPU, 2, 3)]) == 2
    held = dataset(settings(tmp_path, **FOLDER, validation=0.25))
    assert (held.count, len(held.test_images)) == (6, 2)


def test_reading_images_leaves_the_generators_alone(tmp_path):
    write_folders(tmp_path / "pets")
    data = dataset(settings(tmp_path, **FOLDER))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = _Files(data.train_images, training_transform(16, True))[0, 5][0]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(8)
    assert torch.equal(one, _Files(data.train_images, training_transform(16, True))[0, 5][0])
    assert not torch.equal(one, _Files(data.train_images, training_transform(16, True))[0, 6][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(tmp_path, workers):
    write_folders(tmp_path / "pets")
    file = tmp_path / "pets/val/dog/2.png"
    file.write_bytes(file.read_bytes()[:60])
    data = dataset(settings(tmp_path, **FOLDER, workers=workers))
    with pytest.raises(ValueError, match="damaged") as caught:
        list(data.test(CPU, 4))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_are_wrong(tmp_path):
    write_folders(tmp_path / "a/pets", parts=("train",))
    refused(settings(tmp_path / "a", **FOLDER), "neither val/ nor test/")
    write_folders(tmp_path / "b/pets", parts=("train",))
    write_folders(tmp_path / "b/pets", parts=("test",), classes=("cat", "fox"))
    refused(settings(tmp_path / "b", **FOLDER), "different classes", "dog")
    write_folders(tmp_path / "c/pets", classes=("cat",))
    refused(settings(tmp_path / "c", **FOLDER), "one class")
    write_folders(tmp_path / "d/pets")
    (tmp_path / "d/pets/train/eel").mkdir()
    refused(settings(tmp_path / "d", **FOLDER), "eel")
    (tmp_path / "d/pets/train/eel").rmdir()
    refused(settings(tmp_path / "d", **{**FOLDER, "size": None}), "data.size=null")
    write_folders(tmp_path / "e/pets")
    refused(settings(tmp_path / "e", **FOLDER, pad=2), "data.pad=2")
    assert find_folders(tmp_path / "nowhere") is None
