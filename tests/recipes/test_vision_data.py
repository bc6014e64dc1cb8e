"""Image data: where it comes from and what a batch holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from alphagrad.recipes.supervised.held_out import divided
from alphagrad.recipes.supervised.orders import Orders
from alphagrad.recipes.vision.batches import Images, MemoryBatches, MemorySweep, Pixels
from alphagrad.recipes.vision.data import InMemory, dataset, spread
from vision_cases import CPU, images, settings, write_idx, write_npz


def rngs(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def batches(
    split: Images, pad: int = 0, flip: bool = False, runs: int = 2, size: int = 4, share=(0, 1)
) -> MemoryBatches:
    orders, augmentations = rngs(*range(runs)), rngs(*range(10, 10 + runs))
    return MemoryBatches(split, Pixels((0.0,), (1 / 255,)), pad, flip, orders, augmentations, size, CPU, share)


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
