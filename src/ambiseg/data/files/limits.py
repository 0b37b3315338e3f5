"""Bounds on what is decoded: sizes come from headers, and no compressed part may grow beyond its size."""

from __future__ import annotations

import io
import lzma
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from os import PathLike
from typing import IO, Any

import numpy as np
import tifffile

from ambiseg.data.files.validation import FileProblem

MAX_PIXELS = 100_000_000
"""Largest height times width that is decoded."""

MAX_VALUES = 4 * MAX_PIXELS
"""Largest channels times height times width that is decoded."""

MAX_HEADER = 1 << 16
"""Largest header of a NumPy array in bytes."""

MAX_RATIO = 1100
"""Bytes that deflate makes of one byte at most, with some room."""

MAX_NUMPY_HEADER = 10_000
"""Longest header of a NumPy array that ``numpy.load`` reads."""

MAX_SCANS = 200
"""Passes of a progressive JPEG; usual ones have ten. Each of them is decoded over the whole picture."""

MAX_MARKERS = 2000
"""Markers of a JPEG before its first scan; a colour profile of 32 MiB has 512."""

MAX_CHUNKS = 10_000
"""Chunks of a PNG, and as many more as the file has KiB."""

MAX_SEGMENTS = 50_000
"""Strips or tiles of a TIFF, unless each of them has `SEGMENT_VALUES` or more."""

SEGMENT_VALUES = 256

MAX_TAGS = 50_000
"""Tags of all pages of a TIFF; a page of a usual one has twenty."""

_LOWER: ContextVar[tuple[int, int] | None] = ContextVar("lower limits", default=None)
_TILE_VALUES = 1 << 22
_ALL_SEGMENTS = 1 << 26
_SCAN = b"\xff\xda"
_STREAMS: dict[int, Callable[[], Any]] = {
    tifffile.COMPRESSION.ADOBE_DEFLATE: zlib.decompressobj,
    tifffile.COMPRESSION.DEFLATE: zlib.decompressobj,
    tifffile.COMPRESSION.LZMA: lzma.LZMADecompressor,
}


@contextmanager
def lower_limits(pixels: int, values: int) -> Iterator[None]:
    """Inside, these bounds hold in place of `MAX_PIXELS` and `MAX_VALUES`, in this thread or task alone."""
    before = _LOWER.set((pixels, values))
    try:
        yield
    finally:
        _LOWER.reset(before)


def check_size(file: str | PathLike[str], shape: tuple[int, ...]) -> None:
    """Raise `FileProblem` if an array of ``(..., H, W)`` exceeds `MAX_PIXELS` or `MAX_VALUES`, or `lower_limits`."""
    most_pixels, most_values = _LOWER.get() or (MAX_PIXELS, MAX_VALUES)
    height, width = int(shape[-2]), int(shape[-1])
    values = height * width
    for extent in shape[:-2]:
        values *= int(extent)
    if height * width > most_pixels or values > most_values:
        raise FileProblem(
            file,
            f"{height}x{width} pixels ({values} values) are more than the limit of {most_pixels} pixels"
            f" ({most_values} values)",
            "cut it into tiles or scale it down",
        )


def npy_header(
    stream: IO[bytes], file: str | PathLike[str], kinds: str = "buif"
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and number type of a NumPy array, from its first bytes; the stream stands behind them then.

    ``kinds`` are those of NumPy that are accepted.

    Raises:
        FileProblem: a header longer than `MAX_NUMPY_HEADER`, or values that are no numbers.
        ValueError: no NumPy array.
    """
    major, _ = np.lib.format.read_magic(stream)
    length_format = "<H" if major == 1 else "<I"
    length_bytes = stream.read(struct.calcsize(length_format))
    (length,) = struct.unpack(length_format, length_bytes)
    if length > MAX_NUMPY_HEADER:
        raise FileProblem(file, f"its header claims {length} bytes", "save the array again with numpy.save")
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(io.BytesIO(length_bytes + stream.read(length)))
    if dtype.kind not in kinds:
        raise FileProblem(file, f"values of type {dtype} are not pixels", "save integers or floats")
    return shape, dtype


def check_pages(file: str | PathLike[str], tiff: tifffile.TiffFile) -> None:
    """Raise `FileProblem` if the pages of a TIFF follow each other in a circle, or have very many tags.

    tifffile parses every page, however often it comes.
    """
    stream, form = tiff.filehandle, tiff.tiff
    offset, seen, tags = tiff.pages.first.offset, set[int](), 0
    while 0 < offset < stream.size and offset not in seen and tags <= MAX_TAGS:
        seen.add(offset)
        stream.seek(offset)
        (count,) = struct.unpack(form.tagnoformat, stream.read(form.tagnosize))
        tags += count
        stream.seek(offset + form.tagnosize + count * form.tagsize)
        following = stream.read(form.offsetsize)
        offset = struct.unpack(form.offsetformat, following)[0] if len(following) == form.offsetsize else 0
    if offset in seen or tags > MAX_TAGS:
        raise FileProblem(file, "its list of pages runs in a circle or has no end", "export it again")


def check_segments(file: str | PathLike[str], page: tifffile.TiffPage) -> None:
    """Raise `FileProblem` if strips or tiles of a TIFF page are too many, or hold more than their declared size.

    The decoders of tifffile itself (deflate, LZMA) have no bound of their own; all others have.
    """
    tile = int(np.prod(page.chunks, dtype=np.float64))
    values = int(np.prod(page.shape, dtype=np.float64))
    if tile > max(_TILE_VALUES, values):
        raise FileProblem(
            file, f"a part of it is declared with {page.chunks} values", "export it again in smaller tiles"
        )
    offsets, counts, length = page.dataoffsets, page.databytecounts, page.parent.filehandle.size
    needed = int(np.prod(page.chunked, dtype=np.float64))
    if len(offsets) > max(1, needed) or (needed > MAX_SEGMENTS and values < SEGMENT_VALUES * needed):
        raise FileProblem(file, f"it has {len(offsets)} strips or tiles", "export it again in larger tiles")
    stream = _STREAMS.get(int(page.compression))
    if stream is not None and max(counts, default=0) > length:
        raise FileProblem(file, "a part of it is declared larger than the file", "copy or export it again")
    if sum(counts) > 2 * (length + values * 8):
        raise FileProblem(file, "its strips or tiles lie over each other", "export it again")
    if stream is None:
        return
    item = page.dtype.itemsize if page.dtype is not None else 8
    size = 2 * tile * item + MAX_HEADER
    left = size + max(_ALL_SEGMENTS, 4 * values * item)
    for data, index in page.parent.filehandle.read_segments(offsets, counts):
        found = 0 if data is None else len(stream().decompress(data, size + 1))
        left -= found
        if found > size or left < 0:
            what = f"part {index} expands" if found > size else "its strips or tiles expand"
            raise FileProblem(
                file,
                f"{what} to more than twice the declared size",
                "the file is damaged or made to fill the memory; export it again",
            )


def check_scans(file: str | PathLike[str], parts: int = 1) -> None:
    """Raise `FileProblem` if a JPEG, or a TIFF of ``parts`` of them, has very many scans."""
    with _mapped(file) as content:
        place, scans = content.find(_SCAN), 0
        while place >= 0 and scans <= MAX_SCANS * parts:
            scans, place = scans + 1, content.find(_SCAN, place + 2)
    if scans > MAX_SCANS * parts:
        raise FileProblem(file, f"it has more than {MAX_SCANS} scans", "save it as PNG")


def check_markers(file: str | PathLike[str]) -> None:
    """Raise `FileProblem` if a JPEG has very many markers, or other bytes between them, before its first scan."""
    place = 2
    with _mapped(file) as content:
        for _ in range(MAX_MARKERS):
            start = content[place : place + 4]
            if start[:2] == _SCAN or len(start) < 4:
                return
            bare = start[0] != 0xFF or start[1] in (0, 0xFF)
            place += 1 if bare else 2 + int.from_bytes(start[2:], "big")
    raise FileProblem(file, f"it has more than {MAX_MARKERS} parts", "save it as PNG")


@contextmanager
def _mapped(file: str | PathLike[str]) -> Iterator[mmap.mmap]:
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def check_chunks(file: str | PathLike[str]) -> None:
    """Raise `FileProblem` if a PNG file has very many chunks, or several colour profiles."""
    chunks = profiles = 0
    with open(file, "rb") as stream:
        most = MAX_CHUNKS + os.fstat(stream.fileno()).st_size // 1024
        stream.seek(8)
        while len(head := stream.read(8)) == 8 and chunks <= most:
            length, kind = struct.unpack(">I4s", head)
            chunks, profiles = chunks + 1, profiles + (kind == b"iCCP")
            stream.seek(length + 4, os.SEEK_CUR)
    if chunks > most or profiles > 1:
        what = f"it has more than {most} parts" if chunks > most else f"it has {profiles} colour profiles"
        raise FileProblem(file, what, "export it again")
