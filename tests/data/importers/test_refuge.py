"""REFUGE: seven raters per case, cup or disc, folders at any depth, cases with a bad file left out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.settings import RefugeSettings
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError

SIZE = (40, 44)


def circle(radius):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return (((y - 20) ** 2 + (x - 22) ** 2) < radius**2).astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    cases = (
        "Training-400/Glaucoma/g0001",
        "Training-400/Non-Glaucoma/n0001",
        "Validation-400/V0001",
        "Test-400/T0001",
    )
    for case in cases:
        folder = tmp_path / "in" / case
        folder.mkdir(parents=True)
        Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(folder / f"{folder.name}.jpg")
        for rater in range(1, 8):
            for structure, radius in (("cup", rater + 2), ("disc", rater + 9)):
                Image.fromarray(circle(radius) * 255).save(
                    folder / f"{folder.name}_seg_{structure}_{rater}.png"
                )
    return tmp_path / "in"


@pytest.mark.parametrize(("structure", "more"), [("cup", 2), ("disc", 9)])
def test_seven_raters_of_one_structure(root, tmp_path, structure, more):
    report = import_dataset("refuge", root, tmp_path / "out", RefugeSettings(structure, (0, 0)))
    assert report.images == {"train": 2, "val": 1, "test": 1} and not report.problems
    sample = open_split(tmp_path / "out", "train")[1]
    assert (sample.id, sample.annotators[6], sample.weights[0]) == ("n0001", "rater-7", pytest.approx(1 / 7))
    np.testing.assert_array_equal(sample.masks, [circle(rater + more) for rater in range(1, 8)])


def test_size(root, tmp_path):
    import_dataset("refuge", root, tmp_path / "out")
    sample = open_split(tmp_path / "out", "test")[0]
    assert sample.image.shape == (3, 256, 256) and sample.masks.shape == (7, 256, 256)
    shares = sample.masks.mean((1, 2)) / np.array([circle(r + 2).mean() for r in range(1, 8)])
    assert np.abs(shares - 1).max() < 0.08 and abs(int(sample.image.mean()) - 90) <= 1


def test_cases_with_a_bad_file_are_left_out(root, tmp_path):
    (root / "Training-400/Glaucoma/g0001/g0001_seg_cup_3.png").unlink()
    Image.fromarray(circle(3)[:9]).save(root / "Validation-400/V0001/V0001_seg_cup_1.png")
    report = import_dataset("refuge", root, tmp_path / "out")
    assert report.images["train"] == 1 and len(report.problems) == 2
    assert "g0001_seg_cup_3.png: there is no such file" in str(report.problems[0])
    assert "V0001_seg_cup_1.png: the mask is 9 high" in str(report.problems[1])
    with pytest.raises(AmbisegError, match="found no Training"):
        import_dataset("refuge", tmp_path / "out", tmp_path / "other")
