"""The page about a folder of predictions: every image with its overview picture and its probabilities.

The page refers to the pictures in the folders of the images and loads each when it comes into view, so it works
for hundreds of images. It has no script, and every name is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from ambiseg.errors import AmbisegError
from ambiseg.escaping import visible
from ambiseg.predictions.index import PAGE, PredictionIndex
from ambiseg.predictions.written import read_written
from ambiseg.report.files import write_page
from ambiseg.report.page import template
from ambiseg.report.pictures import percent

MOST_MASKS = 24
"""Masks of each image that the page lists."""


@dataclass(frozen=True)
class _Card:
    """One image of the page: addresses, those in ``masks`` too, are relative to the page."""

    name: str
    picture: str
    size: tuple[int, int]
    masks: list[tuple[str, str]]
    more: int


def write_prediction_page(out: Path) -> None:
    """Write `PAGE` about all predictions in a folder, whole or not at all.

    Args:
        out: folder that ``ambiseg predict`` has filled.

    Raises:
        AmbisegError: the file cannot be written.
    """
    entries = PredictionIndex(out).entries
    cards, failed, place = [], [], _common_folder(entries)
    for image, entry in entries.items():
        try:
            if entry["folder"] is None:
                raise AmbisegError(str(entry.get("error")))
            cards.append(_card(out / entry["folder"], os.path.relpath(image, place) if place else image))
        except AmbisegError as error:
            failed.append(visible(str(error)))
    facts = {"cards": cards, "failed": failed, "place": visible(place)}
    write_page(out / PAGE, template("predictions.html.j2").render(title="Predictions", **facts))


def _common_folder(images: Iterable[str]) -> str:
    """The folder that holds all images; empty where that is the current one, or there is none."""
    try:
        return os.path.commonpath([os.path.dirname(image) for image in images])
    except ValueError:
        return ""


def _card(folder: Path, image: str) -> _Card:
    written = read_written(folder)
    shown = written.masks[:MOST_MASKS]
    masks = [(percent(mask.probability), _address(mask.overlay or mask.file)) for mask in shown]
    picture = written.picture or shown[0].overlay
    size = (0, 0) if picture is None else _size(picture)
    address = _address(picture) if picture is not None and size[0] else ""
    return _Card(visible(image), address, size, masks, len(written.masks) - len(shown))


def _address(file: Path) -> str:
    """A file in the folder of an image, seen from the page beside that folder."""
    return "/".join(quote(part, safe="") for part in (file.parent.name, file.name))


def _size(picture: Path) -> tuple[int, int]:
    """Width and height in pixels; 0 where the picture is gone or damaged."""
    try:
        with Image.open(picture) as opened:
            return opened.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0, 0
