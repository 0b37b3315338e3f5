"""Arrays of ``.npz`` files, bounded before they are unpacked."""

from __future__ import annotations

import io
import math
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.atomic_write import check_space
from ambiseg.data.files.limits import npy_header
from ambiseg.data.files.validation import FileProblem
from ambiseg.errors import AmbisegError
from ambiseg.owned_files import several
from ambiseg.predictions.written import AGAIN

MOST_TEXT = 1 << 26
"""Bytes of names, and values of weights."""
_COMPLAINTS = (
    ValueError, OSError, EOFError, RuntimeError, ArithmeticError, SyntaxError, TokenError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zip and NumPy raise where bytes are wrong."""
_ANY = "buifcmMOSUV"
"""Kinds of NumPy types."""
Parts = tuple[Any, list[str] | None, NDArray[Any] | None]
"""Array of masks, names and weights of a file."""


def array_name(names: Iterable[str], path: Path) -> str:
    """Which array of a file holds the masks: the only one beside ids and weights, or that of a usual name."""
    found = [name for name in names if name not in ("ids", "weights")]
    usual = [name for name in ("predictions", "masks") if name in found]
    if len(usual) == 2:
        raise FileProblem(path, "it holds an array 'predictions' and an array 'masks'", "save one of them")
    if len(found) == 1 or usual:
        return found[0] if len(found) == 1 else usual[0]
    if not found:
        raise FileProblem(path, "it holds no array of masks", "save the masks as an array 'predictions'")
    raise FileProblem(
        path, f"it holds the arrays {several(sorted(found))}", "name that of the masks 'predictions'"
    )


class Archive:
    """An ``.npz``, whose arrays are bounded before they are unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Archive:
        with in_words(self.path, "cannot be read as npz"):
            self.archive = zipfile.ZipFile(self.path)
        self.members = {
            info.filename.removesuffix(".npy"): info
            for info in self.archive.infolist()
            if info.filename.endswith(".npy")
        }
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def parts(self, room: Path) -> Parts:
        """The array of masks, unpacked into ``room`` and mapped; names and weights."""
        name = array_name(self.members, self.path)
        info, file = self.members[name], room / "masks.npy"
        self._checked(name, "buif", None)
        check_space(room, info.file_size, "the array, unpacked,")
        with in_words(self.path), self.archive.open(info) as packed, open(file, "wb") as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)
        ids = None
        if "ids" in self.members:
            ids = texts(self.small("ids", MOST_TEXT, "USiu"))
        weights = self.small("weights", MOST_TEXT * 8) if "weights" in self.members else None
        return mapped(file, self.path), ids, weights

    def small(self, name: str, most: int, kinds: str = "buif") -> NDArray[Any]:
        """An array of at most ``most`` bytes as a whole."""
        if name not in self.members:
            raise FileProblem(self.path, f"it has no array {name!r}", AGAIN)
        info = self.members[name]
        self._checked(name, kinds, most)
        with in_words(self.path):
            values: NDArray[Any] = np.lib.format.read_array(
                io.BytesIO(self.archive.read(info)), allow_pickle=False
            )
        return values

    def _checked(self, name: str, kinds: str, most: int | None) -> None:
        info = self.members[name]
        with in_words(self.path), self.archive.open(info) as stream:
            shape, dtype = npy_header(stream, self.path, _ANY)
        if dtype.kind not in kinds:
            remedy = "save ids as text: numpy.array(ids, str)" if name == "ids" else "save integers or floats"
            raise FileProblem(self.path, f"the array {name!r} holds values of type {dtype}", remedy)
        size = math.prod(shape) * dtype.itemsize
        if size > info.file_size or (most is not None and info.file_size > most):
            raise FileProblem(self.path, f"an array of shape {shape} does not fit the file", AGAIN)


@contextmanager
def in_words(path: Path, what: str = "the file is damaged") -> Iterator[None]:
    """Turn what zip and NumPy complain about into a `FileProblem`."""
    try:
        yield
    except AmbisegError:
        raise
    except _COMPLAINTS as error:
        raise FileProblem(path, f"{what} ({' '.join(str(error).split())})", AGAIN) from error


class _Rows:
    """The rows of an array on disk, read one by one: pages of a mapped file would stay in memory."""

    def __init__(self, file: Path, mapped: np.memmap[Any, Any]) -> None:
        self.file, self.offset, self.shape, self.dtype = file, mapped.offset, mapped.shape, mapped.dtype

    def __getitem__(self, row: int) -> NDArray[Any]:
        count = math.prod(self.shape[1:])
        start = self.offset + row * count * self.dtype.itemsize
        return np.fromfile(self.file, self.dtype, count, offset=start).reshape(self.shape[1:])


def mapped(file: Path, path: Path) -> Any:
    """An array of ``file``, of which rows can be taken; ``path`` is what messages name."""
    with in_words(path, "cannot be read as an array"):
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    return _Rows(file, values) if values.flags.c_contiguous and values.ndim else values


def texts(values: NDArray[Any]) -> list[str]:
    return [
        one.decode(errors="replace") if isinstance(one, bytes) else str(one)
        for one in values.ravel().tolist()
    ]
