"""Arrays of images and masks become the same samples, packed to bits or not."""

from __future__ import annotations

import numpy as np
import pytest

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.settings import ArraysSettings
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError


def write(folder, name="crops", split="train", packed=False, channels=(), count=3, **other):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 12, *channels), np.uint8)
    masks = rng.integers(0, 2, (count, 2, 8, 12), np.uint8)
    arrays = {"images": images, "masks": np.packbits(masks, axis=-1) if packed else masks, **other}
    np.savez(folder / f"{name}-{split}.npz", **arrays)
    return images, masks


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_images_and_masks_are_those_of_the_arrays(tmp_path, packed, channels):
    images, masks = write(tmp_path, packed=packed, channels=channels)
    write(tmp_path, split="val", packed=packed, channels=channels)
    report = import_dataset(
        "arrays", tmp_path, tmp_path / "out.h5", ArraysSettings(augment=("flip", "rotate"))
    )
    assert report.images == {"train": 3, "val": 3}
    split = open_split(tmp_path / "out.h5", "train")
    assert split.info.name == "crops" and split.info.augment["rotate"] and not split.info.augment["scale"]
    for sample, image, given in zip(split, images, masks, strict=True):
        np.testing.assert_array_equal(sample.image, np.moveaxis(image, -1, 0) if channels else image[None])
        np.testing.assert_array_equal(sample.masks, given)
        assert sample.weights.tolist() == [0.5, 0.5] and sample.annotators == ("reader-0", "reader-1")


@pytest.mark.parametrize("change", [lambda m: m * np.uint8(255), lambda m: m - 5e-4, lambda m: m > 0])
def test_masks_of_other_tools(tmp_path, change):
    _, masks = write(tmp_path)
    write(tmp_path, masks=change(masks))
    assert not import_dataset("arrays", tmp_path, tmp_path / "out").problems
    np.testing.assert_array_equal([s.masks for s in open_split(tmp_path / "out", "train")], masks)


def test_one_of_several_data_sets_is_chosen_by_name(tmp_path):
    write(tmp_path), write(tmp_path, "others", count=2)
    with pytest.raises(AmbisegError, match="2 data sets: choose one with --name, such as crops"):
        import_dataset("arrays", tmp_path, tmp_path / "out")
    found = import_dataset("arrays", tmp_path, tmp_path / "out", ArraysSettings("others"))
    assert found.images == {"train": 2}


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({"masks": np.zeros((3, 2, 8, 11), np.int64)}, {}, "do not fit"),
        ({"masks": np.zeros((3, 2, 8, 9), np.uint8)}, {}, "do not fit"),
        ({"masks": np.full((3, 2, 8, 12), 2, np.uint8)}, {}, "not one image"),
        ({}, {"augment": ("flips",)}, "did you mean 'flip'"),
        ({}, {"name": "other"}, "other-train.npz"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, arrays, settings, message):
    write(tmp_path, **arrays)
    with pytest.raises(AmbisegError, match=message):
        import_dataset("arrays", tmp_path, tmp_path / "out", ArraysSettings(**settings))
