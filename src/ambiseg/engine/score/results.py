"""What predictions of one or several systems reach, and the files that say so."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambiseg.atomic_write import replacing_folder, write_json, write_text
from ambiseg.engine.tally import Figures, per_image_csv, plain, plain_ends
from ambiseg.labels import LabelSpace
from ambiseg.metrics import METRICS, Bootstrap, Dialect, Difference, Interval

SCORE = "score"
"""Verb that the list of a folder of scores names."""
COLUMN = "given"
"""The one column of the tallies."""


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

    def __repr__(self) -> str:
        lines = [f"{self.images} images, dialect {self.dialect.name}, classes {', '.join(self.classes)}"]
        for system in self.systems:
            lines.append(f"{system.name}: {system.count} masks per image")
            for name, value in system.values.items():
                low, high = system.intervals.get(name, (math.nan, math.nan))
                ends = "" if math.isnan(low) else f"  [{low:.4f}, {high:.4f}]"
                lines.append(f"  {METRICS[name].title:<18} {value:.4f}{ends}")
        lines += [f"left out: {reason}" for reason in dict.fromkeys(self.left_out.values())]
        return "\n".join(lines)

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
