"""Label Studio exports (JSON): polygons, boxes and brushes of several annotators become label maps.

::

    export.json                 or annotations/*.json
    images/<file>               with or without the eight characters that Label Studio puts before names

An annotator is who completed an annotation: ``user-3``, or the address. Skipped annotations are left out, an
annotation without shapes is an empty mask. Reference: https://labelstud.io/guide/export; brushes:
https://labelstud.io/tags/brushlabels and rle-pack of https://github.com/thi-ng/umbrella.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.reading import IMAGE_SUFFIXES, suffix_of
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.coco import imported_drawings
from ambiseg.data.importers.coco_shapes import runs_of
from ambiseg.data.importers.reading import found_files, nothing_found
from ambiseg.data.importers.settings import CocoSettings
from ambiseg.data.importers.tool_files import Drawings, ToolImages, require_small
from ambiseg.errors import AmbisegError

_CHANNELS = 4
_WRONG = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


def read_label_studio(source: Path, settings: CocoSettings) -> Imported:
    """Open export and images; an image with a wrong annotation or file is left out and noted.

    Raises:
        AmbisegError: no export, one that is no list of tasks, or no shape in it.
    """
    files = found_files(source, "annotations/*.json") or found_files(source, "*.json")
    if not files:
        raise nothing_found(source, "export (JSON) with images/")
    images, drawings = ToolImages(source), Drawings()
    for file in files:
        for i, task in enumerate(_tasks(file)):
            _read_task(task, f"{file}, task {i + 1}", images, drawings)
    drawings.require_classes(source)
    return imported_drawings(source, images.folder, drawings.found, settings, "Label Studio annotations")


def _tasks(file: Path) -> list[Any]:
    require_small(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise FileProblem(file, f"cannot be read as JSON ({line})", "export it again") from error
    if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
        raise FileProblem(file, "it is no list of tasks", "export as JSON, not as JSON-MIN or COCO")
    return content


def _read_task(task: dict[str, Any], where: str, images: ToolImages, drawings: Drawings) -> None:
    image = None
    try:
        image = images.find(_file_name(task), where)
        names: dict[str, int] = {}
        for annotation in task["annotations"]:
            if annotation.get("was_cancelled"):
                continue
            name = _annotator(annotation)
            names[name] = names.get(name, 0) + 1
            who = name if names[name] == 1 else f"{name}-{names[name]}"
            results = [result for result in annotation["result"] if "value" in result]
            size = _size(results[0]) if results else None
            drawing = drawings.start(image, who, size, where)
            for result in results:
                _add(result, drawing, drawings, f"{where}, annotation {annotation.get('id', '?')}")
    except (AmbisegError, *_WRONG) as error:
        drawings.spoil(image, error, where)


def _file_name(task: dict[str, Any]) -> str:
    """The file of a task: as it was uploaded, else the last part of its address."""
    if isinstance(task.get("file_upload"), str):
        return str(task["file_upload"])
    for value in task["data"].values():
        if isinstance(value, str):
            address = urlparse(value)
            for text in (unquote(address.path), *parse_qs(address.query).get("d", [])):
                if suffix_of(text) in IMAGE_SUFFIXES:
                    return text.lstrip("/")
    raise ValueError("no image in its data")


def _annotator(annotation: dict[str, Any]) -> str:
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        return str(who.get("email") or f"user-{who['id']}")
    return "mask" if who is None else f"user-{who}"


def _size(result: dict[str, Any]) -> tuple[int, int]:
    return int(result["original_height"]), int(result["original_width"])


def _add(result: dict[str, Any], drawing: Any, drawings: Drawings, where: str) -> None:
    kind, value = result["type"], result["value"]
    height, width = drawing.size
    if _size(result) != drawing.size or result.get("image_rotation"):
        raise FileProblem(
            where, "the image was turned in the tool", "turn the image file, and annotate it again"
        )
    if kind in ("polygonlabels", "polygon"):
        points = np.asarray(value["points"], np.float64) * (width / 100, height / 100)
        shape: Any = [points.ravel().tolist()]
    elif kind in ("rectanglelabels", "rectangle") and not value.get("rotation"):
        left, top = value["x"] * width / 100, value["y"] * height / 100
        right, low = left + value["width"] * width / 100, top + value["height"] * height / 100
        shape = [[left, top, right, top, right, low, left, low]]
    elif kind in ("brushlabels", "brush") and value.get("format") == "rle":
        shape = runs_of(brush_mask(value["rle"], (height, width)))
    else:
        raise FileProblem(
            where, f"shapes of the kind {kind!r} are not read", "draw polygons, boxes or brushes"
        )
    labels = value.get(kind) or value.get("labels") or [None]
    drawings.add(drawing, labels[0], shape, where)


def brush_mask(packed: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a brush, ``(H, W)``: where the alpha of the packed picture is not 0.

    Args:
        packed: bytes 0..255.
        size: height and width.

    Raises:
        ValueError: of another size, or truncated.

    Example:
        >>> brush_mask([0, 0, 0, 8, 57, 27, 252, 96, 17, 255, 128], (1, 2)).astype(int)
        array([[0, 1]])
    """
    bits = np.unpackbits(np.asarray(packed, np.uint8))
    place = 0

    def number(count: int) -> int:
        nonlocal place
        if place + count > bits.size:
            raise ValueError("its brush is truncated")
        place += count
        return int("".join(map(str, bits[place - count : place].tolist())), 2)

    total, word = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    if total != size[0] * size[1] * _CHANNELS:
        raise ValueError(f"its brush has {total // _CHANNELS} pixels, the image {size[0] * size[1]}")
    values, done = np.zeros(total, np.uint8), 0
    while done < total:
        same, count = number(1), number(sizes[number(2)]) + 1
        if same:
            values[done : done + count] = min(number(word), 255)
        else:
            own = [min(number(word), 255) for _ in range(min(count, total - done))]
            values[done : done + count] = own
        done += count
    mask: NDArray[np.bool_] = values.reshape(*size, _CHANNELS)[..., 3] > 0
    return mask
