"""BMP and WebP: the pixels are those of Pillow, sizes are bounded, and masks in WebP are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.files.reading import read_image, read_mask
from ambiseg.errors import AmbisegError

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (7, 9, 3), np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_bmp_images_are_what_a_viewer_shows(tmp_path, mode):
    picture = Image.fromarray(COLORS).convert(mode)
    picture.save(tmp_path / "a.bmp")
    shown = np.asarray(picture.convert("RGB" if mode in ("RGB", "P") else "L"))
    expected = shown[None] if shown.ndim == 2 else shown.transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp"), expected)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_bmp_masks_are_numbers(tmp_path, mode):
    numbers = RNG.integers(0, 2, (7, 9), np.uint8)
    picture = Image.fromarray(numbers if mode == "P" else numbers * 255)
    if mode == "P":
        picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.convert(mode).save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.bmp"), numbers)


def test_webp_images_keep_their_pixels_where_nothing_is_lost(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), COLORS.transpose(2, 0, 1))
    with pytest.raises(AmbisegError, match="no mask format .JPEG and WebP alter class numbers"):
        read_mask(tmp_path / "a.webp")
    (tmp_path / "a.webp").rename(tmp_path / "a.png")
    with pytest.raises(AmbisegError, match="JPEG or WebP, which alters"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}])
def test_the_size_of_a_webp_is_read_from_its_header(tmp_path, options):
    from ambiseg.data.files.pictures import _webp_size

    Image.fromarray(COLORS).save(tmp_path / "a.webp", **options)
    assert _webp_size(tmp_path / "a.webp") == (7, 9)
    Image.fromarray(COLORS).save(tmp_path / "b.webp", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0", **options)
    assert _webp_size(tmp_path / "b.webp") == (7, 9)


def test_a_webp_that_claims_a_huge_size_is_refused_before_it_is_decoded(tmp_path):
    size = 1 << 23
    canvas = struct.pack("<I", 0) + (size - 1).to_bytes(3, "little") + (size - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas
    (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    with pytest.raises(AmbisegError, match="a.webp: .*8388608"):
        read_image(tmp_path / "a.webp")


def test_a_moving_webp_is_refused(tmp_path):
    frames = [Image.fromarray(COLORS), Image.fromarray(255 - COLORS)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(AmbisegError, match="it holds 2 pictures"):
        read_image(tmp_path / "a.webp")
