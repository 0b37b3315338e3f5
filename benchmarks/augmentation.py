"""Which augmentation ``--augment auto`` chooses on data sets as if their dataset.yaml did not speak of it.

    python benchmarks/augmentation.py fires.h5 lidc.h5 --seeds 5 --out augmentation.json
    python benchmarks/augmentation.py --cost

It takes 10 s for each seed of each data set and prints a row for each: the harm of each kind as a share of what
the pilot learnt with its p, x where the kind is left out, and the processor time of the test. ``--out`` keeps all
figures; data sets that the file has already are measured anew, others stay.

``--cost`` prints the milliseconds of processor time that augmentation takes for a sample, beside those of MONAI and scipy.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambiseg.data.augmentation import Augmentation
from ambiseg.data.augmentation_kinds import Elastic, Kind, Rotate, Scale, Shear
from ambiseg.data.source import open_split
from ambiseg.data.statistics import SplitStatistics
from ambiseg.engine.augmentation_choice import AugmentationChoice, choose_augmentation
from ambiseg.engine.settings import TrainSettings


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="*", type=Path)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if chosen.cost:
        costs()
    for data in chosen.data:
        choices: list[AugmentationChoice] = []
        seconds: list[float] = []
        split, val = (open_split(data, name) for name in ("train", "val"))
        for one in (split, val):
            one.info = replace(one.info, augment={})
        normalization = SplitStatistics.of(split).normalization
        for seed in range(chosen.seeds):
            began = time.process_time()
            found = choose_augmentation(
                TrainSettings(seed=seed), split, val, normalization, steps=10**6, operations=1e9
            )
            cells = [
                f"{t.kind} {100 * t.harm:+.1f} % (p {t.p:.3f}){'' if t.passed else ' x'}" for t in found.tests
            ]
            seconds.append(time.process_time() - began)
            choices.append(found)
            print(f"| {data.stem} | {seed} | {' | '.join(cells)} | {seconds[-1]:.1f} s |", flush=True)
        if chosen.out is not None:
            counts = {"train_images": len(split), "val_images": choices[0].images}
            keep(chosen.out, data.stem, {**counts, **summary(choices, seconds)})


def costs(repeats: int = 100) -> None:
    """Print the median milliseconds for a sample of each way to move it, and the ratio to scaling alone."""
    from monai.transforms import Rand2DElasticd
    from scipy.ndimage import map_coordinates

    spatial: tuple[Kind, ...] = (Rotate(22.5), Scale(), Shear(), Elastic(4, 30))
    ours: dict[str, tuple[Kind, ...]] = {
        "scale": (Scale(),),
        "rotate": (Rotate(),),
        "rotate, scale, shear and elastic": spatial,
    }
    for channels, count, side in ((1, 4, 128), (3, 10, 256)):
        image = torch.randn(channels, side, side)
        masks = torch.randint(0, 2, (count, side, side), dtype=torch.uint8)
        places = 0.9 * np.indices((side, side))
        rng = np.random.default_rng(0)
        ways: dict[str, Callable[[], Any]] = {
            name: partial(Augmentation(kinds), image, masks, 255, rng) for name, kinds in ours.items()
        }
        turns = {"prob": 1, "rotate_range": 0.4, "scale_range": 0.2, "shear_range": 0.1}
        smooth = {"spacing": (30, 30), "magnitude_range": (0, 4), "mode": ("bilinear", "nearest")}
        monai = Rand2DElasticd(keys=("image", "masks"), **smooth, **turns).set_random_state(0)
        ways["MONAI, rotate, scale, shear and elastic"] = lambda: monai({"image": image, "masks": masks})  # noqa: B023
        ways["scipy, known places"] = lambda: (
            [map_coordinates(channel, places, order=1) for channel in image.numpy()],  # noqa: B023
            [map_coordinates(mask, places, order=0) for mask in masks.numpy()],  # noqa: B023
        )
        found = {name: _milliseconds(way, repeats) for name, way in ways.items()}
        for name, value in found.items():
            print(f"| {name} | {side} | {value:.2f} | {value / found['scale']:.1f} |")


def _milliseconds(way: Callable[[], Any], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        way()
        seconds.append(time.process_time() - began)
    return 1000 * float(np.median(seconds))


def summary(choices: Sequence[AugmentationChoice], seconds: Sequence[float]) -> dict[str, Any]:
    """Lowest and highest figures over the seeds, and how many of them use a kind."""
    found: dict[str, Any] = {"seeds": len(choices), "seconds": [round(f(seconds), 1) for f in (min, max)]}
    for tests in zip(*(choice.tests for choice in choices), strict=True):
        harms, values = [100 * test.harm for test in tests], [test.p for test in tests]
        found[tests[0].kind] = {
            "harm_percent": [round(f(harms), 2) for f in (min, max)],
            "p": [f(values) for f in (min, max)],
            "used": sum(test.passed for test in tests),
        }
    return found


def keep(out: Path, name: str, figures: dict[str, Any]) -> None:
    """Put the figures of one data set into a file."""
    known = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    out.write_text(json.dumps(known | {name: figures}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
