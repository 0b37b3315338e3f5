"""What predictions of one or several systems reach, and the files that say so."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ambiseg import notebook
from ambiseg.atomic_write import replacing_folder, write_json, write_text
from ambiseg.engine.tally import Figures, per_image_csv, plain, plain_ends
from ambiseg.errors import counted
from ambiseg.labels import LabelSpace
from ambiseg.metrics import METRICS, Bootstrap, Dialect, Difference, Interval, PairedTest
from ambiseg.metrics.tables import html_table

SCORE = "score"
"""Verb that the list of a folder of scores names."""
UNORDERED = ("ged_unbiased",)
"""Metrics whose values may pass the ideal one, by chance or for lack of diversity: the least is not the best."""
COLUMN = "given"
"""The one column of the tallies."""


@dataclass(frozen=True)
class System:
    """One set of predictions and its figures.

    Attributes:
        name: how tables call it.
        figures: what was measured, in the one column `COLUMN`.
        differences: of metrics to the first system, with intervals; empty for the first itself.
        p_values: of the differences, see `PairedTest`.
        corrected: the same, corrected for the number of systems that are compared with the first (`holm`).
    """

    name: str
    figures: Figures
    differences: dict[str, Difference] = field(default_factory=dict)
    p_values: dict[str, float] = field(default_factory=dict)
    corrected: dict[str, float] = field(default_factory=dict)

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

    @property
    def named_count(self) -> str:
        """Its name and number of masks per image, in words."""
        return f"{self.name}: {self.count} {'mask' if self.count == '1' else 'masks'} per image"

    @property
    def partial(self) -> dict[str, int]:
        """Number of images that have a value, of metrics that not all images have."""
        counts = {name: int(self.figures.valued(name).sum()) for name in self.values}
        return {name: count for name, count in counts.items() if count < self.figures.images}

    def to_dict(self) -> dict[str, Any]:
        """Figures as plain values; infinite ones are "inf" or "-inf", those that are not defined None."""
        counts = self.figures.counts[COLUMN]
        masks = {"mean": self.masks_per_image, "least": int(counts.min()), "most": int(counts.max())}
        record: dict[str, Any] = {
            "masks_per_image": masks,
            "metrics": _numbers(self.values),
            "images_with_value": self.partial,
            "intervals": plain_ends(self.intervals),
            "oracle": _numbers(self.figures.oracle),
        }
        if self.differences:
            record["difference_to_first"] = {
                name: {
                    **_numbers({"mean": found.mean}),
                    "interval": plain_ends({"": found.interval})[""],
                    **plain({"p": self.p_values[name], "p_holm": self.corrected[name]}),
                }
                for name, found in self.differences.items()
            }
        return record


@dataclass(frozen=True)
class Scores:
    """What predictions of one or several systems reach.

    Attributes:
        systems: in the order in which they were given; differences are to the first.
        split, data_digest: what they were compared with.
        missing: images of the split that are left out since a system has no prediction of them.
        left_out: why default metrics are not computed, by name.
        undefined: why metrics that were asked for have no value of any image, by name.
        dialect: conventions of the metrics.
        labels: the classes, and which of them are evaluated.
        settings: what the figures depend on beside predictions and data.
        bootstrap: how intervals were made; None where none were asked for.
        test: how differences were tested.
        remarks: what a user should know of how predictions were read.
    """

    systems: tuple[System, ...]
    split: str
    data_digest: str
    missing: tuple[str, ...]
    left_out: dict[str, str]
    undefined: dict[str, str]
    dialect: Dialect
    labels: LabelSpace
    settings: dict[str, Any]
    bootstrap: Bootstrap | None
    test: PairedTest
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
        """SHA-256 of the settings: scores of the same one, and of the same data, can be compared. Which metrics were
        chosen is not in it: the figures of a metric do not depend on the others."""
        rest = {name: value for name, value in self.settings.items() if name != "metrics"}
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()

    @property
    def unequal(self) -> list[str]:
        """Metrics of which the systems have values of different images: their means cannot be compared."""
        names = dict.fromkeys(name for system in self.systems for name in system.values)
        return [name for name in names if not self._comparable(name)]

    def _comparable(self, name: str) -> bool:
        figures = [system.figures for system in self.systems if name in system.values]
        return all(np.array_equal(one.valued(name), figures[0].valued(name)) for one in figures)

    def best(self) -> dict[str, list[str]]:
        """Names of the best systems by metric, where some system is worse and all values are of the same images;
        none of metrics that may pass their ideal value (`UNORDERED`)."""
        found = {}
        for name in dict.fromkeys(name for system in self.systems for name in system.values):
            values = {
                s.name: s.values[name] for s in self.systems if not math.isnan(s.values.get(name, math.nan))
            }
            higher = METRICS[name].higher_is_better
            ordered = higher is not None and name not in UNORDERED and self._comparable(name)
            if len(set(values.values())) > 1 and ordered:
                best = max(values.values()) if higher else min(values.values())
                found[name] = [system for system, value in values.items() if value == best]
        return found

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
            "undefined": self.undefined,
            "remarks": list(self.remarks),
            "annotators": plain(self.systems[0].figures.annotators),
            "systems": {system.name: system.to_dict() for system in self.systems},
        }

    def _measured(self) -> str:
        return (
            f"{counted(self.images, 'image')}, dialect {self.dialect.name}, classes {', '.join(self.classes)}"
        )

    def __repr__(self) -> str:
        lines = [self._measured()]
        for system in self.systems:
            lines.append(system.named_count)
            for name, value in system.values.items():
                low, high = system.intervals.get(name, (math.nan, math.nan))
                ends = "" if math.isnan(low) else f"  [{low:.4f}, {high:.4f}]"
                of = f"  (of {counted(system.partial[name], 'image')})" if name in system.partial else ""
                lines.append(f"  {METRICS[name].title:<18} {value:.4f}{ends}{of}")
        return "\n".join(lines + self._reasons())

    def _reasons(self) -> list[str]:
        return [
            f"{word}: {', '.join(METRICS[name].title for name in names)}: {reason}"
            for word, reasons in (("left out", self.left_out), ("no value", self.undefined))
            for reason, names in grouped(reasons).items()
        ]

    def _repr_html_(self) -> str:
        """What a notebook shows: a column for each system with intervals; the annotation oracle beside one."""
        columns = {system.name: system.values for system in self.systems}
        intervals = {system.name: system.intervals for system in self.systems}
        oracle = self.systems[0].figures.oracle
        if oracle and len(self.systems) == 1:
            columns["annotation oracle"] = oracle
        counts = "; ".join(system.named_count for system in self.systems)
        blocks = [*map(notebook.paragraph, (self._measured(), counts)), html_table(columns, intervals)]
        return "".join(blocks + [notebook.paragraph(reason) for reason in self._reasons()])

    def per_image(self, system: System) -> str:
        """A CSV with the values of the images of one system."""
        tag = f" [{self.tag}]" if self.tag else ""
        columns = {name + tag: values for name, values in system.figures.per_image.items()}
        return per_image_csv(system.figures.ids, columns)

    def save(
        self,
        out: Path,
        overwrite: bool = False,
        inputs: Sequence[Path] = (),
        texts: Mapping[str, str] | None = None,
    ) -> None:
        """Make a folder with ``score.json`` and ``per_image.csv``, whole or not at all.

        Args:
            out: folder to make.
            overwrite: replace an earlier one.
            inputs: what was read, and is never replaced.
            texts: contents of further files by name, such as tables.

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
            for name, text in (texts or {}).items():
                write_text(partial / name, text, errors="backslashreplace")


def grouped(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of metrics by the reason that they share.

    Example:
        >>> grouped({"ged": "none", "m_iou": "none"})
        {'none': ['ged', 'm_iou']}
    """
    found: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        found.setdefault(reason, []).append(name)
    return found


def _numbers(values: Mapping[str, float]) -> dict[str, float | str | None]:
    """The values for JSON, which knows neither nan nor infinity."""
    words = {math.inf: "inf", -math.inf: "-inf"}
    return {name: None if math.isnan(v) else words.get(v, v) for name, v in values.items()}
