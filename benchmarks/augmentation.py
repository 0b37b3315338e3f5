"""Which augmentation ``--augment auto`` chooses on data sets as if their dataset.yaml did not speak of it.

    python benchmarks/augmentation.py fires.h5 lidc.h5 --seeds 5 --out augmentation.json

It takes 10 s for each seed of each data set and prints a row for each: the harm of each kind as a share of what
the pilot learnt with its p, x where the kind is left out, and the processor time of the test. ``--out`` keeps all
figures; data sets that the file has already are measured anew, others stay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ambiseg.data.source import open_split
from ambiseg.data.statistics import SplitStatistics
from ambiseg.engine.augmentation_choice import AugmentationChoice, choose_augmentation
from ambiseg.engine.settings import TrainSettings


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
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
