"""NIfTI volumes become slices along any axis, with whole volumes in one split; what cannot be read is
named."""

from __future__ import annotations

import numpy as np
import pytest

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.nifti import read_volume
from ambiseg.data.importers.settings import NiftiSettings
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError

nibabel = pytest.importorskip("nibabel")
SIZE = (10, 12, 9)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def volume(i):
    rng = np.random.default_rng(i)
    masks = [rng.integers(0, 3, SIZE).astype(np.uint8) for _ in range(2)]
    for mask in masks:
        mask[3], mask[:, 4], mask[:, :, 5] = 0, 0, 0
    return rng.integers(-900, 900, SIZE).astype(np.int16), masks


@pytest.fixture
def root(tmp_path):
    for i in range(5):
        image, masks = volume(i)
        save(tmp_path / f"in/images/v{i}.nii.gz", image)
        for k, mask in enumerate(masks):
            save(tmp_path / f"in/masks/v{i}/reader{k}.nii.gz", mask)
    return tmp_path / "in"


CLASSES = ("rest", "organ", "lesion")


@pytest.mark.parametrize(("axis", "blank"), [(0, 3), (1, 4), (2, 5)])
def test_slices_along_an_axis(root, tmp_path, axis, blank):
    report = import_dataset("nifti", root, tmp_path / "out", NiftiSettings(axis=axis, classes=CLASSES))
    assert report.images == {"train": 3 * (SIZE[axis] - 1), "val": SIZE[axis] - 1, "test": SIZE[axis] - 1}
    assert report.split_name == "by volume, 60/20/20, seed 0"
    volumes = {
        split: {name[:2] for name in open_split(tmp_path / "out", split).ids} for split in report.images
    }
    assert sum(map(len, volumes.values())) == 5 and len(set.union(*volumes.values())) == 5
    for sample in open_split(tmp_path / "out", "test"):
        (image, masks), i = volume(int(sample.id[1])), int(sample.id[3:])
        assert i != blank and sample.annotators == ("reader0", "reader1")
        np.testing.assert_array_equal(sample.image[0], image.take(i, axis))
        np.testing.assert_array_equal(sample.masks, [mask.take(i, axis) for mask in masks])


def test_empty_slices_and_split_files(root, tmp_path):
    path = tmp_path / "splits.csv"
    path.write_text("id,split\nv0,train\nv3,val\n")
    settings = NiftiSettings(classes=CLASSES, empty=True, split_file=path)
    assert import_dataset("nifti", root, tmp_path / "out", settings).images == {"train": 9, "val": 9}
    path.write_text("id,split\nv0,train\nv9,val\n")
    with pytest.raises(AmbisegError, match=r"names 1 id\(s\) \(v9\), of which the data have no volume"):
        import_dataset("nifti", root, tmp_path / "other", settings)


def test_bad_files(root, tmp_path, monkeypatch):
    (root / "images/v0.nii.gz").write_bytes((root / "images/v0.nii.gz").read_bytes()[:500])
    save(root / "masks/v1/reader0.nii.gz", np.zeros((4, 4, 4), np.uint8))
    save(root / "masks/v2/reader1.nii.gz", np.full(SIZE, 0.5, np.float32))
    image = volume(3)[0].astype(np.float32)
    image[0, 0, 2] = np.nan
    save(root / "images/v3.nii.gz", image)
    report = import_dataset("nifti", root, tmp_path / "out", NiftiSettings(classes=CLASSES))
    assert sum(report.images.values()) == 8
    told = sorted(str(problem).replace(str(root), "") for problem in report.problems)
    for found, words in zip(
        told,
        ["/images/v0.nii.gz: cannot be read as NIfTI", "/masks/v1/reader0.nii.gz: the mask has shape (4, 4, 4)",
         "/masks/v2/reader1.nii.gz: it holds other values than whole numbers", "v3, slice 2: 1 values are NaN"],
        strict=True,
    ):  # fmt: skip
        assert found.startswith(words)
    with pytest.raises(
        AmbisegError, match=r"v\d/reader0.nii.gz: the label\(s\) \[2\] are not in the class list 0..1"
    ):
        import_dataset("nifti", root, tmp_path / "other")
    with pytest.raises(AmbisegError, match="--axis is 0, 1 or 2, received 3"):
        import_dataset("nifti", root, tmp_path / "other", NiftiSettings(axis=3))
    monkeypatch.setattr("ambiseg.data.importers.nifti.MAX_VALUES", 100)
    with pytest.raises(AmbisegError, match="more than the limit of 100"):
        read_volume(root / "images/v4.nii.gz")
