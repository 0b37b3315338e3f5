"""What a few representative masks of many samples are worth: GED of all samples, of K masks that represent them, and of K
fresh samples, with the milliseconds that representing takes.

    python benchmarks/representatives.py RUN... --samples 100 --masks 8 4 --images 60 --out docs/results/representatives.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from ambiseg.data.batches import annotations_of
from ambiseg.data.source import SpreadSplit, open_split
from ambiseg.engine.run import load
from ambiseg.metrics import ged, hm_iou_unique
from ambiseg.mode_probabilities.representative_masks import represent


def measure(
    folder: Path, samples: int, masks: list[int], images: int, split: str, seed: int
) -> dict[str, object]:
    """Means over the images of one run."""
    run = load(folder)
    source = SpreadSplit(open_split(run.config.data, split), images)
    generator = torch.Generator(run.hardware.device).manual_seed(seed)
    values: dict[str, dict[str, list[float]]] = {}
    for sample in source:
        truth = annotations_of(sample, run.config.labels)
        whole = run.propose([sample.image], samples, generator)
        rows = {f"{samples} samples": (whole, 0.0)}
        for count in masks:
            rows[f"{count} fresh"] = (run.propose([sample.image], count, generator), 0.0)
            began = time.perf_counter()
            rows[f"{count} representative"] = (represent(whole, count), 1000 * (time.perf_counter() - began))
        for name, (found, milliseconds) in rows.items():
            columns = values.setdefault(name, {"ged": [], "hm_iou_unique": [], "ms": []})
            columns["ged"].append(float(ged(found, truth)))
            columns["hm_iou_unique"].append(float(hm_iou_unique(found, truth)))
            columns["ms"].append(milliseconds)
    means = {
        row: {name: round(float(np.mean(column)), 4) for name, column in columns.items() if any(column)}
        for row, columns in values.items()
    }
    return {
        "method": run.config.method,
        "data": Path(run.config.data).stem,
        "images": len(source),
        "seed": seed,
        **means,
    }


def main() -> None:
    """Measure the runs of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--masks", type=int, nargs="+", default=[8])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    rows = []
    for folder in chosen.runs:
        rows.append(measure(folder, chosen.samples, chosen.masks, chosen.images, chosen.split, chosen.seed))
        print(json.dumps(rows[-1]), flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
