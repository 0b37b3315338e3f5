"""`convert`: predictions, or annotations, in the format of another program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ambiseg.atomic_write import replacing_folder
from ambiseg.data.files.reading import IMAGE_SUFFIXES, stem_of, suffix_of
from ambiseg.data.files.validation import check_name
from ambiseg.errors import AmbisegError, UnknownNameError, counted
from ambiseg.exchange.coco import write_coco
from ambiseg.exchange.cvat import write_cvat
from ambiseg.exchange.geotiff import write_geotiff
from ambiseg.exchange.images import Hypotheses, Images
from ambiseg.exchange.label_studio import write_label_studio
from ambiseg.exchange.napari import write_napari
from ambiseg.exchange.nifti import write_nifti
from ambiseg.exchange.outcome import Outcome
from ambiseg.exchange.settings import ConvertSettings

VERB = "convert"


@dataclass(frozen=True)
class Format:
    """A format of another program.

    Attributes:
        summary: what is written.
        write: writes images into a folder.
        options: fields of `ConvertSettings` that it obeys.
        shown: suffixes of images that the program shows; empty if it finds none by name.
    """

    summary: str
    write: Callable[[Images, Path, ConvertSettings], Outcome]
    options: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


_BROWSERS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
FORMATS = {
    "coco": Format("one JSON, run lengths or polygons", write_coco, ("polygons", "image_suffix")),
    "label-studio": Format(
        "tasks with predictions, and the labelling interface",
        write_label_studio,
        ("polygons", "image_suffix", "image_url"),
        _BROWSERS,
    ),
    "cvat": Format(
        "CVAT for images 1.1, and the labels of the task",
        write_cvat,
        ("polygons", "image_suffix"),
        (*_BROWSERS, ".tif", ".tiff"),
    ),
    "geotiff": Format("a GeoTIFF for each mask", write_geotiff, ("allow_no_georeference",)),
    "nifti": Format("a NIfTI for each image, masks along the fourth axis", write_nifti),
    "napari": Format("layers for each image, and a script that shows them", write_napari),
}
"""Formats by name."""


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        format: name of the format.
        folder: where it lies.
        images: number of images.
        masks: number of hypotheses that were written, of all images together.
        remarks: what a user should know, a sentence each.
    """

    format: str
    folder: Path
    images: int
    masks: int
    remarks: tuple[str, ...]


def convert(
    images: Images,
    to: str,
    out: str | Path,
    settings: ConvertSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> Converted:
    """Write images with their masks in the format of another program, one image in memory at a time.

    Args:
        images: `PredictedImages` or `AnnotatedImages`.
        to: a key of `FORMATS`.
        out: folder to make; all of it is written, or nothing.
        settings: choices of the format.
        overwrite: replace an earlier conversion.
        progress: called with the images done and their number.

    Raises:
        UnknownNameError: no such format.
        AmbisegError: a package is missing, a file is damaged, or ``out`` cannot be written.

    Example:
        >>> images = PredictedImages("predictions")                                     # doctest: +SKIP
        >>> convert(images, "coco", "coco", ConvertSettings(polygons=True)).masks       # doctest: +SKIP
        120
    """
    if to not in FORMATS:
        raise UnknownNameError("format", to, FORMATS)
    settings = settings or ConvertSettings()
    passing = _Passing(images, settings.image_suffix, progress or (lambda done, total: None))
    with replacing_folder(Path(out), overwrite, VERB, images.inputs) as partial:
        outcome = FORMATS[to].write(passing, partial, settings)
    remarks = (*outcome.remarks, *_names_of_no_use(passing.files, to))
    return Converted(to, Path(out), len(images), passing.masks - outcome.left_out, remarks)


def _names_of_no_use(files: Sequence[str], to: str) -> list[str]:
    """The remarks that a program which finds images by name cannot show some of them, or tell them apart."""
    shown, remarks = FORMATS[to].shown, []
    if not shown:
        return []
    if hidden := [name for name in files if suffix_of(name) not in shown]:
        remarks.append(
            f"{to} shows no images with names such as {hidden[0]!r} ({counted(len(hidden), 'image')}): save"
            " them as PNG and convert again with --image-suffix .png"
        )
    if same := [name for name, count in Counter(files).items() if count > 1]:
        remarks.append(f"{to} finds images by name, but several are named {same[0]!r}: convert them in parts")
    return remarks


class _Passing(Images):
    """The same images under names with the wanted suffix, counted as they pass.

    Attributes:
        masks: number of hypotheses so far.
        files: names of the images' files so far.
    """

    def __init__(
        self, images: Images, suffix: str | None, progress: Callable[[int, int | None], None]
    ) -> None:
        self.images, self.suffix, self.progress = images, suffix, progress
        self.place, self.inputs, self.labels = images.place, images.inputs, images.labels
        self.masks = 0
        self.files: list[str] = []

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Hypotheses]:
        names = set[str]()
        for i, one in enumerate(self.images):
            check_name(one.name, "name of an image")
            if one.name in names:
                raise AmbisegError(f"{self.place} holds two images {one.name!r}: give each its own name")
            names.add(one.name)
            if self.suffix is not None:
                stem = stem_of(one.image) if suffix_of(one.image) in IMAGE_SUFFIXES else one.image
                one = replace(one, image=stem + self.suffix)
            self.masks += len(one.masks)
            self.files.append(one.image)
            yield one
            self.progress(i + 1, len(self.images))
