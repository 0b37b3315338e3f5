"""Whether files look like masks or like images, by a few of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ambiseg.data.files.reading import MASK_SUFFIXES, suffix_of
from ambiseg.data.guess.volumes import pixels_of
from ambiseg.data.pattern_matching import Found
from ambiseg.errors import AmbisegError

LEVELS = 32
"""A label map has at most so many different numbers or colours."""
SAMPLE = 6
"""Files of a layout that are looked into before it is believed."""
_MOST_FOLDERS = 50  # kinds of folders that are looked into


class Looks:
    """What is in the files, so far as it tells masks from images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, bool | None] = {}

    def mask(self, path: str) -> bool | None:
        """Whether a file looks like a label map; None if it cannot be read."""
        if path not in self.known:
            self.known[path] = _is_label_map(self.folder / path)
        return self.known[path]

    def masks_right(self, found: Found) -> bool:
        """Whether half of some masks, or more, look like masks."""
        masks = _spread([path for some in found.masks.values() for path in some.values()])
        return 2 * self._count(masks, False) <= len(masks)

    def images_right(self, found: Found) -> bool:
        """Whether less than half of some images look like masks."""
        images = _spread([path for some in found.images.values() for path in some.values()])
        return 2 * self._count(images, True) < len(images)

    def no_masks(self, found: Found) -> set[str]:
        """Annotators of whose files none of a few looks like a mask, such as a folder of overlays."""
        files: dict[str, list[str]] = {}
        for masks in found.masks.values():
            for name, path in masks.items():
                files.setdefault(name, []).append(path)
        some = {name: _spread(paths, 3) for name, paths in files.items()}
        wrong = {name for name, paths in some.items() if self._count(paths, False) == len(paths)}
        return wrong if len(wrong) < len(files) else set()

    def _count(self, paths: Sequence[str], answer: bool) -> int:
        return sum(self.mask(path) is answer for path in paths)

    def image_folders(self, paths: Sequence[str]) -> list[str]:
        """Names of the last folders whose files look like images."""
        by_folder: dict[str, list[str]] = {}
        for path in paths:
            by_folder.setdefault("/".join(path.split("/")[-2:-1]), []).append(path)
        if len(by_folder) > _MOST_FOLDERS:
            return []
        return [name for name, some in by_folder.items() if name and self._count(_spread(some, 2), False) > 1]


def _spread(paths: Sequence[str], count: int = SAMPLE) -> list[str]:
    ordered = sorted(paths)
    return [ordered[i * len(ordered) // count] for i in range(count)] if len(ordered) > count else ordered


def _is_label_map(path: Path) -> bool | None:
    """Few numbers or colours, or mostly the least and the greatest number, as in masks with smooth borders."""
    try:
        pixels = pixels_of(path, suffix_of(path) in MASK_SUFFIXES)
    except AmbisegError:
        return None
    if pixels.palette is not None:
        return not pixels.lossy
    values = pixels.values
    if pixels.rgb:
        red, green, blue = values.astype(np.uint32)
        values = (red << 16) + (green << 8) + blue
    _, counts = np.unique(values, return_counts=True)
    total = counts.sum()
    return len(counts) <= LEVELS or bool(counts[0] + counts[-1] > 0.7 * total and counts[-1] > 0.01 * total)
