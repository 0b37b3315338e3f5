"""Cityscapes: the official folders, the published flips, the two splits, and label files that are not the
expected ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.cityscapes import CLASSES
from ambiseg.data.importers.settings import CityscapesSettings
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError

SIZE = (16, 32)
HELD = {"held_out": 2, "size": (0, 0)}


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for split, city, count in (("train", "aachen", 3), ("train", "bochum", 3), ("val", "lindau", 2)):
        for kind in ("leftImg8bit", "gtFine"):
            (tmp_path / "in" / kind / split / city).mkdir(parents=True)
        for i in range(count):
            name = f"{city}_{i:06}_000019"
            image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            ids = rng.integers(0, 34, SIZE).astype(np.uint8)
            Image.fromarray(image).save(
                tmp_path / "in" / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
            )
            Image.fromarray(ids).save(
                tmp_path / "in" / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
            )
    return tmp_path / "in"


def label_file(root, name, split):
    return root / "gtFine" / split / name.split("_")[0] / f"{name}_gtFine_labelIds.png"


def test_binary_modes_are_products_and_void_is_background(root, tmp_path):
    report = import_dataset("cityscapes", root, tmp_path / "out", CityscapesSettings(**HELD))
    assert report.images == {"train": 4, "val": 2, "test": 2} and not report.problems
    assert report.split_name == "official val as test, 2 of train as val, seed 0"
    split = open_split(tmp_path / "out", "test")
    sample = split[0]
    ids = np.asarray(Image.open(label_file(root, sample.id, "val")))
    chances = {7: 0.05, 8: 0.25, 21: 0.75, 26: 0.95}
    states = list(itertools.product([0, 1], repeat=4))
    assert len(sample.masks) == 16 and split.info.labels.is_binary and split.info.labels.ignore_value is None
    for mask, weight, state in zip(sample.masks, sample.weights, states, strict=True):
        on = [label for label, bit in zip(chances, state, strict=True) if bit]
        np.testing.assert_array_equal(mask, np.isin(ids, on))
        assert weight == pytest.approx(
            np.prod([q if b else 1 - q for q, b in zip(chances.values(), state, strict=True)])
        )


def test_twins_have_24_classes_and_32_modes(root, tmp_path):
    import_dataset("cityscapes", root, tmp_path / "out", CityscapesSettings("twins", **HELD))
    split = open_split(tmp_path / "out", "test")
    sample, names = split[0], split.info.labels.names
    ids = np.asarray(Image.open(label_file(root, sample.id, "val")))
    assert len(names) == 24 and names[19:] == tuple(
        f"{n}-twin" for n in ("sidewalk", "person", "car", "vegetation", "road")
    )
    assert len(sample.masks) == 32 and sample.weights.sum() == pytest.approx(1)
    off = sample.masks[sample.annotators.index("flip-00000")]
    for number, (name, (label, _)) in enumerate(CLASSES.items()):
        assert names[number] == name
        np.testing.assert_array_equal(off == number, ids == label)
    assert ((off == 255) == ~np.isin(ids, [label for label, _ in CLASSES.values()])).all()
    on = {
        name: float(sample.weights[(sample.masks == names.index(f"{name}-twin")).any((1, 2))].sum())
        for name in ("car", "road")
    }
    assert on == pytest.approx({"car": 6 / 17, "road": 4 / 17})


def test_splits_are_named_disjoint_and_drawn_by_seed(root, tmp_path):
    parts = []
    for seed in (0, 0, 1):
        out = tmp_path / f"out-{len(parts)}"
        import_dataset("cityscapes", root, out, CityscapesSettings(seed=seed, **HELD))
        train, val, test = (open_split(out, split).ids for split in ("train", "val", "test"))
        assert len({*train, *val, *test}) == 8 and all(name.startswith("lindau") for name in test)
        parts.append(val)
    assert parts[0] == parts[1] != parts[2]
    report = import_dataset("cityscapes", root, tmp_path / "plain", CityscapesSettings(split="plain"))
    assert report.images == {"train": 6, "val": 2} and report.split_name == "official train and val"
    assert open_split(tmp_path / "plain", "val")[0].masks.shape[1:] == (64, 128)


def test_bad_files(root, tmp_path):
    label_file(root, "aachen_000000_000019", "train").unlink()
    label_file(root, "lindau_000000_000019", "val").write_bytes(b"")
    report = import_dataset(
        "cityscapes", root, tmp_path / "out", CityscapesSettings(split="plain", size=(0, 0))
    )
    assert report.images == {"train": 5, "val": 1}
    assert [p.file.rsplit("/", 1)[1][:6] for p in report.problems] == ["aachen", "lindau"]
    Image.fromarray(np.full(SIZE, 40, np.uint8)).save(label_file(root, "bochum_000001_000019", "train"))
    with pytest.raises(
        AmbisegError, match=r"bochum_000001.*\[40\] are not in the class list 0..33: use the gtFine"
    ):
        import_dataset("cityscapes", root, tmp_path / "other", CityscapesSettings(split="plain", size=(0, 0)))
    with pytest.raises(
        AmbisegError, match="--held-out must be 1 to 5, as there are 6 training images, received 500"
    ):
        import_dataset("cityscapes", root, tmp_path / "other")
    with pytest.raises(AmbisegError, match="found no leftImg8bit"):
        import_dataset("cityscapes", tmp_path, tmp_path / "other")
    assert not (tmp_path / "other").exists()
