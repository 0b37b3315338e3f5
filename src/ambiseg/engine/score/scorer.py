"""`Scorer`: a `Tally` for each system, fed with the same batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from ambiseg.engine.parallel.pieces import seed_of
from ambiseg.engine.score.reasons import fitting, meaningless, without, without_needs, without_value
from ambiseg.engine.score.results import COLUMN, Scores, System
from ambiseg.engine.tally import ORACLE_DRAWS, Tally
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Bootstrap, Dialect, Difference, PairedTest, holm
from ambiseg.metrics.registry import listed

BOOTSTRAP = Bootstrap()
"""How intervals are made unless a caller says otherwise."""
_DRAWN = 500
"""Draws of the annotation oracle over all images; of few images each is drawn `ORACLE_DRAWS` times."""
BATCH = 16
"""Images that are measured together, at most."""
_ELEMENTS = 2**25
"""Values of masks in a batch, all classes counted."""


class Scorer:
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
        self.test = PairedTest(seed=seed)
        self.drawn = {"oracle_draws": oracle_draws, "seed": seed}
        self.place = 0
        """Of the next image among all; the draws of a batch depend on that of its first."""
        self.wanted = [self.chosen for _ in names]
        self.tallies = self._tallies()
        self.sink: Callable[[list[Tally]], None] = self.join
        """What is done with the tallies of a batch."""

    def _tallies(self) -> list[Tally]:
        """Empty ones for the images from here on."""
        draws, seed = self.drawn["oracle_draws"], seed_of(self.drawn["seed"], self.place)
        return [
            Tally(
                *(self.labels, self.dialect, (COLUMN,), wanted, draws, seed, self.bootstrap),
                curves=False,
                same_counts=True,
            )
            for wanted in self.wanted
        ]

    def join(self, found: Sequence[Tally]) -> None:
        """Add the tallies of a batch."""
        for tally, more in zip(self.tallies, found, strict=True):
            tally.join(more)
        self.wanted = [tally.names for tally in self.tallies]

    def take(
        self,
        batch: list[tuple[str, list[MaskSet], MaskSet]],
        one: tuple[str, list[MaskSet], MaskSet],
    ) -> list[tuple[str, list[MaskSet], MaskSet]]:
        """The batch that goes on with ``one``: what is full is measured first."""

        def elements(entry: tuple[str, list[MaskSet], MaskSet]) -> int:
            return sum(found.masks.numel() for found in entry[1]) * self.labels.channels

        size = one[2].masks.shape[2:]
        full = len(batch) == BATCH or (len(batch) + 1) * max(map(elements, [*batch, one])) > _ELEMENTS
        if batch and (full or batch[0][2].masks.shape[2:] != size):
            self.flush(batch)
            batch = []
        return [*batch, one]

    def flush(self, batch: list[tuple[str, list[MaskSet], MaskSet]]) -> None:
        """Measure a batch."""
        if not batch:
            return
        ids, annotations = [one[0] for one in batch], MaskSet.stack([one[2] for one in batch])
        sets = [MaskSet.stack(_alike([one[1][i] for one in batch])) for i in range(len(self.tallies))]
        if self.chosen not in (None, ["all"]) and not self.tallies[0].ids:
            self.wanted = list(fitting(self.chosen or [], sets, self.names))
        tallies = self._tallies()
        for tally, masks in zip(tallies, sets, strict=True):
            tally.add(ids, {COLUMN: masks}, annotations)
        self.place += len(batch)
        self.sink(tallies)

    def scores(
        self,
        split: str,
        digest: str,
        missing: tuple[str, ...],
        remarks: tuple[str, ...],
        groups: Mapping[str, str] | None,
    ) -> Scores:
        figures = {
            title: tally.figures(groups) for title, tally in zip(self.names, self.tallies, strict=True)
        }
        undefined = without_value(figures, self.dialect)
        left_out: dict[str, str] = {}
        if self.chosen is None:
            nowhere = {name for one in figures.values() for name in one.columns[COLUMN]}
            nowhere = {
                name for name in nowhere if not any(one.valued(name).any() for one in figures.values())
            }
            left_out = {
                **{name: reason for name, reason in undefined.items() if name in nowhere},
                **meaningless(figures[self.names[0]]),
            }
        lacking = without_needs({title: list(one.columns[COLUMN]) for title, one in figures.items()})
        undefined = {**lacking, **undefined}
        every = dict.fromkeys(name for tally in self.tallies for name in tally.names)
        metrics = [name for name in every if name not in left_out]
        systems = [
            System(title, without(figures[title], left_out), *self._compared(tally, metrics, groups))
            for title, tally in zip(self.names, self.tallies, strict=True)
        ]
        settings = {
            "metrics": metrics,
            "dialect": self.dialect.name,
            "classes": [self.labels.names[c] for c in self.labels.evaluated],
            "bootstrap": None if self.bootstrap is None else asdict(self.bootstrap),
            "paired_test": asdict(self.test),
            "grouped": groups is not None,
            **self.drawn,
        }
        return Scores(
            tuple(_corrected(systems)),
            split,
            digest,
            missing,
            left_out,
            {name: reason for name, reason in undefined.items() if name not in left_out},
            self.dialect,
            self.labels,
            settings,
            self.bootstrap,
            self.test,
            remarks,
        )

    def _compared(
        self, tally: Tally, metrics: Sequence[str], groups: Mapping[str, str] | None
    ) -> tuple[dict[str, Difference], dict[str, float]]:
        """Differences of a system to the first, and their p values."""
        first = self.tallies[0]
        if tally is first or self.bootstrap is None:
            return {}, {}
        shared = [name for name in metrics if name in tally.names and name in first.names]
        return (
            {name: tally.difference(first, name, groups) for name in shared},
            {name: tally.p_value(first, name, self.test, groups) for name in shared},
        )


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


def _corrected(systems: Sequence[System]) -> list[System]:
    """The systems with p values that are corrected for their number, metric by metric."""
    found: dict[str, dict[str, float]] = {system.name: {} for system in systems}
    for name in dict.fromkeys(name for system in systems for name in system.p_values):
        values = {system.name: system.p_values[name] for system in systems if name in system.p_values}
        for title, value in holm(values).items():
            found[title][name] = value
    return [replace(system, corrected=found[system.name]) for system in systems]
