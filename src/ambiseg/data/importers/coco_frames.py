"""Where the coordinates of COCO annotations lie in the pixels of an image, and whether a shape is what its own
file says of it.

An annotation tool may have shown a photograph as it is stored or as its EXIF tag rotates it, and the image may
have been scaled since. The width and height in the file tell which; where they do not, the image is refused.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ambiseg.data.files.orientation import TAG, upright
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.coco_file import Annotation
from ambiseg.data.importers.coco_shapes import fill_polygons, polygon_corners, run_lengths
from ambiseg.data.importers.reading import nearest

Size = tuple[int, int]
Rotated = Literal["by-size", "as-shown", "as-stored"]

_REDRAW = "correct it, or remove the annotation"


@dataclass(frozen=True)
class Frame:
    """How coordinates become pixels.

    Attributes:
        stated: height and width that the coordinates belong to.
        size: height and width in which shapes are drawn.
        turn: EXIF orientation by which the drawn mask is turned; 1 leaves it.
    """

    stated: Size
    size: Size
    turn: int = 1

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels that are drawn per unit of the coordinates, down and across."""
        return self.size[0] / self.stated[0], self.size[1] / self.stated[1]

    def shown(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The drawn mask, turned as the image is."""
        return upright(mask, self.turn)


def exif_orientation(path: Path) -> int:
    """The EXIF orientation of a picture, 1 to 8; 1 where there is none or the file is no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                found = picture.getexif().get(TAG, 1)
    except (OSError, ValueError, SyntaxError):
        return 1
    return int(found) if found in range(1, 9) else 1


def frame_of(stated: Size | None, shown: Size, orientation: int, rotated: Rotated, path: Path) -> Frame:
    """The frame of an image.

    Args:
        stated: height and width in the annotation file, None if it says nothing.
        shown: height and width of the image as it is read, rotated by its EXIF tag.
        orientation: its EXIF orientation.
        rotated: which frame counts.
        path: the image, for messages.

    Raises:
        FileProblem: another size of another shape, or an EXIF rotation that leaves both frames possible.
    """
    stored = shown[::-1] if orientation >= 5 else shown
    frames = {"as-shown": Frame(stated or shown, shown)}
    if orientation != 1:
        frames["as-stored"] = Frame(stated or stored, stored, orientation)
    if rotated != "by-size":
        frames = {"chosen": frames.get(rotated, frames["as-shown"])}
    fitting = [frame for frame in frames.values() if frame.stated == frame.size]
    fitting = fitting or [frame for frame in frames.values() if _scaled(frame.stated, frame.size)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise FileProblem(
            path,
            f"its EXIF tag rotates it (orientation {orientation}), and the annotations do not tell whether before or"
            " after",
            "ask for --rotated as-shown or as-stored",
        )
    height, width = frames[next(iter(frames))].stated
    raise FileProblem(
        path,
        f"the image is {shown[0]} high, {shown[1]} wide, its annotations say {height} x {width}",
        "annotate this image, or copy the image that was annotated",
    )


def _scaled(stated: Size, size: Size) -> bool:
    """Whether one size is the other, scaled alike in both axes and rounded to pixels of the smaller."""
    small, large = sorted((stated, size), key=max)
    ratio = max(small) / max(large)
    return all(abs(side * ratio - pixels) <= 1 for side, pixels in zip(large, small, strict=True))


def drawn(annotation: Annotation, frame: Frame) -> NDArray[np.bool_]:
    """Pixels of an annotation, ``(H, W)`` of the frame.

    Raises:
        FileProblem: no shape, none inside of the image, or one that is far from its ``area`` or ``bbox``.
    """
    shape, where = annotation.segmentation, annotation.where
    corners: list[NDArray[np.float64]] = []
    if not shape or shape == [[]]:
        said = "it has no segmentation" if annotation.box is None else "it has a box only, no segmentation"
        raise FileProblem(where, said, "draw a polygon, or remove the annotation")
    try:
        if isinstance(shape, dict):
            pixels = run_lengths(shape, frame.stated)
            inside = pixels if frame.stated == frame.size else nearest(pixels, frame.size)
        else:
            corners = polygon_corners(shape)
            _check_corners(corners, annotation, frame)
            inside = fill_polygons([polygon * frame.scale[::-1] for polygon in corners], frame.size)
    except FileProblem:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        line = " ".join(str(error).split())
        raise FileProblem(where, f"its segmentation is wrong ({line})", _REDRAW) from error
    if not inside.any():
        raise FileProblem(where, "its segmentation marks no pixel", _REDRAW)
    down, across = frame.scale
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    ends = np.array([columns[0] / across, rows[0] / down, (columns[-1] + 1) / across, (rows[-1] + 1) / down])
    extents = [ends]
    if corners:  # a thin tip may lie between the centres of pixels
        every = np.concatenate(corners).clip(0, frame.stated[::-1])
        extents.append(np.concatenate([every.min(0), every.max(0)]))
    _check_box(annotation, extents, frame.stated)
    _check_area(annotation, inside.sum() / (down * across), ends)
    return inside


def _check_corners(corners: list[NDArray[np.float64]], annotation: Annotation, frame: Frame) -> None:
    """Refuse coordinates that cannot be pixels of this image."""
    every, (height, width) = np.concatenate(corners), frame.stated
    low, high = every.min(0), every.max(0)
    if low.min() >= 0 and high.max() <= 1 and max(height, width) > 1:
        raise FileProblem(
            annotation.where,
            "all its coordinates lie within 0 to 1, they are no pixels",
            "multiply by the size",
        )
    allowed = 2 + 0.1 * np.array([width, height])
    if (low < -allowed).any() or (high > (width, height) + allowed).any():
        raise FileProblem(
            annotation.where,
            f"its polygon reaches from {_pair(low)} to {_pair(high)}, outside of the {width} x {height} pixels",
            _REDRAW,
        )


def _check_box(annotation: Annotation, extents: list[NDArray[np.float64]], stated: Size) -> None:
    """Compare where a shape lies, left, top, right and bottom, with the bounding box of the file."""
    if annotation.box is None or not any(annotation.box):
        return
    x, y, width, height = annotation.box
    box = np.clip([x, y, x + width, y + height], 0, [*stated[::-1]] * 2)
    for ends in extents:
        sides = ends[2:] - ends[:2]
        if (np.abs(box - ends) <= 2 + 0.25 * max(*sides, width, height)).all():
            return
    raise FileProblem(
        annotation.where,
        f"its shape lies from {_pair(extents[0][:2])} to {_pair(extents[0][2:])}, its bbox from {_pair((x, y))} to"
        f" {_pair((x + width, y + height))}",
        "correct one of the two, or leave bbox out",
    )


def _check_area(annotation: Annotation, pixels: float, ends: NDArray[np.float64]) -> None:
    """Compare the number of pixels with the area of the file, which many tools make that of the box."""
    area, box = annotation.area, annotation.box
    around = float((ends[2:] - ends[:2]).sum())
    if not area or abs(pixels - area) <= 0.5 * max(pixels, area) + around:
        return
    if box is not None and abs(area - box[2] * box[3]) <= 0.02 * area:
        return
    raise FileProblem(
        annotation.where,
        f"its shape has {pixels:.0f} pixels, its area is {area:g}",
        "correct one of the two, or leave area out",
    )


def _pair(point: NDArray[np.float64] | tuple[float, float]) -> str:
    return f"({point[0]:g}, {point[1]:g})"
