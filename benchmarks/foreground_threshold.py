"""What a lower foreground threshold does to runs that are trained: small objects are drawn, and modes are told apart.

    python benchmarks/foreground_threshold.py --runs NAME=RUN... --data DATA --results docs/results/foreground-threshold.json

Evaluates every run (a folder that ``ambiseg train`` wrote, with a name for the table) at every threshold, over all masks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import ambiseg
from ambiseg.engine.predict import PredictSettings
from ambiseg.engine.run import TRAINING, RunConfig, write_json

METRICS = ["hm_iou_unique", "ged", "m_iou", "brier_skill_nearest", "brier_skill_merged", "total_variation"]


def main() -> None:
    """Measure, and print a line for each evaluation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", nargs="+", required=True, metavar="NAME=RUN", help="names and folders of runs"
    )
    parser.add_argument("--data", type=Path, required=True, help="data set")
    parser.add_argument("--split", default="val", help="split of it (val)")
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.5, 0.375, 0.25, 0.125])
    parser.add_argument("--results", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    rows = []
    for name, folder in (words.split("=", 1) for words in arguments.runs):
        training = json.loads((Path(folder) / TRAINING).read_text())
        train = RunConfig.load(Path(folder)).train
        for threshold in arguments.thresholds:
            settings = PredictSettings(foreground_threshold=threshold)
            found = ambiseg.evaluate(folder, arguments.data, arguments.split, settings, metrics=METRICS)
            row = {"run": name, "threshold": threshold, **found.to_dict()["all"]}
            row |= {
                "labels": train.labels,
                "seed": train.seed,
                "steps": training["steps"],
                "images": found.images,
            }
            rows.append({**row, "split": found.split, "digest": found.data_digest})
            print(json.dumps(row), flush=True)
    write_json(arguments.results, {"rows": rows})


if __name__ == "__main__":
    main()
