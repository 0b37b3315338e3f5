"""Methods that sample, side by side: equal data, backbone, schedule and number of epochs.

    python benchmarks/sampling_methods.py --work DIR --results docs/results/sampling-methods.json [--source DIR] [--sets NAME...]

Probabilistic U-Net with its four baselines (Kohl et al. 2018), stochastic segmentation networks (Monteiro et
al. 2020), and one deterministic U-Net, on the data sets of ``benchmarks/mode_proposals.py``. Every network
trains for the same number of steps on one annotation per visit, which is all that these methods ever see of
an image at a time; an ensemble of four takes four times as long. Measured with 16 masks of equal weight (the
ensemble has as many as members, the deterministic U-Net one): GED², tiled HM IoU, HM IoU*, seconds per image
in batches, seconds per training step. A run that is finished in ``--work`` with the same settings is
evaluated only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import ambiseg
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run_folder import TRAINING, RunConfig, write_json
from ambiseg.engine.settings import TrainSettings
from ambiseg.methods import method_info
from mode_proposals import SPLITS, prepare
from training_runs import CORES, common_options, parsed, train_once

SAMPLES = 16
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "probabilistic U-Net": ("probabilistic-unet", {}),
    "SSN": ("ssn", {}),
    "Image2Image VAE": ("image2image-vae", {}),
    "M-heads": ("m-heads", {}),
    "U-Net ensemble": ("unet-ensemble", {}),
    "dropout U-Net": ("dropout-unet", {}),
    "deterministic U-Net": ("unet-ensemble", {"members": 1}),
}
"""Heading -> method and settings."""
EPOCHS = {"lidc": 5, "wildfire": 12, "camvid": 10}
"""Passes over the training split: 1250, 600 and 230 steps of 16 images; those of the last are three times as
large."""
FIGURES = ["ged", "hm_iou_tiled", "hm_iou_unique"]
KEEP_ALL = PredictSettings(None, None, samples=SAMPLES)


def measure(title: str, name: str, data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train unless it is done, and evaluate."""
    method, options = METHODS[title]
    settings = dataclasses.replace(method_info(method).settings(), **options)
    train = TrainSettings(epochs=EPOCHS[name], batch_size=16, lr=1e-3, labels="single", seed=arguments.seed)
    run = arguments.work / f"{name}-{title.replace(' ', '-').lower()}-{arguments.seed}"
    train_once(method, data, run, train, settings)
    found = ambiseg.evaluate(run, data, SPLITS[name], KEEP_ALL, metrics=FIGURES, oracle_draws=0)
    training = json.loads((run / TRAINING).read_text())
    return {
        "title": title,
        "method": method,
        "settings": dataclasses.asdict(RunConfig.load(run).settings),
        "train": dataclasses.asdict(train),
        "training": training,
        "seconds_per_step": round(training["seconds"] / training["steps"], 5),
        "cores": CORES,
        **found.to_dict(),
    }


def main() -> None:
    """Measure what is asked for; results already there are replaced."""
    parser = common_options(__doc__)
    parser.add_argument("--sets", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    arguments = parsed(parser)
    for name in arguments.sets:
        data = prepare(name, arguments.source, arguments.work)
        for title in arguments.methods:
            entry = measure(title, name, data, arguments)
            known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
            write_json(
                arguments.results, {**known, f"{name}-{title}-seed{arguments.seed}": {"data": name, **entry}}
            )
            print(json.dumps({"data": name, "title": title, **entry["all"]}), flush=True)


if __name__ == "__main__":
    main()
