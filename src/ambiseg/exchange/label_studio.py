"""Label Studio: tasks with a prediction for each hypothesis, and the labelling interface that fits them.

References: https://labelstud.io/guide/predictions; run lengths of brushes:
https://labelstud.io/tags/brushlabels and rle-pack of https://github.com/thi-ng/umbrella, whose bits Label
Studio reads.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from ambiseg.exchange.images import Hypotheses, Images
from ambiseg.exchange.outcome import Outcome
from ambiseg.exchange.outlines import polygons
from ambiseg.exchange.runs import run_lengths
from ambiseg.exchange.settings import ConvertSettings, foreground, objects
from ambiseg.exchange.texts import hex_color, xml_text
from ambiseg.labels import LabelSpace

TASKS, INTERFACE = "tasks.json", "interface.xml"
_WORD = 8
_SIZES = (3, 4, 8, 16)
"""Bits in which the length of a run, minus 1, is written; the shortest that holds it."""
_CHANNELS = 4


def brush_rle(mask: NDArray[Any]) -> list[int]:
    """The run lengths of a mask as Label Studio packs them, bytes 0..255.

    The mask is a picture of red, green, blue and alpha, 0 or 255 each. Bits: 32 for the number of values, 5
    for the bits of a value minus 1, 4 times 4 for the four sizes minus 1; then, for each run, a 1, 2 for the
    size of the length, the length minus 1, and the value.

    Args:
        mask: ``(H, W)``; what is not 0 counts.

    Example:
        >>> brush_rle(np.array([[0, 1]]))
        [0, 0, 0, 8, 57, 27, 252, 96, 17, 255, 128]
    """
    flat = np.asarray(mask).ravel()
    bits = [f"{flat.size * _CHANNELS:032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    value = 0
    for length in run_lengths(flat).tolist():
        left = length * _CHANNELS
        while left:
            part = min(left, 1 << _SIZES[-1])
            kind = next(i for i, size in enumerate(_SIZES) if part <= 1 << size)
            bits.append(f"1{kind:02b}{part - 1:0{_SIZES[kind]}b}{value:0{_WORD}b}")
            left -= part
        value = 255 - value
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def percent_polygons(mask: NDArray[Any]) -> list[list[list[float]]]:
    """The polygons of a mask with corners in percent of width and height; see `ambiseg.exchange.polygons`.

    Example:
        >>> percent_polygons(np.array([[0, 1], [0, 1]]))
        [[[50.0, 0.0], [50.0, 100.0], [100.0, 100.0], [100.0, 0.0]]]
    """
    height, width = np.asarray(mask).shape
    return [[[100 * x / width, 100 * y / height] for x, y in one] for one in polygons(mask)]


def write_label_studio(images: Images, partial: Path, settings: ConvertSettings) -> Outcome:
    """Write ``tasks.json`` and ``interface.xml`` into a folder."""
    with open(partial / TASKS, "w", encoding="ascii") as stream:
        stream.write("[")
        for i, one in enumerate(images):
            stream.write(",\n" * (i > 0) + json.dumps(_task(one, images.labels, settings), allow_nan=False))
        stream.write("]\n")
    text = interface(images.labels, settings.polygons)
    (partial / INTERFACE).write_text(text, encoding="utf-8", newline="\n")
    return Outcome()


def interface(labels: LabelSpace, outlines: bool = False) -> str:
    """The labelling interface (XML) of these classes, with brushes or polygons.

    Example:
        >>> print(interface(LabelSpace.binary("<tumour>")), end="")
        <View>
          <Image name="image" value="$image" zoom="true"/>
          <BrushLabels name="label" toName="image">
            <Label value="&lt;tumour&gt;" background="#f23d3d"/>
          </BrushLabels>
        </View>
    """
    tag = "PolygonLabels" if outlines else "BrushLabels"
    entries = [
        f'    <Label value={quoteattr(xml_text(labels.names[c]))} background="{hex_color(labels.colors[c])}"/>'
        for c in foreground(labels)
    ]
    lines = [
        "<View>",
        '  <Image name="image" value="$image" zoom="true"/>',
        f'  <{tag} name="label" toName="image">',
        *entries,
        f"  </{tag}>",
        "</View>",
    ]
    return "\n".join(lines) + "\n"


def _task(one: Hypotheses, labels: LabelSpace, settings: ConvertSettings) -> dict[str, Any]:
    name = one.image.encode("utf-8", "surrogateescape")
    return {
        "data": {"image": settings.image_url + quote(name), "name": xml_text(one.name)},
        "predictions": [
            {
                "model_version": xml_text(one.annotators[k]),
                "score": one.probabilities[k],
                "result": _results(one, k, labels, settings.polygons),
            }
            for k in range(len(one.masks))
        ],
    }


def _results(one: Hypotheses, k: int, labels: LabelSpace, outlines: bool) -> list[dict[str, Any]]:
    kind = "polygonlabels" if outlines else "brushlabels"
    found: list[dict[str, Any]] = []
    for c, pixels in objects(one.masks[k], labels):
        values: list[dict[str, Any]] = (
            [{"points": points, "closed": True} for points in percent_polygons(pixels)]
            if outlines
            else [{"format": "rle", "rle": brush_rle(pixels)}]
        )
        for value in values:
            found.append(
                {
                    "id": _id(one.name, k, len(found)),
                    "type": kind,
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": one.size[1],
                    "original_height": one.size[0],
                    "image_rotation": 0,
                    "value": {**value, kind: [xml_text(labels.names[c])]},
                }
            )
    return found


def _id(*parts: object) -> str:
    """Ten characters, others for other parts."""
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()[:10]
