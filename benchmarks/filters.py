"""What the fitted filter is worth: it is chosen on the first half of the validation split and measured on the second, beside
all masks and beside the filter of a run without a fitted one.

    python benchmarks/filters.py RUN... --out docs/results/filters.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split
from ambiseg.data.split import Split
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.filter_choice import EVERYTHING, choose_filter
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import Run, load

METRICS = ["ged", "hm_iou_unique", "brier_skill_score"]


class Part(Split):
    """Images ``first`` to ``last`` of a split; in the order of ids, so that a patient is in one half (but for one)."""

    def __init__(self, split: Split, first: int, last: int) -> None:
        self.split, self.first, self.ids, self.info = split, first, split.ids[first:last], split.info

    def __getitem__(self, index: int) -> Sample:
        return self.split[self.first + range(len(self))[index]]


def measure(folder: Path, seed: int) -> dict[str, Any]:
    """Masks per image and figures of one run on the second half."""
    run = load(folder)
    whole = open_split(run.config.data, "val")
    half = len(whole) // 2
    fitted = choose_filter(run, Part(whole, 0, half), data=run.config.data, seed=seed)
    plain = Run(run.config, run.model, run.hardware)
    rows = {
        "all": PredictSettings(**asdict(EVERYTHING)),
        "no fitted filter": PredictSettings().for_run(plain),
        "fitted": PredictSettings(**asdict(fitted.values)),
    }
    found = {}
    for name, settings in rows.items():
        other = Part(whole, half, len(whole))
        table = evaluate(
            plain, other, "val", settings, metrics=METRICS, oracle_draws=0, bootstrap=None, seed=seed
        )
        found[name] = {"masks": round(table.n_kept, 2), **table.kept}
    return {
        "run": folder.name,
        "data": Path(run.config.data).stem,
        "labels": run.config.train.labels,
        "fitted on": fitted.images,
        "measured on": len(whole) - half,
        "values": asdict(fitted.values),
        **found,
    }


def main() -> None:
    """Measure the runs of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    rows = []
    for folder in chosen.runs:
        rows.append(measure(folder, chosen.seed))
        print(json.dumps(rows[-1]), flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
