"""QUBIQ: one task of a data set with its raters, images of one or several channels, Validation as test."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.settings import QubiqSettings
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError

SIZE = (14, 16)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def mask_of(case, task, rater):
    return (np.arange(224).reshape(SIZE) < 20 * case + 5 * task + rater).astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    for folder, cases in (("Training", range(1, 6)), ("Validation", range(6, 8))):
        for case in cases:
            place = tmp_path / "brain" / folder / f"case{case:02}"
            rng = np.random.default_rng(case)
            save(place / "image.nii.gz", rng.normal(size=SIZE).astype(np.float32))
            for task in (1, 2):
                for rater in range(1, 4):
                    values = mask_of(case, task, rater).astype(np.float32 if rater == 1 else np.uint8)
                    save(
                        place / f"task{task:02}_seg{rater:02}.nii.gz",
                        values[..., None] if rater == 2 else values,
                    )
    return tmp_path / "brain"


@pytest.mark.parametrize("task", [1, 2])
def test_one_task_with_its_raters(root, tmp_path, task):
    report = import_dataset("qubiq", root, tmp_path / "out", QubiqSettings(task))
    assert report.images == {"train": 4, "val": 1, "test": 2} and not report.problems
    assert report.split_name == "Training by case 80/20, seed 0; Validation as test"
    for split in report.images:
        for sample in open_split(tmp_path / "out", split):
            case = int(sample.id[4:])
            assert sample.annotators == ("rater-01", "rater-02", "rater-03") and sample.image.shape == (
                1,
                *SIZE,
            )
            np.testing.assert_array_equal(sample.masks, [mask_of(case, task, rater) for rater in range(1, 4)])
    assert {int(name[4:]) for name in open_split(tmp_path / "out", "test").ids} == {6, 7}


def test_the_last_axis_of_an_image_are_its_channels(root, tmp_path):
    values = np.random.default_rng(0).normal(size=(*SIZE, 4)).astype(np.float32)
    save(root / "Validation/case06/image.nii.gz", values)
    import_dataset("qubiq", root, tmp_path / "out")
    np.testing.assert_array_equal(open_split(tmp_path / "out", "test")[0].image, values.transpose(2, 0, 1))


def test_masks_elsewhere_are_refused_unless_told_otherwise(root, tmp_path):
    for path in root.glob("*/*/task01_seg03.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(nibabel.load(path).get_fdata(), np.diag([2.0, 2, 1, 1])), path)
    with pytest.raises(AmbisegError, match="task01_seg03.nii.gz: its affine places it elsewhere"):
        import_dataset("qubiq", root, tmp_path / "out")
    import_dataset("qubiq", root, tmp_path / "out", QubiqSettings(other_grid="voxels"))
    sample = open_split(tmp_path / "out", "test")[0]
    case = int(sample.id[4:])
    np.testing.assert_array_equal(sample.masks, [mask_of(case, 1, rater) for rater in range(1, 4)])
    values = mask_of(6, 1, 3)[::-1]
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = SIZE[0] - 1
    nibabel.save(
        nibabel.Nifti1Image(np.ascontiguousarray(values), flipped),
        root / "Validation/case06/task01_seg03.nii.gz",
    )
    report = import_dataset("qubiq", root, tmp_path / "one")
    assert report.facts == {"masks put in the voxel order of their image": 1}
    np.testing.assert_array_equal(open_split(tmp_path / "one", "test")[0].masks[2], mask_of(6, 1, 3))


def test_bad_files(root, tmp_path):
    (root / "Training/case01/task01_seg02.nii.gz").write_bytes(b"nothing")
    save(root / "Training/case02/task01_seg01.nii.gz", np.zeros((3, 3), np.uint8))
    for rater in range(1, 4):
        (root / f"Validation/case06/task01_seg{rater:02}.nii.gz").unlink()
    report = import_dataset("qubiq", root, tmp_path / "out")
    assert sum(report.images.values()) == 4
    told = " ".join(map(str, report.problems))
    for words in ("case01/task01_seg02.nii.gz: cannot be read as NIfTI", "case02/task01_seg01.nii.gz: the mask has shape (3, 3)",
                  "case06: the case has no mask of task 1"):  # fmt: skip
        assert words in told
    with pytest.raises(AmbisegError, match=r"brain has no task 3: --task is one of \[1, 2\]"):
        import_dataset("qubiq", root, tmp_path / "other", QubiqSettings(3))
    save(root / "Training/case03/task01_seg01.nii.gz", np.full(SIZE, 2, np.uint8))
    with pytest.raises(
        AmbisegError, match=r"case03/task01_seg01.nii.gz: the label\(s\) \[2\] are not in the class list"
    ):
        import_dataset("qubiq", root, tmp_path / "other")
    with pytest.raises(AmbisegError, match="found no Training/<case>"):
        import_dataset("qubiq", tmp_path, tmp_path / "other")
