"""Predictions in files against the annotations of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ambiseg.data.batches import annotations_of
from ambiseg.data.memory.dataset import DataLike, is_split
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split
from ambiseg.data.split import Split
from ambiseg.engine.parallel.pieces import Engine
from ambiseg.engine.score.mistakes import Mistakes, check_fit
from ambiseg.engine.score.results import Scores
from ambiseg.engine.score.scorer import BATCH, BOOTSTRAP, Scorer
from ambiseg.engine.tally import Tally, check_groups
from ambiseg.errors import AmbisegError, counted
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Bootstrap, Dialect, dialect_of
from ambiseg.metrics.dialects import AMBISEG
from ambiseg.owned_files import several
from ambiseg.predictions import Predictions, open_predictions


def score_files(
    predictions: Sequence[str | Path],
    data: DataLike | Split,
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
    bootstrap: Bootstrap | None = BOOTSTRAP,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    engine: Engine | None = None,
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
        groups: group of every image by its name: intervals draw whole groups; if None, the volumes of slices.
        allow_missing: leave out images of which a system has no prediction, for all systems.
        oracle_draws: how often the annotation oracle is drawn, 0 leaves it out; if None `ORACLE_DRAWS` times, less often
            of more than a hundred images.
        bootstrap: how intervals are made; None for none.
        seed: of the draws.
        progress: called with images done and in all.
        engine: where images are read and measured; in this process if None. The figures are the same.

    Raises:
        AmbisegError: files that cannot be read, predictions that are missing or do not fit the annotations, or what
            `ambiseg.evaluate` refuses.
    """
    source = data if is_split(data) else open_split(data, split)
    opened = [open_predictions(path, source.ids, ids) for path in predictions]
    titles = _titles([found.path for found in opened], names)
    chosen, missing, remarks = _common(opened, titles, source.ids, allow_missing)
    groups = source.groups if groups is None else groups
    check_groups([name for name in source.ids if name in chosen], groups)
    labels, dialect = source.info.labels, dialect_of(dialect)
    labels = dialect.space(labels.restricted(classes) if len(classes) else labels)
    options = (labels, dialect, titles, metrics, oracle_draws, len(chosen), seed, bootstrap)
    scorer = Scorer(*options)
    reader = _Reader(opened, source, labels, scorer)
    done = 0

    def read(stored: Sample) -> None:
        nonlocal done
        if stored.id in chosen:
            reader.add(stored)
        done += 1
        if progress is not None:
            progress(done, len(source))

    if engine is None:  # one reading for both the digest and the figures
        digest = source.digest(read)
        reader.finish()
    else:
        places = [i for i, name in enumerate(source.ids) if name in chosen]
        windows = [(first, places[first : first + BATCH]) for first in range(0, len(places), BATCH)]
        files = tuple((found.path, source.ids, None if ids is None else tuple(ids)) for found in opened)
        for part in engine.map(partial(_measured, files, source, labels, options), windows):
            reader.add_part(part)
            done += part.images
            if progress is not None:
                progress(done, len(places))
        digest = source.digest()
        reader.mistakes.check()
    remarks += [remark for found in opened for remark in found.remarks()]
    return scorer.scores(split, digest, missing, tuple(remarks), groups)


class _Reader:
    """Reads the predictions of every system beside the images of a split."""

    def __init__(
        self, opened: Sequence[Predictions], source: Split, labels: LabelSpace, scorer: Scorer
    ) -> None:
        self.opened, self.source, self.labels, self.scorer = opened, source, labels, scorer
        self.mistakes = Mistakes(labels)
        self.batch: list[tuple[str, list[MaskSet], MaskSet]] = []

    def add_part(self, part: _Part) -> None:
        for found, notes in zip(self.opened, part.notes, strict=True):
            found.add_notes(notes)
        for key, texts in part.mistakes.items():
            self.mistakes.found.setdefault(key, []).extend(texts)
        if not self.mistakes.found:
            for tallies in part.tallies:
                self.scorer.join(tallies)

    def add(self, stored: Sample) -> None:
        sample, sets = self.source.shown(stored), []
        rules, whole = self.source.info.mask_rules, replace(self.labels, only=())
        for found in self.opened:
            with self.mistakes.of(str(found.path), sample.id):
                samples = found.read(sample.id, rules, whole)
                check_fit(len(samples.masks), samples.masks.shape[1:], sample.image.shape[1:])
                sets.append(samples.as_set(whole))
        if not self.mistakes.found:
            annotations = annotations_of(sample, self.labels)
            self.batch = self.scorer.take(self.batch, (sample.id, sets, annotations))
            if (self.scorer.place + len(self.batch)) % BATCH == 0:
                self.scorer.flush(self.batch)
                self.batch = []

    def finish(self) -> None:
        self.mistakes.check()
        self.scorer.flush(self.batch)


@dataclass(frozen=True)
class _Part:
    """Tallies of the batches of some images, and what reading them showed."""

    tallies: list[list[Tally]]
    mistakes: dict[tuple[str, str], list[str]]
    notes: list[dict[str, list[str]]]
    images: int


_opened = lru_cache(maxsize=16)(open_predictions)
"""Predictions that a worker reads piece by piece."""


def _measured(
    files: Sequence[tuple[Path, Sequence[str], Sequence[str] | None]],
    source: Split,
    labels: LabelSpace,
    options: tuple[Any, ...],
    window: tuple[int, Sequence[int]],
) -> Iterator[_Part]:
    """Read and measure some images, in any process that sees the files."""
    opened = [_opened(*one) for one in files]
    scorer, first, parts = Scorer(*options), window[0], list[list[Tally]]()
    scorer.place, scorer.sink = first, parts.append
    reader = _Reader(opened, source, labels, scorer)
    for i in window[1]:
        reader.add(source.stored_sample(i))
    if not reader.mistakes.found:
        reader.finish()
    notes = [found.take_notes() for found in opened]
    yield _Part(parts, reader.mistakes.found, notes, len(window[1]))


def _titles(paths: Sequence[Path], names: Sequence[str]) -> tuple[str, ...]:
    """Names of the systems; the last parts of the paths where none are given, more of them where these agree."""
    if names:
        twice = next((name for name in names if list(names).count(name) > 1), None)
        if twice is not None:
            raise AmbisegError(f"--names has {twice!r} twice: give each of the predictions a name of its own")
        if len(names) != len(paths):
            raise AmbisegError(
                f"{counted(len(names), 'name')} for {counted(len(paths), 'system')}: give each of the predictions a name of"
                " its own (--names)"
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
    known = set(order)
    chosen, remarks, sentences = known, [], []
    for title, found in zip(titles, opened, strict=True):
        own = set(found.ids)
        if extra := [name for name in found.ids if name not in known]:
            remarks.append(
                f"{title}: predictions of {counted(len(extra), 'image')} that the split does not have are ignored,"
                f" {several(extra)}"
            )
        if lost := [name for name in order if name not in own]:
            known_not = f" (it has others, which the split does not have: {several(extra)})" if extra else ""
            sentences.append(
                f"{title}: predictions of {len(lost)} of {counted(len(order), 'image')} are missing,"
                f" {several(lost)}{known_not}"
            )
        chosen = chosen & own
    if sentences and not allow_missing:
        raise AmbisegError(
            f"{'; '.join(sentences)}: add them, correct the ids, or leave these images out with --allow-missing"
        )
    if not chosen:
        raise AmbisegError(f"{'; '.join(sentences)}: no image is left to measure; correct the ids")
    return chosen, tuple(name for name in order if name not in chosen), remarks + sentences
