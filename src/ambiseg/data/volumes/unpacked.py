"""Compressed volumes, unpacked once and kept while there is room: slices in any order cost no second unpacking.

Each process has its own store. A worker process that is forked begins with an empty one.
"""

from __future__ import annotations

import bz2
import gzip
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.nifti import MAX_REST_BYTES

Encoding = Literal["raw", "gzip", "bzip2"]

MOST_BYTES = 1 << 30
"""Bytes of unpacked volumes that one process keeps: four CT scans of 512x512x500 voxels; more where an image and its
masks take more (`Unpacked.make_room`)."""

_CHUNK = 1 << 20


class Unpacked:
    """Arrays of bytes by file, the least recently used of which is dropped first.

    Args:
        most: bytes that are kept.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.most = most
        self.clear()

    def clear(self) -> None:
        """Forget everything, also who holds the lock: it may be a thread of the parent process."""
        self._lock = threading.Lock()
        self._arrays: OrderedDict[object, NDArray[Any]] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes that are kept now."""
        return sum(array.nbytes for array in self._arrays.values())

    def make_room(self, size: int) -> None:
        """Keep as many bytes from now on, so that an image and its masks never push each other out."""
        self.most = max(self.most, size)

    def get(self, path: Path, part: object, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """A part of a file, by ``read`` unless it is kept; a file that was changed is read again."""
        found = path.stat()
        key = (str(path), found.st_mtime_ns, found.st_size, part)
        with self._lock:
            array = self._arrays.get(key)
            if array is None:
                array = read()
                array.flags.writeable = False
                self._arrays[key] = array
                while self.size > self.most and len(self._arrays) > 1:
                    self._arrays.popitem(last=False)
            self._arrays.move_to_end(key)
        return array


UNPACKED = Unpacked()
"""The store of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=UNPACKED.clear)


def unpack(path: Path, encoding: Encoding, offset: int, length: int, skip: int = 0) -> NDArray[np.uint8]:
    """The bytes of a compressed file, read to its end so that its checksum counts.

    Args:
        path: the file.
        encoding: how it is compressed.
        offset: where the compressed part begins.
        length: of the unpacked bytes that are returned.
        skip: unpacked bytes before them.

    Raises:
        EOFError, OSError, ValueError: truncated, damaged, or longer than ``length`` and some rest.
    """
    with open(path, "rb") as raw:
        raw.seek(offset)
        stream = gzip.GzipFile(fileobj=raw) if encoding == "gzip" else bz2.BZ2File(raw)
        with stream:
            if len(stream.read(skip)) < skip:
                raise EOFError(f"it ends before its values, which begin at byte {skip}")
            content = np.empty(length, np.uint8)
            view, place = content.data, 0
            while place < length and (got := stream.readinto(view[place : place + _CHUNK])):
                place += got
            if place < length:
                raise EOFError(f"it has {skip + place} of {skip + length} bytes")
            rest = 0
            while block := stream.read(_CHUNK):
                rest += len(block)
                if rest > MAX_REST_BYTES:
                    raise ValueError(f"it holds more than the {skip + length} bytes that its header says")
    return content
