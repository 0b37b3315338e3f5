"""Metrics over a whole data set: thin torchmetrics accumulators around the per-image functions.

Batches may come in any size and from several processes. Most numbers are means over images; those with a
`Pooling` join their parts over all images first. With ``keep_images`` an accumulator also keeps what each image
contributed, and gives an interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from ambiseg.defaults import SCORE_THRESHOLD
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.dialects import AMBISEG, Dialect, dialect_of
from ambiseg.metrics.intervals import Bootstrap, Difference, Groups, Interval
from ambiseg.metrics.paired_tests import PairedTest, rounding_of
from ambiseg.metrics.registry import listed, metric_info


class _Accumulator(Metric):
    """A metric whose direction and bounds come from `METRICS`."""

    full_state_update = False
    is_differentiable = False

    def __init__(
        self, name: str, keep_images: bool = False, dialect: str | Dialect = AMBISEG, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.info, self.keep_images, self.dialect = metric_info(name), keep_images, dialect_of(dialect)

    def _pair(self, predictions: MaskSet | Comparison, annotations: MaskSet | None) -> Comparison:
        """The comparison in the dialect of this accumulator.

        Raises:
            AmbisegError: it is of another one.
        """
        if not isinstance(predictions, Comparison) and annotations is not None:
            return Comparison(predictions, annotations, self.dialect)
        pair = Comparison.of(predictions, annotations)
        if pair.dialect != self.dialect:
            raise AmbisegError(
                f"this accumulator of {self.info.name} is of the dialect {self.dialect.name}, the comparison of"
                f" {pair.dialect.name}: give both the same"
            )
        return pair

    def interval(self, bootstrap: Bootstrap, groups: Groups = None) -> Interval:
        """Interval of the figure over the images so far.

        Args:
            bootstrap: level, resamples and seed.
            groups: group of every image, in their order.

        Raises:
            AmbisegError: made without ``keep_images``, or not one group for each image.
        """
        self._need_images()
        return self._interval(bootstrap, groups)

    def difference(self, other: Metric, bootstrap: Bootstrap, groups: Groups = None) -> Difference:
        """How far the figure exceeds that of another accumulator of the same metric and images, resampled together.

        Args:
            other: made with ``keep_images`` as well.
            bootstrap: level, resamples and seed.
            groups: group of every image, in their order.

        Raises:
            AmbisegError: of another metric, made without ``keep_images``, or of another number of images.
        """
        self._need_same(other)
        return self._difference(other, bootstrap, groups)

    def p_value(self, other: Metric, test: PairedTest, groups: Groups = None) -> float:
        """How likely a difference as large would be if it were chance which of two accumulators has which value.

        Args:
            other: of the same metric and images, made with ``keep_images`` as well.
            test: exchanges and seed.
            groups: group of every image, in their order.

        Raises:
            AmbisegError: of another metric, made without ``keep_images``, or of another number of images.
        """
        self._need_same(other)
        return self._p_value(other, test, groups)

    def _need_same(self, other: Metric) -> None:
        if type(other) is not type(self) or other.info != self.info:
            raise AmbisegError(f"a difference of {self.info.name} is one of two accumulators of that metric")
        self._need_images()
        other._need_images()

    def _need_images(self) -> None:
        if not self.keep_images:
            raise AmbisegError(
                f"this accumulator of {self.info.name} kept no values of images: make it with keep_images=True"
            )

    def _interval(self, bootstrap: Bootstrap, groups: Groups) -> Interval:
        raise NotImplementedError

    def _difference(self, other: Any, bootstrap: Bootstrap, groups: Groups) -> Difference:
        raise NotImplementedError

    def _p_value(self, other: Any, test: PairedTest, groups: Groups) -> float:
        raise NotImplementedError

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        return self.info.higher_is_better

    @property
    def plot_lower_bound(self) -> float | None:  # type: ignore[override]
        return _finite(self.info.lower_bound)

    @property
    def plot_upper_bound(self) -> float | None:  # type: ignore[override]
        return _finite(self.info.upper_bound)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw the value, or several given values, with the metric's bounds and its better side marked.

        Returns:
            A matplotlib figure and its axes.
        """
        axes: Any
        figure, axes = self._plot(val, ax)
        axes.set_title(self.info.title)
        return figure, axes


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None


class MeanOverImages(_Accumulator):
    """Mean over images of one metric of `METRICS`; images whose value is nan are left out.

    Args:
        name: key of `METRICS`.
        keep_images: whether to keep the values of images, for `interval`.
        dialect: conventions of a paper, by name or as a `Dialect`.

    Raises:
        UnknownNameError: there is no such metric, or no such dialect.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> mean = MeanOverImages("ged")
        >>> mean.update(truth, truth)
        >>> mean.update(truth.top(1), truth)
        >>> mean.compute()
        tensor(0.1250)
    """

    total: Tensor
    images: Tensor
    values: list[Tensor]

    def __init__(
        self, name: str, keep_images: bool = False, dialect: str | Dialect = AMBISEG, **settings: Any
    ) -> None:
        super().__init__(name, keep_images, dialect, **settings)
        if keep_images:
            self.add_state("values", [], dist_reduce_fx="cat")
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> None:
        """Add the images of a batch."""
        if isinstance(predictions, Comparison) or self.dialect != AMBISEG:
            predictions, annotations = self._pair(predictions, annotations), None
        value = self.info.function(predictions, annotations)
        images = len(predictions.predictions if isinstance(predictions, Comparison) else predictions)
        if not isinstance(value, Tensor) or value.shape != (images,):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise AmbisegError(
                f"the metric {self.info.name!r} returned {got} for {images} images: return a tensor of one value each"
            )
        self.total = self.total + value.nansum()
        self.images = self.images + (~value.isnan()).sum()
        if self.keep_images:
            self.values.append(value)

    def per_image(self) -> Tensor:
        """The values of the images so far, ``(images,)``; of an accumulator made with ``keep_images``."""
        return _concatenated(self.values)

    def _interval(self, bootstrap: Bootstrap, groups: Groups) -> Interval:
        return bootstrap.mean(self.per_image(), groups)

    def _difference(self, other: Any, bootstrap: Bootstrap, groups: Groups) -> Difference:
        return bootstrap.difference(self.per_image(), other.per_image(), groups)

    def _p_value(self, other: Any, test: PairedTest, groups: Groups) -> float:
        ours, theirs = (one.per_image().double().cpu().numpy() for one in (self, other))
        return test.mean(ours, theirs, groups, rounding_of(np.concatenate([ours, theirs])))

    def compute(self) -> Tensor:
        """The mean; nan before the first image."""
        return self.total / self.images


class PooledOverImages(_Accumulator):
    """One value of the joined parts of all images, of a metric with a `Pooling`.

    Args:
        name: key of `METRICS`.
        threshold: of the selection scores.
        keep_images: whether to keep the parts of images, for `interval`.
        dialect: conventions of a paper, by name or as a `Dialect`.

    Raises:
        UnknownNameError: there is no such metric, or no such dialect.
        AmbisegError: the metric is a mean over images.

    Trap: metrics that keep lists (selection AP) hold one entry for each proposal of the data set, and across
    processes each process must have seen an image.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> scores, truth = torch.tensor([[0.9, 0.2]]), MaskSet.uniform(masks, LabelSpace.binary())
        >>> PooledOverImages("selection_f1")(MaskSet(masks, truth.weights, truth.labels, scores), truth)
        tensor(0.6667)
    """

    def __init__(
        self,
        name: str,
        threshold: float = SCORE_THRESHOLD,
        keep_images: bool = False,
        dialect: str | Dialect = AMBISEG,
        **settings: Any,
    ) -> None:
        super().__init__(name, keep_images, dialect, **settings)
        if self.info.pooling is None:
            raise AmbisegError(f"{name} is a mean over images: use MeanOverImages")
        self.pooling, self.threshold = self.info.pooling, threshold
        for part, zero in self.pooling.sums.items():
            self.add_state(part, zero.clone(), dist_reduce_fx="sum")
            if keep_images:
                self.add_state(f"{part}_of_images", [], dist_reduce_fx="cat")
        for part in self.pooling.lists:
            self.add_state(part, [], dist_reduce_fx="cat")

    def update(self, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> None:
        """Add the parts of a batch."""
        parts = self.pooling.parts(self._pair(predictions, annotations), self.threshold)
        for name, part in zip((*self.pooling.sums, *self.pooling.lists), parts, strict=True):
            if name in self.pooling.lists:
                getattr(self, name).append(part)
            else:
                setattr(self, name, getattr(self, name) + part.sum(0))
                if self.keep_images:
                    getattr(self, f"{name}_of_images").append(part)

    def joined(self) -> tuple[Tensor, ...]:
        """The parts of all images so far."""
        sums = (getattr(self, name) for name in self.pooling.sums)
        return (*sums, *(_concatenated(getattr(self, name)) for name in self.pooling.lists))

    def compute(self) -> Tensor:
        """The pooled value; nan before the first image."""
        return self.pooling.value(*self.joined())

    def _interval(self, bootstrap: Bootstrap, groups: Groups) -> Interval:
        return bootstrap.pooled(self.pooling, self._parts(), groups)

    def _difference(self, other: Any, bootstrap: Bootstrap, groups: Groups) -> Difference:
        mean = float(self.compute()) - float(other.compute())
        return Difference(
            mean, bootstrap.pooled_difference(self.pooling, self._parts(), other._parts(), groups)
        )

    def _p_value(self, other: Any, test: PairedTest, groups: Groups) -> float:
        return test.pooled(self.pooling, self._parts(), other._parts(), groups)

    def _parts(self) -> list[Tensor]:
        """The parts of every image so far."""
        names = [*(f"{name}_of_images" for name in self.pooling.sums), *self.pooling.lists]
        return [_concatenated(getattr(self, name)).cpu() for name in names]


def _concatenated(parts: list[Tensor] | Tensor) -> Tensor:
    """One tensor of a list that may be empty, or that was joined across processes already."""
    if isinstance(parts, list) and not parts:
        return torch.zeros(0)
    joined: Tensor = dim_zero_cat(parts)
    return joined


def metric_collection(
    names: str | Iterable[str],
    threshold: float = SCORE_THRESHOLD,
    keep_images: bool = False,
    dialect: str | Dialect = AMBISEG,
) -> MetricCollection:
    """Accumulators of several metrics by name, updated together.

    Args:
        names: keys of `METRICS`, or a single one.
        threshold: of the selection scores.
        keep_images: whether each keeps what images contributed, for `interval`.
        dialect: conventions of a paper, by name or as a `Dialect`.

    Raises:
        UnknownNameError: there is no such metric, or no such dialect.

    Trap: ``update(Comparison(predictions, annotations))`` computes overlaps and matching once for all of
    them, ``update(predictions, annotations)`` once for each. Such a comparison has the same dialect.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> both = metric_collection(["hm_iou", "ged"])
        >>> both.update(Comparison(truth, truth))
        >>> both.compute()
        {'hm_iou': tensor(1.), 'ged': tensor(0.)}
    """
    # Groups would share one state between metrics that agree on the first batch, be it by chance.
    collection = MetricCollection({}, compute_groups=False)
    for name in listed(names):
        pooled = metric_info(name).pooling is not None
        member: _Accumulator = (
            PooledOverImages(name, threshold, keep_images, dialect)
            if pooled
            else MeanOverImages(name, keep_images, dialect)
        )
        collection.add_metrics({name: member})  # one by one: a dictionary would be sorted by name
    return collection
