"""Evaluation: a run against a split, with every metric in its named dialect.

Each metric is given twice: over *all* masks that the model predicts, and over those that are *kept* (copies
merged or rejected, low scores dropped: `PredictSettings`). Coverage belongs to the first column, what a user
sees to the second; mode proposals' table 3 shows the same pair. Probabilities matched one to one are compared
of kept masks only, since copies share one mode's mass.

A third column says how far from possible the first one is: the *annotation oracle* draws as many masks from
the annotations themselves. Below the table stands how far the annotators agree with each other.

The first two columns have intervals over the images (`ambiseg.metrics.intervals`).

All columns are in one `Dialect` and over the same classes, and what is written says which. The agreement of the
annotators is in that of this library.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg import notebook, owned_files
from ambiseg.atomic_write import write_json, write_text
from ambiseg.data.batches import annotations_of
from ambiseg.data.memory.dataset import IN_MEMORY, DataLike, InMemory, as_data, is_split, title_of
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split
from ambiseg.data.split import Split
from ambiseg.engine.parallel.pieces import Engine, SharedRun, seed_of, share
from ambiseg.engine.postprocess import LoadedModel, PredictSettings, postprocess
from ambiseg.engine.run import Run, load, warn_of_range
from ambiseg.engine.run_folder import METRICS as METRICS_FILE
from ambiseg.engine.tally import (
    ORACLE_DRAWS,
    Figures,
    Tally,
    check_groups,
    per_image_csv,
    plain,
    plain_ends,
)
from ambiseg.engine.volume_evaluation import VolumeEvaluation, evaluate_volumes, why_not_volumes
from ambiseg.errors import AmbisegError, DataWarning
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Bootstrap, Dialect, Interval, dialect_of
from ambiseg.metrics.dialects import AMBISEG
from ambiseg.metrics.tables import html_table

_BOOTSTRAP = Bootstrap()
PER_VOLUME = "per_volume.csv"


@dataclass(frozen=True)
class Evaluation:
    """What a run reached on a split.

    Attributes:
        figures: what was measured, in the columns "all" (all predicted masks) and "kept" (those that are kept).
        bootstrap: how intervals were made; None where none were asked for.
        seconds_per_image: time in the model per image, in batches, on this machine.
        split, data_digest, seed: what was evaluated and how sampling was seeded.
        estimate: how the probabilities of kept masks were made, and for how many images they are one choice
            of several.
        settings: what "kept" means, and how masks were thresholded (`PredictSettings.record`).
        dialect: whose conventions, see `ambiseg.metrics.dialects`.
        labels: the classes, and which of them were evaluated.
        volumes: what was reached on whole volumes; None where images are no slices of volumes.
    """

    figures: Figures
    bootstrap: Bootstrap | None
    seconds_per_image: float
    split: str
    data_digest: str
    seed: int
    estimate: dict[str, Any]
    settings: dict[str, Any]
    dialect: Dialect
    labels: LabelSpace
    volumes: VolumeEvaluation | None = None

    @property
    def all(self) -> dict[str, float]:
        """Metric by name over all predicted masks."""
        return self.figures.columns["all"]

    @property
    def kept(self) -> dict[str, float]:
        """The same over the masks that are kept."""
        return self.figures.columns["kept"]

    @property
    def oracle(self) -> dict[str, float]:
        """The same for draws from the annotations themselves (`Figures.oracle`)."""
        return self.figures.oracle

    @property
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Of ``all`` and ``kept`` (`Figures.intervals`)."""
        return self.figures.intervals

    @property
    def n_all(self) -> float:
        """Mean number of predicted masks per image."""
        return self.figures.masks_per_image("all")

    @property
    def n_kept(self) -> float:
        """Mean number of kept masks per image."""
        return self.figures.masks_per_image("kept")

    @property
    def images(self) -> int:
        """Number of images."""
        return self.figures.images

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the images."""
        return self.figures.ids

    @property
    def per_image(self) -> dict[str, NDArray[np.float64]]:
        """Metric by name, ``(images,)`` (`Figures.per_image`)."""
        return self.figures.per_image

    @property
    def units(self) -> int:
        """Number of images, or of groups, that intervals draw."""
        return self.figures.units

    @property
    def grouped(self) -> bool:
        """Whether intervals draw groups of images."""
        return self.units < self.images

    @property
    def tag(self) -> str:
        """Dialect and ids of the classes, what tables say beside figures; nothing for this library's own over all
        classes."""
        return self.dialect.tag(self.labels)

    @property
    def classes(self) -> list[str]:
        """Names of the evaluated classes."""
        return [self.labels.names[c] for c in self.labels.evaluated]

    def columns(self) -> dict[str, dict[str, float]]:
        """What tables show: metric by name under the heading of each column."""
        columns = {"all masks": self.all, "kept masks": self.kept, "annotation oracle": self.oracle}
        return {title: column for title, column in columns.items() if column}

    def interval_columns(self) -> dict[str, dict[str, Interval]]:
        """Intervals by metric under the same headings."""
        return {f"{name} masks": found for name, found in self.intervals.items()}

    def _counts(self) -> str:
        """What was measured, in a line."""
        tag = f" [{self.tag}]" if self.tag else ""
        return (
            f"{self.images} image{'s' * (self.images != 1)} of the split {self.split}, masks per image {self.n_all:g}"
            f" predicted, {self.n_kept:g} kept{tag}"
        )

    def __repr__(self) -> str:
        """One line: what was measured, and the metrics of all masks, else of those kept."""
        row = ", ".join(f"{name} {value:.4f}" for name, value in {**self.kept, **self.all}.items())
        return f"<Evaluation: {self._counts()}, {row}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table that ``ambiseg evaluate`` prints, with intervals."""
        return notebook.paragraph(self._counts()) + html_table(self.columns(), self.interval_columns())

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values, for ``metrics.json`` and ``--json``."""
        return {
            "split": self.split,
            "images": self.images,
            "data_digest": self.data_digest,
            "seed": self.seed,
            "estimate": self.estimate,
            "settings": self.settings,
            "dialect": self.dialect.name,
            "classes": self.classes,
            "all": {"masks_per_image": self.n_all, **plain(self.all)},
            "kept": {"masks_per_image": self.n_kept, **plain(self.kept)},
            "oracle": {"masks_per_image": self.n_all, **plain(self.oracle)},
            "annotators": plain(self.figures.annotators),
            **self._interval_record(),
            "seconds_per_image": self.seconds_per_image,
            **({} if self.volumes is None else {"per_volume": self.volumes.to_dict()}),
        }

    def _interval_record(self) -> dict[str, Any]:
        if self.bootstrap is None:
            return {}
        ends = {column: plain_ends(found) for column, found in self.intervals.items()}
        return {"intervals": {**asdict(self.bootstrap), "units": self.units, **ends}}

    def save(self, run: Path) -> None:
        """Write ``metrics.json``, ``per_image.csv`` and, of volumes, ``per_volume.csv`` into a run folder; what was there
        is replaced as a whole."""
        write_json(run / METRICS_FILE, self.to_dict())
        tag = f" [{self.tag}]" if self.tag else ""
        columns = {name + tag: values for name, values in self.per_image.items()}
        write_text(run / "per_image.csv", per_image_csv(self.ids, columns))
        per_volume = run / PER_VOLUME
        if self.volumes is not None:
            write_text(per_volume, self.volumes.csv())
        elif owned_files.is_listed(per_volume):
            per_volume.unlink(missing_ok=True)


def evaluate(
    run: Run | str | Path,
    data: DataLike | Split,
    split: str = "test",
    settings: PredictSettings | None = None,
    *,
    flow: LoadedModel | None = None,
    batch_size: int = 16,
    seed: int = 0,
    metrics: str | Sequence[str] | None = None,
    oracle_draws: int = ORACLE_DRAWS,
    bootstrap: Bootstrap | None = _BOOTSTRAP,
    groups: Mapping[str, str] | None = None,
    dialect: str | Dialect = AMBISEG,
    classes: Sequence[str | int] = (),
    progress: Callable[[int, int], None] | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """Compare what a run predicts with the annotations of a split.

    Args:
        run: a loaded run or its folder.
        data: a data set (a path, or what `ambiseg.dataset` makes or takes), or an opened split.
        split: which split of it.
        settings: what "kept" means, and how many samples.
        flow: a run of flow-matching, where ``settings.estimate`` needs one.
        batch_size: images in one pass.
        seed: of sampling methods.
        metrics: names or a single one, or "all" alone for every one that fits; the default ones that fit if None.
        oracle_draws: how often the annotation oracle is drawn; 0 leaves it out.
        bootstrap: how intervals are made; None for none.
        groups: group (a patient, a scene) of every image by its name: intervals draw whole groups. Images are
            drawn one by one if None, slices of volumes (`slices` of ``dataset.yaml``) volume by volume.
        dialect: conventions of a paper, by name or as a `Dialect`.
        classes: names or ids of the classes to evaluate (`LabelSpace.restricted`); those of the dialect if
            empty, of most all but the background.
        progress: called with images done and in all.
        engine: where batches are measured; in this process if None. The figures are the same.

    Raises:
        AmbisegError: no such split, an empty one, other classes than the run's, an unknown metric, dialect or
            class, a dialect that does not fit the classes, or an image without a group.
    """
    run = load(run) if isinstance(run, (str, Path)) else run
    given = data if is_split(data) else as_data(data, run.config.labels.one_channel)
    source = given if is_split(given) else open_split(given, split)
    _warn_of_other_splits(run, given)
    settings = (settings or PredictSettings()).for_run(run)
    if len(source) == 0:
        raise AmbisegError(f"{data}: the split {split!r} holds no image")
    run.check_data(source)
    groups = source.groups if groups is None else groups
    check_groups(source.ids, groups)
    labels, dialect = source.info.labels, dialect_of(dialect)
    labels = dialect.space(labels.restricted(classes) if len(classes) else labels)
    options = (labels, dialect, metrics, oracle_draws, bootstrap)
    measure = _Measure(SharedRun(run), share(flow), settings, seed, options)
    whole = source.info.slices is not None and not why_not_volumes(source)
    steps = len(source) * (2 if whole else 1)
    total, digest = _measured(measure, source, batch_size, steps, progress, engine)
    warn_of_range(total.remarks, len(source))
    result = Evaluation(
        figures=total.tally.figures(groups),
        bootstrap=bootstrap,
        seconds_per_image=round(total.seconds / max(1, total.images), 6),
        split=split,
        data_digest=digest,
        seed=seed,
        estimate={**settings.estimate.record(flow), "undetermined": total.undetermined},
        settings=settings.record(),
        dialect=dialect,
        labels=labels,
    )
    if not whole:
        return result
    volumes = evaluate_volumes(
        run,
        source,
        settings,
        labels,
        dialect,
        flow=flow,
        batch_size=batch_size,
        seed=seed,
        bootstrap=bootstrap,
        progress=None if progress is None else lambda slices: progress(len(source) + slices, steps),
    )
    return replace(result, volumes=volumes)


def _measured(
    measure: _Measure,
    source: Split,
    batch_size: int,
    steps: int,
    progress: Callable[[int, int], None] | None,
    engine: Engine | None,
) -> tuple[_Total, str]:
    """What all batches of a split came to, and the digest of the split."""
    total = _Total(measure.tally(0))

    def add(parts: Iterable[_Part]) -> None:
        for part in parts:
            total.add(part)
            if progress is not None and engine is not None:
                progress(len(total.tally.ids), steps)

    if engine is None:  # one reading for both the digest and the figures
        held: list[Sample] = []

        def read(stored: Sample) -> None:
            held.append(stored)
            if progress is not None:
                progress(len(total.tally.ids) + len(held), steps)
            if len(held) == batch_size:
                add(measure(source, held, len(total.tally.ids)))
                held.clear()

        digest = source.digest(read)
        add(measure(source, held, len(total.tally.ids)))
    else:
        starts = range(0, len(source), batch_size)
        batches = [range(start, min(start + batch_size, len(source))) for start in starts]
        add(engine.map(partial(_read_and_measure, measure, source), batches))
        digest = source.digest()
    return total, digest


def _warn_of_other_splits(run: Run, data: Any) -> None:
    """Warn where splits were drawn from one dataset, and a run of such data was trained on another split."""
    known = run.config.data_digest if run.config.data in ("", IN_MEMORY) else ""
    drawn = isinstance(data, InMemory) and data.drawn and "train" in data
    if known and drawn and data["train"].digest() != known:
        warnings.warn(
            f"the splits drawn from {title_of(data)} are not those that the run was trained with, so its training"
            " images may be among those of the evaluation: give the same dataset and seed, or the split by name",
            DataWarning,
            stacklevel=3,
        )


@dataclass
class _Part:
    """What images of one size give, the seconds in the model, and remarks on their values."""

    tally: Tally
    undetermined: int
    seconds: float
    images: int
    remarks: list[str]


class _Total:
    """The parts so far."""

    def __init__(self, tally: Tally) -> None:
        self.tally, self.undetermined, self.seconds, self.images = tally, 0, 0.0, 0
        self.remarks: list[str] = []

    def add(self, part: _Part) -> None:
        self.tally.join(part.tally)
        self.undetermined += part.undetermined
        self.seconds += part.seconds
        self.images += part.images
        self.remarks += part.remarks


@dataclass(frozen=True)
class _Measure:
    """A run in front of tallies: predicts, filters, and adds all masks and those that are kept.

    Random numbers depend on the seed and on the place of the first image of a batch.
    """

    run: SharedRun
    flow: SharedRun | None
    settings: PredictSettings
    seed: int
    options: tuple[LabelSpace, Dialect, str | Sequence[str] | None, int, Bootstrap | None]

    def tally(self, place: int) -> Tally:
        """An empty tally for the images from a place on."""
        labels, dialect, metrics, draws, bootstrap = self.options
        return Tally(labels, dialect, ("all", "kept"), metrics, draws, seed_of(self.seed, place), bootstrap)

    def __call__(self, source: Split, stored: Sequence[Sample], place: int) -> Iterator[_Part]:
        """Measure the samples of a batch, from a place of the split on."""
        first = 0
        for i in range(1, len(stored) + 1):
            if i == len(stored) or stored[i].image.shape != stored[first].image.shape:
                yield self._part(source, stored[first:i], place + first)
                first = i

    def _part(self, source: Split, stored: Sequence[Sample], place: int) -> _Part:
        run, flow, tally = self.run.run, None if self.flow is None else self.flow.run, self.tally(place)
        seconds, count, labels = run.seconds, run.images, tally.labels
        remarks = [remark for sample in stored if (remark := run.remark_on(sample))]
        samples = [source.shown(sample) for sample in stored]
        images = [sample.image for sample in samples]
        generator = torch.Generator(run.hardware.device).manual_seed(seed_of(self.seed, place))
        threshold = self.settings.values().foreground_threshold
        predicted = run.propose(images, self.settings.samples, generator, threshold, self.settings.annotator)
        predicted = replace(predicted, labels=replace(labels, only=()))  # filters look at all classes
        annotations = MaskSet.stack([annotations_of(sample, labels) for sample in samples])
        found = postprocess(predicted, self.settings, images, flow, generator)
        tally.add([sample.id for sample in samples], {"all": predicted, "kept": found.masks}, annotations)
        return _Part(tally, found.determined.count(False), run.seconds - seconds, run.images - count, remarks)


def _read_and_measure(measure: _Measure, source: Split, batch: range) -> Iterator[_Part]:
    """Read and measure a batch, in any process that sees the data."""
    return measure(source, [source.stored_sample(i) for i in batch], batch.start)
