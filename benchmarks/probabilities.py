"""Probabilities of modes by every way of estimating them, on simulated wildfires and class flips.

    python benchmarks/probabilities.py --work DIR --results docs/results/probabilities.json [--source DIR] [--sets NAME...]

Trains one flow model per data set (``--minutes``), unless it is done, and estimates the probabilities of three kinds of
masks: the annotated modes themselves ("truth", the upper bound of table 4), and the proposals of the runs that
``benchmarks/mode_proposals.py`` left in the same ``--work``, full and single labels. Proposals are taken as they are,
filtered by score, and filtered by score and near-duplicates (table 5). Ways: the probability head, decomposition of one
velocity at t = 0 ("mean"), of 64 ("velocity"), of posterior means at t > 0 ("posterior"), and counted samples.

For each: Brier skill score (matched one to one, pooled), total variation (nearest), flow evaluations and seconds per image.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import ambiseg
from ambiseg.data.batches import prepare as annotations_of
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split
from ambiseg.engine.predict import PredictSettings, Run
from ambiseg.engine.probabilities import FlowProbabilities
from ambiseg.engine.run import TRAINING
from ambiseg.engine.settings import TrainSettings
from ambiseg.maskset import MaskSet
from ambiseg.methods.settings import FlowMatchingSettings
from ambiseg.metrics import Comparison, metric_collection
from ambiseg.networks.settings import UNetSettings
from mode_proposals import RECIPES, SPLITS, prepare

WAYS: dict[str, tuple[str, int, int]] = {
    "mean": ("mean", 1, 1),
    "velocity": ("velocity", 64, 64),
    "posterior": ("posterior", 64, 320),
    "samples 16": ("samples", 16, 320),
    "samples 64": ("samples", 64, 1280),
}
"""Way -> kind, draws, flow evaluations per image (Heun with 10 steps takes 20, the posterior 5 for each draw)."""
FILTERS = {
    "none": PredictSettings(None, None),
    "scores": PredictSettings(0.5, None),
    "scores and duplicates": PredictSettings(0.5, 0.9),
}
"""Rows of table 5."""


def flow_run(name: str, data: Path, arguments: argparse.Namespace) -> Run:
    """The flow model of a data set, trained unless it is done."""
    folder = arguments.work / f"{name}-flow-{arguments.seed}"
    note = folder / TRAINING
    if not note.is_file() or json.loads(note.read_text())["interrupted"]:
        train = TrainSettings(minutes=arguments.minutes, batch_size=16, lr=1e-3, seed=arguments.seed)
        result = ambiseg.fit(
            "flow-matching",
            data,
            folder,
            train=train,
            backbone=UNetSettings(width=16),
            settings=FlowMatchingSettings(),
            overwrite=True,
        )
        if result.interrupted:
            raise SystemExit(f"interrupted; go on with: ambiseg train --resume {folder}")
    return ambiseg.load(folder)


def kinds_of_masks(
    name: str, flow: Run, arguments: argparse.Namespace
) -> Iterator[tuple[str, str, Callable[[list[Sample], MaskSet], MaskSet]]]:
    """Kinds of masks whose probabilities are estimated: (masks, filter, images and annotations to masks)."""

    def modes_of(samples: list[Sample], truth: MaskSet) -> MaskSet:
        return MaskSet.uniform(truth.merge_identical().masks, truth.labels)

    yield "truth", "none", modes_of
    for labels in ("full", "single"):
        folder = arguments.work / f"{name}-{labels}-{arguments.seed}-phase{len(RECIPES[name, labels])}"
        if not folder.is_dir():
            continue
        run = ambiseg.load(folder)
        for title, settings in FILTERS.items():

            def propose(
                samples: list[Sample], _: MaskSet, run: Run = run, settings: PredictSettings = settings
            ) -> MaskSet:
                return settings.apply(run.propose([s.image for s in samples]).hard())

            yield labels, title, propose


def measure(name: str, data: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each kind of masks and each way."""
    flow, split = flow_run(name, data, arguments), open_split(data, SPLITS[name])
    count = min(len(split), arguments.images)
    samples = [split[i] for i in range(count)]
    truths = [annotations_of(s, flow.config.normalization, flow.config.labels).annotations for s in samples]
    rows = []
    for masks, title, make in kinds_of_masks(name, flow, arguments):
        prepared = [make([sample], truth) for sample, truth in zip(samples, truths, strict=True)]
        ways = dict(WAYS) if masks == "truth" else {"head": ("head", 0, 0), **WAYS}
        for way, (kind, draws, evaluations) in ways.items():
            scores = metric_collection(["hm_iou_unique", "brier_skill_score", "total_variation"])
            noise, began = (
                torch.Generator(flow.hardware.device).manual_seed(arguments.seed),
                time.perf_counter(),
            )
            estimate = None if kind == "head" else FlowProbabilities(flow, kind, draws)
            found = [
                kept if estimate is None else estimate([sample.image], kept, noise)
                for sample, kept in zip(samples, prepared, strict=True)
            ]
            seconds = (time.perf_counter() - began) / count
            for kept, truth in zip(found, truths, strict=True):
                scores.update(Comparison(replace(kept, probabilities=None), truth))
            numbers = {key: round(float(value), 4) for key, value in scores.compute().items()}
            row = {"data": name, "masks": masks, "filter": title, "way": way, "evaluations": evaluations}
            rows.append({**row, **numbers, "seconds_per_image": round(seconds, 5), "images": count})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measure what is asked for; results already there are replaced."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder of the .npz files (camvid)")
    parser.add_argument("--work", type=Path, required=True, help="folder with packed data and runs")
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add the results to")
    parser.add_argument("--sets", nargs="+", choices=["wildfire", "camvid"], default=["wildfire", "camvid"])
    parser.add_argument("--minutes", type=float, default=30, help="training time of each flow model")
    parser.add_argument("--images", type=int, default=100, help="at most this many images of the split")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.sets:
        rows = measure(name, prepare(name, arguments.source, arguments.work), arguments)
        known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
        known[f"{name}-seed{arguments.seed}"] = rows
        arguments.results.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
