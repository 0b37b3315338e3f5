"""How long `ambiseg score` takes, and how much memory: random blobs with four annotations and many samples per image.

    python benchmarks/score_speed.py [--images 1000] [--samples 100] [--size 128] [--layout npz|npy|folders] [--threads 2]
        [--oracle-draws N]

npz is compressed, npy is not. Prints seconds of the scoring alone, of the processor, and the largest memory of the
process in MiB, as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import write_dataset
from ambiseg.engine.score import score_files


def blobs(rng: np.random.Generator, count: int, size: int) -> NDArray[np.uint8]:
    """Discs around one centre, ``(count, size, size)``."""
    centre, spread = rng.uniform(size / 4, 3 * size / 4, 2), size / 24
    middles = centre + rng.normal(0, spread, (count, 2))
    radii = rng.uniform(size / 12, size / 6, count)
    rows, columns = np.mgrid[:size, :size]
    distance = (rows - middles[:, :1, None]) ** 2 + (columns - middles[:, 1:, None]) ** 2
    discs: NDArray[np.uint8] = (distance < radii[:, None, None] ** 2).astype(np.uint8)
    return discs


def make(room: str, names: list[str], count: int, size: int, layout: str) -> None:
    """Write data and predictions; in a process of its own, whose memory does not count."""

    def samples() -> Iterator[Sample]:
        for i, name in enumerate(names):
            masks = blobs(np.random.default_rng([0, i]), 4, size)
            weights = np.array([0.1, 0.2, 0.3, 0.4])
            yield Sample(name, masks[:1], masks, weights, ("a", "b", "c", "d"))

    write_dataset(Path(room) / "data.h5", {"test": samples()}, DatasetInfo("blobs"))
    drawn = (blobs(np.random.default_rng([0, i]), count, size) for i in range(len(names)))
    if layout == "npz":
        np.savez_compressed(Path(room) / "p.npz", masks=np.stack(list(drawn)), ids=np.array(names))
        return
    if layout == "npy":
        np.save(Path(room) / "p.npy", np.stack(list(drawn)))
        return
    for name, masks in zip(names, drawn, strict=True):
        (Path(room) / "p" / name).mkdir(parents=True)
        for k, mask in enumerate(masks):
            Image.fromarray(mask * np.uint8(255)).save(Path(room) / "p" / name / f"{k:04}.png")


def main() -> None:
    """Make data, score them, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--layout", choices=["npz", "npy", "folders"], default="npz")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--oracle-draws", type=int, help="1 for the cost per image of a thousand images")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    names = [f"i{i:06}" for i in range(given.images)]

    with tempfile.TemporaryDirectory() as room:
        wanted = (room, names, given.samples, given.size, given.layout)
        maker = multiprocessing.get_context("spawn").Process(target=make, args=wanted)
        maker.start()
        maker.join()
        data, predictions = (
            Path(room) / "data.h5",
            Path(room) / ("p" if given.layout == "folders" else f"p.{given.layout}"),
        )
        begin, processor = time.perf_counter(), time.process_time()
        found = score_files([predictions], data, oracle_draws=given.oracle_draws)
        record = {
            **vars(given),
            "seconds": round(time.perf_counter() - begin, 2),
            "processor_seconds": round(time.process_time() - processor, 2),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "ged": found.systems[0].values["ged"],
        }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
