"""ISIC: images with exactly three segmentations, consensus masks left out, splits from a file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.settings import IsicSettings
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError

SIZE = (20, 30)


def mask_of(i, k):
    return (np.arange(600).reshape(SIZE) < 40 * i + 7 * k).astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    for folder in ("images", "segs"):
        (tmp_path / "in" / folder).mkdir(parents=True)
    for i, count in enumerate((3, 3, 1, 2, 3, 3, 5), 1):
        Image.fromarray(np.full((*SIZE, 3), i, np.uint8)).save(
            tmp_path / "in" / "images" / f"ISIC_{i:07}.JPG"
        )
        for k in range(count):
            name = f"ISIC_{i:07}_A{k:02}_T1_S1_57c0{k}.png"
            Image.fromarray(mask_of(i, k) * 255).save(tmp_path / "in" / "segs" / name)
        Image.fromarray(mask_of(i, 0)).save(tmp_path / "in" / "segs" / f"ISIC_{i:07}_MV_MV_MV_MV.png")
    return tmp_path / "in"


def test_images_with_three_segmentations(root, tmp_path):
    (root / "images" / "ISIC_0000001.JPG").rename(root / "images" / "ISIC_0000001.jpg")
    report = import_dataset("isic", root, tmp_path / "out", IsicSettings(size=(0, 0)))
    assert sum(report.images.values()) == 4 and report.split_name == "by image, 60/20/20, seed 0"
    assert (
        report.facts["images with 3 segmentations"] == 4 and report.facts["images with 5 segmentations"] == 1
    )
    for split in report.images:
        for sample in open_split(tmp_path / "out", split):
            i = int(sample.id[-1])
            assert sample.annotators[1] == "A01_T1_S1_57c01"
            np.testing.assert_array_equal(sample.masks, [mask_of(i, k) for k in range(3)])
    report = import_dataset("isic", root, tmp_path / "more", IsicSettings(masks=0))
    assert sum(report.images.values()) == 6 and open_split(tmp_path / "more", "train")[0].masks.shape[1:] == (
        256,
        256,
    )


def test_split_files(root, tmp_path):
    path = tmp_path / "splits.csv"
    path.write_text("id,split\nISIC_0000001,train\nISIC_0000005,train\nISIC_0000002,test\n")
    report = import_dataset("isic", root, tmp_path / "out", IsicSettings(split_file=path))
    assert report.images == {"train": 2, "test": 1}
    path.write_text("id,split\nISIC_0000001,train\nISIC_0000003,train\n")
    with pytest.raises(
        AmbisegError, match=r"splits.csv names 1 id \(ISIC_0000003\), of which the data have no image"
    ):
        import_dataset("isic", root, tmp_path / "other", IsicSettings(split_file=path))


def test_bad_files(root, tmp_path):
    (root / "images" / "ISIC_0000002.JPG").unlink()
    (root / "segs" / "ISIC_0000004_A01_T1_S1_57c01.png").unlink()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / "segs" / "ISIC_0000005_A00_T1_S1_57c00.png")
    report = import_dataset("isic", root, tmp_path / "out", IsicSettings(size=(0, 0)))
    assert sum(report.images.values()) == 2
    told = " ".join(map(str, report.problems))
    assert "ISIC_0000002.jpg: there is no such file" in told and "57c00.png: the mask is 4 high" in told
    with pytest.raises(
        AmbisegError, match="no image has 4 segmentations: there are 2 images with 1, 3 images with 3"
    ):
        (root / "segs" / "ISIC_0000001_A02_T1_S1_57c02.png").rename(root / "segs" / "other.png")
        (root / "segs" / "ISIC_0000001_A01_T1_S1_57c01.png").unlink()
        (root / "segs" / "ISIC_0000003_A00_T1_S1_57c00.png").unlink()
        import_dataset("isic", root, tmp_path / "other", IsicSettings(masks=4))
