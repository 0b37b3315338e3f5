"""Which augmentation ``--augment auto`` chooses on data sets as if their dataset.yaml did not speak of it.

    python benchmarks/augmentation.py fires.h5 lidc.h5 --seeds 5    (10 s for each seed of each data set)

One row for each data set and seed: the harm of each kind as a share of what the pilot learnt with its p, x
where the kind is left out, and the processor time of the test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ambiseg.data.source import open_split
from ambiseg.data.statistics import SplitStatistics
from ambiseg.engine.augmentation_choice import choose_augmentation
from ambiseg.engine.settings import TrainSettings


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for data in chosen.data:
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
            seconds = time.process_time() - began
            print(f"| {data.stem} | {seed} | {' | '.join(cells)} | {seconds:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
