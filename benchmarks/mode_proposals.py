"""Mode proposals on simulated wildfires and on real annotations, full and single labels.

    python benchmarks/mode_proposals.py --work DIR --results docs/results/mode-proposals.json [--source DIR]

Four data sets: ``wildfire`` (1000 simulated scenarios, on the test split), ``wildfire-prevailing`` (the same
with probabilities that depend on a prevailing wind, one more channel of the image), ``lidc`` (lidc-on-ct-64:
outlines of four readers) and ``camvid`` (class flips of camvid-96x128), the last two evaluated on the
validation split. The real data are not part of the project; ``--source`` names a folder with
``lidc-on-ct-64-{train,val}.npz`` (images uint8 (n, 64, 64), masks packed bits of (n, 4, 64, 64)) and
``camvid-96x128-{train,val}.npz`` (images uint8 (n, 96, 128, 3), labels uint8 (n, 96, 128)).

Each run trains for the minutes of its recipe, is evaluated on the whole split and adds its entry to
``--results``; a run that is finished in ``--work`` with the same settings is evaluated only.

Class flips: road, pavement, tree and car are each switched on independently with probability .05, .25, .75,
.95; every other pixel is background: 16 modes with product probabilities, of which absent classes merge some
(Gerard and Sullivan, B.2).
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

import ambiseg
from ambiseg.cli.data import write_wildfires
from ambiseg.data.batches import label_mode
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import write_dataset
from ambiseg.defaults import DUPLICATE_IOU
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run_folder import TRAINING, RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.methods.mode_proposals import ModeProposalsSettings
from ambiseg.networks.settings import UNetSettings
from training_runs import CORES, finished

FLIPS = {3: 0.05, 4: 0.25, 5: 0.75, 8: 0.95}
"""Class of camvid (road, pavement, tree, car) -> probability that it is foreground."""

Phase = tuple[ModeProposalsSettings, TrainSettings]

FIRE = ModeProposalsSettings(proposals=16, score_cost=0.1, image_cue=False, duplicate_cue=True)
PREVAILING = dataclasses.replace(FIRE, image_cue=True)
FIRE_SETTLED = dataclasses.replace(FIRE, balance=0.7, settle=0.15, settle_prior=0.01)
FIRE_POSTERIOR = dataclasses.replace(FIRE_SETTLED, probability_target="posterior")
PREVAILING_SETTLED = dataclasses.replace(FIRE_SETTLED, image_cue=True)
LIDC = ModeProposalsSettings(proposals=8, image_cue=False)
CAMVID = ModeProposalsSettings(proposals=32, score_cost=0.1, image_cue=False, duplicate_cue=True)
CAMVID_SINGLE = ModeProposalsSettings(proposals=32, score_cost=0.1, mask_loss="mse")
CAMVID_SETTLED = dataclasses.replace(
    CAMVID_SINGLE, settle=0.15, settle_prior=0.001, energy_weight=0.1, energy_gradient="probabilities"
)
RECIPES: dict[tuple[str, str], tuple[Phase, ...]] = {
    ("wildfire", "full"): ((FIRE, TrainSettings(minutes=8, batch_size=16, lr=2e-3)),),
    ("wildfire", "single"): ((FIRE_SETTLED, TrainSettings(minutes=24, batch_size=16, lr=2e-3)),),
    ("wildfire-prevailing", "full"): ((PREVAILING, TrainSettings(minutes=26, batch_size=16, lr=2e-3)),),
    ("wildfire-prevailing", "single"): (
        (PREVAILING_SETTLED, TrainSettings(minutes=48, batch_size=16, lr=2e-3)),
    ),
    ("lidc", "full"): ((LIDC, TrainSettings(minutes=12, batch_size=16, lr=2e-3)),),
    ("lidc", "single"): ((LIDC, TrainSettings(minutes=11, batch_size=16, lr=2e-3)),),
    ("camvid", "full"): ((CAMVID, TrainSettings(minutes=13, batch_size=8, lr=2e-3)),),
    ("camvid", "single"): (
        (CAMVID_SETTLED, TrainSettings(minutes=22, batch_size=8, lr=2e-3)),
        (
            dataclasses.replace(CAMVID_SETTLED, mask_loss="dice-focal", settle=0.0),
            TrainSettings(minutes=8, batch_size=8, lr=1e-3),
        ),
    ),
}
"""Settings of method and training for each data set and label view; a second phase starts from the first
one's weights."""
VARIANTS: dict[str, tuple[str, str, tuple[Phase, ...]]] = {
    "wildfire-single-unbalanced": (
        "wildfire",
        "single",
        (
            (
                dataclasses.replace(FIRE, settle=0.7),
                TrainSettings(minutes=15, batch_size=16, lr=2e-3),
            ),
        ),
    ),
    "wildfire-single-15-minutes": (
        "wildfire",
        "single",
        ((dataclasses.replace(FIRE, balance=0.5), TrainSettings(minutes=15, batch_size=16, lr=2e-3)),),
    ),
    "wildfire-single-balance-0.5": (
        "wildfire",
        "single",
        ((dataclasses.replace(FIRE, balance=0.5), TrainSettings(minutes=24, batch_size=16, lr=2e-3)),),
    ),
    "wildfire-single-balance-0.7": (
        "wildfire",
        "single",
        ((dataclasses.replace(FIRE, balance=0.7), TrainSettings(minutes=24, batch_size=16, lr=2e-3)),),
    ),
    "wildfire-prevailing-single-balance-0.5": (
        "wildfire-prevailing",
        "single",
        ((dataclasses.replace(PREVAILING, balance=0.5), TrainSettings(minutes=28, batch_size=16, lr=2e-3)),),
    ),
    "wildfire-single-settled": (
        "wildfire",
        "single",
        (
            (dataclasses.replace(FIRE, balance=0.7), TrainSettings(minutes=15, batch_size=16, lr=2e-3)),
            (
                dataclasses.replace(FIRE, balance=0.7, settle=0.0),
                TrainSettings(minutes=7, batch_size=16, lr=1e-3),
            ),
        ),
    ),
    "wildfire-full-10000-scenarios": (
        "wildfire",
        "full",
        ((FIRE, TrainSettings(minutes=45, batch_size=16, lr=2e-3)),),
    ),
    "wildfire-single-10000-scenarios": (
        "wildfire",
        "single",
        ((FIRE_POSTERIOR, TrainSettings(minutes=56, batch_size=16, lr=2e-3)),),
    ),
    "wildfire-prevailing-single-posterior": (
        "wildfire-prevailing",
        "single",
        (
            (
                dataclasses.replace(FIRE_POSTERIOR, image_cue=True),
                TrainSettings(minutes=48, batch_size=16, lr=2e-3),
            ),
        ),
    ),
    "camvid-single-prior-0.03": (
        "camvid",
        "single",
        (
            (CAMVID_SETTLED, TrainSettings(minutes=22, batch_size=8, lr=2e-3)),
            (
                dataclasses.replace(CAMVID_SETTLED, mask_loss="dice-focal", settle=0.0, settle_prior=0.03),
                TrainSettings(minutes=8, batch_size=8, lr=1e-3),
            ),
        ),
    ),
    "camvid-single-flips": (
        "camvid",
        "single",
        (
            (CAMVID_SINGLE, TrainSettings(minutes=20, batch_size=8, lr=2e-3)),
            (
                dataclasses.replace(CAMVID_SINGLE, settle=0.0),
                TrainSettings(minutes=4, batch_size=16, lr=1e-3),
            ),
        ),
    ),
    "camvid-single-settled": (
        "camvid",
        "single",
        (
            (CAMVID, TrainSettings(minutes=9.5, batch_size=8, lr=2e-3)),
            (dataclasses.replace(CAMVID, settle=0.0), TrainSettings(minutes=3, batch_size=16, lr=1e-3)),
        ),
    ),
}
"""Other recipes that the docs compare with: data, labels, phases. ``--variants NAME`` measures one."""


def lidc(source: Path, split: str) -> Iterator[Sample]:
    """Crops with the outlines of four readers, each of probability 1/4."""
    with np.load(source / f"lidc-on-ct-64-{split}.npz", allow_pickle=False) as arrays:
        images, packed = arrays["images"], arrays["masks"]
    masks = np.unpackbits(packed, axis=-1)[..., : images.shape[-1]]
    readers = tuple(f"reader-{i}" for i in range(4))
    for i, image in enumerate(images):
        yield Sample(f"crop-{i:05}", image[None], masks[i], np.full(4, 0.25), readers)


def camvid(source: Path, split: str) -> Iterator[Sample]:
    """Street scenes with the 16 masks of four classes that are switched on or off."""
    with np.load(source / f"camvid-96x128-{split}.npz", allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    chances = np.array(list(FLIPS.values()))
    on = np.array(list(itertools.product([0, 1], repeat=len(FLIPS))))
    weights = np.where(on, chances, 1 - chances).prod(1)
    names = tuple("flip-" + "".join(map(str, row)) for row in on)
    for i, image in enumerate(images):
        templates = np.stack([labels[i] == c for c in FLIPS])
        masks = np.einsum("mc,chw->mhw", on, templates).astype(np.uint8)
        yield Sample(f"frame-{i:04}", image.transpose(2, 0, 1), masks, weights, names)


READERS = {
    "lidc": (lidc, DatasetInfo("lidc-on-ct-64", augment={"flip": True, "rotate": True}, licence="CC BY 3.0")),
    "camvid": (
        camvid,
        DatasetInfo(
            "camvid-flips-96x128",
            augment={"flip": True, "scale": True, "intensity": True},
            licence="CC BY-NC 4.0",
        ),
    ),
}
FEWER = {"camvid-single-flips": {"flip": True}}
"""Variants whose augmentation is not that of the data set."""
WILDFIRES = {"wildfire": "skewed", "wildfire-prevailing": "prevailing"}
"""Simulated data sets, by the kind of their probabilities."""
MANY = 10000
"""Scenarios, about as many as MMFire of the paper has (9608)."""
MORE = {
    "wildfire-prevailing-full": 5000,
    "wildfire-prevailing-single": 5000,
    "wildfire-prevailing-single-balance-0.5": 5000,
    "wildfire-prevailing-single-posterior": 5000,
    "wildfire-full-10000-scenarios": MANY,
    "wildfire-single-10000-scenarios": MANY,
}
"""Runs that train on so many other scenarios: 800 tell too little of how an image tells probabilities, or of
what two outcomes that are nearly alike differ in."""
SPLITS = {"wildfire": "test", "wildfire-prevailing": "test", "lidc": "val", "camvid": "val"}
"""Split that is evaluated."""


def prepare(name: str, source: Path | None, work: Path, augment: dict[str, bool] | None = None) -> Path:
    """Simulate or pack a data set once; with the augmentations that it allows, or these."""
    target = work / (f"{name}-{'-'.join(augment)}.h5" if augment else f"{name}.h5")
    if target.exists():
        return target
    if name in WILDFIRES:
        write_wildfires(target, 1000, probabilities=WILDFIRES[name])
        return target
    if source is None:
        raise SystemExit(f"{name} needs --source, the folder of its .npz files")
    read, info = READERS[name]
    info = dataclasses.replace(info, augment=augment) if augment else info
    return write_dataset(target, {split: read(source, split) for split in ("train", "val")}, info)


def more(name: str, count: int, work: Path) -> Path:
    """Other scenarios of a simulated data set, of another seed, for training alone."""
    target = work / f"{name}-more-{count}.h5"
    if not target.exists():
        write_wildfires(target, count, seed=1, probabilities=WILDFIRES[name])
    return target


def train_phases(
    title: str, labels: str, data: Path, phases: tuple[Phase, ...], arguments: argparse.Namespace
) -> list[Path]:
    """Train phase after phase, unless they are done; their run folders."""
    runs: list[Path] = []
    for settings, recipe in phases:
        train = dataclasses.replace(
            recipe, labels=label_mode(labels), seed=arguments.seed, init=str(runs[-1]) if runs else None
        )
        if arguments.minutes is not None:
            train = dataclasses.replace(train, minutes=arguments.minutes)
        runs.append(arguments.work / f"{title}-{arguments.seed}-phase{len(runs) + 1}")
        if not finished(runs[-1], train, settings):
            result = ambiseg.fit(
                "mode-proposals",
                data,
                runs[-1],
                train=train,
                backbone=UNetSettings(width=16),
                settings=settings,
                overwrite=True,
            )
            if result.interrupted:
                raise SystemExit(f"interrupted; go on with: ambiseg train --resume {runs[-1]}")
    return runs


def measure(
    title: str, name: str, labels: str, phases: tuple[Phase, ...], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train unless it is done, evaluate, and describe both."""
    data = prepare(name, arguments.source, arguments.work, FEWER.get(title))
    scenarios = MORE.get(title)
    seen = data if scenarios is None else more(name, scenarios, arguments.work)
    runs = train_phases(title, labels, seen, phases, arguments)
    evaluation = ambiseg.evaluate(runs[-1], data, SPLITS[name], PredictSettings(duplicate_iou=DUPLICATE_IOU))
    evaluation.save(runs[-1])
    record = [
        {
            "train": dataclasses.asdict(RunConfig.load(run).train) | {"init": None},
            "settings": dataclasses.asdict(RunConfig.load(run).settings),
            "training": json.loads((run / TRAINING).read_text()),
        }
        for run in runs
    ]
    return {
        "data": name,
        "labels": labels,
        "cores": CORES,
        "scenarios": scenarios,
        "phases": record,
        **evaluation.to_dict(),
    }


def main() -> None:
    """Measure what is asked for; results already there are replaced."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder of the .npz files")
    parser.add_argument("--work", type=Path, required=True, help="folder for packed data and runs")
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add the results to")
    parser.add_argument("--sets", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument("--labels", nargs="+", choices=["full", "single"], default=["full", "single"])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="these in place of the recipes")
    parser.add_argument(
        "--minutes", type=float, help="training time of each phase; those of the recipe if left out"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    chosen = {
        f"{name}-{labels}": (name, labels, RECIPES[name, labels])
        for name, labels in itertools.product(arguments.sets, arguments.labels)
    }
    if arguments.variants:
        chosen = {title: VARIANTS[title] for title in arguments.variants}
    for title, what in chosen.items():
        entry = measure(title, *what, arguments)
        known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
        known[f"{title}-seed{arguments.seed}"] = entry
        arguments.results.write_text(json.dumps(known, indent=2) + "\n")
        print(json.dumps(entry))


if __name__ == "__main__":
    main()
