"""Pickles of NumPy arrays in plain containers, read without executing anything that they name.

A pickle may name any function of the Python that reads it. Here every name but the few that a pickled array
consists of is refused, and those few stand for functions of this file: they make arrays of numbers and text
out of bytes that are there, whose count must agree with the shape. NumPy's own unpickling, which believes
what it is told, is not called.
"""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO, Never

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.validation import FileProblem

MAX_BYTES = 1 << 35
"""Largest file that is read, 32 GiB; its arrays lie in memory, all at once."""

_TYPE = re.compile(r"[|<>=]?(b1|[iu][1248]|f[248]|[SU]\d{1,4})")
_REMEDY = "name the pickle of crops as it was distributed"


class PickledArray:
    """What stands for an array while the pickle is read."""

    value: NDArray[Any] = np.zeros(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.value = _array(raw, kind, shape, "F" if fortran else "C")


class _PickledType:
    """What stands for a dtype while the pickle is read."""

    def __init__(self, code: str, *_: Any) -> None:
        if not _TYPE.fullmatch(code):
            raise pickle.UnpicklingError(
                f"values of type {str(code)[:20]!r}, which are neither numbers nor text"
            )
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


def _array(raw: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    """An array of bytes that are there; `frombuffer` and `reshape` refuse any other number of them."""
    data = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(data, (bytes, bytearray)) or not isinstance(kind, _PickledType):
        raise pickle.UnpicklingError("an array without bytes or without a type")
    if not data or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array that is empty or in no plain order")
    return np.frombuffer(data, kind.dtype).reshape(tuple(shape), order=order)


class _Stream:
    """A file of which no more is asked for than it has: a pickle states lengths of its own, for which memory would be taken
    before a byte is read."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size
        self.readline = stream.readline

    def read(self, count: int) -> bytes:
        if count > self._size:
            raise pickle.UnpicklingError("a part of it is longer than the file")
        return self._stream.read(count)


class _Unpickler(pickle._Unpickler):
    """Knows the names of which NumPy's arrays consist, in every version of NumPy and every protocol.

    It is the one in Python, whose memo is a dictionary: that in C makes room for whatever number a file gives
    to a value, and four bytes then cost all memory.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__(_Stream(stream, size), encoding="latin-1")
        self._text_left = size

    def load_bytearray8(self) -> None:
        """Read the bytes first; the method of the standard library makes room for them first."""
        (length,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(length)))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8  # type: ignore[assignment]

    def find_class(self, module: str, name: str) -> Any:
        core = re.fullmatch(r"numpy\._?core\.(multiarray|numeric)", module)
        place = core.group(1) if core else module
        known = {
            ("numpy", "ndarray"): PickledArray,
            ("numpy", "dtype"): _PickledType,
            ("multiarray", "_reconstruct"): self._empty,
            ("multiarray", "scalar"): self._scalar,
            ("numeric", "_frombuffer"): self._from_buffer,
            ("_codecs", "encode"): self._encode,
        }
        if (place, name) not in known:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is refused: only arrays of NumPy are read"
            )
        return known[place, name]

    def persistent_load(self, _: Any) -> Never:
        raise pickle.UnpicklingError("it refers to values outside of the file")

    def _empty(self, *_: Any) -> PickledArray:
        return PickledArray()

    def _scalar(self, kind: Any, raw: Any) -> Any:
        return _array(raw, kind, (1,), "C")[0]

    def _from_buffer(self, raw: Any, kind: Any, shape: Any, order: Any) -> PickledArray:
        found = PickledArray()
        found.value = _array(raw, kind, shape, order)
        return found

    def _encode(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"text that is encoded as {str(encoding)[:20]!r}")
        self._text_left -= len(text)
        if self._text_left < 0:
            raise pickle.UnpicklingError("the same text is unpacked again and again")
        return text.encode("latin-1")


def read_array_pickle(path: Path) -> Any:
    """Read a pickle of protocol 0 to 5 whose arrays become `PickledArray`.

    Args:
        path: the file.

    Returns:
        What was pickled: dictionaries, lists, tuples, text, numbers, and a `PickledArray` for each array.

    Raises:
        FileProblem: truncated, too large, damaged, or naming anything but arrays of numbers and text.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FileProblem(path, f"the pickle is larger than {MAX_BYTES >> 30} GiB", _REMEDY)
        with open(path, "rb") as stream:
            return _Unpickler(stream, size).load()
    except FileProblem:
        raise
    except (
        Exception
    ) as error:  # a damaged pickle calls anything with anything, and each objects in its own way
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise FileProblem(path, f"this pickle cannot be read ({said})", _REMEDY) from error
