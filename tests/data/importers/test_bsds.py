"""BSDS500: the region around a point as each person sees it; files that are not what they should be."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ambiseg.data.importers import bsds, import_dataset
from ambiseg.data.importers.settings import BsdsSettings
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError


def regions(cut, size):
    """Two regions, left and right of a column, numbered from 1."""
    return np.broadcast_to(1 + (np.arange(size[1]) >= cut), size).astype(np.uint16)


def write_truth(path, cuts, size):
    cells = np.empty((1, len(cuts)), object)
    for i, cut in enumerate(cuts):
        cells[0, i] = {"Segmentation": regions(cut, size), "Boundaries": np.zeros(size, np.uint8)}
    savemat(path, {"groundTruth": cells}, do_compression=True)


@pytest.fixture
def root(tmp_path):
    for split, name in (("train", "100"), ("train", "101"), ("val", "102"), ("test", "103")):
        size = (48, 32) if name == "101" else (32, 48)
        for kind in ("images", "groundTruth"):
            (tmp_path / "in/data" / kind / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 50, np.uint8)).save(
            tmp_path / "in/data/images" / split / f"{name}.jpg"
        )
        write_truth(tmp_path / "in/data/groundTruth" / split / f"{name}.mat", (5, 20, 30), size)
    return tmp_path / "in"


@pytest.mark.parametrize("depth", ["", "data"])
def test_the_region_of_the_point(root, tmp_path, depth):
    report = import_dataset("bsds", root / depth, tmp_path / "out", BsdsSettings((0.2, 0.5)))
    assert report.images == {"train": 2, "val": 1, "test": 1} and not report.problems
    for sample in open_split(tmp_path / "out", "train"):
        width = sample.image.shape[2]
        assert sample.annotators == ("person-01", "person-02", "person-03")
        for mask, cut in zip(sample.masks, (5, 20, 30), strict=True):
            expected = (np.arange(width) >= cut) == (width // 2 >= cut)
            np.testing.assert_array_equal(mask, np.broadcast_to(expected, mask.shape))


def test_bad_files(root, tmp_path, monkeypatch):
    truth = root / "data/groundTruth"
    (truth / "train/100.mat").write_bytes((truth / "train/100.mat").read_bytes()[:300])
    write_truth(truth / "val/102.mat", (5,), (9, 9))
    savemat(truth / "test/103.mat", {"other": 1})
    report = import_dataset("bsds", root, tmp_path / "out")
    assert report.images == {"train": 1, "val": 0, "test": 0}
    told = [str(problem) for problem in report.problems]
    assert "100.mat: no groundTruth can be read" in told[0] and "102.mat: the mask is 9 high" in told[1]
    assert "103.mat: no groundTruth can be read" in told[2]
    head = (truth / "train/101.mat").read_bytes()[:128]
    packed = zlib.compress(bytes(1 << 27))
    (truth / "test/103.mat").write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(AmbisegError, match="103.mat: it unpacks to more than 67108864 bytes"):
        bsds.read_segmentations(truth / "test/103.mat")
    (truth / "test/103.mat").write_bytes(bytes(200))
    with pytest.raises(AmbisegError, match="103.mat: no groundTruth can be read .it is no MATLAB 5 file"):
        bsds.read_segmentations(truth / "test/103.mat")
    monkeypatch.setattr(bsds, "MAX_BYTES", 10)
    with pytest.raises(AmbisegError, match="101.mat: it is larger than 10 bytes"):
        bsds.read_segmentations(truth / "train/101.mat")
    with pytest.raises(AmbisegError, match="found no data/images"):
        import_dataset("bsds", tmp_path / "out", tmp_path / "other")
    with pytest.raises(AmbisegError, match="--point is two shares"):
        import_dataset("bsds", root, tmp_path / "other", BsdsSettings((0.5, 1.0)))
