"""Tables of a benchmark: every method on one data set, with what is needed to believe the figures.

A figure is the mean over seeds, with the standard deviation where there are several. The best of a column is
marked after a test, paired over images: the values of an image are averaged over seeds, and the best method
is compared with every other by the two-sided Wilcoxon signed-rank test, the p-values corrected after Holm
(1979). The best value is **bold** if the difference to every other method is significant (p < 0.05).
Otherwise it is *italic*, and so is every value that does not differ significantly from it.

Nothing is marked where no test is possible: metrics that pool all images have no value per image, metrics
without a direction have no best value, and fewer than `FEWEST` images never give p < 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from ambiseg.metrics.dialects import AMBISEG, dialect_of
from ambiseg.metrics.registry import METRICS
from ambiseg.metrics.tables import MetricRow
from ambiseg.report.text_tables import Entry, Mark, Table

Number = float | None

LEVEL = 0.05
"""Corrected p-value below which two methods differ."""
FEWEST = 6
"""Images with which the test can reach `LEVEL` at all: the least p-value of n images is 2 / 2^n."""


@dataclass(frozen=True)
class Measured:
    """A run that is finished, as it is shown.

    Attributes:
        data, method, seed: its place in the matrix.
        labels: what training saw of an image (`TrainSettings.seen_labels`).
        split, images: what was evaluated.
        masks: mean number per image.
        metrics, oracle: figures of the method, and of the annotation oracle with as many masks; None where
            not defined.
        per_image: values of the images, in the order of the split.
        steps, training_seconds, parameters, seconds_per_image, peak_memory: what it cost; memory in MiB.
        hardware: what that was measured on.
        annotators: how far the annotators agree, by name.
        coverage: HM IoU* of the k best masks, mean over images.
        estimated, true: probabilities of masks and modes in pairs.
        dialect, classes: conventions of the metrics, and names of the evaluated classes.
        tag: both in short, where they are not the usual ones.
    """

    data: str
    method: str
    seed: int
    labels: str
    split: str
    images: int
    masks: float
    metrics: Mapping[str, Number]
    oracle: Mapping[str, Number]
    per_image: Mapping[str, Sequence[Number]]
    steps: int
    training_seconds: float
    parameters: int
    seconds_per_image: float
    peak_memory: Number
    hardware: str
    annotators: Mapping[str, Number]
    coverage: Sequence[Number]
    estimated: Sequence[Number]
    true: Sequence[Number]
    dialect: str = AMBISEG.name
    classes: Sequence[str] = ()
    tag: str = ""


@dataclass(frozen=True)
class Printed:
    """What a paper prints, to stand beside what was measured.

    Attributes:
        paper: where it stands.
        data: the data set beside which to show it.
        values: of each method, metric -> mean and standard deviation.
        samples: masks per image.
        differs: in what its protocol is another one; empty if it is the same.
    """

    paper: str
    data: str
    values: Mapping[str, Mapping[str, tuple[float, Number]]]
    samples: int | None = None
    differs: str = ""


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: ``max_{j <= i} min(1, (m - j + 1) p_(j))`` in rising order (Holm
    1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = least
    return corrected


def against_best(
    figures: Mapping[str, float], per_image: Mapping[str, NDArray[np.float64]], higher_is_better: bool
) -> dict[str, float]:
    """Corrected p-value of every other method against the best one, images paired; 1 where no image differs.

    Args:
        figures: of each method; the best one is chosen by them, those that are nan take no part.
        per_image: of each method, ``(images,)``; pairs with a nan are left out.
        higher_is_better: direction.
    """
    known = {name: value for name, value in figures.items() if math.isfinite(value)}
    if len(known) < 2:
        return {}
    best = _best(known, higher_is_better)
    others = [name for name in known if name != best]
    p_values = []
    for name in others:
        difference = per_image[best] - per_image[name]
        difference = difference[np.isfinite(difference)]
        p_values.append(float(wilcoxon(difference).pvalue) if np.any(difference) else 1.0)
    return dict(zip(others, holm(p_values), strict=True))


def marks(
    figures: Mapping[str, float], p_values: Mapping[str, float], higher_is_better: bool
) -> dict[str, Mark]:
    """Bold for a best method that differs from all others; else italic for it and for those that do not
    differ from it.

    Example:
        >>> marks({"a": 0.9, "b": 0.8, "c": 0.7}, {"b": 0.2, "c": 0.01}, True)
        {'a': 'italic', 'b': 'italic'}
        >>> marks({"a": 0.9, "b": 0.8}, {"b": 0.01}, True)
        {'a': 'bold'}
    """
    if not p_values:
        return {}
    known = {name: value for name, value in figures.items() if math.isfinite(value)}
    alike = [name for name, p in p_values.items() if p >= LEVEL]
    best = _best(known, higher_is_better)
    return dict.fromkeys([best, *alike], "italic") if alike else {best: "bold"}


def _best(figures: Mapping[str, float], higher_is_better: bool) -> str:
    return (max if higher_is_better else min)(figures, key=lambda name: figures[name])


def data_table(
    runs: Sequence[Measured],
    metrics: Sequence[str],
    papers: Sequence[Printed] = (),
    differs: Mapping[str, str] | None = None,
    remark: str = "",
) -> Table:
    """Every method on one data set, what the annotation oracle reaches, and what papers print.

    Args:
        runs: of one data set, in the order of the table.
        metrics: columns.
        papers: of this data set.
        differs: of methods, in what their settings differ from the experiment that they stand for.
        remark: what belongs beside the title.
    """
    differing = differs or {}
    methods = {run.method: [r for r in runs if r.method == run.method] for run in runs}
    columns = {name: _column(name, methods) for name in metrics}
    rows = []
    for method, own in methods.items():
        one = own[0]
        rows.append(
            (
                Entry(f"{method} †" if method in differing else method),
                Entry(one.labels),
                Entry(float(len(own)), digits=0),
                Entry(_mean([r.masks for r in own]), digits=1),
                *(columns[name][method] for name in metrics),
                Entry(one.parameters / 1e6, digits=2),
                Entry(_mean([r.training_seconds for r in own]) / 60, digits=1),
                Entry(1000 * _mean([r.seconds_per_image for r in own]), digits=1),
                Entry(_mean([r.peak_memory for r in own]), digits=0),
            )
        )
    ends = (Entry(None),) * 4
    for masks in sorted({run.masks for run in runs}):
        alike = [run for run in runs if run.masks == masks]
        figures = [
            Entry(_mean([r.oracle[n] for r in alike if n in r.oracle]) if _has(alike, n) else None)
            for n in metrics
        ]
        rows.append(
            (
                Entry("annotation oracle"),
                Entry(None),
                Entry(None),
                Entry(masks, digits=1),
                *figures,
                *ends,
            )
        )
    notes = [
        f"† {', '.join(name for name in methods if differing.get(name) == text)}: {text}."
        for text in dict.fromkeys(differing[name] for name in methods if name in differing)
    ]
    for paper in papers:
        for method, values in paper.values.items():
            label = f"{method}: {paper.paper}{' †' if paper.differs else ''}"
            figures = [Entry(*values[n]) if n in values else Entry(None) for n in metrics]
            samples = None if paper.samples is None else float(paper.samples)
            rows.append((Entry(label), Entry(None), Entry(None), Entry(samples, digits=0), *figures, *ends))
        if paper.differs:
            notes.append(f"† {paper.paper}, different protocol: {paper.differs}.")
    first = runs[0]
    n = max(round(run.masks) for run in runs)
    header: tuple[str, ...] = ("method", "labels", "seeds", "masks")
    tag = f" [{first.tag}]" if first.tag else ""
    header += tuple(
        f"{MetricRow.of(name).title} {MetricRow.of(name).arrow}".strip() + f"{tag}, n = {n}"
        for name in metrics
    )
    header += ("parameters (M)", "training (min)", "ms/image", "peak memory (MiB)")
    return Table(
        f"{first.data}: {first.images} images of the split {first.split}{tag}"
        + (f"; {remark}" if remark else ""),
        header,
        tuple(rows),
        (*_explanations(first, metrics, n), *dict.fromkeys(notes)),
    )


def _explanations(run: Measured, metrics: Sequence[str], n: int) -> list[str]:
    dialects = [f"{METRICS[name].title}: {METRICS[name].description}" for name in metrics]
    agreement = ", ".join(
        f"{title} {Entry(_float(run.annotators.get(name))).text}"
        for name, title in (("pairwise_iou", "IoU"), ("pairwise_dice", "Dice"), ("spread", "d(Y,Y)"))
    )
    if run.tag:
        dialects.append(f"Dialect {run.dialect}. {dialect_of(run.dialect).source}")
        dialects.append(f"Evaluated classes: {', '.join(run.classes)}.")
    return [
        *dialects,
        f"n is the number of masks per image: {n}, unless the column 'masks' gives another one. Metrics are computed over all"
        " masks, BSS over the kept masks. Values are means over seeds, ± one standard deviation where there are several seeds.",
        f"Bold: best value, and its difference to every other method is significant (Wilcoxon signed-rank test over images, Holm,"
        f" p < {LEVEL}). Italic: best value, or not significantly different from it. Not tested: metrics that pool images, and"
        f" data with fewer than {FEWEST} images.",
        "Annotation oracle: a sampler that draws the same number of masks from the annotations themselves. Annotators among"
        f" themselves: {agreement}.",
        f"Times and memory on {run.hardware}.",
    ]


def _column(metric: str, methods: Mapping[str, Sequence[Measured]]) -> dict[str, Entry]:
    """One metric of all methods, marked."""
    found = {
        method: [_float(run.metrics[metric]) for run in runs if metric in run.metrics]
        for method, runs in methods.items()
    }
    figures = {method: _mean(values) for method, values in found.items() if values}
    direction, marked = METRICS[metric].higher_is_better, dict[str, Mark]()
    if direction is not None and METRICS[metric].pooling is None:
        per_image = {
            method: np.mean([np.array(run.per_image[metric], dtype=np.float64) for run in methods[method]], 0)
            for method in figures
        }
        if any(len(values) >= FEWEST for values in per_image.values()):
            marked = marks(figures, against_best(figures, per_image, direction), direction)
    return {
        method: Entry(
            figures.get(method),
            float(np.std(values, ddof=1)) if len(values) > 1 else None,
            mark=marked.get(method, ""),
        )
        for method, values in found.items()
    }


def _has(runs: Sequence[Measured], metric: str) -> bool:
    return any(run.oracle.get(metric) is not None for run in runs)


def _float(value: Number) -> float:
    return math.nan if value is None else value


def _mean(values: Sequence[Number]) -> float:
    return float(np.mean([_float(value) for value in values]))
