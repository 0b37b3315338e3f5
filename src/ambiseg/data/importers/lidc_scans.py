"""CT series as DICOM files: found by SeriesInstanceUID in their headers, put in order, decoded one slice at a
time.

Folder and file names mean nothing here, since every download tool chooses its own. What is wrong with a file
or a series is noted with its remedy, and the rest can be used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.reading import check_size, one_line
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.volumes.dicom import DICOMDIR, PLAIN, pydicom_of
from ambiseg.errors import AmbisegError

_MAX_FILE_BYTES = 1 << 26
_DEFLATED = "1.2.840.10008.1.2.1.99"
_COPY_AGAIN = "download the file again"
_UPRIGHT = 0.85
"""Cosine of the largest tilt of a gantry, about 30 degrees."""
_TAGS = [
    "SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "StudyInstanceUID", "ImagePositionPatient", "PixelSpacing",
    "SliceThickness", "InstanceNumber", "Rows", "Columns", "ImageOrientationPatient", "PhotometricInterpretation",
    "NumberOfFrames", "SamplesPerPixel", "RescaleSlope", "RescaleIntercept", "RescaleType",
]  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """One file of a series, whose pixels are not decoded yet.

    Attributes:
        path: the file.
        series: SeriesInstanceUID.
        study: StudyInstanceUID.
        z: position in mm, the third number of ImagePositionPatient.
        number: InstanceNumber.
        shape: rows and columns.
        spacing: mm between pixels.
        thickness: SliceThickness in mm.
    """

    path: Path
    series: str
    study: str
    z: float
    number: int
    shape: tuple[int, int]
    spacing: float
    thickness: float


def find_series(root: Path, wanted: Collection[str], problems: list[FileProblem]) -> dict[str, list[Slice]]:
    """Slices of the wanted CT series below ``root``, in the order of their positions.

    Args:
        root: folder to search at any depth.
        wanted: SeriesInstanceUIDs.
        problems: added to: files without a readable header, a series in two folders or two series in a study,
            two slices at one position, missing slices.

    Raises:
        AmbisegError: pydicom is not installed.
    """
    pydicom_of(root)
    found: dict[str, list[Slice]] = {}
    studies: dict[str, set[str]] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            piece = _header(path)
        except FileProblem as problem:
            problems.append(problem)
            continue
        if piece is not None:
            studies.setdefault(piece.study, set()).add(piece.series)
            found.setdefault(piece.series, []).append(piece)
    for series in sorted(set(found) - set(wanted)):
        slices = found.pop(series)
        others = studies[slices[0].study] & set(wanted)
        if others:
            said = f"a second CT series of a study, without annotations; series {min(others)} of it was used"
            problems.append(FileProblem(slices[0].path.parent, said, "move it away if it is not needed"))
    return {series: _in_order(found[series], problems) for series in sorted(found)}


def _in_order(slices: Iterable[Slice], problems: list[FileProblem]) -> list[Slice]:
    folders: dict[Path, list[Slice]] = {}
    for piece in slices:
        folders.setdefault(piece.path.parent, []).append(piece)
    fullest, *copies = sorted(folders, key=lambda folder: (-len(folders[folder]), folder))
    for folder in copies:
        said = f"series {folders[folder][0].series} lies in {fullest} too, which was used"
        problems.append(FileProblem(folder, said, "keep one of the two"))
    ordered: list[Slice] = []
    for piece in sorted(folders[fullest], key=lambda piece: (piece.z, piece.number, piece.path)):
        if ordered and ordered[-1].z == piece.z:
            said = f"its position {piece.z:g} mm is that of {ordered[-1].path.name} too, which was used"
            problems.append(FileProblem(piece.path, said, "keep one of the two"))
        else:
            ordered.append(piece)
    step = slice_distance(ordered)
    for one, other in pairwise(ordered):
        missing = round((other.z - one.z) / step) - 1
        if missing > 0:
            said = f"{missing} slice(s) are missing between {one.z:g} and {other.z:g} mm"
            problems.append(FileProblem(fullest, said, "download the series again"))
    return ordered


def slice_distance(slices: list[Slice]) -> float:
    """The usual distance between neighbours in mm; 1 where there is but one."""
    return float(np.median(np.diff([piece.z for piece in slices]))) if len(slices) > 1 else 1.0


def _header(path: Path) -> Slice | None:
    """What the header says; None for a file that is no DICOM file, or DICOM but no CT slice, such as a
    localizer.

    Raises:
        FileProblem: a damaged header, or one that asks for too much memory.
    """
    pydicom = pydicom_of(path)
    try:
        with open(path, "rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                if path.suffix.lower() == ".dcm":
                    raise FileProblem(path, "this is no DICOM file", _COPY_AGAIN)
                return None
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise FileProblem(
                path, f"the file is larger than {_MAX_FILE_BYTES >> 20} MiB", "export one slice per file"
            )
        meta = pydicom.filereader.read_file_meta_info(path)
        syntax = meta.TransferSyntaxUID
        if meta.MediaStorageSOPClassUID == DICOMDIR:
            return None
        header = pydicom.Dataset()
        if syntax != _DEFLATED:  # which would be inflated whole, to whatever size
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            if header.Modality != "CT" or "LOCALIZER" in (header.get("ImageType") or ()):
                return None
        if syntax not in PLAIN:
            remedy = "store it uncompressed, such as with gdcmconv --raw"
            raise FileProblem(path, f"its pixels are compressed ({syntax.name})", remedy)
        _check_kind(path, header)
        down, across = (float(value) for value in header.PixelSpacing)
        if not (0.05 < down < 20 and abs(down - across) < 1e-3 * down):
            raise FileProblem(path, f"its pixels are {down} x {across} mm", "resample it to square pixels")
        shape = (int(header.Rows), int(header.Columns))
        check_size(path, shape)
        z, thickness = float(header.ImagePositionPatient[2]), float(header.SliceThickness)
        if not (np.isfinite(z) and 0 < thickness < 100):
            raise FileProblem(
                path, f"its position is {z} mm and its thickness {thickness} mm", "correct the header"
            )
        number = int(header.get("InstanceNumber") or 0)
        return Slice(
            path,
            str(header.SeriesInstanceUID),
            str(header.StudyInstanceUID),
            z,
            number,
            shape,
            down,
            thickness,
        )
    except AmbisegError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged file makes it stumble over
        raise FileProblem(
            path, f"its DICOM header cannot be read ({one_line(error)})", _COPY_AGAIN
        ) from error


def _check_kind(path: Path, header: Any) -> None:
    """Raise `FileProblem` unless it is one upright axial plane of Hounsfield units.

    Outlines are given in the pixels of a slice, at a height: in a slice that is mirrored, turned or not
    axial they would mean something else.
    """
    if int(header.get("NumberOfFrames") or 1) != 1 or int(header.get("SamplesPerPixel") or 1) != 1:
        raise FileProblem(path, "it holds more than one plane", "export one grey slice per file")
    grey = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
    if grey != "MONOCHROME2":
        raise FileProblem(path, f"its pixels are {grey}, which a CT is not", "export it as MONOCHROME2")
    if "RescaleSlope" not in header or "RescaleIntercept" not in header or not float(header.RescaleSlope):
        raise FileProblem(
            path, "no RescaleSlope and RescaleIntercept make Hounsfield units of it", _COPY_AGAIN
        )
    unit = str(header.get("RescaleType") or "HU")
    if unit not in ("HU", "US"):  # US: unspecified, as older scanners write
        raise FileProblem(path, f"its values are {unit}, no Hounsfield units", "export it as a CT in HU")
    axes = [float(value) for value in header.get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0)]
    if len(axes) != 6 or min(axes[0], axes[4]) < _UPRIGHT:
        raise FileProblem(path, f"its axes are {axes}, no upright axial slice", "export axial slices")


def hounsfield(piece: Slice) -> NDArray[np.float32]:
    """The pixels of a slice in Hounsfield units, slope times value plus intercept.

    Raises:
        FileProblem: truncated or damaged, or not one plane of the size that its header says.
    """
    try:
        content = pydicom_of(piece.path).dcmread(piece.path)
        values = np.asarray(content.pixel_array, np.float32)
        slope, intercept = float(content.RescaleSlope), float(content.RescaleIntercept)
    except AmbisegError:
        raise
    except Exception as error:
        raise FileProblem(
            piece.path, f"its pixels cannot be read ({one_line(error)})", _COPY_AGAIN
        ) from error
    if values.shape != piece.shape or not np.isfinite(slope * intercept):
        raise FileProblem(
            piece.path, f"its pixels are {values.shape}, its header says {piece.shape}", _COPY_AGAIN
        )
    return values * np.float32(slope) + np.float32(intercept)
