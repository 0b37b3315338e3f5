"""NRRD files: the header is bounded and checked before any value is read.

The package pynrrd parses the header. Its own reader of values follows paths of other files and unpacks without a
bound, so values are read here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.validation import FileProblem
from ambiseg.data.volumes.stored import StoredArray
from ambiseg.data.volumes.unpacked import Encoding

MOST_HEADER = 1 << 20
"""Bytes of a header; segmentations of 3D Slicer describe each segment in it."""

_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2",
}  # fmt: skip
_TO_RAS = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
_EXPORT = "export it again as NRRD with encoding raw or gzip"


def read_nrrd(path: Path) -> tuple[StoredArray, NDArray[np.float64], bool]:
    """The array of an NRRD file, its ``(4, 4)`` affine to the axes right, anterior, superior, and whether it is stated.

    Raises:
        FileProblem: no NRRD file, pynrrd is missing, values in a file elsewhere, or an encoding without a bound.
        Exception: whatever pynrrd stumbles over.
    """
    try:
        from nrrd.reader import _TYPEMAP_NRRD2NUMPY as kinds
        from nrrd.reader import read_header
    except ImportError as error:
        raise FileProblem(
            path, "NRRD files need the package pynrrd", "pip install 'ambiseg[nrrd]'"
        ) from error
    lines, offset = _header_lines(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = read_header(lines)
    for field in ("type", "sizes", "encoding", "dimension"):
        if field not in header:
            raise FileProblem(path, f"its header has no {field!r}", _EXPORT)
    shape = tuple(int(size) for size in header["sizes"])
    if len(shape) != header["dimension"] or not 2 <= len(shape) <= 5 or min(shape) < 1:
        raise FileProblem(path, f"its sizes are {shape}, its dimension {header['dimension']}", _EXPORT)
    kind = kinds.get(str(header["type"]))
    if kind is None or kind.startswith("V"):
        raise FileProblem(path, f"its values are of type {header['type']!r:.60}, no plain numbers", _EXPORT)
    dtype = np.dtype(kind)
    if dtype.itemsize > 1:
        endian = header.get("endian")
        if endian not in ("little", "big"):
            raise FileProblem(path, f"its endian is {endian!r:.60}, neither little nor big", _EXPORT)
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    encoding = _ENCODINGS.get(str(header["encoding"]).lower())
    if encoding is None:
        raise FileProblem(path, f"its encoding is {header['encoding']!r:.60}", _EXPORT)
    space, affine = _geometry(path, header, len(shape))
    if len(space) == 2:
        shape, space = (*shape, 1), (*space, len(shape))
    array = _located(path, header, StoredArray(path, shape, dtype, offset, encoding, 0, _three(space)))
    return array, affine, "space directions" in header


def _three(space: tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = space
    return x, y, z


def _header_lines(path: Path) -> tuple[list[str], int]:
    """The lines of the header, and the byte behind the empty line at its end."""
    with open(path, "rb") as stream:
        head = stream.read(MOST_HEADER)
    if not head.startswith(b"NRRD000"):
        raise FileProblem(path, "it does not begin like an NRRD file", "copy or export it again")
    ends = [(place + len(mark), place) for mark in (b"\n\n", b"\r\n\r\n") if (place := head.find(mark)) >= 0]
    if not ends and len(head) == MOST_HEADER:
        raise FileProblem(path, f"its header is longer than {MOST_HEADER} bytes", _EXPORT)
    offset, end = min(ends, default=(len(head), len(head)))
    return head[:end].decode("ascii", "ignore").splitlines(), offset


def _located(path: Path, header: Mapping[str, Any], array: StoredArray) -> StoredArray:
    """The array where its values are: behind the header, or in another file of the same folder."""
    file, offset = path, array.offset
    named = header.get("data file", header.get("datafile"))
    if named is not None:
        name = str(named)
        file, offset = path.parent / name, 0
        if name.split()[0] == "LIST" or "%" in name or "/" in name or "\\" in name or name.startswith("."):
            raise FileProblem(
                path,
                f"its values lie in {name!r:.99}",
                "keep them in one file beside the header, or export it as one .nrrd file",
            )
        if not file.is_file() or file.resolve().parent != path.parent.resolve():
            raise FileProblem(
                path,
                f"its values lie in {name!r:.99}, and there is no such file beside it",
                "copy that file too",
            )
    elif path.name.lower().endswith(".nhdr"):
        raise FileProblem(path, "its header names no data file", "export it as one .nrrd file")
    if int(header.get("line skip", header.get("lineskip", 0))):
        raise FileProblem(path, "it skips lines before its values ('line skip')", _EXPORT)
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    if skip < 0 or (skip > MOST_HEADER and array.encoding != "raw"):
        if skip != -1 or array.encoding != "raw":
            raise FileProblem(path, f"it skips {skip} bytes before its values ('byte skip')", _EXPORT)
        offset, skip = max(0, file.stat().st_size - array.length), 0
    if array.encoding == "raw":
        offset, skip = offset + skip, 0
    return StoredArray(file, array.shape, array.dtype, offset, array.encoding, skip, array.space)


def _geometry(
    path: Path, header: Mapping[str, Any], dimension: int
) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Which axes are those of space, and the affine."""
    directions = header.get("space directions")
    affine = np.eye(4)
    if directions is None:
        kinds = [str(kind).lower() for kind in header.get("kinds", ())]
        channels = [i for i, kind in enumerate(kinds) if kind not in ("domain", "space", "???", "none")]
        space = tuple(i for i in range(dimension) if i not in channels)
        if len(space) not in (2, 3):
            raise FileProblem(
                path, f"it has {dimension} axes, and 'kinds' does not say which are of space", _EXPORT
            )
        spacings = header.get("spacings", [1.0] * dimension)
        for column, axis in enumerate(space):
            step = float(spacings[axis])
            affine[column, column] = step if np.isfinite(step) else 1.0
        return space, affine
    rows = [None if row is None else np.asarray(row, np.float64) for row in directions]
    space = tuple(i for i, row in enumerate(rows) if row is not None and np.isfinite(row).all())
    if len(space) not in (2, 3) or len(rows) != dimension or any(rows[i].shape != (3,) for i in space):  # type: ignore[union-attr]
        raise FileProblem(path, f"{len(space)} of its {dimension} axes have a direction in space", _EXPORT)
    named = str(header.get("space", "")).lower()
    if named not in _TO_RAS:
        raise FileProblem(
            path,
            f"its space is {header.get('space')!r:.60}, which does not say where left and right are",
            "write left-posterior-superior, or what it is, as 'space' into its header",
        )
    for column, axis in enumerate(space):
        affine[:3, column] = rows[axis]
    if len(space) == 2:
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] /= np.linalg.norm(affine[:3, 2])
    affine[:3, 3] = header.get("space origin", (0.0, 0.0, 0.0))
    signs = np.array([*_TO_RAS[named], 1.0])
    return space, signs[:, None] * affine + 0.0
