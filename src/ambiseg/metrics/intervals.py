"""How far a figure would move if other images had been drawn: percentile bootstrap over images or groups.

Efron and Tibshirani (1993), "An introduction to the bootstrap", section 13.3. The *units* are images, or groups
of images that belong together, such as those of one patient. A resample draws as many units as there are, with
replacement. The interval runs between two quantiles of the figure over all resamples. It says nothing of
another training: seeds of training are other runs.

A resample is a vector of counts, one for each image, so a metric that pools is pooled again from the parts of
single images. ``scipy.stats.bootstrap`` draws observations, not groups of them, and would draw anew for every
part of a metric.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ambiseg.errors import AmbisegError, counted
from ambiseg.metrics.pooling import Pooling

Groups = Sequence[str] | None
"""Group of every image; None where each image stands alone."""
_AT_ONCE = 2**22
"""Counts that are held together."""


class Interval(NamedTuple):
    """Lower and upper end; nan where there are fewer than two units, or the figure is not defined or infinite."""

    low: float
    high: float


class Difference(NamedTuple):
    """Mean difference of two lists over the same images, and its interval."""

    mean: float
    interval: Interval


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals of figures over images.

    Attributes:
        level: probability that the interval is meant to cover.
        resamples: how often images are drawn.
        seed: of the draws; the same one draws the same images for all metrics.

    Raises:
        AmbisegError: a level outside (0, 1), or fewer than one resample.

    Trap: with few units the interval is too narrow (at ten, 95 % cover about 90 %). Images of one patient or
    scene are not independent: pass ``groups``, else it is too narrow for any number.

    Example:
        >>> Bootstrap().mean([0.7, 0.8, 0.9, 0.8])
        Interval(low=0.725, high=0.875)
        >>> Bootstrap().mean([0.7, 0.7, 0.9, 0.9], groups=["a", "a", "b", "b"])
        Interval(low=0.7, high=0.9)
        >>> found = Bootstrap().difference([0.7, 0.8, 0.9], [0.6, 0.7, 0.8])
        >>> round(found.mean, 3), round(found.interval.low, 3), round(found.interval.high, 3)
        (0.1, 0.1, 0.1)
    """

    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.resamples < 1:
            raise AmbisegError(
                f"an interval has a level between 0 and 1 and at least one resample, received level {self.level}"
                f" and {self.resamples} resamples"
            )

    def mean(self, values: ArrayLike, groups: Groups = None) -> Interval:
        """Interval of the mean over images.

        Args:
            values: ``(images,)``; images whose value is nan are left out.
            groups: group of every image; the mean is still one over images.

        Raises:
            AmbisegError: not one value, or not one group, for each image.
        """
        known = _flat(values)
        there, groups = ~np.isnan(known), _checked(groups, len(known))
        known = known[there]
        if not np.isfinite(known).all():
            return self._between([])
        groups = None if groups is None else list(itertools.compress(groups, there))
        counts = self._counts(len(known), groups)
        # Counted from the first value, so that equal values give an interval of width 0.
        return self._between([known[0] + count @ (known - known[0]) / count.sum(1) for count in counts])

    def difference(self, first: ArrayLike, second: ArrayLike, groups: Groups = None) -> Difference:
        """Mean of ``first - second``, image by image: two runs differ where its interval leaves out 0.

        Args:
            first, second: values of the same images in the same order, ``(images,)`` each; pairs with a nan are
                left out.
            groups: group of every image.

        Raises:
            AmbisegError: lists of different length.
        """
        ours, theirs = _flat(first), _flat(second)
        if len(ours) != len(theirs):
            raise AmbisegError(
                f"two lists of {len(ours)} and {len(theirs)} values are not paired: pass values of the same images"
            )
        gap = ours - theirs
        mean = float(np.nanmean(gap)) if np.isfinite(gap).any() else float("nan")
        return Difference(mean, self.mean(gap, groups))

    def pooled(self, pooling: Pooling, parts: Sequence[Tensor], groups: Groups = None) -> Interval:
        """Interval of a metric that joins its parts over all images before it divides.

        Args:
            pooling: how it joins them.
            parts: of single images, as `Pooling.parts` gives them for one batch of all.
            groups: group of every image.

        Raises:
            AmbisegError: not one group for each image.
        """
        return self._between(self._resampled(pooling, parts, groups))

    def pooled_difference(
        self, pooling: Pooling, first: Sequence[Tensor], second: Sequence[Tensor], groups: Groups = None
    ) -> Interval:
        """Interval of ``first - second`` of such a metric: both are resampled with the same images.

        Args:
            pooling: how it joins its parts.
            first, second: parts of the same images in the same order.
            groups: group of every image.

        Raises:
            AmbisegError: other numbers of images, or not one group for each.
        """
        if len(first[-1]) != len(second[-1]):
            raise AmbisegError(
                f"parts of {len(first[-1])} and {len(second[-1])} images are not paired: pass those of the same images"
            )
        ours, theirs = (self._resampled(pooling, parts, groups) for parts in (first, second))
        return self._between([one - other for one, other in zip(ours, theirs, strict=True)])

    def _resampled(
        self, pooling: Pooling, parts: Sequence[Tensor], groups: Groups
    ) -> list[NDArray[np.float64]]:
        """The metric of every resample, in blocks; the same seed draws the same images."""
        images = len(parts[-1])
        groups = _checked(groups, images)
        return [
            pooling.resampled(parts, torch.from_numpy(counts)).double().numpy()
            for counts in self._counts(images, groups)
        ]

    def _counts(self, images: int, groups: Groups) -> Iterator[NDArray[np.float64]]:
        """How often each resample holds each image, ``(some resamples, images)``; nothing below two units."""
        unit_of = units_of(groups, images)
        units = int(unit_of.max(initial=-1)) + 1
        if units < 2:
            return
        random, rows = np.random.default_rng(self.seed), max(1, _AT_ONCE // images)
        for start in range(0, self.resamples, rows):
            count = min(rows, self.resamples - start)
            drawn = random.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
            of_units = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)
            yield of_units[:, unit_of].astype(np.float64)

    def _between(self, blocks: Sequence[NDArray[np.float64]]) -> Interval:
        found = np.concatenate([*blocks, np.zeros(0)])
        found = found[~np.isnan(found)]
        if not len(found):
            return Interval(float("nan"), float("nan"))
        tail = (1 - self.level) / 2
        low, high = np.quantile(found, [tail, 1 - tail])
        return Interval(float(low), float(high))


def units_of(groups: Groups, images: int) -> NDArray[np.intp]:
    """Number of the unit of each image, ``(images,)``: of its group, or its own.

    Raises:
        AmbisegError: not one group for each image.
    """
    known = _checked(groups, images)
    names = np.arange(images) if known is None else np.asarray(known)
    numbers: NDArray[np.intp] = np.unique(names, return_inverse=True)[1]
    return numbers


def _flat(values: ArrayLike) -> NDArray[np.float64]:
    given: Any = values.detach().cpu() if isinstance(values, Tensor) else values
    found = np.asarray(given, np.float64)
    if found.ndim != 1:
        raise AmbisegError(f"values of shape {found.shape}: pass a flat list, one value for each image")
    return found


def _checked(groups: Groups, images: int) -> Groups:
    if groups is not None and len(groups) != images:
        raise AmbisegError(
            f"{counted(len(groups), 'group')} for {counted(images, 'image')}: pass one for each image, in their order"
        )
    return groups
