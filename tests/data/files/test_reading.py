"""Single files: every format gives back what was saved, and every bad file gives one clear sentence."""

from __future__ import annotations

import pickle
import struct
import warnings
import zlib

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ambiseg.data.files import limits
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import read_affine, read_image, read_mask, stem_of, write_mask
from ambiseg.errors import AmbisegError

RNG = np.random.default_rng(0)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(shape, dtype):
    if np.dtype(dtype).kind == "f":
        return RNG.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)


def png(width, height, depth, color, rows=b""):
    """A PNG written by hand: any declared size, any rows of pixels (or none)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


# reading images


@pytest.mark.parametrize(("shape", "dtype"), [((5, 7), np.uint8), ((5, 7), np.uint16), ((5, 7, 3), np.uint8)])
def test_png_gives_back_its_pixels(tmp_path, shape, dtype):
    pixels = noise(shape, dtype)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, np.moveaxis(np.atleast_3d(pixels), 2, 0))


@pytest.mark.parametrize(("channels", "color"), [(3, 2), (4, 6)])
def test_sixteen_bit_colours_keep_all_bits(tmp_path, channels, color):
    pixels = noise((5, 6, channels), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    (tmp_path / "a.png").write_bytes(png(6, 5, 16, color, rows))
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, pixels[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_alpha_is_dropped(tmp_path, mode):
    picture = Image.fromarray(noise((4, 5, 4), np.uint8)).convert("P" if mode == "PA" else mode)
    picture.save(tmp_path / "a.png", **({"transparency": 0} if mode == "PA" else {}))
    assert read_image(tmp_path / "a.png").shape == (1 if mode == "LA" else 3, 4, 5)


def test_palette_is_colour_for_images_and_index_for_masks(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), [[0, 1], [2, 1]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[0, 255], [0, 255]])


def test_jpeg_is_turned_upright_and_named_freely(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise((8, 16, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (3, 16, 8)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.jpg").read_bytes())
    assert read_image(tmp_path / "b.png").shape == (3, 16, 8)


@FEW
@given(
    pixels=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_numpy_keeps_type_shape_and_values(tmp_path, pixels):
    np.save(tmp_path / "a.npy", pixels)
    image = read_image(tmp_path / "a.npy")
    assert image.dtype == pixels.dtype
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_keeps_any_number_of_channels(tmp_path, dtype, compression):
    for channels in (1, 2, 5):
        pixels = noise((channels, 20, 24), dtype)
        tifffile.imwrite(
            tmp_path / "a.tif",
            pixels,
            photometric="minisblack",
            compression=compression,
            metadata={"axes": "CYX"},
        )
        image = read_image(tmp_path / "a.tif")
        assert image.dtype == dtype
        np.testing.assert_array_equal(image, pixels)


def test_tiff_channels_last_alpha_palette_and_inverted(tmp_path):
    pixels = noise((20, 24, 4), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels[..., :3].transpose(2, 0, 1))
    indices = noise((20, 24), np.uint8) % 4
    colors = noise((3, 256), np.uint16)
    colors[:, 0] = 0
    tifffile.imwrite(tmp_path / "b.tif", indices, photometric="palette", colormap=colors)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), indices)
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), colors[:, indices] >> 8)
    tifffile.imwrite(tmp_path / "c.tif", pixels[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "c.tif")[0], 255 - pixels[..., 0])


def test_tiff_compressions_of_pillow(tmp_path):
    pixels = noise((20, 24, 3), np.uint8)
    for kind in ("tiff_lzw", "packbits"):
        Image.fromarray(pixels).save(tmp_path / "a.tif", compression=kind)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_keeps_values_and_affine(tmp_path, suffix):
    mask = noise((4, 6), np.uint8) % 5
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    path = tmp_path / f"a{suffix}"
    write_mask(path, mask, affine)
    np.testing.assert_array_equal(read_mask(path), mask)
    np.testing.assert_array_equal(read_image(path)[0], mask)
    np.testing.assert_allclose(read_affine(path), affine)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nifti_slice_with_one_layer_is_read_and_volumes_are_refused(tmp_path):
    for depth in (1, 2):
        nibabel.save(
            nibabel.Nifti1Image(noise((4, 6, depth), np.int16), np.eye(4)), tmp_path / f"{depth}.nii"
        )
    assert read_image(tmp_path / "1.nii").shape == (1, 4, 6)
    with pytest.raises(AmbisegError, match="volume"):
        read_image(tmp_path / "2.nii")


def test_other_number_types_become_known_ones(tmp_path):
    for dtype, result in [(bool, np.uint8), (np.int8, np.int16), (np.int64, np.float32), (">u2", np.uint16)]:
        np.save(tmp_path / "a.npy", np.ones((2, 3), dtype))
        assert read_image(tmp_path / "a.npy").dtype == result


# reading masks


def test_zero_and_255_is_binary_unless_255_is_void(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1]]
    assert read_mask(tmp_path / "a.png", MaskRules(ignore_value=255)).tolist() == [[0, 255]]
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "b.png")
    assert read_mask(tmp_path / "b.png").tolist() == [[0, 1, 255]]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_masks_of_few_bits_keep_their_class_numbers(tmp_path, depth):
    byte = {1: 0b10000000, 2: 0b11000000, 4: 0b01110000}[depth]
    (tmp_path / "a.png").write_bytes(png(2, 1, depth, 0, bytes([0, byte])))
    assert read_mask(tmp_path / "a.png").tolist() == [[{1: 1, 2: 3, 4: 7}[depth], 0]]


def test_float_masks_of_whole_numbers_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0.0, 3.0]]))
    assert read_mask(tmp_path / "a.npy").tolist() == [[0, 3]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0.5]]), "fractions"),
        (np.array([[np.nan]]), "NaN"),
        (np.array([[-1, 0]]), "values from -1"),
        (np.array([[300]]), "values from 300"),
        (np.zeros((3, 2, 2)), "3 channels"),
        (np.zeros((2, 2), complex), "complex128"),
    ],
)
def test_masks_without_class_numbers_are_refused(tmp_path, values, words):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(AmbisegError, match=words):
        read_mask(tmp_path / "a.npy")


def test_colour_and_jpeg_masks_are_refused(tmp_path):
    Image.fromarray(noise((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(AmbisegError, match=r"a\.png: no class has the colour.*dataset\.yaml.*grey image"):
        read_mask(tmp_path / "a.png")
    Image.fromarray(noise((4, 4), np.uint8)).save(tmp_path / "b.jpg")
    (tmp_path / "c.png").write_bytes((tmp_path / "b.jpg").read_bytes())
    for name in ("b.jpg", "c.png"):
        with pytest.raises(AmbisegError, match="alters? class numbers"):
            read_mask(tmp_path / name)


@FEW
@given(
    mask=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 254)
    )
)
def test_written_masks_are_read_again(tmp_path, mask):
    write_mask(tmp_path / "a.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)


# bad files


def test_huge_headers_are_refused_before_decoding(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(20_000, 20_000, 8, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AmbisegError, match=r"a\.png: 20000x20000 pixels.*limit of 100000000"):
            read_image(tmp_path / "a.png")
        (tmp_path / "b.png").write_bytes(png(9_999, 9_999, 8, 0))
        with pytest.raises(AmbisegError, match="b.png: cannot be read"):
            read_image(tmp_path / "b.png")
    with open(tmp_path / "a.npy", "wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": (20_000, 20_000)}
        )
    with pytest.raises(AmbisegError, match="limit of 100000000"):
        read_image(tmp_path / "a.npy")
    monkeypatch.setattr(limits, "MAX_PIXELS", 50)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    write_mask(tmp_path / "a.nii.gz", np.zeros((8, 8), np.uint8))
    for name in ("a.tif", "a.nii.gz"):
        with pytest.raises(AmbisegError, match="8x8 pixels"):
            read_image(tmp_path / name)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_never_loaded(tmp_path):
    mark = tmp_path / "executed"
    np.save(tmp_path / "a.npy", np.array([[Bomb(mark)]], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb(mark)))
    for name in ("a.npy", "b.npy"):
        for read in (read_image, read_mask):
            with pytest.raises(AmbisegError, match=name):
                read(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".npy", ".nii", ".nii.gz"])
def test_truncated_empty_and_foreign_files_name_the_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    pixels = noise((64, 64), np.uint8)
    if suffix == ".npy":
        np.save(path, pixels)
    elif suffix == ".tif":
        tifffile.imwrite(path, pixels, compression="zlib")
    elif suffix.startswith(".nii"):
        write_mask(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    read_image(path)
    for content in (whole[: len(whole) * 2 // 3], whole[:20], b"", b"this is no image at all" * 40):
        path.write_bytes(content)
        with pytest.raises(AmbisegError, match=f"a{suffix}: .*: .*again"):
            read_image(path)


def test_uncompressed_tiff_that_ends_early_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise((64, 64), np.uint8))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-1000])
    with pytest.raises(AmbisegError, match="a.tif"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_images_with_values_that_are_no_float32_numbers_are_refused(tmp_path, value):
    np.save(tmp_path / "a.npy", np.array([[0.0, value]]))
    with pytest.raises(AmbisegError, match="1 values are NaN or infinite"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2, 2), (0, 3), (40, 40, 3)])
def test_arrays_that_are_no_images_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(AmbisegError, match="shape"):
        read_image(tmp_path / "a.npy")


def test_tiff_stacks_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 16, 16, 3), np.uint8), photometric="rgb")
    with pytest.raises(AmbisegError, match="axes"):
        read_image(tmp_path / "a.tif")


def test_missing_folders_and_unknown_suffixes(tmp_path):
    (tmp_path / "b.png").mkdir()
    for name, words in [("a.png", "no such file"), ("b.png", "not a file"), ("c.gif", "no image format")]:
        with pytest.raises(AmbisegError, match=words):
            read_image(tmp_path / name)


# writing


def test_wrong_masks_and_suffixes_are_not_written(tmp_path):
    for name, mask in [
        ("a.png", np.array([[256]])),
        ("a.jpg", np.zeros((2, 2), int)),
        ("a.png", np.zeros(3)),
    ]:
        with pytest.raises(AmbisegError):
            write_mask(tmp_path / name, mask)
    assert not list(tmp_path.iterdir())


def test_stem():
    assert [stem_of(n) for n in ("a.b.nii.gz", "A.PNG", "x")] == ["a.b", "A", "x"]
    assert read_affine("a.png") is None


def test_colored_mask_keeps_its_integers(tmp_path):
    mask = np.array([[0, 1], [2, 1]], np.uint8)
    write_mask(tmp_path / "m.png", mask, colors=((0, 0, 0), (255, 0, 0), (0, 0, 255)))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)
    assert Image.open(tmp_path / "m.png").convert("RGB").getpixel((0, 1)) == (0, 0, 255)
