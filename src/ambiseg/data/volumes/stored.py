"""Where the values of a volume lie: one array in a file, mapped into memory or unpacked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.limits import MAX_RATIO, MAX_VALUES, check_size
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.volumes.unpacked import UNPACKED, Encoding, unpack


class Planes(Protocol):
    """What reads the planes of a volume."""

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """The plane ``(C, H, W)`` at ``index`` of one of the three axes of space."""
        ...

    def unpacked_bytes(self, axis: int) -> int:
        """Bytes that are kept once a plane across this axis was read."""
        ...


@dataclass(frozen=True)
class StoredArray:
    """One array in one file, its first axis the fastest.

    Attributes:
        path: the file with the values.
        shape: of all axes.
        dtype: of the stored values, with their order of bytes.
        offset: byte where the array begins, or where the compressed part does.
        encoding: of the values.
        skip: unpacked bytes before the array.
        space: the three axes of space, others hold channels.
        scaling: slope and intercept of the values; None if they are not scaled.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    encoding: Encoding = "raw"
    skip: int = 0
    space: tuple[int, int, int] = (0, 1, 2)
    scaling: tuple[float, float] | None = None

    @property
    def length(self) -> int:
        """Bytes of the array."""
        values = 1
        for extent in self.shape:
            values *= extent
        return values * self.dtype.itemsize

    @property
    def grid(self) -> tuple[int, int, int]:
        """Extents of the three axes of space."""
        x, y, z = (self.shape[axis] for axis in self.space)
        return x, y, z

    @property
    def channels(self) -> int:
        """Values of each voxel."""
        x, y, z = self.grid
        return self.length // self.dtype.itemsize // (x * y * z)

    def check(self, file: Path) -> None:
        """Raise `FileProblem` if the array is too large to be decoded, or larger than its file can be.

        Nothing of the array is read. A mapped array takes no memory, so it has only a limit for its planes.
        """
        x, y, z = sorted(self.grid)
        check_size(file, (self.channels, y, z))
        values, size = self.length // self.dtype.itemsize, self.path.stat().st_size
        if self.encoding == "raw":
            if size < self.offset + self.length:
                raise FileProblem(
                    file,
                    f"it has {size} of {self.offset + self.length} bytes",
                    "it may be truncated; copy or export it again",
                )
            return
        if values > MAX_VALUES:
            raise FileProblem(
                file,
                f"a compressed volume of {' x '.join(map(str, self.shape))} values ({values}) is more than the"
                f" limit of {MAX_VALUES}",
                "store it uncompressed, which is read slice by slice, or cut it",
            )
        if self.encoding == "gzip" and self.length > MAX_RATIO * size + (1 << 16):
            raise FileProblem(
                file,
                f"its header says {self.length} bytes, more than its {size} compressed bytes can hold",
                "it may be truncated; copy or export it again",
            )

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """The plane ``(C, H, W)``; only its own bytes are read of a file that is not compressed."""
        height, width = (other for i, other in enumerate(self.space) if i != axis)
        plane = np.moveaxis(self._array(), (height, width, self.space[axis]), (-3, -2, -1))[..., index]
        extents = [side for i, side in enumerate(self.grid) if i != axis]
        values = np.ascontiguousarray(plane).reshape(-1, *extents)
        return values if self.scaling is None else scaled(values, self.scaling)

    def unpacked_bytes(self, axis: int) -> int:
        """The whole array if it is compressed."""
        return 0 if self.encoding == "raw" else self.length

    def _array(self) -> NDArray[Any]:
        if self.encoding == "raw":
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order="F")
        content = UNPACKED.get(self.path, (self.offset, self.skip, self.length), self._unpacked)
        return content.view(self.dtype).reshape(self.shape, order="F")

    def _unpacked(self) -> NDArray[np.uint8]:
        return unpack(self.path, self.encoding, self.offset, self.length, self.skip)


def scaled(values: NDArray[Any], scaling: tuple[float, float]) -> NDArray[Any]:
    """Slope times value plus intercept, in the number type that nibabel chooses."""
    from nibabel.volumeutils import apply_read_scaling

    found: NDArray[Any] = apply_read_scaling(values, *(np.asanyarray(number) for number in scaling))
    return found
