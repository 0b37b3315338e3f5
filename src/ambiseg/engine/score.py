"""Scores of masks of any program: files, or arrays, against the annotations of a split.

The figures are those of `ambiseg.engine.evaluate`: both use a `Tally`. Several systems are measured on the same images,
and differ from the first one by an interval in which both are resampled together.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambiseg import notebook
from ambiseg.atomic_write import replacing_folder, write_json, write_text
from ambiseg.data.batches import annotations_of
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split
from ambiseg.data.split import Split
from ambiseg.engine.tally import (
    ORACLE_DRAWS,
    Figures,
    Tally,
    check_groups,
    per_image_csv,
    plain,
    plain_ends,
)
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import METRICS, Bootstrap, Dialect, Difference, Interval, dialect_of
from ambiseg.metrics.dialects import AMBISEG
from ambiseg.metrics.registry import listed
from ambiseg.metrics.tables import html_table
from ambiseg.owned_files import several
from ambiseg.predictions import Predictions, Samples, UnfitError, open_predictions, understood

SCORE = "score"
"""Verb that the list of a folder of scores names."""
COLUMN = "given"
"""The one column of the tallies."""
NEARLY_ALL = 0.95
"""Share of the images with equally probable modes above which a comparison with equal probabilities says nothing."""
AGAINST_EQUAL = ("brier_skill_score", "brier_skill_nearest", "brier_skill_merged")
"""Metrics that compare probabilities with equal ones."""
MISTAKES = {
    "sizes": ("have another size than the annotations", "resample the masks to the size of the annotations"),
    "classes": ("hold numbers that are no classes of the data", "number the classes as dataset.yaml does"),
    "weights": (
        "have weights that are no probabilities of sum 1",
        "divide the weights of an image by their sum",
    ),
    "range": ("hold probabilities outside of 0 to 1", "pass logits through a sigmoid, and mend NaN"),
    "files": ("cannot be read", "mend these files"),
}
"""What may be wrong with predictions of images, and what to do."""
_BOOTSTRAP = Bootstrap()
_DRAWN = 500
"""Draws of the annotation oracle over all images; of few images each is drawn `ORACLE_DRAWS` times."""
_BATCH = 16
_ELEMENTS = 2**25
"""Values of masks in a batch, all classes counted."""


@dataclass(frozen=True)
class System:
    """One set of predictions and its figures.

    Attributes:
        name: how tables call it.
        figures: what was measured, in the one column `COLUMN`.
        differences: of metrics to the first system, with intervals; empty for the first itself.
    """

    name: str
    figures: Figures
    differences: dict[str, Difference]

    @property
    def values(self) -> dict[str, float]:
        """Metric by name."""
        return self.figures.columns[COLUMN]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Interval by metric; empty where none were asked for."""
        return self.figures.intervals.get(COLUMN, {})

    @property
    def masks_per_image(self) -> float:
        """Mean number of masks."""
        return self.figures.masks_per_image(COLUMN)

    @property
    def count(self) -> str:
        """Number of masks per image in words, with the range where images differ."""
        low, high = int(self.figures.counts[COLUMN].min()), int(self.figures.counts[COLUMN].max())
        return f"{low}" if low == high else f"{self.masks_per_image:.2f} ({low} to {high})"


@dataclass(frozen=True)
class Scores:
    """What predictions of one or several systems reach.

    Attributes:
        systems: in the order in which they were given; differences are to the first.
        split, data_digest: what they were compared with.
        missing: images of the split that are left out since a system has no prediction of them.
        left_out: why default metrics are not computed, by name.
        dialect: conventions of the metrics.
        labels: the classes, and which of them are evaluated.
        settings: what the figures depend on beside predictions and data.
        bootstrap: how intervals were made; None where none were asked for.
        remarks: what a user should know of how predictions were read.
    """

    systems: tuple[System, ...]
    split: str
    data_digest: str
    missing: tuple[str, ...]
    left_out: dict[str, str]
    dialect: Dialect
    labels: LabelSpace
    settings: dict[str, Any]
    bootstrap: Bootstrap | None
    remarks: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of images measured."""
        return self.systems[0].figures.images

    @property
    def units(self) -> int:
        """Number of images, or of groups, that intervals draw."""
        return self.systems[0].figures.units

    @property
    def tag(self) -> str:
        """Dialect and classes where they are not the usual ones."""
        return self.dialect.tag(self.labels)

    @property
    def classes(self) -> list[str]:
        """Names of the evaluated classes."""
        return [self.labels.names[c] for c in self.labels.evaluated]

    @property
    def settings_digest(self) -> str:
        """SHA-256 of the settings: scores of the same one, and of the same data, can be compared."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values of images, as plain values."""
        return {
            "split": self.split,
            "images": self.images,
            "missing": list(self.missing),
            "data_digest": self.data_digest,
            "settings_digest": self.settings_digest,
            "settings": self.settings,
            "dialect": self.dialect.name,
            "classes": self.classes,
            "units": self.units,
            "left_out": self.left_out,
            "remarks": list(self.remarks),
            "annotators": plain(self.systems[0].figures.annotators),
            "systems": {system.name: _system_record(system) for system in self.systems},
        }

    def _measured(self) -> str:
        return f"{self.images} images, dialect {self.dialect.name}, classes {', '.join(self.classes)}"

    def __repr__(self) -> str:
        lines = [self._measured()]
        for system in self.systems:
            lines.append(f"{system.name}: {system.count} masks per image")
            for name, value in system.values.items():
                low, high = system.intervals.get(name, (math.nan, math.nan))
                ends = "" if math.isnan(low) else f"  [{low:.4f}, {high:.4f}]"
                lines.append(f"  {METRICS[name].title:<18} {value:.4f}{ends}")
        return "\n".join(lines + self._reasons())

    def _reasons(self) -> list[str]:
        return [f"left out: {reason}" for reason in dict.fromkeys(self.left_out.values())]

    def _repr_html_(self) -> str:
        """What a notebook shows: a column for each system with intervals; the annotation oracle beside one."""
        columns = {system.name: system.values for system in self.systems}
        intervals = {system.name: system.intervals for system in self.systems}
        oracle = self.systems[0].figures.oracle
        if oracle and len(self.systems) == 1:
            columns["annotation oracle"] = oracle
        counts = "; ".join(f"{system.name}: {system.count} masks per image" for system in self.systems)
        blocks = [*map(notebook.paragraph, (self._measured(), counts)), html_table(columns, intervals)]
        return "".join(blocks + [notebook.paragraph(reason) for reason in self._reasons()])

    def save(self, out: Path, overwrite: bool = False, inputs: Sequence[Path] = ()) -> None:
        """Make a folder with ``score.json`` and ``per_image.csv``, whole or not at all.

        Raises:
            AmbisegError: ``out`` exists and must stay, or holds files of somebody else or an input.
        """
        tag = f" [{self.tag}]" if self.tag else ""
        columns = {
            f"{system.name}: {name}{tag}" if len(self.systems) > 1 else name + tag: values
            for system in self.systems
            for name, values in system.figures.per_image.items()
        }
        with replacing_folder(out, overwrite, SCORE, inputs) as partial:
            write_json(partial / "score.json", self.to_dict())
            write_text(partial / "per_image.csv", per_image_csv(self.systems[0].figures.ids, columns))


def _system_record(system: System) -> dict[str, Any]:
    counts = system.figures.counts[COLUMN]
    masks = {"mean": system.masks_per_image, "least": int(counts.min()), "most": int(counts.max())}
    record: dict[str, Any] = {
        "masks_per_image": masks,
        "metrics": plain(system.values),
        "intervals": plain_ends(system.intervals),
        "oracle": plain(system.figures.oracle),
    }
    if system.differences:
        record["difference_to_first"] = {
            name: {
                **plain({"mean": found.mean}),
                "interval": plain_ends({"": found.interval})[""],
            }
            for name, found in system.differences.items()
        }
    return record


def score_files(
    predictions: Sequence[str | Path],
    data: str | Path | Split,
    split: str = "test",
    *,
    names: Sequence[str] = (),
    ids: Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    dialect: str | Dialect = AMBISEG,
    classes: Sequence[str | int] = (),
    groups: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    oracle_draws: int | None = None,
    bootstrap: Bootstrap | None = _BOOTSTRAP,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Compare predictions in files with the annotations of a split.

    Args:
        predictions: a folder or file of each system, see `ambiseg.predictions`.
        data: a data set, or an opened split.
        split: which split of it.
        names: of the systems; those of the files if empty.
        ids: names of the images of arrays, in their order.
        metrics: names or a single one, or "all" alone for every one that fits; the default ones that fit and mean
            something on these data if None.
        dialect: conventions of a paper, by name or as a `Dialect`.
        classes: names or ids of the classes to evaluate; those of the dialect if empty.
        groups: group of every image by its name: intervals draw whole groups.
        allow_missing: leave out images of which a system has no prediction, for all systems.
        oracle_draws: how often the annotation oracle is drawn, 0 leaves it out; if None `ORACLE_DRAWS` times, less often
            of more than a hundred images.
        bootstrap: how intervals are made; None for none.
        seed: of the draws.
        progress: called with images done and in all.

    Raises:
        AmbisegError: files that cannot be read, predictions that are missing or do not fit the annotations, or what
            `ambiseg.evaluate` refuses.
    """
    source = open_split(data, split) if isinstance(data, (str, Path)) else data
    opened = [open_predictions(path, source.ids, ids) for path in predictions]
    titles = _titles([found.path for found in opened], names)
    chosen, missing, remarks = _common(opened, titles, source.ids, allow_missing)
    check_groups([name for name in source.ids if name in chosen], groups)
    labels, dialect = source.info.labels, dialect_of(dialect)
    labels = dialect.space(labels.restricted(classes) if len(classes) else labels)
    scorer = _Scorer(labels, dialect, titles, metrics, oracle_draws, len(chosen), seed, bootstrap)
    reader = _Reader(opened, source, labels, scorer)
    done = 0

    def read(stored: Sample) -> None:
        nonlocal done
        if stored.id in chosen:
            reader.add(stored)
        done += 1
        if progress is not None:
            progress(done, len(source))

    digest = source.digest(read)
    reader.finish()
    return scorer.scores(split, digest, missing, tuple(remarks), groups)


def score(
    predictions: ArrayLike | Sequence[ArrayLike],
    annotations: ArrayLike | Sequence[ArrayLike],
    *,
    weights: ArrayLike | Sequence[ArrayLike] | None = None,
    annotation_weights: ArrayLike | Sequence[ArrayLike] | None = None,
    metrics: str | Sequence[str] | None = None,
    dialect: str | Dialect = AMBISEG,
    labels: LabelSpace | None = None,
    classes: Sequence[str | int] = (),
    groups: Sequence[str] | None = None,
    oracle_draws: int | None = None,
    bootstrap: Bootstrap | None = _BOOTSTRAP,
    seed: int = 0,
) -> Scores:
    """Score the masks of any program against annotations, both as arrays.

    Args:
        predictions: ``(N, n, H, W)``, or a list of ``(n, H, W)`` of different sizes and counts. Whole numbers are
            label maps; fractions are probabilities of the foreground.
        annotations: likewise, label maps.
        weights: of the predictions, ``(N, n)`` or a list; equal if None. A weight of 0 marks a mask that is not there.
        annotation_weights: of the annotations; equal if None.
        metrics: names or a single one, or "all" alone; the default ones that fit and mean something if None.
        dialect: conventions of a paper, by name or as a `Dialect`.
        labels: the classes; as many as the label maps show if None.
        classes: names or ids of the classes to evaluate; those of the dialect if empty.
        groups: group of each image: intervals draw whole groups.
        oracle_draws: how often the annotation oracle is drawn, 0 leaves it out; if None `ORACLE_DRAWS` times, less often
            of more than a hundred images.
        bootstrap: how intervals are made; None for none.
        seed: of the draws.

    Raises:
        AmbisegError: arrays that do not belong together, or what `ambiseg.evaluate` refuses.

    Example:
        >>> truth = np.array([[[[1, 1], [0, 0]], [[1, 1], [1, 0]]]])
        >>> found = score(truth[:, :1], truth, metrics="ged", bootstrap=None, oracle_draws=0)
        >>> found
        1 images, dialect ambiseg, classes foreground
        predictions: 1 masks per image
          GED²               0.1667
        >>> found.to_dict()["systems"]["predictions"]["metrics"]
        {'ged': 0.166667}
    """
    ours, theirs = _arrays(predictions, "predictions"), _arrays(annotations, "annotations")
    shares = _rows(weights, ours, "weights")
    theirs_shares = _rows(annotation_weights, theirs, "annotation_weights")
    if len(ours) != len(theirs):
        raise AmbisegError(
            f"predictions of {len(ours)} images, annotations of {len(theirs)}: give both of the same images"
        )
    labels, dialect = labels or _shown_classes([*ours, *theirs]), dialect_of(dialect)
    labels = dialect.space(labels.restricted(classes) if len(classes) else labels)
    rules, whole = MaskRules.of(labels), replace(labels, only=())
    if groups is not None and len(groups) != len(ours):
        raise AmbisegError(f"{len(groups)} groups for {len(ours)} images: pass one for each")
    scorer = _Scorer(labels, dialect, ("predictions",), metrics, oracle_draws, len(ours), seed, bootstrap)
    mistakes = _Mistakes()
    batch: list[tuple[str, list[MaskSet], MaskSet]] = []
    for i, (values, truth) in enumerate(zip(ours, theirs, strict=True)):
        with mistakes.of("predictions", str(i)):
            masks, probabilities = understood(values, rules, whole, f"predictions of image {i}")
            _check_size(masks.shape[1:], truth.shape[1:])
            found = Samples(masks, shares[i], probabilities).as_set(whole)
        with mistakes.of("annotations", str(i)):
            fixed, fractions = understood(truth, rules, whole, f"annotations of image {i}")
            if fractions is not None:
                raise UnfitError("classes", "it holds fractions")
            annotated = Samples(fixed, theirs_shares[i]).as_set(labels)
        if not mistakes.found:
            batch = scorer.take(batch, (str(i), [found], annotated))
    mistakes.check()
    scorer.flush(batch)
    of_images = None if groups is None else {str(i): group for i, group in enumerate(groups)}
    return scorer.scores("", "", (), (), of_images)


class _Scorer:
    """A tally for each system, fed with the same batches."""

    def __init__(
        self,
        labels: LabelSpace,
        dialect: Dialect,
        names: Sequence[str],
        metrics: str | Sequence[str] | None,
        oracle_draws: int | None,
        images: int,
        seed: int,
        bootstrap: Bootstrap | None,
    ) -> None:
        if oracle_draws is None:
            oracle_draws = max(1, min(ORACLE_DRAWS, _DRAWN // images))
        self.labels, self.dialect, self.names, self.bootstrap = labels, dialect, tuple(names), bootstrap
        self.chosen = None if metrics is None else listed(metrics)
        self.tallies = [
            Tally(
                labels,
                dialect,
                (COLUMN,),
                self.chosen,
                oracle_draws,
                seed,
                bootstrap,
                curves=False,
                same_counts=True,
            )
            for _ in names
        ]
        self.drawn = {"oracle_draws": oracle_draws, "seed": seed}

    def take(
        self,
        batch: list[tuple[str, list[MaskSet], MaskSet]],
        one: tuple[str, list[MaskSet], MaskSet],
    ) -> list[tuple[str, list[MaskSet], MaskSet]]:
        """The batch that goes on with ``one``: what is full is measured first."""

        def elements(entry: tuple[str, list[MaskSet], MaskSet]) -> int:
            return sum(found.masks.numel() for found in entry[1]) * self.labels.channels

        size = one[2].masks.shape[2:]
        full = len(batch) == _BATCH or (len(batch) + 1) * max(map(elements, [*batch, one])) > _ELEMENTS
        if batch and (full or batch[0][2].masks.shape[2:] != size):
            self.flush(batch)
            batch = []
        return [*batch, one]

    def flush(self, batch: list[tuple[str, list[MaskSet], MaskSet]]) -> None:
        """Measure a batch."""
        if not batch:
            return
        ids, annotations = [one[0] for one in batch], MaskSet.stack([one[2] for one in batch])
        for i, tally in enumerate(self.tallies):
            tally.add(ids, {COLUMN: MaskSet.stack(_alike([one[1][i] for one in batch]))}, annotations)

    def scores(
        self,
        split: str,
        digest: str,
        missing: tuple[str, ...],
        remarks: tuple[str, ...],
        groups: Mapping[str, str] | None,
    ) -> Scores:
        found = [tally.figures(groups) for tally in self.tallies]
        left_out = _meaningless(found[0]) if self.chosen is None else {}
        every = dict.fromkeys(name for tally in self.tallies for name in tally.names)
        metrics = [name for name in every if name not in left_out]
        systems = []
        for i, (title, tally) in enumerate(zip(self.names, self.tallies, strict=True)):
            shared = [name for name in metrics if name in tally.names and name in self.tallies[0].names]
            differences = (
                {metric: tally.difference(self.tallies[0], metric, groups) for metric in shared}
                if i and self.bootstrap is not None
                else {}
            )
            systems.append(System(title, _without(found[i], left_out), differences))
        settings = {
            "metrics": metrics,
            "dialect": self.dialect.name,
            "classes": [self.labels.names[c] for c in self.labels.evaluated],
            "bootstrap": None if self.bootstrap is None else asdict(self.bootstrap),
            "grouped": groups is not None,
            **self.drawn,
        }
        return Scores(
            tuple(systems), split, digest, missing, left_out, self.dialect, self.labels, settings, self.bootstrap,
            remarks,
        )  # fmt: skip


class _Reader:
    """Reads the predictions of every system beside the images of a split."""

    def __init__(
        self, opened: Sequence[Predictions], source: Split, labels: LabelSpace, scorer: _Scorer
    ) -> None:
        self.opened, self.source, self.labels, self.scorer = opened, source, labels, scorer
        self.mistakes = _Mistakes()
        self.batch: list[tuple[str, list[MaskSet], MaskSet]] = []

    def add(self, stored: Sample) -> None:
        sample, sets = self.source.shown(stored), []
        rules, whole = self.source.info.mask_rules, replace(self.labels, only=())
        for found in self.opened:
            with self.mistakes.of(str(found.path), sample.id):
                samples = found.read(sample.id, rules, whole)
                _check_size(samples.masks.shape[1:], sample.image.shape[1:])
                sets.append(samples.as_set(whole))
        if not self.mistakes.found:
            annotations = annotations_of(sample, self.labels)
            self.batch = self.scorer.take(self.batch, (sample.id, sets, annotations))

    def finish(self) -> None:
        self.mistakes.check()
        self.scorer.flush(self.batch)


class _Mistakes:
    """What is wrong with predictions, one message for each kind."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[str]] = {}
        self._at: tuple[str, str] = ("", "")

    def of(self, path: str, sample_id: str) -> _Mistakes:
        """A context whose mistakes are those of one image."""
        self._at = path, sample_id
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, AmbisegError):
            return False
        path, sample_id = self._at
        which = error.kind if isinstance(error, UnfitError) else "files"
        text = str(error) if which == "files" else f"{sample_id!r} ({error})"
        self.found.setdefault((path, which), []).append(text)
        return True

    def check(self) -> None:
        """Raise `AmbisegError` with all that was wrong."""
        if not self.found:
            return
        sentences = []
        for (path, kind), texts in self.found.items():
            what, remedy = MISTAKES[kind]
            shown = ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
            sentences.append(f"{path}: the masks of {len(texts)} images {what}, {shown}: {remedy}")
        raise AmbisegError("; ".join(sentences))


def _check_size(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    if tuple(ours) != tuple(theirs):
        raise UnfitError("sizes", f"{ours[0]}x{ours[1]}, annotated {theirs[0]}x{theirs[1]}")


def _alike(sets: list[MaskSet]) -> list[MaskSet]:
    """The same sets, all with per-pixel probabilities if one has them: those of label maps are 0 and 1."""
    if all(one.probabilities is None for one in sets):
        return sets
    return [
        one
        if one.probabilities is not None
        else replace(one, probabilities=one.labels.one_hot(one.masks, dim=2))
        for one in sets
    ]


def _titles(paths: Sequence[Path], names: Sequence[str]) -> tuple[str, ...]:
    """Names of the systems; the last parts of the paths where none are given, more of them where these agree."""
    if names:
        twice = next((name for name in names if list(names).count(name) > 1), None)
        if twice is not None:
            raise AmbisegError(f"--names has {twice!r} twice: give each of the predictions a name of its own")
        if len(names) != len(paths):
            raise AmbisegError(
                f"{len(names)} names for {len(paths)} predictions: give each one a name of its own (--names)"
            )
        return tuple(names)
    short = [path.name or str(path) for path in paths]
    longer = [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]
    if len(set(longer)) < len(longer):
        raise AmbisegError("the same predictions are given twice: leave one out, or name both (--names)")
    return tuple(longer)


def _common(
    opened: Sequence[Predictions], titles: Sequence[str], order: Sequence[str], allow_missing: bool
) -> tuple[set[str], tuple[str, ...], list[str]]:
    """Images that all systems have, those that are missing, and remarks."""
    if not order:
        raise AmbisegError("the split holds no image: name another one (--split)")
    chosen, remarks, sentences = set(order), [], []
    for title, found in zip(titles, opened, strict=True):
        own = set(found.ids)
        if found.remark:
            remarks.append(found.remark)
        if extra := [name for name in found.ids if name not in set(order)]:
            remarks.append(
                f"{title}: {len(extra)} predictions of no image of the split are ignored, {several(extra)}"
            )
        if lost := [name for name in order if name not in own]:
            sentences.append(
                f"{title}: predictions of {len(lost)} of {len(order)} images are missing, {several(lost)}"
            )
        chosen &= own
    if sentences and not allow_missing:
        raise AmbisegError(
            f"{'; '.join(sentences)}: add them, correct the ids, or leave these images out with --allow-missing"
        )
    if not chosen:
        raise AmbisegError(f"{'; '.join(sentences)}: no image is left to measure; correct the ids")
    return chosen, tuple(name for name in order if name not in chosen), remarks + sentences


def _meaningless(figures: Figures) -> dict[str, str]:
    """Metrics that say nothing on these data, with the reason."""
    share = float(figures.even.mean())
    if share < NEARLY_ALL:
        return {}
    names = [name for name in AGAINST_EQUAL if name in figures.columns[COLUMN]]
    reason = (
        f"{' and '.join(METRICS[name].title for name in names)}: in {share:.0%} of the images all modes are equally"
        " probable, so that equal probabilities are exact there"
    )
    return dict.fromkeys(names, reason)


def _without(figures: Figures, names: Mapping[str, str]) -> Figures:
    """The figures without some metrics."""

    def rest(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in names}

    return replace(
        figures,
        columns={title: rest(column) for title, column in figures.columns.items()},
        intervals={title: rest(column) for title, column in figures.intervals.items()},
        oracle=rest(figures.oracle),
        per_image=rest(figures.per_image),
    )


def _arrays(values: Any, what: str) -> list[NDArray[Any]]:
    """Arrays ``(n, H, W)`` of images."""
    found = [np.asarray(one) for one in values]
    for i, one in enumerate(found):
        if one.ndim != 3 or one.size == 0 or one.dtype.kind not in "buif":
            raise AmbisegError(
                f"{what} of image {i} have shape {one.shape} and type {one.dtype}: pass numbers (n, H, W) for each image"
            )
    if not found:
        raise AmbisegError(f"{what} hold no image: pass at least one")
    return found


def _rows(values: Any, arrays: Sequence[NDArray[Any]], what: str) -> list[NDArray[np.float64] | None]:
    """Weights ``(n,)`` of images, None where none are given."""
    if values is None:
        return [None] * len(arrays)
    rows = [np.asarray(one, np.float64) for one in values]
    shapes, wanted = [row.shape for row in rows], [one.shape[:1] for one in arrays]
    if shapes != wanted:
        raise AmbisegError(
            f"{what} of shapes {shapes[:3]}, masks need {wanted[:3]}: pass one number for each mask"
        )
    return list(rows)


def _shown_classes(arrays: Sequence[NDArray[Any]]) -> LabelSpace:
    """A label space of as many classes as label maps show; 255 alone is white."""
    highest = 1
    for values in arrays:
        plain_values = values[values != 255] if values.dtype.kind in "ui" else values
        if plain_values.size and np.isfinite(plain_values).all():
            highest = max(highest, int(plain_values.max()))
    if highest > 253:
        raise AmbisegError(
            f"label maps hold {highest}: number the classes 0 to 253, or pass labels=LabelSpace..."
        )
    return LabelSpace.of_classes(highest + 1)
