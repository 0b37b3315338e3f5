"""Whether two systems differ by more than chance over the same images: a paired permutation test.

Fisher (1935), "The design of experiments", section 21. If two systems are alike, it is chance which of them gave which
of the two results of an image. So the difference of the figures is compared with those where the two results of some
images are exchanged. The *units* are images, or groups of images that belong together, which are exchanged as a whole.

An exchange is a vector of zeros and ones, one for each unit, so a metric that pools is pooled again from the parts of
single images. ``scipy.stats.permutation_test`` exchanges observations, not groups or parts of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.metrics.intervals import Groups, units_of
from ambiseg.metrics.pooling import Pooling

RANKINGS = 499
"""Exchanges of metrics that keep lists (selection AP): each ranks all proposals of the data set again."""
_AT_ONCE = 2**22
"""Exchanges that are held together."""
_SAME = 1e-9
"""Differences that are as near as this, relative to the greatest term, count as equal: sums round."""
_ROUNDING = 1e-6
"""The same of figures of 32 bits, in their unit where they lie below 1; no table shows more decimals."""


@dataclass(frozen=True)
class PairedTest:
    """Two-sided permutation test of a difference over the same images.

    Attributes:
        resamples: how many exchanges are drawn. Where there are at most as many, all are taken, and the test is exact.
        seed: of the draws; the same one exchanges the same images for all metrics.

    Raises:
        AmbisegError: fewer than one exchange.

    Trap: of u units the smallest p is ``2 / 2^u``: below six it cannot reach 0.05. Images of one patient or scene are
    not independent: pass ``groups``.

    Example:
        >>> PairedTest().mean([0.7, 0.8, 0.9, 0.8, 0.9], [0.6, 0.7, 0.8, 0.7, 0.8])
        0.0625
        >>> PairedTest().mean([0.7, 0.8], [0.8, 0.7])
        1.0
    """

    resamples: int = 1999
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise AmbisegError(f"a permutation test needs at least one exchange, received {self.resamples}")

    def mean(
        self, first: ArrayLike, second: ArrayLike, groups: Groups = None, rounding: float = 0.0
    ) -> float:
        """p of the mean of ``first - second``, image by image.

        Args:
            first, second: values of the same images in the same order, ``(images,)`` each; pairs with a nan are left
                out.
            groups: group of every image.
            rounding: differences of an image up to this count as 0; at least 1e-9 of the greatest value do.

        Returns:
            The share of exchanges whose difference is as large or larger, from 0 to 1; nan where no pair is left or a
            value is infinite.

        Raises:
            AmbisegError: lists of different length, or not one group for each image.
        """
        ours, theirs = np.asarray(first, np.float64), np.asarray(second, np.float64)
        if ours.ndim != 1 or ours.shape != theirs.shape:
            raise AmbisegError(
                f"lists of shapes {ours.shape} and {theirs.shape} are not paired: pass values of the same images"
            )
        with np.errstate(invalid="ignore"):
            gap = ours - theirs
        units = units_of(groups, len(gap))
        gap, units = gap[~np.isnan(gap)], units[~np.isnan(gap)]
        if not len(gap) or not np.isfinite(gap).all():
            return float("nan")
        greatest = np.nanmax(abs(np.concatenate([ours, theirs])))
        gap[abs(gap) <= max(rounding, _SAME * greatest)] = 0
        sums = np.bincount(np.unique(units, return_inverse=True)[1], gap)
        found = [(1 - 2 * rows) @ sums for rows in self._exchanges(len(sums))]
        return self._share(np.concatenate(found), abs(sums).sum())

    def pooled(
        self, pooling: Pooling, first: Sequence[Tensor], second: Sequence[Tensor], groups: Groups = None
    ) -> float:
        """p of ``first - second`` of a metric that joins its parts over all images before it divides.

        Metrics that keep lists are exchanged at most `RANKINGS` times.

        Args:
            pooling: how it joins its parts.
            first, second: parts of the same images in the same order, as `Pooling.parts` gives them.
            groups: group of every image.

        Returns:
            The same as of `mean`.

        Raises:
            AmbisegError: other numbers of images, or not one group for each.
        """
        if len(first[-1]) != len(second[-1]):
            raise AmbisegError(
                f"parts of {len(first[-1])} and {len(second[-1])} images are not paired: pass those of the same images"
            )
        units = units_of(groups, len(first[-1]))
        joined = [torch.cat(parts) for parts in zip(first, second, strict=True)]
        found = []
        test = replace(self, resamples=min(self.resamples, RANKINGS)) if pooling.lists else self
        for rows in test._exchanges(int(units.max(initial=-1)) + 1):
            swap = torch.from_numpy(rows[:, units])
            ours = pooling.resampled(joined, torch.cat([1 - swap, swap], 1))
            theirs = pooling.resampled(joined, torch.cat([swap, 1 - swap], 1))
            found.append(torch.stack([ours, theirs]).double().numpy())
        values = np.concatenate([*found, np.zeros((2, 0))], 1)
        gaps = values[0] - values[1]
        gaps[abs(gaps) <= rounding_of(values)] = 0
        return self._share(gaps, float(np.nanmax(abs(gaps), initial=0)))

    def _exchanges(self, units: int) -> Iterator[NDArray[np.float64]]:
        """Which units are exchanged, ``(some exchanges, units)`` of 0 and 1; the first exchanges none."""
        count = min(self.resamples + 1, 2**units)
        random, block = np.random.default_rng(self.seed), max(1, _AT_ONCE // max(1, units))
        for start in range(0, count, block):
            rows = np.arange(start, min(start + block, count))
            if count == 2**units:
                drawn = rows[:, None] >> np.arange(units) & 1
            else:
                drawn = random.integers(2, size=(len(rows), units))
                drawn[rows == 0] = 0
            yield drawn.astype(np.float64)

    @staticmethod
    def _share(gaps: NDArray[np.float64], scale: float) -> float:
        """Share of the exchanges, the one as measured included, with a difference as large as the first."""
        if not len(gaps) or not np.isfinite(gaps[0]):
            return float("nan")
        return float((~(abs(gaps) < abs(gaps[0]) - _SAME * scale)).mean())


def rounding_of(values: NDArray[np.float64]) -> float:
    """Differences of metrics, which are computed with 32 bits, that may be rounding alone.

    Example:
        >>> rounding_of(np.array([0.2, 0.5])), rounding_of(np.array([8.0, np.inf]))
        (1e-06, 8e-06)
    """
    return _ROUNDING * max(1.0, float(abs(values[np.isfinite(values)]).max(initial=0)))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p values of several comparisons, corrected so that the chance of one false finding stays below the level.

    Holm (1979), "A simple sequentially rejective multiple test procedure". A nan is no comparison.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    known = sorted((p, name) for name, p in values.items() if p == p)
    found, least = dict(values), 0.0
    for i, (p, name) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - i)))
        found[name] = least
    return found
