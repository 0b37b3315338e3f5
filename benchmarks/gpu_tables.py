"""Tables of what ``benchmarks/gpu.py`` measured: at the end of a run, and in ``docs/gpu.md``. Imports no
torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "gpu"


@dataclass(frozen=True)
class Column:
    """A column: its heading, the keys that lead to its value in a row, and how a number is written."""

    title: str
    keys: tuple[str, ...]
    style: str = "{:.3f}"

    def cell(self, row: dict[str, Any]) -> str:
        """The value of a row; empty where it has none."""
        value: Any = row
        for key in self.keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            return ""
        if isinstance(value, bool):
            return "yes" if value else "NO"
        return self.style.format(value) if isinstance(value, (int, float)) else str(value)


def _column(title: str, keys: str, style: str = "{:.3f}") -> Column:
    return Column(title, tuple(keys.split(".")), style)


def _all(*names: str) -> tuple[Column, ...]:
    return tuple(_column(name, f"all.{name}") for name in names)


TRAINED = (
    _column("s trained", "training.seconds", "{:.0f}"),
    _column("steps", "training.steps", "{:.0f}"),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "methods": (
        _column("updates", "updates", "{:.0f}"),
        _column("last loss", "last_loss"),
        _column("probabilities differ", "probability_difference", "{:.1e}"),
        _column("weights differ", "weight_difference", "{:.1e}"),
        _column("pixels differ", "pixels_differ", "{:.1e}"),
        _column("agrees", "agrees"),
    ),
    "speed": (
        _column("batch", "batch", "{:.0f}"),
        _column("ms/step", "step_ms", "{:.1f}"),
        _column("ms/step, channels first", "step_ms_contiguous", "{:.1f}"),
        _column("MiB", "step_mib", "{:.0f}"),
        _column("share", "step_share", "{:.3f}"),
        _column("ms/image, 16 masks", "predict_ms", "{:.2f}"),
        _column("MiB", "predict_mib", "{:.0f}"),
        _column("share", "predict_share", "{:.3f}"),
        _column("TFLOP/s", "tflops", "{:.0f}"),
        _column("s compiling", "compiling_seconds", "{:.1f}"),
    ),
    "metrics": (
        _column("images", "images", "{:.0f}"),
        _column("samples", "samples", "{:.0f}"),
        _column("s, card", "card_seconds", "{:.2f}"),
        _column("s, CPU", "cpu_seconds", "{:.2f}"),
        _column("threads", "threads", "{:.0f}"),
        _column("ratio", "ratio", "{:.1f}"),
        _column("largest difference", "largest_difference", "{:.1e}"),
        _column("same", "same"),
    ),
    "fires": (
        *TRAINED,
        *_all("hm_iou_unique", "hm_iou_tiled", "m_iou", "ged", "selection_f1", "brier_skill_nearest", "ece"),
        _column("brier_skill_score, kept", "kept.brier_skill_score"),
        _column("s/image", "seconds_per_image", "{:.5f}"),
    ),
    "nodules": (
        *TRAINED,
        *_all("ged", "hm_iou_unique", "hm_iou_tiled", "m_iou", "selection_f1", "ece"),
        _column("s/image", "seconds_per_image", "{:.5f}"),
    ),
    "samplers": (
        *TRAINED,
        *(
            _column(f"{title}, {n}", f"{key}_{n}", style)
            for n in (16, 100)
            for title, key, style in (
                ("ged", "ged", "{:.3f}"),
                ("hm_iou", "hm_iou", "{:.3f}"),
                ("s/image", "seconds_per_image", "{:.4f}"),
            )
        ),
    ),
}
"""Columns of every part; metrics by their names in ``docs/metrics.md``."""


def part_table(note: dict[str, Any]) -> str:
    """The rows of a part, and a sentence on how they were measured."""
    columns = COLUMNS.get(note["part"], ())
    lines = [
        [name, *(column.cell(row) for column in columns), "" if row["status"] == "done" else row["status"]]
        for name, row in note["rows"].items()
    ]
    head = ["", *(column.title for column in columns), "remark"]
    filled = [0, *(i for i in range(1, len(head)) if any(line[i] for line in lines))]
    made = [[line[i] for i in filled] for line in (head, ["---"] * len(head), *lines)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in made) + "\n\n" if lines else ""
    card = f"{note['card']}, {note['memory_gib']} GiB" if note.get("card") else "the CPU"
    how = (
        f"{note['status'].capitalize()}; {note['seconds']:.0f} s on {card}; torch {note.get('torch')},"
        f" commit `{note.get('commit')}`, seed {note['seed']}."
    )
    return table + how + (" Tiny sizes: these figures say nothing." if note.get("smoke") else "")


def text(notes: list[dict[str, Any]]) -> str:
    """All parts, one after the other."""
    return "\n\n".join(f"{note['part']}\n\n{part_table(note)}" for note in notes)


def page_table(part: str, results: Path = RESULTS) -> str:
    """The table of a part in ``docs/gpu.md``."""
    path = results / f"{part}.json"
    if not path.exists():
        return "Not measured yet."
    return part_table(json.loads(path.read_text(encoding="utf-8")))


TABLES: dict[str, Callable[[], str]] = {f"gpu-{part}": partial(page_table, part) for part in COLUMNS}
"""What draws each table of the page."""
