"""Where NIfTI images and masks lie: any voxel order of the same place is one mask; another place is refused."""

from __future__ import annotations

import gzip
import itertools

import nibabel
import numpy as np
import pytest

from ambiseg.data.check import check_dataset
from ambiseg.data.files.geometry import header_of, on_grid, on_image
from ambiseg.data.files.reading import read_image, write_mask
from ambiseg.data.folder import FolderSplit
from ambiseg.errors import AmbisegError

SIZE = (6, 7, 4)
AFFINE = np.array([[-0.8, 0.1, 0, 30], [0.1, 0.8, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1]])
ORDERS = [
    np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)])
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def save(path, values, affine=AFFINE, qform=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    if qform is not None:
        image.set_qform(qform, 1)
    nibabel.save(image, path)
    return path


def labels(size=SIZE):
    return np.random.default_rng(0).integers(0, 3, size).astype(np.uint8)


def reordered(values, affine, order):
    """The same values in the same place, stored in another order."""
    orientations = nibabel.orientations
    return (
        orientations.apply_orientation(values, order),
        affine @ orientations.inv_ornt_aff(order, values.shape),
    )


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_voxel_order_of_the_same_place_is_the_same_mask(tmp_path, order):
    image = header_of(save(tmp_path / "image.nii.gz", np.zeros(SIZE, np.int16)))
    values, affine = reordered(labels(), AFFINE, order)
    mask = header_of(save(tmp_path / "mask.nii.gz", values, affine))
    placed, done = on_grid(values, mask, image)
    np.testing.assert_array_equal(placed, labels())
    assert done == ("same" if (order == [[0, 1], [1, 1], [2, 1]]).all() else "reordered")


def moved(x=0.0, y=0.0, z=0.0):
    affine = np.eye(4)
    affine[:3, 3] = x, y, z
    return AFFINE @ affine


def test_rounding_of_the_affine_does_not_matter_but_a_voxel_does(tmp_path):
    image = header_of(save(tmp_path / "image.nii", np.zeros(SIZE, np.int16)))
    near = header_of(save(tmp_path / "near.nii", labels(), moved(0.04, -0.04)))
    np.testing.assert_array_equal(on_grid(labels(), near, image)[0], labels())
    by_quaternion = header_of(save(tmp_path / "q.nii", labels(), None, AFFINE))
    assert by_quaternion.sform is None and on_grid(labels(), by_quaternion, image)[1] == "same"
    for name, affine, words in (
        ("moved", moved(1), r"its first voxel is voxel \(1.0, 0.0, 0.0\) there"),
        ("half", moved(0, 0.5), r"its first voxel is voxel \(0.0, 0.5, 0.0\) there"),
        ("identity", np.eye(4), "its affine places it elsewhere than its image"),
        ("scaled", AFFINE @ np.diag([1.1, 1, 1, 1]), "its affine places it elsewhere"),
    ):
        mask = header_of(save(tmp_path / f"{name}.nii", labels(), affine))
        with pytest.raises(AmbisegError, match=f"{name}.nii: .*{words}"):
            on_grid(labels(), mask, image)
        np.testing.assert_array_equal(on_grid(labels(), mask, image, "voxels")[0], labels())
    small = header_of(save(tmp_path / "small.nii", labels((6, 7, 3))))
    for how in ("refuse", "voxels"):
        with pytest.raises(AmbisegError, match=r"small.nii: the mask has shape \(6, 7, 3\) but its image"):
            on_grid(labels((6, 7, 3)), small, image, how)


def test_resampling_takes_the_nearest_voxel(tmp_path):
    """Against distances in the world, computed voxel by voxel."""
    image = header_of(save(tmp_path / "image.nii", np.zeros(SIZE, np.int16)))
    affine = AFFINE @ np.array([[0.7, 0.1, 0, 0.63], [-0.1, 0.9, 0, 0.41], [0, 0, 0.55, -0.37], [0, 0, 0, 1]])
    mask = header_of(save(tmp_path / "mask.nii", labels((8, 5, 6)), affine))
    placed, done = on_grid(labels((8, 5, 6)), mask, image, "resample")
    assert done == "resampled" and placed.shape == SIZE and placed.any()
    inside = np.linalg.inv(affine) @ AFFINE
    for voxel in np.ndindex(*SIZE):
        nearest = np.rint((inside @ (*voxel, 1))[:3]).astype(int)
        within = all(0 <= n < side for n, side in zip(nearest, (8, 5, 6), strict=True))
        assert placed[voxel] == (labels((8, 5, 6))[tuple(nearest)] if within else 0), voxel
    several = np.stack([labels((8, 5, 6)), 2 - labels((8, 5, 6))], -1)
    np.testing.assert_array_equal(on_grid(several, mask, image, "resample")[0][..., 0], placed)
    far = header_of(save(tmp_path / "far.nii", labels(), moved(100)))
    with pytest.raises(AmbisegError, match=r"far.nii: all that it marks lies outside of its image"):
        on_grid(labels(), far, image, "resample")


def test_sform_and_qform_that_disagree(tmp_path):
    other = moved(3)
    image = header_of(save(tmp_path / "image.nii", np.zeros(SIZE, np.int16)))
    both = header_of(save(tmp_path / "both.nii", labels(), AFFINE, other))
    with pytest.raises(AmbisegError, match="both.nii: its sform and its qform place it differently"):
        on_grid(labels(), both, image)
    image = header_of(save(tmp_path / "template.nii", np.zeros(SIZE, np.int16), AFFINE, other))
    assert on_grid(labels(), both, image)[1] == "same"
    with pytest.raises(AmbisegError, match="template.nii: its sform and its qform place it differently"):
        on_grid(labels(), header_of(save(tmp_path / "a.nii", labels())), image)


def test_affines_that_are_none(tmp_path):
    image = header_of(save(tmp_path / "image.nii", np.zeros(SIZE, np.int16)))
    bare = header_of(save(tmp_path / "bare.nii", labels(), None))
    assert on_grid(labels(), bare, bare)[1] == "same"
    with pytest.raises(AmbisegError, match="bare.nii: its header has no affine"):
        on_grid(labels(), bare, image)
    for name, affine, words in (
        ("flat", AFFINE @ np.diag([1, 0, 1, 1]), "its sform is singular"),
        ("twice", AFFINE[:, [0, 0, 2, 3]], "its sform is singular"),
        ("nan", np.where(AFFINE == 7, np.nan, AFFINE), "its sform holds NaN"),
    ):
        path = save(tmp_path / f"{name}.nii", labels(), None)
        stored = nibabel.load(path)
        stored.header.set_sform(affine, 2)
        path.write_bytes(stored.header.binaryblock + bytes(4) + labels().tobytes(order="F"))
        with pytest.raises(AmbisegError, match=f"{name}.nii: {words}"):
            header_of(path)


def masks_refused(root):
    return [error for error in check_dataset(root).errors if "masks" in error.file]


def test_slices_of_a_folder_are_compared_too(tmp_path):
    folder = tmp_path / "data/train"
    plane, size = AFFINE.copy(), (9, 12)
    shape = np.zeros(size, np.uint8)
    shape[1:4, 2:9] = 1
    for name in ("a", "b"):
        save(folder / f"images/{name}.nii.gz", shape.astype(np.int16) * 100, plane)
        for k, order in enumerate(([[0, -1], [1, -1], [2, 1]], [[1, 1], [0, 1], [2, -1]])):
            values, affine = reordered(shape[..., None], plane, np.array(order))
            save(folder / f"masks/{name}/{k}.nii.gz", values[..., 0], affine)
        write_mask(folder / f"masks/{name}/png.png", shape)
    sample = FolderSplit(tmp_path / "data", "train")[0]
    assert sample.annotators == ("0", "1", "png")
    np.testing.assert_array_equal(sample.masks, [shape] * 3)
    assert not masks_refused(tmp_path / "data")
    path = save(folder / "masks/b/0.nii.gz", shape, moved(2))
    with pytest.raises(AmbisegError, match="b/0.nii.gz: its affine places it elsewhere"):
        FolderSplit(tmp_path / "data", "train")[1]
    (error,) = masks_refused(tmp_path / "data")
    assert error.file == str(path) and "elsewhere" in error.problem


def test_a_mask_of_another_kind_of_file_has_no_place(tmp_path):
    shape = labels((5, 6))
    save(tmp_path / "image.nii.gz", np.zeros((5, 6), np.int16))
    np.testing.assert_array_equal(on_image(shape, tmp_path / "mask.png", tmp_path / "image.nii.gz"), shape)


def test_damaged_and_cut_files_are_refused_wherever_the_damage_lies(tmp_path):
    values = np.random.default_rng(1).integers(-900, 900, (40, 50)).astype(np.int16)
    whole = save(tmp_path / "a.nii.gz", values).read_bytes()
    for cut in (1, 4, 8, 100, len(whole) // 2, len(whole) - 20):
        (tmp_path / "a.nii.gz").write_bytes(whole[:-cut])
        with pytest.raises(AmbisegError, match="a.nii.gz: cannot be read as nii.gz"):
            read_image(tmp_path / "a.nii.gz")
    for place in (len(whole) - 3, len(whole) - 8, len(whole) // 2, len(whole) // 3):
        changed = bytearray(whole)
        changed[place] ^= 4
        (tmp_path / "a.nii.gz").write_bytes(changed)
        with pytest.raises(AmbisegError, match="a.nii.gz: cannot be read as nii.gz"):
            read_image(tmp_path / "a.nii.gz")
    plain = save(tmp_path / "b.nii", values)
    plain.write_bytes(plain.read_bytes()[:-1])
    with pytest.raises(AmbisegError, match="b.nii: cannot be read as nii .it has 4351 of 4352 bytes"):
        read_image(plain)


@pytest.mark.parametrize(
    ("start", "field", "value", "words"),
    [
        (40, "<i2", [2, 30000, 30000, 1, 1, 1, 1, 1], "more than the limit of 100000000 pixels"),
        (40, "<i2", [2, 9000, 9000, 1, 1, 1, 1, 1], "it has 1000352 of 81000352 bytes"),
        (40, "<i2", [2, -5, 40, 1, 1, 1, 1, 1], "its shape is"),
        (108, "<f4", [1e12], "its values begin at byte"),
        (70, "<i2", [128], "no plain numbers"),
        (344, "S4", [b"no"], "does not begin like a NIfTI file"),
    ],
)
def test_headers_that_promise_too_much_are_refused_before_anything_is_decoded(
    tmp_path, start, field, value, words
):
    content = bytearray(save(tmp_path / "a.nii", np.zeros((1000, 1000), np.uint8)).read_bytes())
    stored = np.asarray(value, field).tobytes()
    content[start : start + len(stored)] = stored
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(AmbisegError, match=f"a.nii.gz: .*{words}"):
        read_image(tmp_path / "a.nii.gz")


def test_a_file_that_goes_on_behind_its_values_is_not_unpacked(tmp_path):
    content = save(tmp_path / "a.nii", np.zeros((10, 10), np.uint8)).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content + bytes(1 << 26)))
    with pytest.raises(AmbisegError, match="it holds more than the 452 bytes that its header says"):
        read_image(tmp_path / "a.nii.gz")
