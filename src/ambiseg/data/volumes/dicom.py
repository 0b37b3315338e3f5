"""One series of DICOM files as a volume: sorted by the position of its slices, decoded one slice at a time.

The names of the files mean nothing. The axes of the array are rows, columns and slices.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.limits import MAX_VALUES, check_size
from ambiseg.data.files.reading import IMAGE_SUFFIXES, one_line, suffix_of
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.volumes.unpacked import UNPACKED
from ambiseg.errors import AmbisegError

MOST_FILES = 10_000
"""Files of a folder that is looked at."""
MOST_FILE_BYTES = 1 << 26
UNEVEN = 0.05
"""By which part the distance of two slices may differ from the usual one."""

_TRIED = 20
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
"""Transfer syntaxes without compression."""
DICOMDIR = "1.2.840.10008.1.3.10"
"""Class of a list of files."""
_COPY_AGAIN = "copy or export the file again"
_TAGS = [
    "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "Rows", "Columns", "PhotometricInterpretation", "NumberOfFrames", "SamplesPerPixel", "ImageType",
]  # fmt: skip


@dataclass(frozen=True)
class _Slice:
    path: Path
    series: str
    shape: tuple[int, int]
    spacing: tuple[float, float]
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    thickness: float

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass(frozen=True)
class Series:
    """The files of a series in the order of their positions.

    Attributes:
        folder: of the files.
        files: in order.
        shape: rows and columns.
    """

    folder: Path
    files: tuple[Path, ...]
    shape: tuple[int, int]

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """The plane ``(1, H, W)``; those that cross the slices need all files, which are then kept."""
        if axis == 2:
            return self._pixels(self.files[index])[None]
        whole = self._whole()
        return whole[None, index] if axis == 0 else whole[None, :, index]

    def unpacked_bytes(self, axis: int) -> int:
        """The whole series for planes that cross its files."""
        height, width = self.shape
        return 0 if axis == 2 else 4 * height * width * len(self.files)

    def _whole(self) -> NDArray[Any]:
        def read() -> NDArray[Any]:
            return np.stack([self._pixels(path) for path in self.files], axis=-1)

        return UNPACKED.get(self.folder, self.shape, read)

    def _pixels(self, path: Path) -> NDArray[np.float32]:
        """Stored values times slope plus intercept."""
        try:
            content = pydicom_of(path).dcmread(path)
            values = np.asarray(content.pixel_array, np.float32)
            slope = float(content.get("RescaleSlope", 1))
            intercept = float(content.get("RescaleIntercept", 0))
        except AmbisegError:
            raise
        except Exception as error:
            raise FileProblem(path, f"its pixels cannot be read ({one_line(error)})", _COPY_AGAIN) from error
        if values.shape != self.shape:
            raise FileProblem(path, f"its pixels are {values.shape}, not {self.shape}", _COPY_AGAIN)
        return values * np.float32(slope) + np.float32(intercept)


def holds_dicom(folder: Path) -> bool:
    """Whether one of the first files of a folder, those left out that are images of other formats, is a DICOM file."""
    try:
        others = (
            Path(entry.path)
            for entry in os.scandir(folder)
            if suffix_of(entry.name) not in IMAGE_SUFFIXES and entry.is_file()
        )
        return any(_is_dicom(path) for path in itertools.islice(others, _TRIED))
    except OSError:
        return False


def read_series(folder: Path) -> tuple[Series, NDArray[np.float64]]:
    """The series in a folder and its ``(4, 4)`` affine to the axes right, anterior, superior.

    Raises:
        FileProblem: pydicom is missing, several series, gaps, two slices at one place, slices that are turned
            against each other or of different size, compressed pixels, or a damaged file.
    """
    pieces = [piece for path in _files(folder) if _is_dicom(path) and (piece := _header(path)) is not None]
    if not pieces:
        raise FileProblem(folder, "it holds no DICOM file", "name the folder of one series")
    counts = Counter(piece.series for piece in pieces)
    if len(counts) > 1:
        (one, many), (other, few) = counts.most_common(2)
        raise FileProblem(
            folder,
            f"it holds {len(counts)} series, such as {one} ({many} files) and {other} ({few} files)",
            "keep each series in a folder of its own",
        )
    _require_alike(pieces)
    first = pieces[0]
    places = [float(np.dot(piece.position, first.normal)) for piece in pieces]
    order = sorted(range(len(pieces)), key=lambda i: (places[i], pieces[i].path.name))
    pieces, places = [pieces[i] for i in order], [places[i] for i in order]
    step = _even_step(folder, pieces, places)
    check_size(folder, first.shape)
    if first.shape[0] * first.shape[1] * len(pieces) > MAX_VALUES:
        raise FileProblem(folder, f"{len(pieces)} slices of {first.shape} are too many", "cut the series")
    down, across = first.spacing
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(first.orientation[3:], down)
    affine[:3, 1] = np.multiply(first.orientation[:3], across)
    affine[:3, 2] = step
    affine[:3, 3] = pieces[0].position
    series = Series(folder, tuple(piece.path for piece in pieces), first.shape)
    return series, np.array([-1.0, -1.0, 1.0, 1.0])[:, None] * affine + 0.0


def _require_alike(pieces: list[_Slice]) -> None:
    first = pieces[0]
    for piece in pieces[1:]:
        turned = np.abs(np.subtract(piece.orientation, first.orientation)).max() > 1e-3
        spread = np.abs(np.subtract(piece.spacing, first.spacing)).max() > 1e-3 * min(first.spacing)
        for what, differs, ours, theirs in (
            ("size", piece.shape != first.shape, piece.shape, first.shape),
            ("orientation", turned, piece.orientation, first.orientation),
            ("pixel spacing", spread, piece.spacing, first.spacing),
        ):
            if differs:
                raise FileProblem(
                    piece.path,
                    f"its {what} is {ours}, that of {first.path.name} in the same series {theirs}",
                    "keep slices of one orientation and size in the folder",
                )


def _even_step(folder: Path, pieces: list[_Slice], places: list[float]) -> NDArray[np.float64]:
    """The vector from a slice to the next one in mm."""
    if len(pieces) == 1:
        return pieces[0].normal * pieces[0].thickness
    steps = np.diff(places)
    usual = float(np.median(steps))
    for i, step in enumerate(steps.tolist()):
        names = f"{pieces[i].path.name} and {pieces[i + 1].path.name}"
        if step < 1e-3:
            raise FileProblem(folder, f"{names} lie at one place ({places[i]:g} mm)", "keep one of the two")
        if abs(step - usual) > UNEVEN * usual:
            raise FileProblem(
                folder,
                f"{names} lie {step:g} mm apart, other slices {usual:g} mm",
                "a slice may be missing; export the series again",
            )
    along = np.subtract(pieces[-1].position, pieces[0].position)
    vector: NDArray[np.float64] = along / (len(pieces) - 1)
    return vector


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if len(found) > MOST_FILES:
        raise FileProblem(folder, f"it holds more than {MOST_FILES} files", "name the folder of one series")
    return found


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _header(path: Path) -> _Slice | None:
    """What the header says; None for a list of files (DICOMDIR)."""
    pydicom = pydicom_of(path)
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            problem = f"the file is larger than {MOST_FILE_BYTES >> 20} MiB"
            raise FileProblem(path, problem, "export one slice per file")
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.MediaStorageSOPClassUID == DICOMDIR:
            return None
        syntax = meta.TransferSyntaxUID
        if syntax not in PLAIN:
            remedy = "store it uncompressed, such as with gdcmconv --raw"
            raise FileProblem(path, f"its pixels are compressed ({syntax.name})", remedy)
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        if int(header.get("NumberOfFrames") or 1) != 1 or int(header.get("SamplesPerPixel") or 1) != 1:
            raise FileProblem(path, "it holds more than one grey plane", "export one grey slice per file")
        grey = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
        if grey != "MONOCHROME2":
            raise FileProblem(path, f"its pixels are {grey!r:.40}", "export it as MONOCHROME2")
        down, across = (float(value) for value in header.PixelSpacing)
        piece = _Slice(
            path,
            str(header.SeriesInstanceUID),
            (int(header.Rows), int(header.Columns)),
            (down, across),
            tuple(float(value) for value in header.ImageOrientationPatient),
            tuple(float(value) for value in header.ImagePositionPatient),
            float(header.get("SliceThickness") or 1),
        )
    except AmbisegError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged file makes it stumble over
        raise FileProblem(
            path, f"its DICOM header cannot be read ({one_line(error)})", _COPY_AGAIN
        ) from error
    numbers = (*piece.spacing, *piece.orientation, *piece.position, piece.thickness)
    sound = len(piece.orientation) == 6 and len(piece.position) == 3 and np.isfinite(numbers).all()
    if not sound or min(piece.spacing) <= 0 or abs(float(np.linalg.norm(piece.normal)) - 1) > 1e-2:
        raise FileProblem(
            path,
            f"its position {piece.position}, orientation {piece.orientation} and spacing {piece.spacing} are none",
            "correct the header",
        )
    check_size(path, piece.shape)
    return piece


def pydicom_of(path: Path) -> Any:
    """The package pydicom; `FileProblem` where it is not installed."""
    try:
        import pydicom
    except ImportError as error:
        raise FileProblem(
            path, "DICOM files need the package pydicom", "pip install 'ambiseg[dicom]'"
        ) from error
    return pydicom
