"""NIfTI volumes become slices along any axis, with whole volumes in one split; what cannot be read is
named."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.nifti import read_volume
from ambiseg.data.importers.settings import NiftiSettings
from ambiseg.data.source import list_splits, open_split
from ambiseg.errors import AmbisegError

SIZE = (10, 12, 9)


def save(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


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
    with pytest.raises(AmbisegError, match=r"names 1 id \(v9\), of which the data have no volume"):
        import_dataset("nifti", root, tmp_path / "other", settings)


def volumes_of(out):
    """Masks of each volume by annotator, ``(K, X, Y, Z)``, from slices along the last axis."""
    found = {}
    for split in list_splits(out):
        for sample in open_split(out, split):
            found.setdefault(sample.id[:2], []).append(sample.masks)
    return {name: np.stack(slices, axis=-1) for name, slices in found.items()}


ALL = NiftiSettings(classes=CLASSES, empty=True)
FLIPPED = np.diag([-1.0, -1, 1, 1])
FLIPPED[:2, 3] = SIZE[0] - 1, SIZE[1] - 1


def test_masks_in_another_voxel_order_are_put_in_that_of_their_image(root, tmp_path):
    expected = volume(2)[1]
    save(root / "masks/v2/reader1.nii.gz", np.ascontiguousarray(expected[1][::-1, ::-1]), FLIPPED)
    turned = np.eye(4)[[1, 2, 0, 3]]
    save(root / "masks/v3/reader0.nii.gz", volume(3)[1][0].transpose(2, 0, 1), turned)
    report = import_dataset("nifti", root, tmp_path / "out", ALL)
    assert not report.problems and report.facts == {"masks put in the voxel order of their image": 2}
    for i in range(5):
        np.testing.assert_array_equal(volumes_of(tmp_path / "out")[f"v{i}"], volume(i)[1])


def test_masks_on_another_grid(root, tmp_path):
    coarse = volume(2)[1][1][::2]
    save(root / "masks/v2/reader1.nii.gz", coarse, np.diag([2.0, 1, 1, 1]))
    moved = np.eye(4)
    moved[2, 3] = 1
    save(root / "masks/v3/reader0.nii.gz", volume(3)[1][0], moved)
    report = import_dataset("nifti", root, tmp_path / "refused", ALL)
    assert set(volumes_of(tmp_path / "refused")) == {"v0", "v1", "v4"}
    told = sorted(str(problem).removeprefix(str(root)) for problem in report.problems)
    assert told[0].startswith(
        "/masks/v2/reader1.nii.gz: the mask has shape (5, 12, 9) but its image (10, 12, 9)"
    )
    assert told[1].startswith("/masks/v3/reader0.nii.gz: its affine places it elsewhere than its image")
    settings = replace(ALL, other_grid="resample")
    assert import_dataset("nifti", root, tmp_path / "out", settings).facts == {"masks resampled": 2}
    found = volumes_of(tmp_path / "out")
    rows = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4, 4])  # rounding to the even neighbour halfway between two
    for row in (0, 2, 4, 6, 8):
        np.testing.assert_array_equal(found["v2"][1][row], coarse[rows[row]])
    np.testing.assert_array_equal(found["v3"][0][..., 1:], volume(3)[1][0][..., :-1])
    assert not found["v3"][0][..., 0].any()
    save(root / "masks/v2/reader1.nii.gz", volume(2)[1][1], np.diag([2.0, 1, 1, 1]))
    settings = replace(ALL, other_grid="voxels")
    import_dataset("nifti", root, tmp_path / "voxels", settings)
    for i in range(5):
        np.testing.assert_array_equal(volumes_of(tmp_path / "voxels")[f"v{i}"], volume(i)[1])


def test_masks_as_other_tools_store_them(root, tmp_path):
    """With trailing axes, as 0 and 255, as floats off the integers, scaled by the header."""
    for i in range(5):
        for k, mask in enumerate(volume(i)[1]):
            save(root / f"masks/v{i}/reader{k}.nii.gz", (mask > 0).astype(np.uint8))
    expected = (volume(1)[1][1] > 0).astype(np.uint8)
    save(root / "images/v1.nii.gz", volume(1)[0][..., None])
    for i, values in enumerate(
        (
            expected[..., None, None],
            expected * np.uint8(255),
            (expected - 4e-4).astype(np.float32),
            expected / 1.0,
        )
    ):
        save(root / f"masks/v1/other{i}.nii.gz", values)
    scaled = nibabel.Nifti1Image(expected.astype(np.int16) * 7, np.eye(4))
    scaled.header.set_slope_inter(1, 0)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    content = bytearray((tmp_path / "scaled.nii").read_bytes())
    content[112:116] = np.float32(0.142857).tobytes()
    (root / "masks/v1/scaled.nii").write_bytes(content)
    report = import_dataset("nifti", root, tmp_path / "out", NiftiSettings(empty=True))
    assert not report.problems
    found = volumes_of(tmp_path / "out")["v1"]
    assert len(found) == 7 and all(np.array_equal(found[k], expected) for k in (0, 1, 2, 3, 5, 6))
    save(root / "masks/v1/other2.nii.gz", (expected - 4e-3).astype(np.float32))
    (problem,) = import_dataset("nifti", root, tmp_path / "less", NiftiSettings(empty=True)).problems
    assert "other2.nii.gz: the mask holds fractions" in str(problem)


def test_one_annotator_per_volume_of_a_fourth_axis(root, tmp_path):
    save(root / "masks/v0/more.nii.gz", np.stack(volume(0)[1], axis=-1))
    (problem,) = import_dataset("nifti", root, tmp_path / "refused", ALL).problems
    assert problem.problem == "the mask has shape (10, 12, 9, 2), more axes than a volume"
    assert "--stacked" in problem.remedy
    for i in range(5):
        values, affine = np.stack(volume(i)[1] * 5 + [volume(i)[1][0]], axis=-1), np.eye(4)
        if i == 4:
            values, affine = np.ascontiguousarray(values[::-1, ::-1]), FLIPPED
        save(root / f"masks/v{i}.nii.gz", values, affine)
        for k in range(2):
            (root / f"masks/v{i}/reader{k}.nii.gz").unlink()
    report = import_dataset("nifti", root, tmp_path / "out", replace(ALL, stacked=True))
    assert not report.problems
    for i in range(1, 5):
        expected = [*(volume(i)[1] * 5), volume(i)[1][0]]
        np.testing.assert_array_equal(volumes_of(tmp_path / "out")[f"v{i}"], expected)
    sample = next(s for split in report.images for s in open_split(tmp_path / "out", split) if "v0" in s.id)
    assert sample.annotators == ("more-1", "more-2", *(f"v0-{k:02}" for k in range(1, 12)))


def test_a_wrong_checksum_leaves_the_volume_out(root, tmp_path):
    path = root / "masks/v1/reader0.nii.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    (problem,) = import_dataset("nifti", root, tmp_path / "out", ALL).problems
    assert problem.file == str(path) and "CRC check failed" in problem.problem


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
         "/masks/v2/reader1.nii.gz: the mask holds fractions or NaN", "v3, slice 2: 1 values are NaN"],
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
