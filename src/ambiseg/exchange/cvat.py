"""CVAT for images 1.1: one XML with a shape for each class of each hypothesis, and the labels of the task.

Reference: https://docs.cvat.ai/docs/other/xml_format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

import numpy as np
from numpy.typing import NDArray

from ambiseg.atomic_write import write_json
from ambiseg.exchange.images import Hypotheses, Images
from ambiseg.exchange.outcome import Outcome, without_foreground
from ambiseg.exchange.outlines import polygons
from ambiseg.exchange.runs import bounding_box, run_lengths
from ambiseg.exchange.settings import ConvertSettings, foreground, objects
from ambiseg.exchange.texts import hex_color, xml_text
from ambiseg.labels import LabelSpace

FILE, LABELS = "annotations.xml", "labels.json"
ATTRIBUTES = ("hypothesis", "probability", "annotator")


def mask_rle(mask: NDArray[Any]) -> dict[str, str]:
    """The attributes ``rle``, ``left``, ``top``, ``width`` and ``height`` of a mask that is not empty.

    Run lengths go row by row through the bounding box, of pixels outside and inside in turn, outside first.

    Args:
        mask: ``(H, W)``; what is not 0 counts.

    Example:
        >>> mask_rle(np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1]]))
        {'rle': '1, 3', 'left': '1', 'top': '1', 'width': '2', 'height': '2'}
    """
    left, top, width, height = bounding_box(mask)
    inside = np.asarray(mask)[top : top + height, left : left + width]
    return {
        "rle": ", ".join(map(str, run_lengths(inside.ravel()).tolist())),
        **{"left": str(left), "top": str(top), "width": str(width), "height": str(height)},
    }


def polygon_points(mask: NDArray[Any]) -> list[str]:
    """The polygons of a mask, each as ``x,y;x,y;...``; see `ambiseg.exchange.polygons`.

    Example:
        >>> polygon_points(np.ones((1, 2)))
        ['0.0,0.0;0.0,1.0;2.0,1.0;2.0,0.0']
    """
    return [";".join(f"{x}.0,{y}.0" for x, y in one) for one in polygons(mask)]


def write_cvat(images: Images, partial: Path, settings: ConvertSettings) -> Outcome:
    """Write ``annotations.xml`` and ``labels.json`` into a folder."""
    empty = 0
    with open(partial / FILE, "w", encoding="utf-8", newline="\n") as stream:
        xml = _Xml(stream)
        xml.startDocument()
        xml.open("annotations")
        xml.leaf("version", "1.1")
        _meta(xml, images.labels, len(images))
        for i, one in enumerate(images):
            height, width = one.size
            xml.open("image", id=i, name=one.image, width=width, height=height)
            for k in range(len(one.masks)):
                empty += not _shapes(xml, one, k, images.labels, settings.polygons)
            xml.close("image")
        xml.close("annotations")
    write_json(partial / LABELS, labels_of(images.labels))
    return without_foreground(
        empty, "shape, and CVAT has no place for the probability; coco and label-studio keep it"
    )


def labels_of(labels: LabelSpace) -> list[dict[str, Any]]:
    """The labels of a task, as the field *Raw* of CVAT takes them.

    Example:
        >>> [(one["name"], one["color"], len(one["attributes"])) for one in labels_of(LabelSpace.binary())]
        [('foreground', '#f23d3d', 3)]
    """
    attributes = [
        {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        for name in ATTRIBUTES
    ]
    return [
        {
            "name": xml_text(labels.names[c]),
            "color": hex_color(labels.colors[c]),
            "type": "any",
            "attributes": attributes,
        }
        for c in foreground(labels)
    ]


class _Xml(XMLGenerator):
    """Elements with attributes of any text."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream, "utf-8", short_empty_elements=True)

    def open(self, element: str, /, **attributes: object) -> None:
        self.startElement(element, _escaped(attributes))
        self.ignorableWhitespace("\n")

    def close(self, name: str) -> None:
        self.endElement(name)
        self.ignorableWhitespace("\n")

    def leaf(self, element: str, text: str, /, **attributes: object) -> None:
        self.startElement(element, _escaped(attributes))
        self.characters(xml_text(text))
        self.close(element)


def _escaped(attributes: dict[str, object]) -> AttributesImpl[str]:
    return AttributesImpl({key: xml_text(str(value)) for key, value in attributes.items()})


def _meta(xml: _Xml, labels: LabelSpace, size: int) -> None:
    for name in ("meta", "task"):
        xml.open(name)
    xml.leaf("name", "ambiseg")
    xml.leaf("size", str(size))
    xml.leaf("mode", "annotation")
    xml.open("labels")
    for label in labels_of(labels):
        xml.open("label")
        for key in ("name", "color", "type"):
            xml.leaf(key, label[key])
        xml.open("attributes")
        for attribute in label["attributes"]:
            xml.open("attribute")
            for key in ("name", "mutable", "input_type", "default_value"):
                xml.leaf(key, str(attribute[key]))
            xml.leaf("values", "")
            xml.close("attribute")
        xml.close("attributes")
        xml.close("label")
    for name in ("labels", "task", "meta"):
        xml.close(name)


def _shapes(xml: _Xml, one: Hypotheses, k: int, labels: LabelSpace, outlines: bool) -> int:
    """Write the shapes of a hypothesis, one group, the most probable one in front; their number."""
    count = 0
    common = {"source": "auto", "occluded": 0, "z_order": len(one.masks) - 1 - k, "group_id": k + 1}
    for c, pixels in objects(one.masks[k], labels):
        shapes: list[dict[str, str]] = (
            [{"points": points} for points in polygon_points(pixels)] if outlines else [mask_rle(pixels)]
        )
        for shape in shapes:
            xml.open("polygon" if outlines else "mask", label=labels.names[c], **common, **shape)
            for name in ATTRIBUTES:
                xml.leaf("attribute", str(one.facts(k)[name]), name=name)
            xml.close("polygon" if outlines else "mask")
        count += len(shapes)
    return count
