"""What the thresholds of a prediction do to runs that are trained.

    python benchmarks/thresholds.py foreground --runs NAME=RUN... --data DATA --results docs/results/foreground-threshold.json
    python benchmarks/thresholds.py duplicates --runs NAME=RUN... --data DATA --results docs/results/duplicate-filter.json

``foreground``: pixels above a probability are foreground; a lower one draws small objects, and tells modes
apart. Figures are of all masks. ``duplicates``: of masks with a higher IoU the best is kept; those are copies
of a mode, or modes that are nearly alike. Figures are of the masks that are kept, Selection F1 of all.

Evaluates every run (a folder that ``ambiseg train`` wrote, with a name for the table) at every threshold.
Rows of the same name and threshold are replaced, so that runs of several data sets share a file.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ambiseg
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run_folder import TRAINING, RunConfig, write_json


@dataclass(frozen=True)
class Threshold:
    """A threshold of `PredictSettings`, the masks and metrics that show what it does, the values that are
    tried, and the file of ``docs/results``."""

    option: str
    column: str
    metrics: tuple[str, ...]
    values: tuple[float, ...]
    results: str


PROBABILITIES = ("brier_skill_nearest", "brier_skill_merged", "total_variation")
THRESHOLDS = {
    "foreground": Threshold(
        "foreground_threshold",
        "all",
        ("hm_iou_unique", "ged", "m_iou", *PROBABILITIES),
        (0.5, 0.375, 0.25, 0.125),
        "foreground-threshold.json",
    ),
    "duplicates": Threshold(
        "duplicate_iou",
        "kept",
        ("selection_f1", "hm_iou_unique", "ged", "brier_skill_score", "brier_skill_nearest"),
        (0.9, 0.95, 0.99, 1.0),
        "duplicate-filter.json",
    ),
}


def evaluated(
    name: str, run: Path, threshold: Threshold, value: float, data: Path, split: str
) -> dict[str, Any]:
    """The row of a run at one value."""
    option: dict[str, Any] = {threshold.option: value}
    metrics = list(threshold.metrics)
    found = ambiseg.evaluate(run, data, split, PredictSettings(**option), metrics=metrics, oracle_draws=0)
    columns = found.to_dict()
    train = RunConfig.load(run).train
    return {
        "run": name,
        "threshold": value,
        **{metric: columns["all"].get(metric) for metric in threshold.metrics},
        **columns[threshold.column],
        "labels": train.labels,
        "seed": train.seed,
        "steps": json.loads((run / TRAINING).read_text())["steps"],
        "images": found.images,
        "split": found.split,
        "digest": found.data_digest,
    }


def main() -> None:
    """Measure, and print a line for each evaluation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("threshold", choices=list(THRESHOLDS))
    parser.add_argument(
        "--runs", nargs="+", required=True, metavar="NAME=RUN", help="names and folders of runs"
    )
    parser.add_argument("--data", type=Path, required=True, help="data set")
    parser.add_argument("--split", default="val", help="split of it (val)")
    parser.add_argument("--values", nargs="+", type=float, help="thresholds; some usual ones if left out")
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add the rows to")
    arguments = parser.parse_args()
    threshold = THRESHOLDS[arguments.threshold]
    known = json.loads(arguments.results.read_text())["rows"] if arguments.results.exists() else []
    rows = {(row["run"], row["threshold"]): row for row in known}
    for name, folder in (words.split("=", 1) for words in arguments.runs):
        for value in arguments.values or threshold.values:
            row = evaluated(name, Path(folder), threshold, value, arguments.data, arguments.split)
            rows[name, value] = row
            print(json.dumps(row), flush=True)
    write_json(arguments.results, {"rows": list(rows.values())})


if __name__ == "__main__":
    main()
