"""What a data set holds, before any model sees it: counts, how far its annotators disagree, and what numbers
are within reach.

Two columns say how the metrics of a table are to be read. The *annotation oracle* draws n masks from the
annotations themselves: no model that samples can be expected to do better with n samples. *One annotator* is
a mask of one annotator against those of the others: what a single mask of human quality reaches. Both are
drawn by weight, `ORACLE_DRAWS` times per image.

Two passes over the data, a batch at a time: the check (`ambiseg.data.check`), then digest and measurements
together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from typing import Any

import numpy as np
import torch
from torchmetrics import MetricCollection

from ambiseg import notebook
from ambiseg.data.batches import annotations_of
from ambiseg.data.causes import Problem
from ambiseg.data.check import CheckReport, check_dataset
from ambiseg.data.folder import Progress, missing_split
from ambiseg.data.info import DatasetInfo
from ambiseg.data.memory.dataset import DataLike, InMemory, as_data, title_of
from ambiseg.data.sample import Sample
from ambiseg.data.seen import SplitSeen, Summary
from ambiseg.data.source import list_splits, open_split
from ambiseg.data.split import Split
from ambiseg.engine.tally import ORACLE_DRAWS
from ambiseg.errors import AmbisegError, counted
from ambiseg.escaping import visible
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import (
    METRICS,
    AnnotatorAgreement,
    Comparison,
    annotator_agreement,
    metric_collection,
    oracle_samples,
)

SAMPLES = (1, 4, 16)
"""Numbers of samples of the annotation oracle unless asked otherwise."""
EXAMPLES = 3
"""Images that are named as most, and as least, ambiguous."""

_SHOWN = {"spread": "d(Y,Y)", "modes": "distinct masks", "area": "area marked"}
_BATCH = 16


@dataclass(frozen=True)
class SplitDescription:
    """What one split holds.

    Attributes:
        summary: counts, sizes, channels, types, shares of classes.
        digest: SHA-256 over all samples.
        measured: images behind the numbers that follow; fewer than there are if a sample of them was asked
            for.
        disagreement: means over these images: those of `AnnotatorAgreement` (nan where no image has two
            masks), and ``empty`` (share of masks that mark nothing, by weight), ``modes`` (distinct masks),
            ``mode_entropy`` (of their probabilities, in nats), ``area`` (expected share of pixels marked).
        oracle: metric by name for each number of samples of the annotation oracle.
        one_annotator: metric by name of one annotation against the others; empty if no image has two.
        most_ambiguous: ids by falling ``spread``.
        least_ambiguous: ids by rising ``spread``, images on which all say "nothing" last.
    """

    summary: Summary
    digest: str
    measured: int
    disagreement: dict[str, float]
    oracle: dict[int, dict[str, float]]
    one_annotator: dict[str, float]
    most_ambiguous: tuple[str, ...]
    least_ambiguous: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """What a data set holds; see `describe`.

    Attributes:
        path: where it is.
        info: what it says about itself: name, classes, source, licence.
        splits: in the usual order.
        warnings: what a person should look at, such as images that two splits share.
        seed: of all draws.
    """

    path: str
    info: DatasetInfo
    splits: tuple[SplitDescription, ...]
    warnings: tuple[Problem, ...]
    seed: int

    def __repr__(self) -> str:
        """One line: name, path, images of the splits, classes, warnings."""
        counts = ", ".join(f"{s.summary.split} {s.summary.counted}" for s in self.splits)
        where = f" at {self.path}" if self.path != self.info.name else ""
        parts = [f"{self.info.name}{where}", counts, f"classes {', '.join(self.info.labels.names)}"]
        parts += [counted(len(self.warnings), "warning")] if self.warnings else []
        return f"<Description: {visible('; '.join(parts))}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: a line, a row for each split, the warnings."""
        rows = [
            [
                s.split,
                str(s.images),
                f"{s.mean:.2f}",
                *(f"{one.disagreement.get(name, math.nan):.3f}" for name in _SHOWN),
            ]
            for one in self.splits
            for s in [one.summary]
        ]
        table = notebook.table(["split", "images", "masks per image", *_SHOWN.values()], rows)
        warnings = [f"{one.file}: {one.problem}: {one.remedy}" for one in self.warnings]
        return "".join([notebook.paragraph(repr(self)), table, *map(notebook.paragraph, warnings)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        info = self.info
        return {
            "path": self.path,
            "name": info.name,
            "source": info.source,
            "licence": info.licence,
            "classes": list(info.labels.names),
            "channels": list(info.channels),
            "seed": self.seed,
            "oracle_draws": ORACLE_DRAWS,
            "warnings": [asdict(warning) for warning in self.warnings],
            "splits": {split.summary.split: _plain(split) for split in self.splits},
        }


def describe(
    data: DataLike,
    split: str | None = None,
    *,
    samples: Sequence[int] = SAMPLES,
    images: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Description:
    """Describe a data set: what it holds, how its annotators disagree, what metrics can reach.

    Args:
        data: folder, packed file, or what `ambiseg.dataset` makes or takes.
        split: which split; all of them if None.
        samples: numbers of samples of the annotation oracle.
        images: measure disagreement and metrics on so many images of each split, drawn by the seed; on all if
            None. Counts and digests are always of all.
        seed: of all draws.
        progress: called after every image with what is being done.

    Raises:
        AmbisegError: no data set, an error that `check_dataset` finds, no such split, a number below 1.
    """
    for what, number in [("samples", n) for n in samples] + [("images", images)]:
        if number is not None and number < 1:
            raise AmbisegError(f"{what} must be at least 1, received {number}")
    path = as_data(data)
    warnings: tuple[Problem, ...] = ()
    if isinstance(path, InMemory):
        names = list(path) if split is None else [split]
        summaries = [_summary_of(name, path.open(name)) for name in names]
    else:
        names = list_splits(path)
        if split is not None and split not in names:
            raise missing_split(path, split, names)
        report = _checked(path, progress)
        summaries, warnings = list(report.summaries), report.warnings
    chosen = [summary for summary in summaries if split in (None, summary.split)]
    found = [
        _describe_split(open_split(path, summary.split), summary, samples, images, seed, progress)
        for summary in chosen
    ]
    info = open_split(path, chosen[0].split).info
    return Description(title_of(path), info, tuple(found), warnings, seed)


def _summary_of(name: str, split: Split) -> Summary:
    """What a split in memory holds."""
    seen = SplitSeen(name, name, split.ids)

    def count(sample: Sample) -> None:
        seen.image(sample.id, sample.image)
        seen.count(len(sample.masks))
        for mask in sample.masks:
            seen.mask(mask)

    split.digest(count)
    return seen.summary(split.stored.info)


def _checked(path: str | PathLike[str], progress: Progress | None) -> CheckReport:
    """The report of the check, if there is no error in it."""

    def tell(split: str, done: int, total: int | None) -> None:
        if progress is not None:
            progress(f"checking {split}", done, total)

    report = check_dataset(path, tell, to_train=False)
    if not report.ok:
        first = report.errors[0]
        raise AmbisegError(
            f"{path} has {counted(len(report.errors), 'error')}, such as {first.file}: {first.problem}:"
            f" see 'ambiseg data check {path}'"
        )
    return report


def _describe_split(
    source: Split,
    summary: Summary,
    samples: Sequence[int],
    images: int | None,
    seed: int,
    progress: Progress | None,
) -> SplitDescription:
    count = len(source) if images is None else min(images, len(source))
    order = np.random.default_rng([seed, count]).permutation(len(source))
    wanted = {source.ids[i] for i in order[:count]}
    tally, done = _Tally(source.info.labels, samples, seed), itertools.count(1)

    def measure(stored: Sample) -> None:
        if stored.id in wanted:
            tally.add(source.shown(stored))
        if progress is not None:
            progress(f"measuring {summary.split}", next(done), len(source))

    digest = source.digest(measure)
    tally.flush()
    return tally.result(summary, digest)


class _Tally:
    """Sums over the images that are measured."""

    def __init__(self, labels: LabelSpace, samples: Sequence[int], seed: int) -> None:
        self.labels = labels
        names = [name for name, info in METRICS.items() if info.default and info.fits_oracle]
        self.oracle = {n: metric_collection(names) for n in sorted(set(samples))}
        self.alone = metric_collection(names)
        self.drawing = torch.Generator().manual_seed(seed)
        self.measured = self.several = 0
        self.totals: dict[str, tuple[float, int]] = {}
        self.held: list[Sample] = []
        self.most: list[tuple[float, str]] = []
        self.least: list[tuple[float, bool, str]] = []

    def add(self, sample: Sample) -> None:
        """Measure the image together with those of its size that come next to it."""
        if self.held and (len(self.held) == _BATCH or sample.masks.shape[1:] != self.held[0].masks.shape[1:]):
            self.flush()
        self.held.append(sample)

    def flush(self) -> None:
        """Measure what is held."""
        if not self.held:
            return
        annotations = MaskSet.stack([annotations_of(sample, self.labels) for sample in self.held])
        values = _disagreement(annotations)
        for name, value in values.items():
            total, count = self.totals.get(name, (0.0, 0))
            self.totals[name] = (total + float(value.nansum()), count + int((~value.isnan()).sum()))
        for n, metrics in self.oracle.items():
            for drawn in oracle_samples(annotations, n, ORACLE_DRAWS, self.drawing):
                metrics.update(Comparison(drawn, annotations))
        several = annotations[annotations.count > 1]
        for _ in range(ORACLE_DRAWS if len(several) else 0):
            self.alone.update(_one_against_rest(several, self.drawing))
        self.several += len(several)
        spreads, empty = values["spread"].tolist(), values["area"].tolist()
        for sample, spread, area in zip(self.held, spreads, empty, strict=True):
            self.most = sorted([*self.most, (-spread, sample.id)])[:EXAMPLES]
            self.least = sorted([*self.least, (spread, area == 0, sample.id)])[:EXAMPLES]
        self.measured += len(self.held)
        self.held = []

    def result(self, summary: Summary, digest: str) -> SplitDescription:
        """The means."""
        alone = () if self.several else {field.name for field in fields(AnnotatorAgreement)}
        return SplitDescription(
            summary,
            digest,
            self.measured,
            {
                name: round(total / count, 6) if count and name not in alone else math.nan
                for name, (total, count) in self.totals.items()
            },
            {n: _computed(metrics) for n, metrics in self.oracle.items()},
            _computed(self.alone) if self.several else {},
            tuple(name for _, name in self.most),
            tuple(name for *_, name in self.least),
        )


def _disagreement(annotations: MaskSet) -> dict[str, torch.Tensor]:
    """The numbers of `SplitDescription.disagreement`, ``(B,)`` each."""
    agreement, areas = annotator_agreement(annotations), annotations.areas()
    modes = annotations.merge_identical()
    return {
        **{field.name: getattr(agreement, field.name) for field in fields(AnnotatorAgreement)},
        "empty": (annotations.weights * (areas == 0)).sum(1),
        "modes": modes.count.float(),
        "mode_entropy": torch.special.entr(modes.weights).sum(1),
        "area": (annotations.weights * areas).sum(1),
    }


def _one_against_rest(annotations: MaskSet, generator: torch.Generator) -> Comparison:
    """One annotation of each image, drawn by weight, against the others."""
    index = torch.multinomial(annotations.weights, 1, generator=generator)
    one = MaskSet.uniform(annotations.gather(index).masks, annotations.labels)
    others = annotations.weights.scatter(1, index, 0.0)
    return Comparison(one, replace(annotations, weights=others).normalised())


def _computed(metrics: MetricCollection) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in metrics.compute().items()}


def _plain(split: SplitDescription) -> dict[str, Any]:
    entries = asdict(split)
    summary = entries.pop("summary")
    summary["sizes"] = {f"{height}x{width}": n for (height, width), n in split.summary.sizes.items()}
    return {**summary, **entries}
