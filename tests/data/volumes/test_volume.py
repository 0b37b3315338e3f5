"""Every plane is that of the library of its format; what cannot be is refused before anything is unpacked."""

from __future__ import annotations

import gzip
import pickle
import struct
import tracemalloc

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest

from ambiseg.data.volumes import unpacked
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.data.volumes.slices import read_slice, slice_count
from ambiseg.data.volumes.unpacked import Unpacked
from ambiseg.data.volumes.volume import is_volume, open_volume
from ambiseg.errors import AmbisegError
from volume_replica import AFFINE, SHAPE, TO_LPS, case, write_nifti, write_nrrd, write_series


def check_planes(volume, expected):
    """``expected`` is ``(C, X, Y, Z)``; all planes in random order, also after a journey to another process."""
    volume = pickle.loads(pickle.dumps(volume))
    assert (volume.channels, *volume.shape) == expected.shape
    places = [(axis, index) for axis in range(3) for index in range(volume.shape[axis])]
    for place in np.random.default_rng(0).permutation(len(places)):
        axis, index = places[place]
        np.testing.assert_array_equal(volume.plane(axis, index), expected.take(index, axis + 1))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", ">f4", "f8"])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 3), (4, 5, 6, 1, 2)])
def test_planes_of_nifti_are_those_of_nibabel(tmp_path, suffix, dtype, shape):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    path = write_nifti(tmp_path / f"a{suffix}", values, scaling=(2.5, -3) if dtype == "<i2" else None)
    stored = nibabel.load(path)
    volume = open_volume(path)
    expected = np.asanyarray(stored.dataobj)
    check_planes(volume, np.moveaxis(expected.reshape(*shape[:3], -1), -1, 0))
    assert volume.plane(2, 0).dtype == expected.dtype
    assert volume.affine.tobytes() == stored.affine.tobytes()


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr"])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_planes_of_nrrd_are_those_of_pynrrd(tmp_path, encoding, name, channels):
    values = np.random.default_rng(0).integers(-99, 100, (*channels, *SHAPE)).astype(np.int16)
    path = write_nrrd(tmp_path / name, values, encoding=encoding)
    expected, _ = nrrd.read(str(path))
    volume = open_volume(path)
    check_planes(volume, expected.reshape(-1, *SHAPE))
    np.testing.assert_allclose(volume.affine, AFFINE)


def test_planes_of_dicom_are_those_of_pydicom_whatever_the_files_are_called(tmp_path):
    image, _ = case(0)
    volumes = [
        open_volume(write_series(tmp_path / str(i), image, names=[f"{name}.dcm" for name in names]))
        for i, names in enumerate(("abcdef", "fedcba", "caebfd"))
    ]
    read = [pydicom.dcmread(tmp_path / "0" / f"{name}.dcm") for name in "abcdef"]
    expected = np.stack([one.pixel_array + int(one.RescaleIntercept) for one in read], -1)
    np.testing.assert_array_equal(expected, image - 10)
    for volume in volumes:
        check_planes(volume, expected[None])
        np.testing.assert_allclose(volume.affine, AFFINE)


def test_axes_have_the_names_of_the_planes_that_cross_them(tmp_path):
    turned = AFFINE[:, [2, 0, 1, 3]]  # the first axis runs upwards
    volume = open_volume(write_nifti(tmp_path / "a.nii", case(0)[0], turned))
    assert volume.axis_names == ("axial", "sagittal", "coronal") and volume.axis("sagittal") == 1
    np.testing.assert_allclose(volume.spacing, (2.5, 0.7, 0.8))
    with pytest.raises(AmbisegError, match="axis 'axal' of a volume is unknown"):
        volume.axis("axal")


@pytest.mark.parametrize("axis", ["axial", "coronal", 0])
def test_neighbours_are_the_planes_beside(tmp_path, axis):
    values = np.random.default_rng(0).integers(0, 99, (*SHAPE, 2)).astype(np.int16)
    volume = open_volume(write_nifti(tmp_path / "a.nii.gz", values))
    settings, number = SliceSettings(axis, neighbours=2), volume.axis(axis)
    count = slice_count(volume, settings)
    for index in range(count):
        image = read_slice(volume, settings, index).reshape(5, 2, *volume.plane(number, 0).shape[1:])
        for step in range(-2, 3):
            beside = volume.plane(number, min(max(index + step, 0), count - 1))
            np.testing.assert_array_equal(image[step + 2], beside)


def test_what_is_a_volume(tmp_path):
    image, _ = case(0)
    write_nifti(tmp_path / "flat.nii", image[:, :, :1])
    (tmp_path / "damaged.nii").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    assert is_volume(write_nifti(tmp_path / "a.nii.gz", image)) and is_volume(
        write_nrrd(tmp_path / "a.nrrd", image)
    )
    assert is_volume(write_series(tmp_path / "series", image))
    assert not any(is_volume(tmp_path / name) for name in ("flat.nii", "damaged.nii", "empty", "none.nii"))


def header(shape, bitpix=16, datatype=4):
    """The first bytes of a NIfTI file of such a shape."""
    found = nibabel.Nifti1Header()
    found["dim"][: len(shape) + 1] = [len(shape), *shape]
    found["bitpix"], found["datatype"], found["vox_offset"] = bitpix, datatype, 352
    found["magic"] = b"n+1"
    return found.binaryblock + b"\0" * 4


def test_a_header_that_claims_a_billion_voxels_is_refused_before_anything_is_unpacked(tmp_path):
    for name, shape, words in (
        ("many.nii.gz", (1000, 1000, 1000), r"a compressed volume of 1000 x 1000 x 1000 values .* limit"),
        ("hollow.nii.gz", (700, 700, 700), "more than its .* compressed bytes can hold"),
        ("many.nii", (1000, 1000, 1000), "it has 352 of 2000000352 bytes"),
        ("wide.nii.gz", (30000, 30000, 1), "more than the limit of 100000000 pixels"),
    ):
        content = header(shape)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        tracemalloc.start()
        with pytest.raises(AmbisegError, match=words):
            open_volume(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 5e6
        tracemalloc.stop()
    text = "NRRD0004\ntype: short\ndimension: 3\nsizes: 1000 1000 1000\nendian: little\nencoding: gzip\n\nx"
    (tmp_path / "many.nrrd").write_text(text)
    with pytest.raises(AmbisegError, match="a compressed volume of 1000 x 1000 x 1000"):
        open_volume(tmp_path / "many.nrrd")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "raw.nrrd", "a.nrrd"])
def test_truncated_files_are_refused(tmp_path, name):
    write = write_nifti if ".nii" in name else write_nrrd
    path = write(tmp_path / name, case(0)[0], **({"encoding": "raw"} if name == "raw.nrrd" else {}))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AmbisegError, match=f"{name}: .*truncated"):
        open_volume(path).plane(2, 0)


def test_a_flipped_bit_is_found_by_the_checksum_whichever_slice_is_read(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", case(0)[0])
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(AmbisegError, match=r"a.nii.gz: cannot be read as a volume \(.*CRC"):
        open_volume(path).plane(2, 0)


def test_a_compressed_file_that_does_not_end_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacked, "MAX_REST_BYTES", 1 << 20)
    content = header(SHAPE) + bytes(2 * int(np.prod(SHAPE)) + (3 << 20))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(AmbisegError, match="it holds more than the 1792 bytes that its header says"):
        open_volume(tmp_path / "a.nii.gz").plane(2, 0)


def test_reading_a_slice_of_an_uncompressed_file_takes_the_memory_of_a_slice(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.zeros((128, 128, 256), np.int16))
    volume = open_volume(path)
    volume.plane(2, 0)
    tracemalloc.start()
    for index in range(0, 256, 16):
        volume.plane(2, index)
    assert tracemalloc.get_traced_memory()[1] < 4 * 128 * 128 * 2
    tracemalloc.stop()
    assert volume.unpacked_bytes(2) == 0 and str(path) not in str(list(unpacked.UNPACKED._arrays))


def test_a_compressed_file_is_unpacked_once(tmp_path, monkeypatch):
    path = write_nifti(tmp_path / "a.nii.gz", case(0)[0])
    volume, calls = open_volume(path), []
    real = unpacked.unpack
    monkeypatch.setattr("ambiseg.data.volumes.stored.unpack", lambda *args: calls.append(args) or real(*args))
    for index in (3, 0, 5, 3):
        volume.plane(2, index)
    assert len(calls) == 1
    write_nifti(path, case(1)[0][:, :, :6])  # another file in its place
    np.testing.assert_array_equal(open_volume(path).plane(2, 3)[0], case(1)[0][:, :, 3])
    assert len(calls) == 2


def test_the_store_keeps_what_was_used_last_within_its_bytes(tmp_path):
    store = Unpacked(250)
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_bytes(b"x")

    def get(file, size=100):
        return store.get(file, 0, lambda: np.full(size, ord(file.name), np.uint8))

    first = get(files[0])
    get(files[1]), get(files[0]), get(files[2])
    assert store.size == 200 and get(files[0]) is first and not first.flags.writeable
    assert get(files[1]) is not None and store.size == 200
    assert len(store.get(files[2], 1, lambda: np.zeros(999, np.uint8))) == 999 and store.size == 999


def test_nrrd_does_not_lead_elsewhere(tmp_path):
    values = case(0)[0]
    (tmp_path / "in").mkdir()
    write_nrrd(tmp_path / "in" / "a.nhdr", values, encoding="raw")
    text = (tmp_path / "in" / "a.nhdr").read_text()
    named = next(line for line in text.splitlines() if line.startswith("data file"))
    for other, words in (
        ("data file: ../secret.raw", "its values lie in '../secret.raw'"),
        ("data file: LIST", "its values lie in 'LIST'"),
        ("data file: a%03d.raw 1 9 1", "its values lie in"),
        ("data file: none.raw", "there is no such file beside it"),
    ):
        (tmp_path / "in" / "b.nhdr").write_text(text.replace(named, other))
        with pytest.raises(AmbisegError, match=words):
            open_volume(tmp_path / "in" / "b.nhdr")
    (tmp_path / "secret.raw").write_bytes(bytes(2 * values.size))
    (tmp_path / "in" / "link.raw").symlink_to(tmp_path / "secret.raw")
    (tmp_path / "in" / "b.nhdr").write_text(text.replace(named, "data file: link.raw"))
    with pytest.raises(AmbisegError, match="there is no such file beside it"):
        open_volume(tmp_path / "in" / "b.nhdr")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("encoding: gzip", "encoding: hex", "its encoding is 'hex'"),
        ("type: int16", "type: block", "no plain numbers"),
        ("dimension: 3", "dimension: 4", "its sizes are"),
        ("space: left-posterior-superior", "space: scanner-xyz", "does not say where left and right are"),
        ("endian: little", "line skip: 2\nendian: little", "skips lines"),
        ("endian: little", "byte skip: -9\nendian: little", "byte skip"),
        ("NRRD0", "NRDD0", "does not begin like an NRRD file"),
    ],
)
def test_nrrd_that_is_not_read(tmp_path, old, new, words):
    path = write_nrrd(tmp_path / "a.nrrd", case(0)[0])
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode(), 1))
    with pytest.raises(AmbisegError, match=words):
        open_volume(path)


def test_dicom_that_is_not_one_volume_is_refused(tmp_path):
    image, _ = case(0)

    def refused(words, folder):
        with pytest.raises(AmbisegError, match=words):
            open_volume(folder)

    two = write_series(tmp_path / "two", image)
    write_series(two, image, names=[f"second{k}.dcm" for k in range(6)])
    refused("it holds 2 series, such as", two)
    gap = write_series(tmp_path / "gap", image)
    (gap / f"{(2 * 37) % 101:03}.dcm").unlink()
    refused("lie 5 mm apart, other slices 2.5 mm: a slice may be missing", gap)
    twice = write_series(tmp_path / "twice", image, series="1.2.3")
    write_series(twice, image[:, :, :1], names=["again.dcm"], series="1.2.3")
    refused("lie at one place", twice)
    mixed = write_series(tmp_path / "mixed", image[:, :, :5], series="1.2.3")
    coronal = AFFINE[:, [0, 2, 1, 3]]
    write_series(mixed, image[:, :, :1], affine=coronal, names=["other.dcm"], series="1.2.3")
    refused("its orientation is", mixed)
    refused("compressed", _with_syntax(write_series(tmp_path / "jpeg", image), "1.2.840.10008.1.2.4.50"))
    refused("MONOCHROME1", write_series(tmp_path / "grey", image, PhotometricInterpretation="MONOCHROME1"))
    (tmp_path / "none").mkdir()
    refused("it holds no DICOM file", tmp_path / "none")


def _with_syntax(folder, uid):
    for path in folder.iterdir():
        content = path.read_bytes()
        old = b"1.2.840.10008.1.2.1\0"
        length = struct.pack("<H", len(uid))
        assert struct.pack("<H", len(old)) + old in content
        new = uid.encode()
        shift = len(new) - len(old)
        content = content.replace(struct.pack("<H", len(old)) + old, length + new, 1)
        group = struct.unpack("<I", content[140:144])[0] + shift
        path.write_bytes(content[:140] + struct.pack("<I", group) + content[144:])
    return folder


def test_lps_is_turned_to_ras(tmp_path):
    volume = open_volume(write_nrrd(tmp_path / "a.nrrd", case(0)[0]))
    _, head = nrrd.read(str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal((TO_LPS @ volume.affine)[:3, 3], head["space origin"])


def test_the_volume_of_a_voxel_is_the_determinant_of_its_affine(tmp_path):
    """A tilted gantry shears the axes: the product of the distances along them is too large."""
    tilt = np.eye(4)
    tilt[1, 2] = np.tan(np.radians(25))
    sheared = AFFINE @ tilt
    expected = 0.7 * 0.8 * 2.5 / 1000
    for written in (
        write_nifti(tmp_path / "a.nii", case(0)[0], sheared),
        write_nrrd(tmp_path / "a.nrrd", case(0)[0], sheared),
    ):
        assert open_volume(written).voxel_ml == pytest.approx(expected, rel=1e-5)
    assert open_volume(write_series(tmp_path / "s", case(0)[0], sheared)).voxel_ml == pytest.approx(expected)


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1), ("unknown", 1)])
def test_units_of_nifti_become_millimetres(tmp_path, unit, scale):
    image = nibabel.Nifti1Image(case(0)[0], np.diag([0.5 * scale, 2 * scale, 4 * scale, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    volume = open_volume(tmp_path / "a.nii")
    assert volume.spacing == pytest.approx((0.5, 2, 4)) and volume.voxel_ml == pytest.approx(0.004)
