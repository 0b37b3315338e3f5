"""The page about a folder of predictions: every image with its overview picture and its probabilities.

The page refers to the pictures in the folders of the images and loads each when it comes into view, so hundreds of
images are no burden. It has no script, and every name is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from ambiseg.escaping import visible
from ambiseg.json_files import read_mapping
from ambiseg.report.files import write_page
from ambiseg.report.page import template
from ambiseg.report.pictures import percent

MOST_MASKS = 24
"""Masks of each image that the page lists."""


@dataclass(frozen=True)
class Predicted:
    """One image of the page.

    Attributes:
        image: its path.
        folder: name of the folder of its masks; None where it failed.
        error: why it failed.
    """

    image: str
    folder: str | None
    error: str = ""


@dataclass(frozen=True)
class _Card:
    """What the page shows of one image: addresses are relative to the page."""

    name: str
    picture: str
    width: int
    height: int
    masks: list[tuple[str, str]]
    more: int


def write_prediction_page(path: Path, images: Iterable[Predicted]) -> None:
    """Write the page about the predictions that lie beside it, whole or not at all.

    Args:
        path: file to write, in the folder that holds the folders of the images.
        images: in the order of the page.

    Raises:
        AmbisegError: the file cannot be written.
    """
    cards, failed = [], []
    for one in images:
        if one.folder is None:
            failed.append((visible(one.image), visible(one.error)))
        else:
            cards.append(_card(path.parent, one.image, one.folder))
    page = template("predictions.html.j2").render(title="Predictions", cards=cards, failed=failed)
    write_page(path, page)


def _card(place: Path, image: str, folder: str) -> _Card:
    content = read_mapping(place / folder / "prediction.json")
    masks = [mask for mask in content.get("masks", []) if isinstance(mask, dict)]
    entries = [(_percent(mask.get("probability")), _address(folder, _file(mask))) for mask in masks]
    overlays = [mask["overlay"] for mask in masks[:1] if "overlay" in mask]
    picture = str(content.get("picture") or next(iter(overlays), ""))
    width, height = _size(place / folder / picture) if picture else (0, 0)
    return _Card(
        visible(image),
        _address(folder, picture) if width else "",
        width,
        height,
        entries[:MOST_MASKS],
        len(entries[MOST_MASKS:]),
    )


def _file(mask: dict[str, Any]) -> str:
    """The picture of a mask that a browser shows best."""
    return str(mask.get("overlay") or mask.get("file"))


def _percent(probability: object) -> str:
    return percent(probability) if isinstance(probability, float) else "?"


def _address(folder: str, name: str) -> str:
    return f"{quote(folder, safe='')}/{quote(name, safe='')}"


def _size(picture: Path) -> tuple[int, int]:
    """Width and height in pixels; 0 where the picture is gone or damaged."""
    try:
        with Image.open(picture) as opened:
            return opened.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0, 0
