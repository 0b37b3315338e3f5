"""COCO: one JSON with an annotation for each class of each hypothesis.

Reference: Lin et al. (2014), Microsoft COCO: Common Objects in Context; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.exchange.images import Hypotheses, Images
from ambiseg.exchange.outcome import Outcome, without_foreground
from ambiseg.exchange.outlines import polygons
from ambiseg.exchange.packages import package
from ambiseg.exchange.runs import bounding_box
from ambiseg.exchange.settings import ConvertSettings, foreground, objects
from ambiseg.labels import LabelSpace
from ambiseg.version import __version__

FILE = "annotations.json"


def coco_rle(mask: NDArray[Any]) -> dict[str, Any]:
    """The compressed run lengths of a mask: ``size`` and ``counts``, as pycocotools reads them.

    Args:
        mask: ``(H, W)``; what is not 0 counts.

    Raises:
        AmbisegError: pycocotools is missing.

    Example:
        >>> coco_rle(np.eye(3))
        {'size': [3, 3], 'counts': '013000'}
    """
    encode = package("pycocotools.mask", "formats", "COCO needs").encode
    found = encode(np.asfortranarray(np.asarray(mask) != 0, dtype=np.uint8))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def coco_polygons(mask: NDArray[Any]) -> list[list[float]]:
    """The polygons of a mask, each as ``x, y, x, y, ...``; see `ambiseg.exchange.polygons`.

    Example:
        >>> coco_polygons(np.ones((1, 2)))
        [[0.0, 0.0, 0.0, 1.0, 2.0, 1.0, 2.0, 0.0]]
    """
    return [[float(value) for corner in one for value in corner] for one in polygons(mask)]


def write_coco(images: Images, partial: Path, settings: ConvertSettings) -> Outcome:
    """Write ``annotations.json`` into a folder."""
    number, empty = 0, 0
    with (
        tempfile.TemporaryFile("w+", encoding="ascii") as entries,
        open(partial / FILE, "w", encoding="ascii") as stream,
    ):
        head = {
            "info": {"description": f"written by ambiseg {__version__}"},
            "licenses": [],
            "categories": _categories(images.labels),
        }
        stream.write(json.dumps(head)[:-1] + ',\n"annotations": [')
        for i, one in enumerate(images):
            entries.write(",\n" * (i > 0) + json.dumps(_image(i + 1, one), allow_nan=False))
            for k, mask in enumerate(one.masks):
                drawn = 0
                for c, pixels in objects(mask, images.labels):
                    number, drawn = number + 1, drawn + 1
                    content = _annotation(number, i + 1, c, pixels, settings.polygons)
                    content |= {"score": one.probabilities[k], **one.facts(k)}
                    stream.write(",\n" * (number > 1) + json.dumps(content, allow_nan=False))
                empty += not drawn
        entries.seek(0)
        stream.write('],\n"images": [')
        shutil.copyfileobj(entries, stream)
        stream.write("]}\n")
    return without_foreground(empty, "annotation; 'hypotheses' of the image has the probability")


def _categories(labels: LabelSpace) -> list[dict[str, Any]]:
    return [{"id": c, "name": labels.names[c], "supercategory": ""} for c in foreground(labels)]


def _image(number: int, one: Hypotheses) -> dict[str, Any]:
    height, width = one.size
    return {
        "id": number,
        "file_name": one.image,
        "width": width,
        "height": height,
        "name": one.name,
        "hypotheses": [one.facts(k) for k in range(len(one.masks))],
    }


def _annotation(
    number: int, image: int, category: int, pixels: NDArray[np.bool_], outlines: bool
) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": coco_polygons(pixels) if outlines else coco_rle(pixels),
        "area": int(pixels.sum()),
        "bbox": list(bounding_box(pixels)),
        "iscrowd": 0,
    }
