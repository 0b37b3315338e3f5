"""Which masks a run keeps, chosen on its validation images.

The model predicts once. Candidates then pass through `postprocess`, the function that `predict` uses, and are compared
by the energy score per image,

    ES = d(S, Y) - d(S, S) / 2,

of the kept masks S with their probabilities and the annotations Y (`ambiseg.metrics.energy`; d is 1 - IoU). It is a
proper score, one annotation per image is enough, and GED^2 = 2 ES - d(Y, Y), where d(Y, Y) is the same for all
candidates. There are three steps:

1. **filter**: every near-duplicate IoU with every dropping rule (none, a score threshold, a probability threshold),
   and the K masks that represent all of them best;
2. **foreground**: the foreground threshold, where two classes have pixel probabilities;
3. **temperature** of the probabilities.

A candidate is *not worse* than the best one of its step where the mean difference over images plus one standard error
of it is at most `TOLERANCE`. The energy score hardly sees a mode of one in a hundred, so a second rule guards coverage:
against the best of those, the loss of HM IoU* (every distinct annotation counts alike) plus one standard error is at
most `COVERAGE`. Of the filters that are not worse, the one that keeps the fewest masks is chosen. Foreground threshold
and temperature stay as they are by default unless another value gains more than `TOLERANCE` beyond one standard error.
With fewer than `FEWEST` images nothing is compared: all masks stay, identical ones are merged.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.data.batches import annotations_of
from ambiseg.data.sample import Sample
from ambiseg.data.source import OneMaskSplit, SpreadSplit
from ambiseg.data.split import Split
from ambiseg.defaults import FOREGROUND_THRESHOLD
from ambiseg.engine.fitted_filter import FilterValues, FittedFilter
from ambiseg.engine.postprocess import PredictSettings, postprocess
from ambiseg.engine.run import Run, warn_of_range
from ambiseg.errors import AmbisegError, DataWarning
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Comparison, ged_parts, hm_iou_unique

Floats = NDArray[np.float64]

TOLERANCE = 0.0015
"""Loss of energy score that a smaller set may cost (.003 of GED^2)."""
COVERAGE = 0.03
"""Loss of HM IoU* that a smaller set may cost."""
FEWEST = 8
"""Images from which candidates are compared."""
IMAGES = 200
"""At most this many images, spread evenly over the split."""
HELD = 2**28
"""Bytes of predicted masks that are held; of large images fewer are used."""
BATCH = 16
"""Images in one pass."""
DUPLICATE_IOUS = (1.0, 0.99, 0.95, 0.9, 0.8)
SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
PROBABILITIES = (0.01, 0.02, 0.05, 0.1)
TOPS = (4, 6, 8, 10, 12, 16)
"""Numbers of masks that represent all of them."""
FOREGROUNDS = (FOREGROUND_THRESHOLD, 0.375, 0.25)
"""The default first, the one nearest to it next."""
TEMPERATURES = (1.0, 1.4, 0.7, 2.0, 0.5)
"""Likewise."""
EVERYTHING = FilterValues(None, None, 1.0)
"""All masks, identical ones merged."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Candidate:
    """A filter and what it comes to on every image.

    Attributes:
        values: the filter.
        scores: energy score, ``(N,)``.
        coverage: HM IoU*, ``(N,)``.
        masks: number of masks that are kept, ``(N,)``.
    """

    values: FilterValues
    scores: Floats
    coverage: Floats
    masks: Floats


@dataclass(frozen=True)
class _Batch:
    """Predictions of some images, decided at each foreground threshold, and their annotations."""

    predictions: dict[float, MaskSet]
    annotations: MaskSet

    def merged(self, iou: float | None) -> _Batch:
        """The same without near-duplicates, the first step of `postprocess`, which many candidates share."""
        if iou is None:
            return self
        decided = {t: masks.drop_near_duplicates(iou) for t, masks in self.predictions.items()}
        return replace(self, predictions=decided)


def choose_filter(
    run: Run,
    split: Split,
    name: str = "val",
    *,
    data: str = "",
    images: int = IMAGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> FittedFilter:
    """Choose what a run keeps of its predictions.

    Args:
        run: a loaded run.
        split: images with annotations that the run was not trained on.
        name, data: what the split and its data set are called in the result.
        images: at most this many of them.
        seed: of sampling methods.
        progress: called with steps done and in all: images that are predicted, and candidates that are measured.

    Raises:
        AmbisegError: no image, or other classes or channels than the run's.
    """
    if len(split) == 0:
        raise AmbisegError(f"the split {name!r} of {split.info.name} holds no image: add some")
    run.check_data(split)
    chosen = SpreadSplit(split, min(images, len(split)))
    where: dict[str, Any] = {"data": data, "split": name, "seed": seed}
    if len(chosen) < FEWEST:
        count = f"{len(chosen)} image{'s' * (len(chosen) > 1)}"
        message = (
            f"predictions keep all masks ({EVERYTHING.words()}): {count} of the split {name} are too few to choose a filter"
            f" ({FEWEST} are needed)"
        )
        return FittedFilter(EVERYTHING, 0, 0, message, **where)
    chosen = SpreadSplit(split, min(len(chosen), _room(run, chosen[0])))
    batches: list[_Batch] = []
    steps: dict[str, list[dict[str, Any]]] = {}
    done = total = 0
    for batch in _predicted(run, chosen, seed):
        batches.append(batch)
        steps = steps or _steps(batch)
        done, total = done + len(batch.annotations), len(chosen) + sum(map(len, steps.values()))
        if progress is not None:
            progress(done, total)
    first = batches[0].predictions[FOREGROUND_THRESHOLD]
    values, curve = EVERYTHING, list[dict[str, Any]]()
    for step, changes in steps.items():
        candidates: list[Candidate] = []
        for change in changes:
            tried = replace(values, **change)
            if not candidates or tried.duplicate_iou != candidates[-1].values.duplicate_iou:
                merged = [batch.merged(tried.duplicate_iou) for batch in batches]
            candidates.append(measured(tried, merged))
            done += 1
            if progress is not None:
                progress(done, total)
        found = compare(candidates)
        index = smallest(candidates, found) if step == "filter" else default_or_better(found)
        curve += [_row(step, candidates, found, i, i == index) for i in range(len(candidates))]
        values = candidates[index].values
    spread = _mean(np.concatenate([_spread(batch) for batch in batches]))
    seen = ", one mask each" if isinstance(split, OneMaskSplit) else ""
    last = next(row for row in curve[::-1] if row["chosen"])
    message = (
        f"predictions keep {last['masks']:.1f} of {first.masks.shape[1]} masks per image ({values.words()}), chosen on"
        f" {len(chosen)} images of the split {name}{seen}: GED² {2 * last['energy_score'] - spread:.3f}, with all masks"
        f" {2 * curve[0]['energy_score'] - spread:.3f}"
    )
    return FittedFilter(
        values=values,
        images=len(chosen),
        predicted=first.masks.shape[1],
        message=message,
        tolerance=TOLERANCE,
        spread=round(spread, 6),
        curve=tuple(curve),
        **where,
    )


def seconds_per_image(run: Run, split: Split) -> float:
    """About how long `choose_filter` takes for each image, from a choice on a few of them.

    Args:
        run: a run, trained or not.
        split: images with annotations.
    """
    few = SpreadSplit(split, min(FEWEST, len(split)))
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        choose_filter(run, few)
    return (time.monotonic() - began) / len(few)


def _steps(batch: _Batch) -> dict[str, list[dict[str, Any]]]:
    """The candidates of the three steps."""
    return {
        "filter": filters(with_scores=batch.predictions[FOREGROUND_THRESHOLD].scores is not None),
        "foreground": [{"foreground_threshold": t} for t in batch.predictions],
        "temperature": [{"temperature": t} for t in TEMPERATURES],
    }


def filters(with_scores: bool) -> list[dict[str, Any]]:
    """The candidates of the first step; the first of them keeps all."""
    rules: list[dict[str, Any]] = [{"score_threshold": None, "probability_threshold": None}]
    rules += [{"score_threshold": t} for t in SCORES if with_scores]
    rules += [{"probability_threshold": t} for t in PROBABILITIES]
    tops = [{**rules[0], "top": count} for count in TOPS]
    return [
        {"duplicate_iou": iou, **rule}
        for iou in DUPLICATE_IOUS
        for rule in rules + (tops if iou == 1 else [])
    ]


def _room(run: Run, sample: Sample) -> int:
    """How many images like this one are held at once."""
    generator = torch.Generator(run.hardware.device).manual_seed(0)
    masks = run.propose([sample.image], None, generator).masks
    return max(FEWEST, HELD // (len(FOREGROUNDS) * masks.numel()))


def _predicted(run: Run, split: Split, seed: int) -> Iterator[_Batch]:
    """Predictions and annotations of a split, images of one size together."""
    generator = torch.Generator(run.hardware.device).manual_seed(seed)
    remarks: list[str] = []
    held: list[Sample] = []

    def batch() -> _Batch:
        labels = split.info.labels
        proposals = replace(run.propose([s.image for s in held], None, generator), labels=labels)
        decided = {FOREGROUND_THRESHOLD: proposals.hard()}
        if labels.is_binary and proposals.probabilities is not None:
            decided |= {t: proposals.rethreshold(t).hard() for t in FOREGROUNDS[1:]}
        return _Batch(decided, MaskSet.stack([annotations_of(s, labels) for s in held]))

    for sample in split:
        if remark := run.remark_on(sample):
            remarks.append(remark)
        if held and (len(held) == BATCH or sample.image.shape != held[0].image.shape):
            yield batch()
            held.clear()
        held.append(sample)
    yield batch()
    warn_of_range(remarks, len(split))


def measured(values: FilterValues, batches: Sequence[_Batch]) -> Candidate:
    """What a filter comes to on every image of batches whose near-duplicates are merged."""
    settings = PredictSettings(**asdict(replace(values, duplicate_iou=None)))
    columns: list[list[torch.Tensor]] = [[], [], []]
    for batch in batches:
        kept = postprocess(batch.predictions[values.foreground_threshold], settings).masks
        pair = Comparison(kept, batch.annotations)
        parts = ged_parts(pair)
        found = (parts.between - parts.predictions / 2, hm_iou_unique(pair), kept.count)
        for column, value in zip(columns, found, strict=True):
            column.append(value.double())
    scores, coverage, masks = (torch.cat(column).numpy() for column in columns)
    return Candidate(values, scores, coverage, masks)


@dataclass(frozen=True)
class Compared:
    """Paired differences of candidates to the best of them.

    Attributes:
        worse_by: mean over images, ``(T,)``.
        standard_error: of this mean, ``(T,)``.
        not_worse: whether the sum of both is at most `TOLERANCE`, and coverage hardly suffers, ``(T,)``.
    """

    worse_by: Floats
    standard_error: Floats
    not_worse: NDArray[np.bool_]


def compare(candidates: Sequence[Candidate]) -> Compared:
    """Compare candidates on two images or more; the order of the images changes nothing."""
    scores = np.stack([candidate.scores for candidate in candidates])
    means = [_mean(row) for row in scores]
    best = min(range(len(means)), key=lambda i: (round(means[i], 9), _mean(candidates[i].masks), i))
    worse_by, error = _paired(scores - scores[best])
    good = worse_by + error <= TOLERANCE + 1e-9
    coverage = np.stack([candidate.coverage for candidate in candidates])
    widest = max(map(int, np.flatnonzero(good)), key=lambda i: (round(_mean(coverage[i]), 9), -i))
    loss, error_of_loss = _paired(coverage[widest] - coverage)
    return Compared(worse_by, error, good & (loss + error_of_loss <= COVERAGE + 1e-9))


def _paired(differences: Floats) -> tuple[Floats, Floats]:
    """Mean over images of differences ``(T, N)`` and its standard error, whatever the order of the images."""
    ordered = np.sort(differences, axis=1)
    return ordered.mean(1), ordered.std(1, ddof=1) / np.sqrt(ordered.shape[1])


def smallest(candidates: Sequence[Candidate], compared: Compared) -> int:
    """Index of the candidate that is not worse and keeps the fewest masks; of several the better one, then the
    first."""
    good = np.flatnonzero(compared.not_worse)
    return min(
        map(int, good),
        key=lambda i: (round(_mean(candidates[i].masks), 6), round(float(compared.worse_by[i]), 9), i),
    )


def default_or_better(compared: Compared) -> int:
    """Index 0, the default, unless the best candidate gains more than `TOLERANCE` over it by more than one standard
    error; then the one nearest to the default that is not worse than the best."""
    if compared.worse_by[0] - compared.standard_error[0] <= TOLERANCE:
        return 0
    return int(np.argmax(compared.not_worse))


def _row(
    step: str, candidates: Sequence[Candidate], compared: Compared, index: int, chosen: bool
) -> dict[str, Any]:
    candidate = candidates[index]
    return {
        "step": step,
        **asdict(candidate.values),
        "masks": round(_mean(candidate.masks), 4),
        "energy_score": round(_mean(candidate.scores), 6),
        "coverage": round(_mean(candidate.coverage), 6),
        "worse_by": round(float(compared.worse_by[index]), 6),
        "standard_error": round(float(compared.standard_error[index]), 6),
        "chosen": chosen,
    }


def _spread(batch: _Batch) -> Floats:
    """d(Y, Y) of every image."""
    return ged_parts(batch.annotations, batch.annotations).annotations.numpy()


def _mean(values: Floats) -> float:
    """The mean, which does not depend on the order of the values."""
    return float(np.sort(values).mean())
