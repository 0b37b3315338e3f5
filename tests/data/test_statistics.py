"""One pass finds what NumPy finds over all pixels at once, and the digest of the split."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ambiseg.data.batches import Normalization
from ambiseg.data.class_flips import ClassFlips
from ambiseg.data.folder import FolderSplit, write_folder
from ambiseg.data.info import DatasetInfo
from ambiseg.data.packed import PackedSplit, pack
from ambiseg.data.sample import Sample
from ambiseg.data.source import SpreadSplit, open_split
from ambiseg.data.statistics import SplitStatistics
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace


def samples(count=6, channels=3, masks=1):
    rng = np.random.default_rng(0)
    location, scale = np.array([5.0, -300.0, 7.0]), np.array([2.0, 0.01, 0.0])
    for i in range(count):
        image = rng.normal(location[:, None, None], scale[:, None, None], (3, 4 + i, 9))[:channels]
        labels = rng.integers(0, 2, (masks, 4 + i, 9)).astype(np.uint8)
        names = tuple(f"r{n}" for n in range(masks))
        yield Sample(f"i{i}", image.astype(np.float32), labels, np.full(masks, 1 / masks), names)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data", {"train": samples()}, DatasetInfo())


def test_normalised_images_have_mean_zero_and_deviation_one(folder):
    split = open_split(folder, "train")
    normalization = SplitStatistics.of(split).normalization
    pixels = torch.cat([normalization(s.image).flatten(1) for s in split], 1)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels.mean(1), torch.zeros(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(pixels[:2].std(1, correction=0), torch.ones(2), atol=2e-3, rtol=0)
    assert (pixels[2] == 0).all()
    assert Normalization.from_dict(normalization.to_dict()) == normalization


def test_a_constant_image_has_deviation_one_however_large_it_is(tmp_path):
    """0.1 and 1000.1 are no binary numbers, so sums of their squares round; 65535 is the largest of its type."""
    for value, dtype in ((0.1, np.float32), (1000.1, np.float32), (65535, np.uint16)):
        image, mask = np.full((1, 31, 29), value, dtype), np.zeros((1, 31, 29), np.uint8)
        some = [Sample(f"i{i}", image, mask, np.ones(1), ("a",)) for i in range(3)]
        name = f"{value}".replace(".", "-")
        split = open_split(write_folder(tmp_path / name, {"train": some}, DatasetInfo()), "train")
        normalization = SplitStatistics.of(split).normalization
        assert normalization.std == (1.0,) and normalization.mean == pytest.approx((float(dtype(value)),))
        assert not normalization(image).any()


def test_a_small_deviation_around_a_large_mean_is_found(tmp_path):
    values = 1e6 + np.arange(3 * 63).reshape(3, 1, 9, 7) % 4 / 16
    mask = np.zeros((1, 9, 7), np.uint8)
    some = [Sample(f"i{i}", v.astype(np.float32), mask, np.ones(1), ("a",)) for i, v in enumerate(values)]
    split = open_split(write_folder(tmp_path / "data", {"train": some}, DatasetInfo()), "train")
    normalization = SplitStatistics.of(split).normalization
    assert normalization.mean == pytest.approx((values.mean(),), rel=1e-15)
    assert normalization.std == pytest.approx((values.std(),), rel=1e-12)


def test_statistics_are_those_of_the_split_in_every_form(folder, tmp_path):
    split = open_split(folder, "train")
    found = SplitStatistics.of(split)
    assert (found.channels, found.types, found.digest) == (3, ("float32",), split.digest())
    assert SplitStatistics.of(open_split(pack(folder, tmp_path / "data.h5"), "train")) == found


def test_only_the_first_images_are_measured_but_all_are_in_the_digest(folder, tmp_path):
    first = open_split(write_folder(tmp_path / "first", {"train": samples(2)}, DatasetInfo()), "train")
    whole, part = (SplitStatistics.of(split, 2) for split in (open_split(folder, "train"), first))
    assert whole.normalization == part.normalization and whole.digest != part.digest
    assert whole.normalization != SplitStatistics.of(open_split(folder, "train")).normalization


def test_statistics_of_some_images_leave_the_others_out(folder, tmp_path):
    spread = SpreadSplit(open_split(folder, "train"), 2)
    alone = open_split(write_folder(tmp_path / "alone", {"train": list(spread)}, DatasetInfo()), "train")
    found, expected = SplitStatistics.of(spread), SplitStatistics.of(alone)
    assert found.normalization == expected.normalization and found.digest == spread.digest()


def test_images_of_other_channels_are_refused(tmp_path):
    mixed = [*samples(1), *(s for s in samples(2, channels=1) if s.id == "i1")]
    split = open_split(write_folder(tmp_path / "mixed", {"train": mixed}, DatasetInfo()), "train")
    for measured in (1, 2000):
        with pytest.raises(AmbisegError, match="'i1' has 1 channels, the ones before 3"):
            SplitStatistics.of(split, measured)


@pytest.mark.parametrize("packed", [False, True])
def test_where_classes_flip_one_pass_reads_every_label_map_once(packed, tmp_path, monkeypatch):
    labels = LabelSpace(("sky", "road"))
    info = DatasetInfo("street", labels, flips=ClassFlips({"road": 0.25}))
    path = write_folder(tmp_path / "street", {"train": samples()}, info)
    split = open_split(pack(path, tmp_path / "street.h5") if packed else path, "train")
    read: list[int] = []
    kind = PackedSplit if packed else FolderSplit
    original = kind.__getitem__
    monkeypatch.setattr(kind, "__getitem__", lambda self, i: read.append(i) or original(self, i))
    found = SplitStatistics.of(split)
    assert read == list(range(6))
    assert found.digest == split.digest() != split.stored.digest()
    several = write_folder(tmp_path / "several", {"train": samples(masks=2)}, info)
    with pytest.raises(AmbisegError, match="2 label maps, but classes flip"):
        SplitStatistics.of(open_split(several, "train"))


def test_progress_counts_the_images(folder):
    split, told = open_split(folder, "train"), []
    SplitStatistics.of(split, progress=lambda *counts: told.append(counts))
    assert told == [(done, len(split)) for done in range(1, len(split) + 1)]
