"""`Scorer`: a `Tally` for each system, fed with the same batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ambiseg.engine.score.results import COLUMN, Scores, System
from ambiseg.engine.tally import ORACLE_DRAWS, Figures, Tally
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import METRICS, Bootstrap, Dialect
from ambiseg.metrics.registry import listed

BOOTSTRAP = Bootstrap()
"""How intervals are made unless a caller says otherwise."""
NEARLY_ALL = 0.95
"""Share of the images with equally probable modes above which a comparison with equal probabilities says nothing."""
AGAINST_EQUAL = ("brier_skill_score", "brier_skill_nearest", "brier_skill_merged")
"""Metrics that compare probabilities with equal ones."""
_DRAWN = 500
"""Draws of the annotation oracle over all images; of few images each is drawn `ORACLE_DRAWS` times."""
_BATCH = 16
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
