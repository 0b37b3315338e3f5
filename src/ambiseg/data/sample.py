"""One image with its annotations, as files and simulators hand it over: plain numpy, no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One image and the masks that annotators (or outcomes) gave it.

    Attributes:
        id: name of the image, unique in its split; also the stem of its files on disk.
        image: ``(C, H, W)`` any numeric type, channels first.
        masks: ``(N, H, W)`` uint8 label maps, one per annotator; duplicates are allowed.
        weights: ``(N,)`` float64, non-negative, sum 1: the probability of each mask.
        annotators: ``N`` names, one per mask.

    Example:
        >>> s = Sample("a", np.zeros((1, 4, 4)), np.zeros((2, 4, 4), np.uint8), np.array([0.5, 0.5]), ("r1", "r2"))
        >>> s.masks.shape
        (2, 4, 4)
    """

    id: str
    image: NDArray[np.generic]
    masks: NDArray[np.uint8]
    weights: NDArray[np.float64]
    annotators: tuple[str, ...]
