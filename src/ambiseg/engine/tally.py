"""`Tally`: what compares predicted mask sets with annotations over the images of a split, batch by batch.

`ambiseg.engine.evaluate` puts a run in front of it, `ambiseg.engine.score` the files of any program. A *column* is one
set of masks of every image: all that a model predicts, those that are kept, or those of a file.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import MetricCollection

from ambiseg.errors import AmbisegError, counted
from ambiseg.escaping import csv_cell
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import (
    METRICS,
    AnnotatorAgreement,
    Bootstrap,
    Comparison,
    Dialect,
    Difference,
    Interval,
    MeanOverImages,
    PairedTest,
    PixelBins,
    PooledOverImages,
    annotator_agreement,
    coverage_curve,
    default_metrics,
    metric_collection,
    metric_info,
    missing,
    mode_probabilities,
    oracle_samples,
)
from ambiseg.metrics.intervals import Groups
from ambiseg.metrics.registry import listed

LEAST_GROUPS, FEW_GROUPS = 4, 10
"""Of fewer groups no interval is made; of fewer than the second it is known to be too narrow."""
ORACLE_DRAWS = 5
"""How often the annotation oracle is drawn; with a hundred images the mean is then good to a few
thousandths."""
_ALIKE = 1e-6
"""How far probabilities lie apart that count as equal."""


@dataclass(frozen=True)
class Figures:
    """What was measured of some images.

    Attributes:
        columns: metric by name in each column.
        oracle: the same for as many draws from the annotations themselves as the first column has masks, where draws
            have what a metric needs; empty where none were drawn.
        annotators: mean over images of `AnnotatorAgreement`, by name; nan where every image has one annotation.
        intervals: of ``columns``; empty where none were asked for, nan of fewer than `LEAST_GROUPS` groups.
        units: number of images, or of groups, that intervals draw.
        counts: number of masks of each image in each column, ``(images,)`` int64.
        even: whether the modes of an image are equally probable, ``(images,)``.
        ids: names of the images.
        per_image: metric by name, ``(images,)``, of the masks in the metric's first column.
        estimated, true: probabilities of the masks of the last column and of modes, paired.
        pixels: mean confidence, mean target and count of bins of pixels; None where ECE was not asked for.
        coverage: HM IoU* of the k best masks of the first column, mean over images, ``(M,)``; empty where it was not
            computed.
    """

    columns: dict[str, dict[str, float]]
    oracle: dict[str, float]
    annotators: dict[str, float]
    intervals: dict[str, dict[str, Interval]]
    units: int
    counts: dict[str, NDArray[np.int64]]
    even: NDArray[np.bool_]
    ids: tuple[str, ...]
    per_image: dict[str, NDArray[np.float64]]
    estimated: NDArray[np.float64]
    true: NDArray[np.float64]
    pixels: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None
    coverage: NDArray[np.float64]

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.ids)

    def masks_per_image(self, column: str) -> float:
        """Mean number of masks in a column."""
        return round(float(self.counts[column].sum() / self.images), 3)

    def valued(self, name: str) -> NDArray[np.bool_]:
        """Which images the figure of a metric is of, ``(images,)``: a mean leaves out those without a value, and a
        metric that pools takes all."""
        if METRICS[name].pooling is not None:
            defined = any(not math.isnan(column.get(name, math.nan)) for column in self.columns.values())
            return np.full(self.images, defined)
        return ~np.isnan(self.per_image[name])


class Tally:
    """Sums over batches: accumulators for every column, per-image values, counts and probabilities.

    Args:
        labels: the classes, and which of them are evaluated.
        dialect: conventions of the metrics.
        columns: names of the columns. A metric is computed in those that its `MetricInfo` names; in all if it names
            none of them.
        metrics: names or a single one, or "all" alone for every one that fits; the default ones that fit the first
            column if None.
        oracle_draws: how often the annotation oracle is drawn; 0 leaves it out.
        seed: of these draws.
        bootstrap: how intervals are made; None for none.
        curves: whether to compute the coverage of the best masks, which needs a matching for each of them.
        same_counts: whether the oracle draws of each image as many masks as the first column has of it; else as many
            as it has of the fullest image of the batch.
    """

    def __init__(
        self,
        labels: LabelSpace,
        dialect: Dialect,
        columns: Sequence[str],
        metrics: str | Sequence[str] | None = None,
        oracle_draws: int = ORACLE_DRAWS,
        seed: int = 0,
        bootstrap: Bootstrap | None = None,
        curves: bool = True,
        same_counts: bool = False,
    ) -> None:
        self.labels, self.dialect, self.bootstrap = labels, dialect, bootstrap
        self.wanted = None if metrics is None else listed(metrics)
        self.oracle_draws, self.same_counts = oracle_draws, same_counts
        self.drawing = torch.Generator().manual_seed(seed)
        self.titles = tuple(columns)
        self.names: list[str] = []
        self.ids: list[str] = []
        self.columns: dict[str, MetricCollection] = {}
        self.pooled: dict[str, list[torch.Tensor]] = {}
        self.agreement: list[AnnotatorAgreement] = []
        self.counts: dict[str, list[torch.Tensor]] = {title: [] for title in columns}
        self.even: list[torch.Tensor] = []
        self.curves: list[torch.Tensor] | None = [] if curves else None
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.several = False

    def _columns_of(self, name: str) -> list[str]:
        """Columns in which a metric is computed; values of images are those of the first."""
        own = metric_info(name).columns
        return [title for title in own if title in self.titles] or list(self.titles)

    def _prepare(self, predicted: MaskSet) -> None:
        names = default_metrics(predicted) if self.wanted is None else self.wanted
        if names == ["all"]:
            names = [name for name, info in METRICS.items() if not missing(info, predicted)]
        for column in self.titles:
            own = [name for name in names if column in self._columns_of(name)]
            self.columns[column] = metric_collection(own, keep_images=True, dialect=self.dialect)
        fitting = [name for name in names if METRICS[name].fits_oracle]
        self.oracle = metric_collection(fitting, dialect=self.dialect)
        self.names = names

    def join(self, other: Tally) -> None:
        """Add the batches of another tally that was made alike, as if they had been added here.

        Raises:
            AmbisegError: its images have other metrics.
        """
        if self.columns and self.names != other.names:
            odd = sorted(set(self.names) ^ set(other.names))
            raise AmbisegError(
                f"only some images have {', '.join(odd)}: name the metrics to measure (--metrics)"
            )
        if self.columns:
            for title, metrics in other.columns.items():
                for name, metric in metrics.items():
                    metric.merge_state(self.columns[title][name])  # lists of the argument come first
            for name, metric in other.oracle.items():
                metric.merge_state(self.oracle[name])
        self.columns, self.oracle, self.names = other.columns, other.oracle, other.names
        for name, values in other.pooled.items():
            self.pooled.setdefault(name, []).extend(values)
        for title, counts in other.counts.items():
            self.counts[title] += counts
        if self.curves is not None and other.curves is not None:
            self.curves += other.curves
        self.ids += other.ids
        self.agreement += other.agreement
        self.even += other.even
        self.pairs += other.pairs
        self.several |= other.several

    def add(self, ids: Sequence[str], masks: Mapping[str, MaskSet], annotations: MaskSet) -> None:
        """Add the images of a batch.

        Args:
            ids: their names.
            masks: those of each column.
            annotations: what they are compared with, with the classes of this tally.
        """
        if not self.columns:
            self._prepare(masks[self.titles[0]])
        pairs = {
            column: Comparison(replace(masks[column], labels=self.labels), annotations, self.dialect)
            for column in self.titles
        }
        first, last = pairs[self.titles[0]], pairs[self.titles[-1]]
        for column, pair in pairs.items():
            self.columns[column].update(pair)
            self.counts[column].append(pair.predictions.count)
        for name in self.names:
            if METRICS[name].pooling is not None:
                value = METRICS[name].function(pairs[self._columns_of(name)[0]])
                self.pooled.setdefault(name, []).append(value)
        if self.oracle_draws:
            count = first.predictions.masks.shape[1]
            for drawn in oracle_samples(annotations, count, self.oracle_draws, self.drawing):
                if self.same_counts:
                    drawn = _first_of(drawn, first.predictions.count)
                self.oracle.update(Comparison(drawn, annotations, self.dialect))
        if self.curves is not None:
            self.curves += coverage_curve(first).double()
        others_alike = replace(annotations, masks=self.labels.without_others(annotations.masks))
        self.agreement.append(annotator_agreement(others_alike))
        self.several |= bool((annotations.count > 1).any())
        self.ids += ids
        probabilities = mode_probabilities(last)
        self.pairs.append(
            (probabilities.estimated[probabilities.there], probabilities.true[probabilities.there])
        )
        modes = last.modes
        greatest = modes.weights.amax(1)
        least = modes.weights.masked_fill(~modes.present, math.inf).amin(1)
        self.even.append(greatest - least < _ALIKE)

    def _pixels(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
        """The reliability diagram of pixels, from the accumulator of ECE."""
        if "ece" not in self.names:
            return None
        pooled = self.columns[self.titles[0]]["ece"]
        assert isinstance(pooled, PooledOverImages)
        bins = PixelBins(*(part[None] for part in pooled.joined()))
        confidence, target = bins.curve()
        return confidence.double().numpy(), target.double().numpy(), bins.count.double().numpy()

    def _per_image(self, name: str) -> NDArray[np.float64]:
        """Values of the images in the first column of a metric."""
        mean = self.columns[self._columns_of(name)[0]][name]
        values = mean.per_image() if isinstance(mean, MeanOverImages) else torch.cat(self.pooled[name])
        return values.double().numpy()

    def _intervals(self, groups: Groups) -> dict[str, dict[str, Interval]]:
        found: dict[str, dict[str, Interval]] = {}
        if self.bootstrap is None:
            return found
        if _too_few(groups):
            return {
                column: dict.fromkeys(map(str, metrics), _NOTHING) for column, metrics in self.columns.items()
            }
        for column, collection in self.columns.items():
            found[column] = {}
            for name, metric in collection.items():
                assert isinstance(metric, (MeanOverImages, PooledOverImages))
                found[column][name] = _rounded_ends(metric.interval(self.bootstrap, groups))
        return found

    def figures(self, groups: Mapping[str, str] | None = None) -> Figures:
        """What the images so far give.

        Args:
            groups: group of every image by its name: intervals draw whole groups.

        Raises:
            AmbisegError: there was no image.
        """
        if not self.ids:
            raise AmbisegError("there is no image to measure: name a split that has one")
        of_images = None if groups is None else [groups[name] for name in self.ids]
        estimated, true = (torch.cat(column).double().numpy() for column in zip(*self.pairs, strict=True))
        return Figures(
            columns={title: _rounded(column.compute()) for title, column in self.columns.items()},
            oracle=_rounded(self.oracle.compute()) if self.oracle_draws else {},
            annotators=_rounded(
                {
                    field.name: torch.cat([getattr(a, field.name) for a in self.agreement]).nanmean()
                    if self.several
                    else torch.tensor(math.nan)
                    for field in fields(AnnotatorAgreement)
                }
            ),
            intervals=self._intervals(of_images),
            units=len(self.ids) if of_images is None else len(set(of_images)),
            counts={title: torch.cat(parts).numpy() for title, parts in self.counts.items()},
            even=torch.cat(self.even).numpy(),
            ids=tuple(self.ids),
            per_image={name: self._per_image(name) for name in self.names},
            estimated=estimated,
            true=true,
            pixels=self._pixels(),
            coverage=np.zeros(0) if self.curves is None else _mean_curve(self.curves),
        )

    def difference(self, other: Tally, name: str, groups: Mapping[str, str] | None = None) -> Difference:
        """How far a metric of the first column exceeds that of another tally over the same images, with the interval
        of this tally's bootstrap.

        Raises:
            AmbisegError: no bootstrap, or other images.
        """
        if self.bootstrap is None or self.ids != other.ids:
            raise AmbisegError("a difference needs a bootstrap and two tallies of the same images")
        of_images = None if groups is None else [groups[one] for one in self.ids]
        ours, theirs = (one.columns[one._columns_of(name)[0]][name] for one in (self, other))
        assert isinstance(ours, (MeanOverImages, PooledOverImages))
        mean, interval = ours.difference(theirs, self.bootstrap, of_images)
        return Difference(round(mean, 6), _NOTHING if _too_few(of_images) else _rounded_ends(interval))

    def p_value(
        self, other: Tally, name: str, test: PairedTest, groups: Mapping[str, str] | None = None
    ) -> float:
        """How likely a difference of the first columns as large is by chance, see `PairedTest`.

        Raises:
            AmbisegError: two tallies of other images.
        """
        of_images = None if groups is None else [groups[one] for one in self.ids]
        ours, theirs = (one.columns[one._columns_of(name)[0]][name] for one in (self, other))
        assert isinstance(ours, (MeanOverImages, PooledOverImages))
        return round(ours.p_value(theirs, test, of_images), 6)


def check_groups(ids: Sequence[str], groups: Mapping[str, str] | None) -> None:
    """Raise `AmbisegError` if an image has no group."""
    lost = [name for name in ids if groups is not None and name not in groups]
    if lost:
        have = "has" if len(lost) == 1 else "have"
        raise AmbisegError(
            f"{counted(len(lost), 'image')} {have} no group, such as {lost[0]!r}: give every image one"
        )


def plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """None where a metric is not defined: JSON knows no nan."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def plain_ends(intervals: Mapping[str, Interval]) -> dict[str, list[float] | None]:
    """Both ends of intervals, None where there is none."""
    return {name: None if math.isnan(low) else [low, high] for name, (low, high) in intervals.items()}


def per_image_csv(ids: Sequence[str], columns: Mapping[str, NDArray[np.float64]]) -> str:
    """A CSV with a row for each image and values of six digits under the headings of ``columns``.

    Example:
        >>> per_image_csv(["a"], {"ged": np.array([0.25])})
        'id,ged\\na,0.25\\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *map(csv_cell, columns)])
    for i, name in enumerate(ids):
        writer.writerow([csv_cell(name), *(f"{values[i]:.6g}" for values in columns.values())])
    return text.getvalue()


_NOTHING = Interval(math.nan, math.nan)


def _first_of(drawn: MaskSet, counts: torch.Tensor) -> MaskSet:
    """The first masks of each image, ``(B,)`` of them, equally probable."""
    there = torch.arange(drawn.masks.shape[1], device=counts.device) < counts[:, None]
    return replace(drawn, weights=there / counts[:, None])


def _too_few(groups: Groups) -> bool:
    """Whether groups are too few for an interval."""
    return groups is not None and len(set(groups)) < min(LEAST_GROUPS, len(groups))


def _rounded_ends(interval: Interval) -> Interval:
    return Interval(round(interval.low, 6), round(interval.high, 6))


def _mean_curve(curves: list[torch.Tensor]) -> NDArray[np.float64]:
    """Mean of curves ``(M,)``, shorter ones going on with their last value."""
    longest = max(len(curve) for curve in curves)
    same = [torch.cat([curve, curve[-1:].expand(longest - len(curve))]) for curve in curves]
    return torch.stack(same).mean(0).numpy()


def _rounded(values: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in values.items()}
