"""Mixture of stochastic experts: its parts one by one on lung nodules, and class flips of street scenes
beside other methods.

    python benchmarks/mose.py --source DIR --work DIR --results docs/results/mose.json [--parts NAME...] [--rows NAME...]

Gao, Chen, Zhang and He (2023), "Modeling multimodal aleatoric uncertainty in segmentation with mixture of
stochastic experts". A run that is finished in ``--work`` is evaluated only.

- ``ablation``: the rows of table 2 on ``lidc-on-ct-64``, split by patient, with all four annotations, and the
  last also with one redrawn at every visit, with the paper's beta and with that of full labels; every row
  takes the same number of steps. 16 masks of every validation image, in both representations.
- ``coupling``: greedy couplings against the linear programme, on training batches before and after the
  training of MoSE.
- ``flips``: CamVid with four classes switched on or off (binary, 16 modes), and at half the size with five
  classes that may turn into their twins (16 classes, 32 modes), beside M-heads and the probabilistic U-Net.
  As the paper's networks are given the output of a segmentation network beside the image, these are given the
  true label map, so that nothing but the law of the flips is to be learnt. Every method trains for the same
  minutes, and gives as many masks as the mixture has experts. Of twins also GED and M-IoU over the ten
  classes that switch alone, the dialect of Kohl et al. (2018). ``flip_error`` is the mean absolute error of
  the probability that a class is on, over classes and images; ``flip_bias`` that of its mean over the images.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambiseg.data.batches import annotations_of, label_mode
from ambiseg.data.batches import prepare as prepare_item
from ambiseg.data.importers import importer
from ambiseg.data.importers.camvid import CLASSES
from ambiseg.data.importers.settings import CamvidSettings
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split, write_dataset
from ambiseg.engine.run import load
from ambiseg.engine.run_folder import write_json
from ambiseg.engine.settings import TrainSettings
from ambiseg.labels import VOID, LabelSpace
from ambiseg.losses.transport import capped_coupling, exact_coupling
from ambiseg.maskset import MaskSet
from ambiseg.methods import build, method_info
from ambiseg.methods.mose import MoSESettings
from ambiseg.methods.mose.model import MoSE, pairwise_cost
from ambiseg.metrics import Comparison, Ratios, flip_ratios, ged, m_iou
from ambiseg.networks.settings import UNetSettings
from mode_proposals import prepare
from training_runs import common_options, measure, parsed, train_once

SMALL = UNetSettings(width=16)
ABLATION: dict[str, tuple[str, MoSESettings]] = {
    "IoU loss of all pairs": ("full", MoSESettings(coupling="independent")),
    "uniform weights": ("full", MoSESettings(expert_weights="uniform")),
    "deterministic experts": ("full", MoSESettings(stochastic=False)),
    "MoSE": ("full", MoSESettings()),
    "MoSE, one label": ("single", MoSESettings(beta=10)),
    "MoSE, one label, beta 1": ("single", MoSESettings(beta=1)),
}
"""Rows of table 2 -> label view and settings."""
EPOCHS = 4
"""Passes over the training split of lidc: 1000 steps of 16 images."""
MINUTES = {"binary": 5.0, "twins": 15.0}
SIZES = {"binary": (96, 128), "twins": (48, 64)}
"""Height and width of the street scenes."""
COUNT = {"binary": 20, "twins": 35}
"""Experts of the mixture, heads, and masks that are evaluated."""
CAPS, BATCHES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0), 20
"""Caps gamma that couplings are compared at, and batches of 16 images."""
METHODS = ("mose", "m-heads", "probabilistic-unet")
FIGURES = ["ged", "m_iou", "hm_iou_unique", "ece"]


def street_scenes(kind: str, arguments: argparse.Namespace) -> Path:
    """The data set, written once: image and label map, one channel for each class."""
    target: Path = arguments.work / f"camvid-flips-{kind}.h5"
    if not target.exists():
        form: dict[str, Any] = {"output": kind}
        found = importer("camvid").read(arguments.source, CamvidSettings(size=SIZES[kind], **form))
        info = dataclasses.replace(found.info, augment={"flip": True})
        write_dataset(target, {split: with_labels(samples) for split, samples in found.splits.items()}, info)
    return target


def with_labels(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Images with their label map as more channels."""
    for sample in samples:
        classes = np.arange(len(CLASSES), dtype=np.uint8)[:, None, None]
        channels = np.where(sample.masks[0] == classes, 255, 0).astype(np.uint8)
        yield dataclasses.replace(sample, image=np.concatenate([sample.image, channels]))


def flip_figures(run: Path, data: Path, samples: int, seed: int) -> dict[str, Any]:
    """Estimated and true probability that a class is on, means over the images that show it, and their
    errors."""
    model, split = load(run), open_split(data, "val")
    names = split.stored.info.labels.names
    flips = split.stored.info.flips
    assert flips is not None
    numbers = [names.index(name) for name in flips.probabilities]
    twins = [(number, len(names) + i) for i, number in enumerate(numbers)]
    generator = torch.Generator().manual_seed(seed)
    found, weights, figures = [], [], []
    switched = LabelSpace.of_classes(1 + 2 * len(numbers))
    table = torch.zeros(256, dtype=torch.uint8)
    table[[*numbers, *(twin for _, twin in twins)]] = torch.arange(1, switched.classes, dtype=torch.uint8)
    table[VOID] = VOID
    for i in range(len(split)):
        stored = split.stored_sample(i)
        sample = split.shown(stored)
        truth = annotations_of(sample, split.info.labels)
        proposed = model.propose([sample.image], samples, generator)
        weights.append(proposed.weights[0])
        pair = Comparison(dataclasses.replace(proposed, labels=split.info.labels), MaskSet.stack([truth]))
        if flips.output == "twins":
            found.append(flip_ratios(pair, pairs=twins))
            sides = (pair.predictions, pair.annotations)
            ten = [MaskSet(table[side.masks.long()], side.weights, switched) for side in sides]
            figures.append(torch.stack([ged(ten[0], ten[1]), m_iou(ten[0], ten[1])], 1))
        else:
            templates = np.stack([stored.masks[0] == number for number in numbers])
            found.append(flip_ratios(pair, templates=torch.from_numpy(templates)[None]))
    ratios = Ratios.joined(found)
    estimated, true = ratios.means()
    of_ten = torch.cat(figures).nanmean(0).tolist() if figures else []
    return {
        **dict(zip(("ged_of_switched_classes", "m_iou_of_switched_classes"), of_ten, strict=False)),
        "classes": list(flips.probabilities),
        "estimated": estimated.tolist(),
        "true": true.tolist(),
        "flip_bias": float((estimated - true).abs().mean()),
        "flip_error": float(ratios.error().mean()),
        "mean_weights": torch.stack(weights).mean(0).tolist(),
    }


def ablation(title: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A row of table 2: figures of the compact set and of the standard samples."""
    labels, settings = ABLATION[title]
    data = prepare("lidc", arguments.source, arguments.work)
    train = TrainSettings(
        epochs=EPOCHS, batch_size=16, lr=1e-3, labels=label_mode(labels), seed=arguments.seed
    )
    run = arguments.work / f"lidc-mose-{title.lower().replace(', ', '-').replace(' ', '-')}-{arguments.seed}"
    train_once("mose", data, run, train, settings, SMALL)
    return {
        representation: measure(run, data, "val", 16, FIGURES, batch_size=8, representation=representation)
        for representation in ("compact", "standard")
    }


def coupling(title: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Cost of greedy couplings over that of the linear programme, on batches of the training split."""
    run = arguments.work / f"lidc-mose-MoSE-{arguments.seed}".lower()
    data = open_split(prepare("lidc", arguments.source, arguments.work), "train")
    trained = load(run)
    model = (
        trained.model if title == "trained" else build("mose", 1, LabelSpace.binary(), SMALL, MoSESettings())
    )
    assert isinstance(model, MoSE)
    torch.manual_seed(arguments.seed)
    ratios: dict[str, Any] = {}
    for first in range(0, BATCHES * 16, 16):
        items = [
            prepare_item(data[first + i], trained.config.normalization, data.info.labels) for i in range(16)
        ]
        annotations = MaskSet.stack([item.annotations for item in items])
        with torch.no_grad():
            logits, _ = model.drawn(torch.stack([item.image for item in items]))
            cost = pairwise_cost("iou", logits, annotations.masks, annotations.labels)
        for cap in CAPS:
            greedy, exact = (
                (way(cost, annotations.weights.float(), cap) * cost).sum((1, 2))
                for way in (capped_coupling, exact_coupling)
            )
            ratios.setdefault(f"{cap:g}", []).append(torch.stack([greedy, exact]))
    joined = {cap: torch.cat(parts, 1) for cap, parts in ratios.items()}
    return {
        "images": BATCHES * 16,
        "ratio of means": {cap: float(pair[0].mean() / pair[1].mean()) for cap, pair in joined.items()},
        "largest ratio": {
            cap: float((pair[0] / pair[1].clamp(min=1e-6)).max()) for cap, pair in joined.items()
        },
    }


def flips(title: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A method on one kind of class flips."""
    kind, method = title.split(", ")
    data = street_scenes(kind, arguments)
    count = COUNT[kind]
    options: dict[str, dict[str, Any]] = {
        "mose": dict(
            experts=count,
            draws=1,
            latent_size=5,
            cost="cross-entropy",
            cap=1 / count,
            uniform_until=0.2,
        ),
        "m-heads": dict(heads=count),
        "probabilistic-unet": {},
    }
    settings = dataclasses.replace(method_info(method).settings(), **options[method])
    train = TrainSettings(minutes=MINUTES[kind], batch_size=8, lr=2e-3, seed=arguments.seed)
    run = arguments.work / f"camvid-{kind}-{method}-{arguments.seed}"
    train_once(method, data, run, train, settings, SMALL)
    found = measure(run, data, "val", count, FIGURES, batch_size=2)
    return {**found, **flip_figures(run, data, count, arguments.seed)}


PARTS = {
    "ablation": (ablation, tuple(ABLATION)),
    "coupling": (coupling, ("untrained", "trained")),
    "flips": (flips, tuple(f"{k}, {m}" for k in COUNT for m in METHODS)),
}
"""Part -> what measures a row, and its rows."""


def main() -> None:
    """Measure what is asked for; results already there are replaced."""
    parser = common_options(__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rows", nargs="+", help="rows by their names; all if left out")
    arguments = parsed(parser)
    for part in arguments.parts:
        row, titles = PARTS[part]
        for title in titles:
            if arguments.rows and title not in arguments.rows:
                continue
            entry = row(title, arguments)
            known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
            write_json(arguments.results, {**known, part: {**known.get(part, {}), title: entry}})
            shown = entry.get("compact", entry)
            shown = shown.get("all", shown)
            print(json.dumps({part: title, **shown}), flush=True)


if __name__ == "__main__":
    main()
