"""Volumes in a folder that nobody described: what is in them, by their planes across the last axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.pixels import Pixels
from ambiseg.data.files.reading import NRRD_SUFFIXES, VOLUME_SUFFIXES, decode, read_mask, suffix_of
from ambiseg.data.files.validation import FileProblem, canonical_mask
from ambiseg.data.volumes.volume import is_volume, open_volume

_MOST = 2000
"""Different numbers of a volume; more are no classes."""
_LAST = 2


def maybe_volume(path: Path) -> bool:
    """Whether a path must be opened as a volume, also one that cannot be read."""
    return path.is_dir() or suffix_of(path) in NRRD_SUFFIXES or is_volume(path)


def any_volume(paths: Iterable[Path]) -> bool:
    """Whether one of some images is a volume."""
    return any(maybe_volume(path) for path in paths if path.is_dir() or suffix_of(path) in VOLUME_SUFFIXES)


def pixels_of(path: Path, as_mask: bool) -> Pixels:
    """The numbers of an image, or of the plane in the middle of a volume; `AmbisegError` if it cannot be read."""
    if not maybe_volume(path):
        return decode(path, as_mask)
    volume = open_volume(path)
    return Pixels(volume.plane(_LAST, volume.shape[_LAST] // 2))


def numbers_of(path: Path) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The numbers of a mask that is a volume, sorted, and how often each occurs.

    Raises:
        FileProblem: it cannot be read, has several channels, or holds very many numbers.
    """
    volume = open_volume(path)
    if volume.channels != 1:
        raise FileProblem(
            path, f"the mask has {volume.channels} channels", "save one label map for each annotator"
        )
    total: Counter[float] = Counter()
    for index in range(volume.shape[_LAST]):
        plane = volume.plane(_LAST, index)
        if not np.isfinite(plane).all():
            raise FileProblem(
                path,
                f"slice {index} of the mask holds NaN or infinite numbers",
                "replace them by 0 or a class",
            )
        if plane.min() == plane.max():
            total[plane.flat[0].item()] += plane.size
            continue
        own, counts = np.unique(plane, return_counts=True)
        total.update(dict(zip(own.tolist(), counts.tolist(), strict=True)))
        if len(total) > _MOST:
            raise FileProblem(
                path, f"it holds more than {_MOST} numbers, which are no classes", "name the masks"
            )
    own = np.array(sorted(total))
    return own, np.array([total[number] for number in own.tolist()], np.int64)


def check_mask(path: Path, rules: MaskRules) -> None:
    """Raise `FileProblem` if a mask, or the plane in the middle of one, cannot be read with these rules."""
    if maybe_volume(path):
        canonical_mask(pixels_of(path, True).values[0], path, rules)
    else:
        read_mask(path, rules)
