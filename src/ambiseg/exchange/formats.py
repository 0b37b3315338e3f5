"""`convert`: predictions, or annotations, in the format of another program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ambiseg.atomic_write import replacing_folder
from ambiseg.data.files.validation import check_name
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.exchange.coco import write_coco
from ambiseg.exchange.cvat import write_cvat
from ambiseg.exchange.geotiff import write_geotiff
from ambiseg.exchange.images import Hypotheses, Images
from ambiseg.exchange.label_studio import write_label_studio
from ambiseg.exchange.napari import write_napari
from ambiseg.exchange.nifti import write_nifti
from ambiseg.exchange.settings import ConvertSettings

VERB = "convert"


@dataclass(frozen=True)
class Format:
    """A format of another program.

    Attributes:
        summary: what is written.
        write: writes images into a folder and returns what a user should know.
        options: fields of `ConvertSettings` that it obeys.
    """

    summary: str
    write: Callable[[Images, Path, ConvertSettings], list[str]]
    options: tuple[str, ...] = ()


FORMATS = {
    "coco": Format("one JSON, run lengths or polygons", write_coco, ("polygons",)),
    "label-studio": Format(
        "tasks with predictions, and the labelling interface", write_label_studio, ("polygons", "image_url")
    ),
    "cvat": Format("CVAT for images 1.1, and the labels of the task", write_cvat, ("polygons",)),
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
        masks: number of hypotheses of all images together.
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
    counted = _Counted(images, progress or (lambda done, total: None))
    with replacing_folder(Path(out), overwrite, VERB, images.inputs) as partial:
        remarks = FORMATS[to].write(counted, partial, settings or ConvertSettings())
    return Converted(to, Path(out), len(images), counted.masks, tuple(remarks))


class _Counted(Images):
    """The same images, counted as they pass; each has a name of its own that can name a file."""

    def __init__(self, images: Images, progress: Callable[[int, int | None], None]) -> None:
        self.images, self.progress, self.masks = images, progress, 0
        self.place, self.inputs, self.labels = images.place, images.inputs, images.labels

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Hypotheses]:
        names = set[str]()
        for i, one in enumerate(self.images):
            check_name(one.name, "name of an image")
            if one.name in names:
                raise AmbisegError(f"{self.place} holds two images {one.name!r}: give each its own name")
            names.add(one.name)
            self.masks += len(one.masks)
            yield one
            self.progress(i + 1, len(self.images))
