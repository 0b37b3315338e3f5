"""CVAT exports (CVAT for images 1.1): polygons, boxes and masks of several annotators become label maps.

::

    annotations/<annotator>.xml         one file for each annotator, or one whose shapes have an attribute ``annotator``
    images/<name>

An image that the file of an annotator lists without shapes is an empty mask. Shapes of a greater ``z_order``
are on top. Reference: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.coco import imported_drawings
from ambiseg.data.importers.coco_shapes import runs_of
from ambiseg.data.importers.reading import found_files, nothing_found
from ambiseg.data.importers.settings import CocoSettings
from ambiseg.data.importers.tool_files import Drawings, ToolImages, require_small
from ambiseg.errors import AmbisegError

_WRONG = (KeyError, TypeError, ValueError, OverflowError)


def read_cvat(source: Path, settings: CocoSettings) -> Imported:
    """Open exports and images; an image with a wrong annotation or file is left out and noted.

    Raises:
        AmbisegError: no export, one that is no such XML, no shape in it, or no package defusedxml.
    """
    files = found_files(source, "annotations/*.xml") or found_files(source, "*.xml")
    if not files:
        raise nothing_found(source, "annotations/<annotator>.xml with images/")
    images, drawings = ToolImages(source), Drawings()
    for file in files:
        for element in _images(file):
            _read_image(element, file, len(files) > 1, images, drawings)
    drawings.require_classes(source)
    return imported_drawings(source, images.folder, drawings.found, settings, "CVAT annotations")


def _images(file: Path) -> list[Any]:
    from xml.etree.ElementTree import ParseError

    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import parse
    except ImportError as error:
        raise AmbisegError(
            f"{file}: reading XML needs the package defusedxml: pip install 'ambiseg[dicom]'"
        ) from error
    require_small(file)
    try:
        root = parse(file, forbid_dtd=True).getroot()
    except (ParseError, DefusedXmlException, OSError, LookupError, UnicodeError) as error:
        raise FileProblem(file, f"this XML cannot be read ({error})", "export it again") from error
    if root.tag != "annotations":
        raise FileProblem(file, f"it begins with <{root.tag}>", "export as 'CVAT for images 1.1'")
    return list(root.iter("image"))


def _read_image(element: Any, file: Path, by_file: bool, images: ToolImages, drawings: Drawings) -> None:
    where, image = f"{file}, image {element.get('name')!r}", None
    try:
        image = images.find(element.attrib["name"], where)
        size = int(element.attrib["height"]), int(element.attrib["width"])
        if by_file:
            drawings.start(image, file.stem, size, where)
        for shape in sorted(element, key=lambda shape: int(shape.get("z_order", 0))):
            if shape.tag not in ("polygon", "box", "mask"):
                raise FileProblem(
                    where, f"shapes of the kind {shape.tag!r} are not read", "draw polygons or masks"
                )
            names = [
                one.text for one in shape.iter("attribute") if one.get("name") == "annotator" and one.text
            ]
            who = file.stem if by_file else names[0] if names else "mask"
            drawing = drawings.start(image, who, size, where)
            drawings.add(drawing, shape.get("label"), _shape(shape, size), where)
    except (AmbisegError, *_WRONG) as error:
        drawings.spoil(image, error, where)


def _shape(shape: Any, size: tuple[int, int]) -> Any:
    """Polygons or run lengths as COCO has them."""
    if shape.tag == "polygon":
        return [[float(part) for point in shape.attrib["points"].split(";") for part in point.split(",")]]
    if shape.tag == "box":
        left, top, right, low = (float(shape.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
        return [[left, top, right, top, right, low, left, low]]
    left, top, width, height = (int(shape.attrib[name]) for name in ("left", "top", "width", "height"))
    runs = np.array([int(run) for run in shape.attrib["rle"].split(",")])
    if min(left, top) < 0 or min(width, height) < 1 or top + height > size[0] or left + width > size[1]:
        raise ValueError("its mask leaves the image")
    if (runs < 0).any() or runs.max() > width * height or runs.sum() != width * height:
        raise ValueError(f"its runs do not fill the {width * height} pixels")
    mask = np.zeros(size, bool)
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask[top : top + height, left : left + width] = inside
    return runs_of(mask)
