"""Sizes are bounded before anything is decoded, and damaged files give one sentence."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ambiseg.data.files import limits
from ambiseg.data.files.reading import read_image, read_mask, write_mask
from ambiseg.errors import AmbisegError

MEGABYTE = 1 << 20


def tiff_of(data, compression, side=64, tile=None):
    """A grey TIFF of one strip or tile, written by hand."""
    entries = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, compression), (262, 3, 1), (277, 3, 1)]
    names = (273, 279) if tile is None else (324, 325)
    entries += [(278, 4, side)] if tile is None else [(322, 4, tile), (323, 4, tile)]
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries = sorted([*entries, (names[0], 4, start), (names[1], 4, len(data))])
    fields = b"".join(
        struct.pack("<HHI", tag, kind, 1)
        + struct.pack("<HH" if kind == 3 else "<I", *([value, 0][: 5 - kind]))
        for tag, kind, value in entries
    )
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", 0) + data


def refused_within(read, path, words, size=40 * MEGABYTE):
    tracemalloc.start()
    try:
        with pytest.raises(AmbisegError, match=words):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def test_pages_in_a_circle_are_refused(tmp_path):
    """A page of two tags follows the first one, and itself."""
    content = bytearray(tiff_of(zlib.compress(bytes(64 * 64)), 8))
    (count,) = struct.unpack_from("<H", content, 8)
    second = len(content)
    struct.pack_into("<I", content, 10 + 12 * count, second)
    (tmp_path / "a.tif").write_bytes(
        bytes(content) + struct.pack("<H", 2) + bytes(24) + struct.pack("<I", second)
    )
    refused_within(read_image, tmp_path / "a.tif", "a.tif: its list of pages runs in a circle")


def test_a_part_larger_than_the_file_is_refused(tmp_path):
    content = bytearray(tiff_of(zlib.compress(bytes(64 * 64)), 8))
    place = content.index(struct.pack("<HHI", 279, 4, 1))
    struct.pack_into("<I", content, place + 8, 1 << 31)
    (tmp_path / "a.tif").write_bytes(content)
    refused_within(read_image, tmp_path / "a.tif", "a.tif: a part of it is declared larger than the file")


@pytest.fixture
def overlapping(tmp_path):
    """``overlapping(data)``: a TIFF of 64 strips of 64 pixels, all of which are the same bytes."""

    def write(data):
        path = tmp_path / "a.tif"
        tifffile.imwrite(
            path, np.arange(64 * 64, dtype=np.uint8).reshape(64, 64), rowsperstrip=1, compression="zlib"
        )
        start = path.stat().st_size
        with open(path, "ab") as stream:
            stream.write(data)
        with tifffile.TiffFile(path, mode="r+") as tiff:
            for tag, number in (("StripOffsets", start), ("StripByteCounts", len(data))):
                tiff.pages[0].tags[tag].overwrite([number] * 64, dtype="I")
        return path

    return write


def test_strips_that_expand_too_much_together_are_refused(overlapping, monkeypatch):
    path = overlapping(zlib.compress(bytes(60_000)))
    assert read_image(path).shape == (1, 64, 64)
    monkeypatch.setattr(limits, "_ALL_SEGMENTS", 1 << 20)
    refused_within(read_image, path, "its strips or tiles expand to more than twice the declared size")


def test_strips_that_lie_over_each_other_are_refused(overlapping):
    path = overlapping(np.random.default_rng(0).bytes(60_000))
    refused_within(read_image, path, "its strips or tiles lie over each other")


def test_too_many_strips_are_refused(overlapping, monkeypatch):
    path = overlapping(zlib.compress(bytes(64)))
    monkeypatch.setattr(limits, "MAX_SEGMENTS", 63)
    refused_within(read_image, path, "it has 64 strips or tiles: export it again in larger tiles")
    monkeypatch.setattr(limits, "SEGMENT_VALUES", 64)
    assert not read_image(path).any()


def test_scans_of_a_jpeg_are_bounded(tmp_path):
    """Each is decoded over the whole picture; the last one is repeated here."""
    Image.new("L", (16, 16), 128).save(tmp_path / "a.jpg", progressive=True)
    assert read_image(tmp_path / "a.jpg").shape == (1, 16, 16)
    content = (tmp_path / "a.jpg").read_bytes()
    scan = content[content.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(content[:-2] + limits.MAX_SCANS * scan + content[-2:])
    refused_within(read_image, tmp_path / "a.jpg", "it has more than 200 scans: save it as PNG")


@pytest.mark.parametrize("part", [b"\xff\xfe\0\x02", b"\xff", b"\0"])
def test_markers_of_a_jpeg_are_bounded(tmp_path, part):
    Image.new("L", (16, 16), 128).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[:2] + 100 * b"\xff\xfe\0\x02" + content[2:])
    assert read_image(tmp_path / "a.jpg").shape == (1, 16, 16)
    (tmp_path / "a.jpg").write_bytes(content[:2] + limits.MAX_MARKERS * part + content[2:])
    refused_within(read_image, tmp_path / "a.jpg", "it has more than 2000 parts: save it as PNG")


def png_with(path, kind, content, times):
    """A PNG with a part of a kind, several times."""
    Image.new("L", (8, 8)).save(path)
    whole = path.read_bytes()
    part = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(whole[:33] + times * part + whole[33:])
    return path


def test_parts_of_a_png_are_bounded(tmp_path):
    path = tmp_path / "a.png"
    assert read_image(png_with(path, b"teSt", b"", 100)).shape == (1, 8, 8)
    refused_within(read_image, png_with(path, b"teSt", b"", 12_000), "it has more than 10140 parts")
    profile = b"a\0\0" + zlib.compress(bytes(100))
    assert read_image(png_with(path, b"iCCP", profile, 1)).shape == (1, 8, 8)
    refused_within(read_image, png_with(path, b"iCCP", profile, 2), "it has 2 colour profiles")


def test_a_damaged_picture_is_called_by_its_format(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for damaged in (content[:20], content[:16] + bytes(4) + content[20:]):
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(AmbisegError, match="cannot be read as png") as found:
            read_image(tmp_path / "a.png")
        assert "TIFF" not in str(found.value)
    (tmp_path / "a.png").write_bytes(b"hello")
    with pytest.raises(AmbisegError, match="its content is damaged or no picture"):
        read_image(tmp_path / "a.png")


def test_a_damaged_header_of_an_array_gives_no_advice_and_no_addresses(tmp_path):
    def write(header):
        text = header.ljust(-(-len(header) // 64) * 64).encode()
        start = b"\x93NUMPY\x02\0" + struct.pack("<I", len(text))
        (tmp_path / "a.npy").write_bytes(start + text)

    write("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4)}" + " " * 12_000)
    with pytest.raises(AmbisegError, match="claims 120.. bytes: save the array again with numpy.save"):
        read_image(tmp_path / "a.npy")
    write("{'descr': '<f4', 'fortran_order': False, 'shape': (4 * 4, 4)}")
    with pytest.raises(AmbisegError, match="cannot be read as npy") as found:
        read_image(tmp_path / "a.npy")
    assert "object at" not in str(found.value) and "pickle" not in str(found.value)


def test_a_damaged_tiff_prints_nothing(tmp_path, capfd):
    content = bytearray(tiff_of(zlib.compress(bytes(64 * 64)), 8))
    content[12:14] = b"\0\0"  # the type of the first tag
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(AmbisegError, match="a.tif"):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", [8, 32946, 34925])
def test_a_strip_that_expands_beyond_its_size_is_not_decoded(tmp_path, compression):
    if compression == 34925:
        import lzma

        data = lzma.compress(bytes(200 * MEGABYTE), preset=0)
    else:
        data = zlib.compress(bytes(200 * MEGABYTE), 1)
    (tmp_path / "a.tif").write_bytes(tiff_of(data, compression))
    for read in (read_image, read_mask):
        refused_within(read, tmp_path / "a.tif", "a.tif: part 0 expands to more than twice")


def test_strips_of_the_right_size_are_read(tmp_path):
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    for data, compression, tile in (
        (pixels.tobytes(), 1, None),
        (zlib.compress(pixels.tobytes()), 8, None),
        (zlib.compress(pixels.tobytes() + bytes(16)), 8, 64),
    ):
        (tmp_path / "a.tif").write_bytes(tiff_of(data, compression, tile=tile))
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], pixels)


def test_a_tile_larger_than_any_image_is_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_of(zlib.compress(b"x"), 8, tile=1 << 15))
    refused_within(read_image, tmp_path / "a.tif", "a part of it is declared with")


def test_headers_of_arrays_are_bounded(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b" " * 1000)
    refused_within(read_image, tmp_path / "a.npy", "its header claims 2147483648 bytes")
    assert limits.MAX_HEADER < MEGABYTE
    np.save(tmp_path / "b.npy", np.zeros((4, 4)))
    damaged = (tmp_path / "b.npy").read_bytes().replace(b"(4, 4)", b"(4, -4")
    (tmp_path / "b.npy").write_bytes(damaged)
    with pytest.raises(AmbisegError, match="b.npy"):
        read_image(tmp_path / "b.npy")


def test_several_pictures_in_one_png_are_refused(tmp_path):
    first, second = (Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 255))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    with pytest.raises(AmbisegError, match="2 pictures: save one per file"):
        read_image(tmp_path / "a.png")


def whole_files(folder):
    pixels = np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels).save(folder / "a.jpg")
    tifffile.imwrite(folder / "a.tif", pixels, compression="zlib")
    np.save(folder / "a.npy", pixels)
    write_mask(folder / "a.nii.gz", pixels)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_one_sentence(tmp_path, data):
    files = whole_files(tmp_path)
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(content)
    for read in (read_image, read_mask):
        try:
            assert 2 <= read(tmp_path / name).ndim <= 3
        except AmbisegError as error:
            assert str(tmp_path / name) in str(error)
