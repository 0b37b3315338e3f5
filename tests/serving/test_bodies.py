"""Bodies are told apart by their content and decoded as files are, within bounds that hold before decoding."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from starlette.exceptions import HTTPException

from ambiseg.data.files.reading import read_image
from ambiseg.serving.bodies import decode, kind_of

FILES = ("a.png", "a.jpg", "a.tif", "big.tif", "a.npy", "a.nii", "a.nii.gz", "two.nii")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same 20x30 pixels in every format."""
    folder = tmp_path_factory.mktemp("formats")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(pixels).save(folder / name)
    tifffile.imwrite(folder / "a.tif", pixels, compression="zlib")
    tifffile.imwrite(folder / "big.tif", pixels, bigtiff=True)
    np.save(folder / "a.npy", pixels)
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), folder / name)
    nibabel.save(nibabel.Nifti2Image(pixels, np.eye(4)), folder / "two.nii")
    return folder


@pytest.fixture
def body(tmp_path):
    """``body(content)``: a file as a request leaves it."""

    def write(content):
        path = tmp_path / "body"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("name", FILES)
def test_a_body_is_read_as_its_file_is(name, folder, body):
    content = (folder / name).read_bytes()
    np.testing.assert_array_equal(decode(body(content), 600, 2400), read_image(folder / name))


@pytest.mark.parametrize("name", FILES)
def test_the_bounds_of_the_service_are_those_of_the_reader(name, folder, body):
    content = (folder / name).read_bytes()
    for bounds in ((599, 2400), (600, 599)):
        with pytest.raises(HTTPException, match="the image: 20x30 pixels .* more than the limit of") as found:
            decode(body(content), *bounds)
        assert found.value.status_code == 422


def test_the_bound_of_a_service_does_not_stay(folder, body):
    with pytest.raises(HTTPException):
        decode(body((folder / "a.png").read_bytes()), 10, 10)
    assert read_image(folder / "a.png").shape == (1, 20, 30)


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"<script>alert(1)</script>",
        b"GIF89a" + b"\0" * 600,
        b"\x1f\x8b broken",
        gzip.compress(b"no image" * 1000, mtime=0),
        b"\x80\x04\x95 a pickle",
        b"\0" * 1000,
    ],
)
def test_what_is_no_image_is_415(content, body):
    path = body(content)
    assert kind_of(path) is None
    with pytest.raises(HTTPException, match="send PNG, JPEG, TIFF, NumPy") as found:
        decode(path, 100, 100)
    assert found.value.status_code == 415


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_damaged_image_is_refused_in_one_sentence_without_a_path(name, share, folder, body, tmp_path):
    content = (folder / name).read_bytes()
    with pytest.raises(HTTPException) as found:
        decode(body(content[: int(share * len(content))]), 600, 2400)
    assert found.value.status_code in (415, 422)
    assert str(tmp_path) not in found.value.detail and "\n" not in found.value.detail
