"""What a mixture of runs is worth: weights fitted on one half of images of the validation split, measured on the other half,
three times.

    python benchmarks/mixtures.py RUN RUN RUN --images 200 --out docs/results/mixtures.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambiseg.data.batches import annotations_of
from ambiseg.data.source import SpreadSplit, open_split
from ambiseg.engine.mixture import MixtureFit
from ambiseg.engine.run import load, mixed
from ambiseg.metrics import ged, hm_iou_unique


def measure(folders: list[Path], images: int, seed: int) -> dict[str, Any]:
    """Rows of three halvings: weights, GED and HM IoU* of each run and of the mixture, and milliseconds per image."""
    runs = [load(folder) for folder in folders]
    source = SpreadSplit(open_split(runs[0].config.data, "val"), images)
    generators = [torch.Generator(run.hardware.device).manual_seed(seed) for run in runs]
    seconds = np.zeros(len(runs))
    found, truth = [], []
    for sample in source:
        row = []
        for i, (run, generator) in enumerate(zip(runs, generators, strict=True)):
            began = time.perf_counter()
            row.append(run.propose([sample.image], None, generator))
            seconds[i] += time.perf_counter() - began
        found.append(row)
        truth.append(annotations_of(sample, runs[0].config.labels))
    splits = []
    for split in range(3):
        order = np.random.default_rng(seed + split).permutation(len(truth))
        half = len(order) // 2
        fit = MixtureFit(len(runs))
        for i in order[:half]:
            fit.add(found[i], truth[i])
        weights = fit.weights()
        union = mixed(runs, weights).model
        columns: dict[str, list[list[float]]] = {
            name: [[], []] for name in [*(f.name for f in folders), "mixture"]
        }
        for i in order[half:]:
            sets = dict(zip((f.name for f in folders), found[i], strict=True)) | {
                "mixture": union.joined(found[i])  # type: ignore[operator]
            }
            for name, masks in sets.items():
                columns[name][0].append(float(ged(masks, truth[i])))
                columns[name][1].append(float(hm_iou_unique(masks, truth[i])))
        means = {
            name: {"ged": round(float(np.mean(g)), 4), "hm_iou_unique": round(float(np.mean(h)), 4)}
            for name, (g, h) in columns.items()
        }
        splits.append({"weights": [round(w, 3) for w in weights], **means})
    milliseconds = (1000 * seconds / len(truth)).round(1).tolist()
    return {
        "data": Path(runs[0].config.data).stem,
        "images": len(truth),
        "ms": [*milliseconds, round(sum(milliseconds), 1)],
        "splits": splits,
    }


def main() -> None:
    """Measure the runs of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    table = measure(chosen.runs, chosen.images, chosen.seed)
    print(json.dumps(table, indent=2))
    if chosen.out:
        chosen.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
