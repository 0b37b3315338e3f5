"""What the filter of near-duplicates takes from runs that are trained: copies of a mode, or modes that are nearly alike.

    python benchmarks/duplicate_filter.py --runs NAME=RUN... --data DATA --results docs/results/duplicate-filter.json

Evaluates the masks that are kept of every run (a folder that ``ambiseg train`` wrote, with a name for the table) at every
threshold of the filter; rows of the same name and threshold are replaced, so that runs of several data sets share a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import ambiseg
from ambiseg.engine.predict import PredictSettings
from ambiseg.engine.run import TRAINING, RunConfig, write_json

METRICS = ["hm_iou_unique", "ged", "brier_skill_score", "brier_skill_nearest", "selection_f1"]


def main() -> None:
    """Measure, and print a line for each evaluation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", nargs="+", required=True, metavar="NAME=RUN", help="names and folders of runs"
    )
    parser.add_argument("--data", type=Path, required=True, help="data set")
    parser.add_argument("--split", default="test", help="split of it (test)")
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.9, 0.95, 0.99, 1.0])
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add the rows to")
    arguments = parser.parse_args()
    known = json.loads(arguments.results.read_text())["rows"] if arguments.results.exists() else []
    rows = {(row["run"], row["threshold"]): row for row in known}
    for name, folder in (words.split("=", 1) for words in arguments.runs):
        train = RunConfig.load(Path(folder)).train
        for threshold in arguments.thresholds:
            settings = PredictSettings(duplicate_iou=threshold)
            found = ambiseg.evaluate(
                folder, arguments.data, arguments.split, settings, metrics=METRICS, perfect_draws=0
            )
            rows[name, threshold] = {
                "run": name,
                "threshold": threshold,
                **found.to_dict()["kept"],
                "selection_f1": found.all["selection_f1"],
                "labels": train.labels,
                "seed": train.seed,
                "steps": json.loads((Path(folder) / TRAINING).read_text())["steps"],
                "images": found.images,
                "split": found.split,
                "digest": found.data_digest,
            }
            print(json.dumps(rows[name, threshold]), flush=True)
    write_json(arguments.results, {"rows": list(rows.values())})


if __name__ == "__main__":
    main()
