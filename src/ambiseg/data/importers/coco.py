"""COCO annotations of several annotators: polygons and run lengths become label maps, one per annotator.

::

    images/<file_name>
    annotations/<annotator>.json        a COCO file each: images, annotations, categories

or one file ``annotations/*.json`` whose annotations carry ``"annotator": NAME``. An image that an annotator's
file lists without annotations is an empty mask; one that it does not list has no mask of that annotator.
Class 0 is background, then come the categories by id; where shapes overlap, the later annotation is on top.

`fill_polygons` marks the pixels whose centres lie inside by the even-odd rule; run lengths go down the
columns, as the format has it.

Reference: Lin et al. (2014), Microsoft COCO: common objects in context; the data format on the pages of the
data set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.reading import MAX_PIXELS, read_image
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.reading import (
    collected,
    found_files,
    nothing_found,
    own_file,
    splits_of,
    uniform_sample,
)
from ambiseg.data.importers.settings import CocoSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

MAX_BYTES = 1 << 30
"""Largest annotation file that is read."""

_Shapes = dict[str, dict[str, list[dict[str, Any]]]]


def read_coco(source: Path, settings: CocoSettings) -> Imported:
    """Open images and annotation files; an image with a wrong shape or file is left out and noted.

    Raises:
        AmbisegError: no annotation file, one that is no COCO file, categories that differ, an unknown
            category.
    """
    files = found_files(source, "annotations/*.json")
    if not files:
        raise nothing_found(source, "annotations/<annotator>.json with images/")
    shapes: _Shapes = {}
    categories: dict[int, str] = {}
    for file in files:
        found = _read_file(file, shapes)
        if categories and found != categories:
            raise AmbisegError(
                f"{file}: its categories {found} are not those of {files[0].name}, {categories}: use one list"
            )
        categories = found
    order = sorted(categories)
    numbers = {category: i for i, category in enumerate(order, 1)}
    info = DatasetInfo(
        source.name, LabelSpace(("background", *(categories[i] for i in order))), "COCO annotations"
    )
    ids = {name: Path(name).with_suffix("").as_posix().replace("/", "-") for name in shapes}
    splits, how = splits_of({name: ids[name] for name in shapes}, settings, "image")
    problems: list[FileProblem] = []

    def read(name: str) -> Sample:
        path = own_file(source / "images", source / "images" / name)
        image, masks = read_image(path), {}
        for annotator, drawn in shapes[name].items():
            masks[annotator] = _label_map(drawn, numbers, (image.shape[1], image.shape[2]), path)
        return uniform_sample(ids[name], image, masks)

    return Imported(
        info, {split: collected(names, read, problems) for split, names in splits.items()}, how, problems
    )


def _read_file(file: Path, shapes: _Shapes) -> dict[int, str]:
    """Enter the annotations of one file under image and annotator; return its categories."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise AmbisegError(f"{file}: larger than {MAX_BYTES} bytes: divide it by annotator")
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        several = any("annotator" in annotation for annotation in content["annotations"])
        if not several:
            for name in names.values():
                shapes.setdefault(name, {}).setdefault(file.stem, [])
        for annotation in content["annotations"]:
            annotator = str(annotation["annotator"]) if several else file.stem
            if annotation["category_id"] not in categories:
                raise AmbisegError(
                    f"{file}: annotation {annotation.get('id')} has category {annotation['category_id']}, which is not"
                    " in the class list: add it to categories"
                )
            shapes.setdefault(names[annotation["image_id"]], {}).setdefault(annotator, []).append(annotation)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, AmbisegError):
            raise
        line = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise FileProblem(file, f"cannot be read as COCO annotations ({line})", "export it again") from error
    return categories


def _label_map(
    annotations: Sequence[dict[str, Any]], numbers: dict[int, int], size: tuple[int, int], path: Path
) -> NDArray[np.uint8]:
    label_map = np.zeros(size, np.uint8)
    for annotation in annotations:
        shape = annotation.get("segmentation")
        try:
            inside = run_lengths(shape, size) if isinstance(shape, dict) else fill_polygons(shape or [], size)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            line = " ".join(str(error).split())
            raise FileProblem(
                path, f"annotation {annotation.get('id')} has a wrong shape ({line})", "correct it"
            ) from error
        label_map[inside] = numbers[annotation["category_id"]]
    return label_map


def fill_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie in any of the polygons ``x1 y1 x2 y2 ...``, ``(H, W)``; corners may lie
    outside.

    Example:
        >>> fill_polygons([[1, 0, 3, 0, 3, 1, 1, 1]], (2, 4)).astype(int).tolist()
        [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    inside = np.zeros(size, bool)
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        if len(corners) < 3 or not np.isfinite(corners).all():
            raise ValueError(f"a polygon of {len(corners)} finite corners")
        x, y = corners.T
        next_x, next_y = np.roll(x, -1), np.roll(y, -1)
        first, last = np.clip([np.floor(y.min()), np.ceil(y.max())], 0, size[0]).astype(int)
        for row in range(first, last):
            crosses = (y <= row + 0.5) != (next_y <= row + 0.5)
            share = (row + 0.5 - y[crosses]) / (next_y[crosses] - y[crosses])
            at = np.sort(x[crosses] + share * (next_x[crosses] - x[crosses]))
            before = np.searchsorted(at, np.arange(size[1]) + 0.5)
            inside[row] |= before % 2 == 1
    return inside


def run_lengths(shape: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of a run-length shape, plain or compressed, ``(H, W)``.

    Raises:
        ValueError: of another size, or with runs that do not fill it.

    Example:
        >>> run_lengths({"size": [2, 2], "counts": [1, 2, 1]}, (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    height, width = (int(n) for n in shape["size"])
    if (height, width) != size or height * width > MAX_PIXELS:
        raise ValueError(f"its size is {height} x {width}, the image's {size[0]} x {size[1]}")
    counts = shape["counts"]
    runs = np.asarray(_uncompressed(counts) if isinstance(counts, str) else counts, np.int64)
    if ((runs < 0) | (runs > height * width)).any() or runs.sum() != height * width:
        raise ValueError(f"its runs fill {int(runs.sum())} of {height * width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: five bits a character from 48 up, sixth: more follow; from the
    third on, differences to the one before the last."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[place]) - 48
            value |= (code & 31) << shift
            more, place, shift = bool(code & 32), place + 1, shift + 5
            if place == len(text) and more:
                raise ValueError("its run lengths are truncated")
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
