"""Plain numpy versions of overlaps and matchings, and random mask sets to compare them on.

Everything here is written pixel by pixel and mask by mask, without the library's tensors, so that an error in
one is not repeated in the other.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

properties = settings(max_examples=60, deadline=None)
"""Settings of all property tests."""

SPACE = (2, 4)


@dataclass
class Plain:
    """The set of one image as numpy: masks ``(K, H, W)``, weights and scores ``(K,)``."""

    masks: NDArray[np.uint8]
    weights: NDArray[np.float64]
    scores: NDArray[np.float64]

    def merged(self) -> Plain:
        """Identical masks as one."""
        kinds: dict[bytes, list[int]] = {}
        for k, mask in enumerate(self.masks):
            kinds.setdefault(mask.tobytes(), []).append(k)
        groups = list(kinds.values())
        return Plain(
            np.stack([self.masks[g[0]] for g in groups]),
            np.array([self.weights[g].sum() for g in groups]),
            np.array([self.scores[g].max() for g in groups]),
        )


@dataclass
class Case:
    """A batch as the library sees it, and image by image as the plain functions do."""

    labels: LabelSpace
    predictions: MaskSet
    annotations: MaskSet
    images: list[tuple[Plain, Plain]]


def as_set(plain: Plain, labels: LabelSpace) -> MaskSet:
    """A `MaskSet` of one image."""
    return MaskSet(
        torch.from_numpy(plain.masks)[None],
        torch.from_numpy(plain.weights)[None].float(),
        labels,
        torch.from_numpy(plain.scores)[None].float(),
    )


def random_set(rng: np.random.Generator, pool: NDArray[np.uint8], count: int, uniform: bool) -> Plain:
    """Masks from a pool, so that duplicates happen, with random weights and scores."""
    weights = np.ones(count) if uniform else rng.integers(1, 6, count).astype(float)
    return Plain(pool[rng.integers(0, len(pool), count)], weights / weights.sum(), rng.random(count))


def random_pool(rng: np.random.Generator, classes: int, void: bool) -> NDArray[np.uint8]:
    """An empty mask, a full one, and random ones of few classes; some pixels void."""
    masks = [rng.integers(0, rng.integers(2, classes + 1), SPACE) for _ in range(5)]
    pool = np.stack([np.zeros(SPACE), np.full(SPACE, classes - 1), *masks]).astype(np.uint8)
    if void:
        pool[rng.random(pool.shape) < 0.15] = 255
    return pool


@st.composite
def cases(draw: st.DrawFn, uniform: bool | None = None, void: bool | None = None, most: int = 5) -> Case:
    """Batches of one to three images, sets of different sizes: empty masks, duplicates, weights, void."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(2, 5))
    has_void = draw(st.booleans()) if void is None else void
    even = draw(st.booleans()) if uniform is None else uniform
    labels = LabelSpace.of_classes(classes, ignore_value=255 if has_void else None)
    pool = random_pool(rng, classes, has_void)
    sizes = draw(st.lists(st.tuples(st.integers(1, most), st.integers(1, most)), min_size=1, max_size=3))
    images = [(random_set(rng, pool, m, even), random_set(rng, pool, n, even)) for m, n in sizes]
    return Case(
        labels,
        MaskSet.stack([as_set(p, labels) for p, _ in images]),
        MaskSet.stack([as_set(a, labels) for _, a in images]),
        images,
    )


def overlap(a: NDArray[np.uint8], b: NDArray[np.uint8], labels: LabelSpace, dice: bool = False) -> float:
    """IoU or Dice of two masks, pixel by pixel."""
    ratios = []
    for c in labels.evaluated:
        both = either = 0
        for p, q in zip(a.flat, b.flat, strict=True):
            if 255 in (p, q):
                continue
            both += int(p == c and q == c)
            either += int(p == c or q == c)
        if either:
            ratios.append(2 * both / (either + both) if dice else both / either)
    return float(np.mean(ratios)) if ratios else 1.0


def table(a: Plain, b: Plain, labels: LabelSpace, dice: bool = False) -> NDArray[np.float64]:
    """IoU or Dice of all pairs."""
    return np.array([[overlap(p, q, labels, dice) for q in b.masks] for p in a.masks])


def best_total(iou: NDArray[np.float64]) -> float:
    """Greatest total of a one-to-one matching, by trying them all."""
    if iou.shape[0] > iou.shape[1]:
        iou = iou.T
    n, m = iou.shape
    return max(sum(iou[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(m), n))
