"""`Volume`: the grid of a volume on disk, whose planes are read one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.nifti import read_header
from ambiseg.data.files.reading import NIFTI_SUFFIXES, NRRD_SUFFIXES, VOLUME_SUFFIXES, suffix_of
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.volumes.dicom import holds_dicom, read_series
from ambiseg.data.volumes.nrrd import read_nrrd
from ambiseg.data.volumes.settings import PLANE_NAMES
from ambiseg.data.volumes.stored import Planes, StoredArray
from ambiseg.errors import AmbisegError

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Volume:
    """A volume on disk. It holds no values, so it is cheap to keep and to send to another process.

    Attributes:
        path: the file, or the folder of a DICOM series.
        shape: extents of the three axes, in the order in which nibabel, pynrrd and (rows, columns, slices) of
            pydicom give them.
        channels: values of each voxel.
        spacing: distance of neighbours along each axis in mm.
        affine: ``(4, 4)`` float64, from voxels to mm along the axes right, anterior, superior. That of a NIfTI file
            in mm is as nibabel gives it, bit by bit; of NRRD and DICOM, signs are changed where they point elsewhere.
        axis_names: what a plane across each axis is called: sagittal, coronal or axial.
        placed: whether the file says where it lies; else the affine holds the spacing only.
        planes: reads them.
    """

    path: Path
    shape: tuple[int, int, int]
    channels: int
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64] = field(compare=False)
    axis_names: tuple[str, str, str]
    placed: bool
    planes: Planes = field(repr=False)

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """The plane ``(C, H, W)`` at ``index`` of an axis; height and width are the other axes in their order.

        Values are scaled as the file says. Only this plane is read of a NIfTI or NRRD file that is not compressed;
        compressed ones are unpacked once.

        Raises:
            IndexError: no such axis or plane.
            FileProblem: the file is truncated or damaged.
        """
        if not (0 <= axis < 3 and 0 <= index < self.shape[axis]):
            raise IndexError(f"{self.path}: no plane {index} of axis {axis} in a volume of {self.shape}")
        return _checked(self.path, lambda: self.planes.plane(axis, index))

    @property
    def voxel_ml(self) -> float:
        """Millilitres of a voxel; axes need not be at right angles, as where a CT gantry was tilted."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def unpacked_bytes(self, axis: int) -> int:
        """Bytes that are kept once a plane across this axis was read; 0 where only the plane itself is read."""
        return self.planes.unpacked_bytes(axis)

    def axis(self, name: str | int) -> int:
        """The number of an axis, of its number or the name of the planes that cross it.

        Raises:
            AmbisegError: another name or number.
        """
        if name in self.axis_names:
            return self.axis_names.index(str(name))
        if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < 3:
            return name
        raise AmbisegError(f"axis {name!r} of a volume is unknown: use {', '.join(PLANE_NAMES)}, 0, 1 or 2")


def is_volume(path: str | PathLike[str]) -> bool:
    """Whether a path is that of a volume: NRRD, NIfTI of more than one slice, or a folder with DICOM files.

    Files that cannot be read are none.
    """
    found = Path(path)
    try:
        if found.is_dir():
            return holds_dicom(found)
        suffix = suffix_of(found)
        if suffix in NIFTI_SUFFIXES:
            return found.is_file() and read_header(found).grid[2] > 1
        return suffix in NRRD_SUFFIXES and found.is_file()
    except Exception:  # the reader says what is wrong with it
        return False


def open_volume(path: str | PathLike[str]) -> Volume:
    """Read the header of a volume: ``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr``, or a folder with one DICOM series.

    Raises:
        FileProblem: missing, of another format, damaged, too large, or a package is missing.
    """
    found = Path(path)
    if not found.exists():
        raise FileProblem(found, "there is no such file or folder", "correct the path")
    suffix = suffix_of(found)
    if found.is_dir():
        series, affine = _checked(found, lambda: read_series(found))
        return _volume(found, (*series.shape, len(series.files)), 1, affine, series, True)
    if suffix not in VOLUME_SUFFIXES:
        raise FileProblem(
            found,
            f"{suffix!r} is no format of volumes",
            f"use {', '.join(VOLUME_SUFFIXES)} or a DICOM folder",
        )
    array, affine, placed = _checked(
        found, lambda: _nifti(found) if suffix in NIFTI_SUFFIXES else read_nrrd(found)
    )
    array.check(found)
    return _volume(found, array.grid, array.channels, affine, array, placed)


def _nifti(path: Path) -> tuple[StoredArray, NDArray[np.float64], bool]:
    header = read_header(path)
    shape = (*header.shape, 1, 1)[: max(3, len(header.shape))]
    if sum(extent > 1 for extent in shape[3:]) > 1:
        raise FileProblem(path, f"the array has shape {shape}", "save one volume, with one axis of channels")
    packed = suffix_of(path) == ".nii.gz"
    if packed:
        array = StoredArray(path, shape, header.dtype, 0, "gzip", skip=header.offset, scaling=header.scaling)
    else:
        array = StoredArray(path, shape, header.dtype, header.offset, scaling=header.scaling)
    affine = np.diag([header.unit] * 3 + [1.0]) @ header.affine if header.unit != 1 else header.affine
    return array, affine, header.sform is not None or header.qform is not None


def _volume(
    path: Path,
    shape: tuple[int, int, int],
    channels: int,
    affine: NDArray[np.float64],
    planes: Planes,
    placed: bool,
) -> Volume:
    from nibabel.orientations import io_orientation

    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    flat = not np.isfinite(affine).all() or not lengths.all()
    if flat or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise FileProblem(
            path, "its affine is singular or not finite", "write the affine of the scan into the header"
        )
    x, y, z = (PLANE_NAMES[int(axis)] for axis in io_orientation(affine)[:, 0])
    i, j, k = lengths.tolist()
    return Volume(path, shape, channels, (i, j, k), affine, (x, y, z), placed, planes)


def _checked(path: Path, read: Callable[[], _Read]) -> _Read:
    """What ``read`` returns; whatever goes wrong becomes a `FileProblem`."""
    try:
        return read()
    except AmbisegError:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise FileProblem(
            path,
            f"cannot be read as a volume ({line})",
            "it may be truncated or damaged; copy or export it again",
        ) from error
