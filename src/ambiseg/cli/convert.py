"""``ambiseg convert``: predictions, or annotations, in the formats of other programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from ambiseg.cli.console import progress, show, show_json, warn
from ambiseg.cli.parsing import parse
from ambiseg.errors import AmbisegError, counted

if TYPE_CHECKING:
    from ambiseg.exchange.images import Images


@dataclass(frozen=True)
class ConvertArguments:
    """Write predictions in the format of another program.

    PREDICTIONS is a folder of 'ambiseg predict', or the folder of one image in it. In its place, --data
    names a data set whose annotations are written."""

    predictions: Positional[tuple[Path, ...]]
    """Folder of predictions."""
    to: Literal["coco", "label-studio", "cvat", "geotiff", "nifti", "napari"]
    """Format."""
    out: Path
    """Folder to make."""
    data: Path | None = None
    """Data set whose annotations are written, in place of predictions."""
    split: str = "test"
    """Which split of it."""
    images: Path | None = None
    """Folder of the images, where they are no longer where they were predicted (geotiff, napari)."""
    polygons: bool = False
    """Outlines in place of run lengths (coco, label-studio, cvat)."""
    image_suffix: str | None = None
    """Suffix of the names of images in place of their own, such as .png (coco, label-studio, cvat)."""
    image_url: str = "/data/local-files/?d="
    """What stands before the name of an image in its address (label-studio)."""
    allow_no_georeference: bool = False
    """Write images without georeference as plain TIFF; else they are refused (geotiff)."""
    overwrite: bool = False
    """Replace an earlier conversion."""
    json: bool = False
    """Print the outcome as JSON."""


def run(args: list[str]) -> int:
    """Convert and say what was written."""
    arguments = parse(ConvertArguments, args, "ambiseg convert")
    from ambiseg.exchange.formats import FORMATS, convert
    from ambiseg.exchange.settings import ConvertSettings

    given = {field.name: getattr(arguments, field.name) for field in fields(ConvertSettings)}
    settings, default = ConvertSettings(**given), ConvertSettings()
    for name, value in given.items():
        if value != getattr(default, name) and name not in FORMATS[arguments.to].options:
            suited = ", ".join(word for word, one in FORMATS.items() if name in one.options)
            option = name.replace("_", "-")
            raise AmbisegError(f"--{option} is for {suited}, not for {arguments.to}: leave it out")
    images = _images(arguments)
    with progress("converting", lines=not arguments.json) as update:
        done = convert(
            images, arguments.to, arguments.out, settings, overwrite=arguments.overwrite, progress=update
        )
    if arguments.json:
        show_json(asdict(done))
    else:
        written = f"{counted(done.images, 'image')} with {counted(done.masks, 'mask')}"
        show(f"{written} written to {done.folder} ({done.format})")
    for remark in done.remarks:
        warn(remark)
    return 0


def _images(arguments: ConvertArguments) -> Images:
    from ambiseg.data.source import open_split
    from ambiseg.exchange.images import AnnotatedImages, PredictedImages

    if len(arguments.predictions) + (arguments.data is not None) != 1:
        raise AmbisegError("name one folder of predictions, or a data set with --data")
    if arguments.data is None:
        return PredictedImages(arguments.predictions[0], arguments.images)
    return AnnotatedImages(arguments.data, open_split(arguments.data, arguments.split), arguments.images)
