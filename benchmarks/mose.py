"""Mixture of stochastic experts: its parts one by one on lung nodules, and class flips of street scenes beside other methods.

    python benchmarks/mose.py --source DIR --work DIR --results docs/results/mose.json [--parts ablation flips] [--rows NAME...]

Gao, Chen, Zhang and He (2023), "Modeling multimodal aleatoric uncertainty in segmentation with mixture of stochastic experts".
A run that is finished in ``--work`` is evaluated only.

- ``ablation``: the rows of table 2 on ``lidc-on-ct-64``, split by patient, with all four annotations, and the last also with one
  redrawn at every visit; every row takes the same number of steps. 16 masks of every validation image, in both representations.
- ``flips``: ``camvid-96x128`` with four classes switched on or off (binary, 16 modes), and with five classes that may turn into
  their twins (16 classes, 32 modes, its probabilities), beside M-heads and the probabilistic U-Net. Every
  method trains for the same minutes. As many masks as the mixture has experts; the mean absolute error of the probability that
  a class is on, per class and image (``flip_error``) and of its mean over all images (``flip_bias``).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import write_dataset
from ambiseg.engine.run import write_json
from ambiseg.engine.settings import TrainSettings
from ambiseg.labels import LabelSpace
from ambiseg.methods import method_info
from ambiseg.methods.settings import MoSESettings
from ambiseg.networks.settings import UNetSettings
from mode_proposals import prepare
from training_runs import measure, train_once

SMALL = UNetSettings(width=16)
ABLATION: dict[str, tuple[str, MoSESettings]] = {
    "IoU loss of all pairs": ("full", MoSESettings(coupling="independent")),
    "uniform weights": ("full", MoSESettings(expert_weights="uniform")),
    "deterministic experts": ("full", MoSESettings(stochastic=False)),
    "MoSE": ("full", MoSESettings()),
    "MoSE, one label": ("single", MoSESettings(beta=10)),
}
"""Rows of table 2 -> label view and settings."""
EPOCHS = 4
"""Passes over the training split of lidc: 1000 steps of 16 images."""
MINUTES = {"binary": 12.0, "twins": 12.0}
TWINS = {"pavement": 8 / 17, "pedestrian": 7 / 17, "car": 6 / 17, "tree": 5 / 17, "road": 4 / 17}
"""Class -> probability that it is its twin; on Cityscapes: sidewalk, person, car, vegetation, road."""
CLASSES = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
]
VOID = 255
COUNT = {"binary": 20, "twins": 35}
"""Experts of the mixture, heads, and masks that are evaluated."""
METHODS = ("mose", "m-heads", "probabilistic-unet")
FIGURES = ["ged", "m_iou", "hm_iou_unique", "ece"]


def twins(source: Path, split: str) -> Iterator[Sample]:
    """Street scenes with the 32 label maps of five classes that are themselves or their twins, classes 11 to 15."""
    with np.load(source / f"camvid-96x128-{split}.npz", allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    labels = np.where(labels < len(CLASSES), labels, VOID).astype(np.uint8)
    chances = np.array(list(TWINS.values()))
    on = np.array(list(itertools.product([0, 1], repeat=len(TWINS))))
    weights = np.where(on, chances, 1 - chances).prod(1)
    names = tuple("flip-" + "".join(map(str, row)) for row in on)
    for i, image in enumerate(images):
        masks = np.repeat(labels[i][None], len(on), 0)
        for column, name in enumerate(TWINS):
            there = (labels[i] == CLASSES.index(name)) & (on[:, column, None, None] > 0)
            masks[there] = len(CLASSES) + column
        yield Sample(f"frame-{i:04}", image.transpose(2, 0, 1), masks, weights, names)


def street_scenes(kind: str, arguments: argparse.Namespace) -> Path:
    """The packed data set, written once."""
    if kind == "binary":
        return prepare("camvid", arguments.source, arguments.work, "single")
    target: Path = arguments.work / "camvid-twins.h5"
    if not target.exists():
        info = DatasetInfo(
            "camvid-twins-96x128",
            LabelSpace((*CLASSES, *(f"{name}, twin" for name in TWINS)), ignore_value=VOID, background=None),
            augment={"flip": True},
            licence="CC BY-NC 4.0",
        )
        write_dataset(target, {split: twins(arguments.source, split) for split in ("train", "val")}, info)
    return target


def ablation(title: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A row of table 2: figures of the compact set and of the standard samples."""
    labels, settings = ABLATION[title]
    data = prepare("lidc", arguments.source, arguments.work)
    train = TrainSettings(epochs=EPOCHS, batch_size=16, lr=1e-3, labels=labels, seed=arguments.seed)
    run = arguments.work / f"lidc-mose-{title.lower().replace(', ', '-').replace(' ', '-')}-{arguments.seed}"
    train_once("mose", data, run, train, settings, SMALL)
    return {
        representation: measure(run, data, "val", 16, FIGURES, batch_size=8, representation=representation)
        for representation in ("compact", "standard")
    }


def flips(title: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A method on one kind of class flips."""
    kind, method = title.split(", ")
    data = street_scenes(kind, arguments)
    count = COUNT[kind]
    options: dict[str, Any] = {
        "mose": dict(
            experts=count, draws=1, latent_size=5, cost="cross-entropy", cap=1 / count, uniform_until=0.2
        ),
        "m-heads": dict(heads=count),
        "probabilistic-unet": {},
    }[method]
    settings = dataclasses.replace(method_info(method).settings(), **options)
    train = TrainSettings(minutes=MINUTES[kind], batch_size=8, lr=2e-3, seed=arguments.seed)
    run = arguments.work / f"camvid-{kind}-{method}-{arguments.seed}"
    train_once(method, data, run, train, settings, SMALL)
    return measure(run, data, "val", count, FIGURES, batch_size=2)


PARTS = {
    "ablation": (ablation, tuple(ABLATION)),
    "flips": (flips, tuple(f"{k}, {m}" for k in COUNT for m in METHODS)),
}
"""Part -> what measures a row, and its rows."""


def main() -> None:
    """Measure what is asked for; results already there are replaced."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="folder of the .npz files")
    parser.add_argument("--work", type=Path, required=True, help="folder for packed data and runs")
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add the results to")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rows", nargs="+", help="rows by their names; all if left out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        row, titles = PARTS[part]
        for title in titles:
            if arguments.rows and title not in arguments.rows:
                continue
            entry = row(title, arguments)
            known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
            write_json(arguments.results, {**known, part: {**known.get(part, {}), title: entry}})
            shown = entry.get("compact", entry)["all"]
            print(json.dumps({part: title, **shown}), flush=True)


if __name__ == "__main__":
    main()
