"""What a mixture of runs is worth: weights are fitted on one half of validation images and measured on the other, three
times.

    python benchmarks/mixtures.py RUN RUN RUN --images 200 --out docs/results/mixtures.json

The entry of the runs' data set in the file is replaced, others stay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambiseg.data.batches import annotations_of
from ambiseg.data.source import SpreadSplit, open_split
from ambiseg.engine.mixture import MixtureFit, MixtureModel
from ambiseg.engine.run import load, mixed
from ambiseg.maskset import MaskSet
from ambiseg.metrics import ged, hm_iou_unique

HALVINGS = 3


def figures(predicted: Iterable[MaskSet], truth: Iterable[MaskSet]) -> dict[str, float]:
    """Mean GED and HM IoU* over images."""
    pairs = [(float(ged(p, t)), float(hm_iou_unique(p, t))) for p, t in zip(predicted, truth, strict=True)]
    return dict(zip(("ged", "hm_iou_unique"), np.mean(pairs, axis=0).round(4).tolist(), strict=True))


def measure(folders: list[Path], images: int, seed: int) -> dict[str, Any]:
    """Rows of three halvings: weights, figures of each run and of the mixture; and milliseconds per image."""
    runs = [load(folder) for folder in folders]
    source = SpreadSplit(open_split(runs[0].config.data, "val"), images)
    generators = [torch.Generator(run.hardware.device).manual_seed(seed) for run in runs]
    milliseconds = np.zeros(len(runs))
    found, truth = [], []
    for sample in source:
        row = []
        for i, (run, generator) in enumerate(zip(runs, generators, strict=True)):
            began = time.perf_counter()
            row.append(run.propose([sample.image], None, generator))
            milliseconds[i] += 1000 * (time.perf_counter() - began) / len(source)
        found.append(row)
        truth.append(annotations_of(sample, runs[0].config.labels))
    halvings = []
    for number in range(HALVINGS):
        order = np.random.default_rng(seed + number).permutation(len(truth))
        fitted, measured = np.array_split(order, 2)
        fit = MixtureFit(len(runs))
        for i in fitted:
            fit.add(found[i], truth[i])
        weights = fit.weights()
        model = mixed(runs, weights).model
        assert isinstance(model, MixtureModel)
        held = [truth[i] for i in measured]
        alone = {f.name: figures((found[i][r] for i in measured), held) for r, f in enumerate(folders)}
        halvings.append(
            {
                "weights": dict(zip(alone, [round(weight, 3) for weight in weights], strict=True)),
                "runs": alone,
                "best": {
                    "ged": min(row["ged"] for row in alone.values()),
                    "hm_iou_unique": max(row["hm_iou_unique"] for row in alone.values()),
                },
                "mixture": figures((model.joined(found[i]) for i in measured), held),
            }
        )
    return {"images": len(truth), "seed": seed, "ms": milliseconds.round(1).tolist(), "halvings": halvings}


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
    data = Path(load(chosen.runs[0]).config.data).stem
    table = {data: measure(chosen.runs, chosen.images, chosen.seed)}
    print(json.dumps(table, indent=2))
    if chosen.out:
        before = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
        chosen.out.write_text(json.dumps(before | table, indent=2) + "\n")


if __name__ == "__main__":
    main()
