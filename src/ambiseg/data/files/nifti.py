"""NIfTI files as strangers wrote them: the header is checked before any value is decoded, and a compressed
file is read to its end, so that its checksum counts.

Reference: Cox et al. (2004), A (sort of) new image data format standard: NIfTI-1.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.validation import FileProblem

MAX_HEADER_BYTES = 1 << 24
"""Where the values must begin at the latest; what lies between are extensions of the header."""
MAX_REST_BYTES = 1 << 24
"""How much may follow the values in a compressed file."""

_CHUNK = 1 << 20
_SPACE_UNITS = 7
_MILLIMETRES = {1: 1e3, 2: 1.0, 3: 1e-3}
"""Of metre, millimetre and micrometre, by their codes in ``xyzt_units``."""
_SLICE_AXES = 3


@dataclass(frozen=True)
class Header:
    """What the header of a NIfTI file says, before anything else is read.

    Attributes:
        path: the file.
        shape: of the stored array.
        sform: the ``(4, 4)`` voxel-to-world matrix of the header's sform; None if its code is 0.
        qform: likewise of its qform.
        content_bytes: how long the file is at least, unpacked.
        image_class: of nibabel, which reads the values.
        affine: ``(4, 4)`` voxel-to-world matrix in the unit of the file as nibabel gives it, whichever form it has.
        unit: millimetres in the unit of space; 1 where the header does not say it.
        dtype: number type of the stored values.
        offset: byte of the first value, unpacked.
        scaling: slope and intercept of the stored values; None if they are not scaled.
    """

    path: Path
    shape: tuple[int, ...]
    sform: NDArray[np.float64] | None
    qform: NDArray[np.float64] | None
    content_bytes: int
    image_class: Any
    affine: NDArray[np.float64]
    unit: float
    dtype: np.dtype[Any]
    offset: int
    scaling: tuple[float, float] | None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Extents of the three axes of space; 1 for those that the file does not have."""
        x, y, z = (*self.shape, 1, 1)[:_SLICE_AXES]
        return x, y, z


def read_header(path: Path) -> Header:
    """Read the first 540 bytes of a NIfTI file, and believe nothing in them that cannot be.

    Raises:
        FileProblem: the affine has NaN in it or is singular.
        OSError, ValueError: this is no NIfTI file of numbers.
    """
    import nibabel

    with _opened(path) as stream:
        start = stream.read(540)
    kinds = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    kind = next((kind for kind in kinds if kind.header_class.may_contain_header(start)), None)
    if kind is None:
        raise ValueError("it does not begin like a NIfTI file")
    header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
    shape = tuple(int(n) for n in header.get_data_shape())
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    if not shape or min(shape) < 1:
        raise ValueError(f"its shape is {shape}")
    if dtype.kind not in "iuf":
        raise ValueError(f"its values are of type {dtype}, no plain numbers")
    if not 0 <= offset <= MAX_HEADER_BYTES:
        raise ValueError(f"its values begin at byte {offset}")
    values = 1
    for extent in shape:
        values *= extent
    sform, qform = (_affine(path, form, header) for form in ("sform", "qform"))
    affine = np.asarray(header.get_best_affine(), np.float64)
    slope, intercept = header.get_slope_inter()
    scaling = None if slope is None else (float(slope), float(intercept))
    length = offset + values * dtype.itemsize
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) & _SPACE_UNITS, 1.0)
    return Header(path, shape, sform, qform, length, kind, affine, unit, dtype, offset, scaling)


def read_values(header: Header, check: Callable[[tuple[int, ...]], None]) -> NDArray[Any]:
    """Values of a NIfTI file, scaled as its header says.

    Args:
        header: of the file.
        check: raises if an array of this shape is too large to be decoded.

    Raises:
        OSError, ValueError, EOFError: truncated, damaged, or longer than its header says.
    """
    check(header.shape)
    if _compressed(header.path):
        _read_to_the_end(header)
    elif header.path.stat().st_size < header.content_bytes:
        raise EOFError(f"it has {header.path.stat().st_size} of {header.content_bytes} bytes")
    values: NDArray[Any] = np.asanyarray(header.image_class.from_filename(header.path).dataobj)
    return values


def _read_to_the_end(header: Header) -> None:
    """Unpack a compressed file without keeping it: gzip compares the checksum when it meets the end."""
    length, most = 0, header.content_bytes + MAX_REST_BYTES
    with gzip.open(header.path, "rb") as stream:
        while block := stream.read(_CHUNK):
            length += len(block)
            if length > most:
                raise ValueError(f"it holds more than the {header.content_bytes} bytes that its header says")
    if length < header.content_bytes:
        raise EOFError(f"it has {length} of {header.content_bytes} bytes")


def _affine(path: Path, form: str, header: Any) -> NDArray[np.float64] | None:
    """One of the two matrices of a header, None if it is not set."""
    remedy = "write the affine of the scan into the header"
    try:
        affine, code = getattr(header, f"get_{form}")(coded=True)
    except Exception as error:  # nibabel raises errors of several kinds for a quaternion that is none
        raise FileProblem(path, f"its {form} cannot be read ({error})", remedy) from error
    if not code:
        return None
    matrix = np.asarray(affine, np.float64)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all():
        raise FileProblem(path, f"its {form} holds NaN or infinite numbers", remedy)
    if not lengths.all() or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-3:
        raise FileProblem(path, f"its {form} is singular: its axes do not span space", remedy)
    return matrix


def _compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _opened(path: Path) -> Any:
    return gzip.open(path, "rb") if _compressed(path) else open(path, "rb")
