"""One rule of orientation, whatever the format, the compression and the decoder."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from ambiseg.data.files.orientation import upright
from ambiseg.data.files.reading import read_image, read_mask

PIXELS = np.arange(32 * 48, dtype=np.uint8).reshape(32, 48) // 4
FILES = {
    "plain.tif": {},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "lzw.tif": {"compression": "tiff_lzw"},
    "packbits.tif": {"compression": "packbits"},
    "a.png": {},
}


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("name", FILES)
def test_images_and_masks_are_turned_as_a_viewer_shows_them(tmp_path, name, tag):
    exif = Image.Exif()
    exif[274] = tag
    picture = Image.fromarray(PIXELS)
    picture.save(tmp_path / name, exif=exif, **FILES[name])
    picture.save(tmp_path / "b.png", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "b.png")))
    np.testing.assert_array_equal(read_image(tmp_path / name)[0], shown)
    np.testing.assert_array_equal(read_mask(tmp_path / name), shown)
    np.testing.assert_array_equal(upright(PIXELS, tag), shown)


def test_jpeg_palette_and_sixteen_bits_too(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(PIXELS).convert("P").save(tmp_path / "p.png", exif=exif)
    Image.fromarray(PIXELS.astype(np.uint16) * 256).save(tmp_path / "s.png", exif=exif)
    for name in ("a.jpg", "p.png", "s.png"):
        assert read_image(tmp_path / name).shape[1:] == (48, 32)


def test_numbers_that_are_no_orientation_change_nothing():
    for tag in (0, 9, -1):
        np.testing.assert_array_equal(upright(PIXELS, tag), PIXELS)
