"""What is written at the voxels of a volume lies there: the same header, bit by bit, for NIfTI; the same space for NRRD."""

from __future__ import annotations

import nibabel
import nrrd
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from ambiseg.data.volumes.volume import open_volume
from ambiseg.data.volumes.writing import suffix_for, write_values
from volume_replica import AFFINE, case, write_series

SHAPE = (7, 6, 5)


def oblique(seed):
    """An affine of turned axes of unequal length."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.standard_normal((3, 3)))[0] * rng.uniform(0.4, 3, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def labels(shape=SHAPE):
    return np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 3)])
def test_the_header_of_a_nifti_volume_stays(kind, codes, seed, tmp_path):
    """An int16 volume with scaling and an extension, whose sform and qform may differ."""
    affine, sform, qform = oblique(seed), *codes
    given = kind(np.zeros(SHAPE, np.int16), affine)
    given.header.set_slope_inter(2.0, -1024.0)
    given.set_sform(affine if sform else None, sform)
    given.set_qform(affine if qform else None, qform)
    given.header.set_xyzt_units("mm", "sec")
    given.header["descrip"] = b"a scan"
    given.header.extensions.append(Nifti1Extension("comment", b"of the scanner"))
    source, written = tmp_path / "scan.nii", tmp_path / "mask.nii.gz"
    nibabel.save(given, source)
    volume = open_volume(source)
    write_values(written, labels(), volume)
    theirs, ours = nibabel.load(source), nibabel.load(written)
    assert suffix_for(volume) == ".nii.gz" and type(ours) is kind
    assert np.array_equal(ours.affine, theirs.affine) and np.array_equal(volume.affine, theirs.affine)
    for form in ("sform", "qform"):
        one, other = (getattr(image, f"get_{form}")(coded=True) for image in (ours, theirs))
        assert one[1] == other[1]
        assert (one[0] is None and other[0] is None) or np.array_equal(one[0], other[0])
    same = ("pixdim", "xyzt_units", "descrip", "srow_x", "quatern_b", "qoffset_x", "dim_info")
    assert all(np.array_equal(ours.header[name], theirs.header[name]) for name in same)
    assert [one.get_content() for one in ours.header.extensions] == [b"of the scanner"]
    assert ours.get_data_dtype() == np.uint8 and np.array_equal(np.asanyarray(ours.dataobj), labels())
    assert ours.header.get_slope_inter() in ((1, 0), (None, None))


def test_a_nifti_volume_of_other_byte_order_and_four_axes(tmp_path):
    given = nibabel.Nifti1Image(
        np.zeros((*SHAPE, 1), ">i2"), oblique(0), nibabel.Nifti1Header(endianness=">")
    )
    nibabel.save(given, tmp_path / "scan.nii.gz")
    write_values(tmp_path / "mask.nii.gz", labels(), open_volume(tmp_path / "scan.nii.gz"))
    write_values(
        tmp_path / "two.nii.gz", np.ones((*SHAPE, 2), np.float32), open_volume(tmp_path / "scan.nii.gz")
    )
    ours = nibabel.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asanyarray(ours.dataobj), labels())
    assert np.array_equal(ours.affine, nibabel.load(tmp_path / "scan.nii.gz").affine)
    assert nibabel.load(tmp_path / "two.nii.gz").shape == (*SHAPE, 2)


@pytest.mark.parametrize("channels", [0, 2])
def test_the_space_of_an_nrrd_volume_stays(channels, tmp_path):
    """Also where channels are the first axis of the file, which masks do not have."""
    pytest.importorskip("nrrd")
    directions = oblique(1)[:3, :3].T
    header = {
        "space": "left-posterior-superior",
        "space origin": oblique(1)[:3, 3],
        "space directions": np.array([*[np.full(3, np.nan)] * (channels > 0), *directions]),
        "kinds": ["list"] * (channels > 0) + ["domain"] * 3,
        "measurement frame": np.eye(3),
        "space units": ["mm", "mm", "mm"],
    }
    source, written = tmp_path / "scan.nrrd", tmp_path / "mask.nrrd"
    shape = ((channels,) if channels else ()) + SHAPE
    nrrd.write(str(source), np.zeros(shape, np.int16), header, index_order="F")
    volume = open_volume(source)
    assert suffix_for(volume) == ".nrrd" and volume.shape == SHAPE
    write_values(written, labels(), volume)
    values, ours = nrrd.read(str(written), index_order="F")
    assert np.array_equal(values, labels()) and values.dtype == np.uint8
    assert np.array_equal(ours["space directions"], directions)
    assert np.array_equal(ours["space origin"], header["space origin"])
    assert ours["space"] == header["space"] and ours["space units"] == header["space units"]
    again = open_volume(written)
    assert np.array_equal(again.affine, volume.affine) and again.shape == SHAPE


def test_spacings_of_an_nrrd_volume_without_directions_stay(tmp_path):
    nrrd.write(
        str(tmp_path / "scan.nrrd"),
        np.zeros(SHAPE, np.int16),
        {"spacings": [0.5, 0.25, 3.0]},
        index_order="F",
    )
    volume = open_volume(tmp_path / "scan.nrrd")
    write_values(tmp_path / "mask.nrrd", labels(), volume)
    assert open_volume(tmp_path / "mask.nrrd").spacing == (0.5, 0.25, 3.0)


def test_several_values_of_an_nrrd_voxel(tmp_path):
    nrrd.write(
        str(tmp_path / "scan.nrrd"),
        np.zeros(SHAPE, np.int16),
        {"space": "right-anterior-superior", "space directions": np.eye(3), "space origin": np.zeros(3)},
        index_order="F",
    )
    volume = open_volume(tmp_path / "scan.nrrd")
    values = np.random.default_rng(0).random((*SHAPE, 2)).astype(np.float32)
    write_values(tmp_path / "two.nrrd", values, volume)
    again = open_volume(tmp_path / "two.nrrd")
    assert again.channels == 2 and again.shape == SHAPE
    assert np.array_equal(again.plane(2, 1), np.moveaxis(values[:, :, 1], -1, 0))


@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_a_sheared_series_has_no_qform(tilt, tmp_path):
    """It could not hold the affine, and some readers prefer it to the sform."""
    shear = np.eye(4)
    shear[1, 2] = tilt
    volume = open_volume(write_series(tmp_path / "series", case(0)[0], AFFINE @ shear))
    write_values(tmp_path / "mask.nii.gz", labels(volume.shape), volume)
    ours = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(ours.affine, volume.affine, atol=1e-5)
    assert int(ours.header["sform_code"]) == 1 and int(ours.header["qform_code"]) == (tilt == 0)
