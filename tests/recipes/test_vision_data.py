"""Image data: where it comes from, what a batch holds, and every way in which files can be wrong."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from alphagrad.recipes.supervised.held_out import divided
from alphagrad.recipes.supervised.orders import Orders
from alphagrad.recipes.vision.batches import Images, MemoryBatches, MemorySweep, Pixels
from alphagrad.recipes.vision.data import DataSettings, InMemory, OnDisk, dataset, spread
from alphagrad.recipes.vision.folders import _Files, find_folders, training_transform
from PIL import Image as Picture

from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack

CONF = Path(__file__).resolve().parents[2] / "conf/data"
CPU = torch.device("cpu")
NONE = OptimizerSpec("none", torch.optim.SGD)


def settings(root: Path | None = None, **changed) -> DataSettings:
    values = yaml.safe_load((CONF / "digits.yaml").read_text())
    return DataSettings(**{**values, "root": root and str(root), "download": False, **changed})


def rngs(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def images(count: int, side: int = 6, channels: int = 1) -> Images:
    pixels = np.random.default_rng(0).integers(256, size=(count, side, side, channels), dtype=np.uint8)
    return Images.of(pixels, np.arange(count) % 3)


def batches(
    split: Images, pad: int = 0, flip: bool = False, runs: int = 2, size: int = 4, share=(0, 1)
) -> MemoryBatches:
    orders, augmentations = rngs(*range(runs)), rngs(*range(10, 10 + runs))
    return MemoryBatches(split, Pixels((0.0,), (1 / 255,)), pad, flip, orders, augmentations, size, CPU, share)


def write_npz(folder: Path, count: int = 12, **changed) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    split = images(count)
    arrays = {"images": split.images.numpy(), "labels": split.labels.numpy(), **changed}
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", **arrays)


def write_folders(folder: Path, each: int = 4, parts=("train", "val"), classes=("cat", "dog"), side: int = 24) -> None:
    rng = np.random.default_rng(0)
    for part in parts:
        for number, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for k in range(each):
                pixels = rng.integers(40 + 120 * number, 90 + 120 * number, size=(side, side + 8, 3), dtype=np.uint8)
                Picture.fromarray(pixels).save(folder / part / name / f"{k}.png")


def write_idx(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """MNIST's own format."""
    raw = folder / "MNIST/raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, *images.shape) + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, len(labels)) + labels.tobytes())


def test_every_image_once_an_epoch_in_an_order_of_the_run():
    split = Images(torch.arange(14, dtype=torch.uint8).view(14, 1, 1, 1), torch.arange(14))
    loader = batches(split)
    epochs = [torch.cat([loader.at(3 * epoch + k)[1] for k in range(3)], dim=1) for epoch in (0, 1)]
    for epoch in epochs:
        for run in epoch:
            assert len(set(run.tolist())) == 12  # the last two do not fill a batch
    assert not torch.equal(epochs[0][0], epochs[0][1])
    assert not torch.equal(epochs[0], epochs[1])
    pixels, labels = loader.at(4)
    assert torch.equal(pixels.flatten(1).long(), labels)


def test_a_step_does_not_depend_on_what_was_asked_before():
    split = images(20)
    forwards, backwards = batches(split, pad=2, flip=True), batches(split, pad=2, flip=True)
    seen = [forwards.at(step) for step in range(12)]
    for step in reversed(range(12)):
        for one, two in zip(seen[step], backwards.at(step), strict=True):
            assert torch.equal(one, two)


def test_a_run_of_a_stack_sees_what_it_would_alone():
    split = images(20)
    together = batches(split, pad=1, flip=True, runs=3).at(7)
    alone = MemoryBatches(split, Pixels((0.0,), (1 / 255,)), 1, True, rngs(2), rngs(12), 4, CPU).at(7)
    assert torch.equal(together[0][2], alone[0][0])
    assert torch.equal(together[1][2], alone[1][0])


def test_processes_share_a_batch():
    whole = batches(images(20), pad=1, flip=True).at(6)
    parts = [batches(images(20), pad=1, flip=True, share=(rank, 2)).at(6) for rank in (0, 1)]
    for one, halves in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(one, torch.cat(halves, dim=1))


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_and_flips_against_torchvisions(channels):
    """Each image of a batch is its original, cropped and perhaps mirrored, by torchvision's functions."""
    from torchvision.transforms.v2.functional import crop, hflip, pad

    split = images(64, channels=channels)
    pixels, _ = batches(split, pad=2, flip=True, size=64).at(0)
    order = Orders(rngs(0, 1), 64, 64, (0, 1)).at(0)
    found: set[tuple[int, int, bool]] = set()
    for k, index in enumerate(order[0]):
        padded = pad(split.images[index].permute(2, 0, 1), [2, 2, 2, 2])
        cuts = {
            (top, left, mirrored): hflip(cut) if mirrored else cut
            for top in range(5)
            for left in range(5)
            for cut in [crop(padded, top, left, 6, 6)]
            for mirrored in (False, True)
        }
        matching = [key for key, cut in cuts.items() if torch.equal(cut.float(), pixels[0, k])]
        assert len(matching) == 1
        found.add(matching[0])
    for position in (0, 1):
        assert {key[position] for key in found} == set(range(5))
    assert {key[2] for key in found} == {False, True}
    assert len(found) > 25  # of 50, drawn 64 times: each image has its own


def test_normalization_is_torchvisions():
    from torchvision.transforms.v2.functional import normalize

    split = images(5, channels=3)
    pixels = Pixels((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    expected = normalize(split.images.permute(0, 3, 1, 2).float() / 255, list(pixels.mean), list(pixels.std))
    torch.testing.assert_close(pixels.normalized(split.images), expected)


def test_a_sweep_is_the_split_in_order():
    split = images(10)
    sweep = MemorySweep(split, Pixels((0.0,), (1 / 255,)), CPU, 4)
    pixels, labels = (torch.cat(parts) for parts in zip(*sweep, strict=True))
    assert torch.equal(pixels.permute(0, 2, 3, 1), split.images.float())
    assert torch.equal(labels, split.labels)
    assert torch.equal(sweep.picture(7), split.images[7])


def test_held_out_images_are_others_and_the_same_for_all():
    train, held = divided(100, 0.2, "images")
    assert len(held) == 20
    assert sorted([*train, *held]) == list(range(100))
    assert np.array_equal(held, divided(100, 0.2, "images")[1])
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
    assert spread(3, 9).tolist() == [0, 1, 2]
    whole, part = dataset(settings()), dataset(settings(validation=0.25))
    assert part.count == round(0.75 * whole.count)
    assert len(part.test_images) == whole.count - part.count


def test_npz_files(tmp_path):
    write_npz(tmp_path / "mine")
    data = dataset(settings(tmp_path, name="mine"))
    assert isinstance(data, InMemory)
    assert (data.shape, data.count, data.classes) == ((1, 6, 6), 12, ["0", "1", "2"])
    assert torch.equal(data.train_images.images, images(12).images)


def test_the_root_of_the_environment(tmp_path, monkeypatch):
    write_npz(tmp_path / "mine2")
    monkeypatch.setenv("ALPHAGRAD_DATA", str(tmp_path))
    assert dataset(settings(name="mine2")).count == 12


def test_torchvisions_files_and_npz_come_before_a_download(tmp_path):
    rng = np.random.default_rng(1)
    pixels, labels = rng.integers(256, size=(9, 28, 28), dtype=np.uint8), rng.integers(10, size=9, dtype=np.uint8)
    write_idx(tmp_path, pixels, labels)
    data = dataset(settings(tmp_path, name="mnist"))
    assert np.array_equal(data.train_images.images.squeeze(-1).numpy(), pixels)
    assert data.test_images.labels.tolist() == labels.tolist()
    assert data.classes[3] == "3 - three"
    other = tmp_path / "other"
    write_npz(other / "mnist")
    assert dataset(settings(other, name="mnist")).count == 12


def test_a_download_is_told(tmp_path, monkeypatch, capsys):
    from torchvision import datasets

    def download(self):
        raise OSError("no network\nat all")

    monkeypatch.setattr(datasets.CIFAR100, "download", download)
    with pytest.raises(
        ValueError, match=r"cannot be downloaded \(no network at all\); put cifar100/\{train,test\}\.npz"
    ):
        dataset(settings(tmp_path, name="cifar100", download=True))
    assert capsys.readouterr().err == ""  # what is refused is refused in one line

    def sent(self):
        if not self._check_exists():
            write_idx(tmp_path, np.zeros((2, 28, 28), np.uint8), np.arange(2, dtype=np.uint8))

    with monkeypatch.context() as m:
        m.setattr(datasets.MNIST, "download", sent)
        dataset(settings(tmp_path, name="mnist", download=True))
    assert capsys.readouterr().err == (
        f"alphagrad: {tmp_path} had no whole mnist: torchvision has downloaded it there\n"
    )

    def half(self):
        Path(self.raw_folder).mkdir(parents=True)
        raise OSError("no network")

    monkeypatch.setattr(datasets.MNIST, "download", half)
    with pytest.raises(ValueError, match="has no mnist, and it cannot be downloaded"):
        dataset(settings(tmp_path / "new", name="mnist", download=True))
    assert not (tmp_path / "new").exists()  # nothing of it stays


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
