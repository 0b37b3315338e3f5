"""How fast a folder of many small images is checked, and how much memory that takes.

Writes N images of 16 x 16 pixels with two masks each into a temporary folder, nine tenths of them in train
and one tenth in test, and checks N/10 and N of them in processes of their own. ``growth`` is the peak memory
beyond that of the imports, ``per image`` its rise from the smaller to the larger folder: what is kept of an
image is its id, its path and two hashes, whatever its size.

    python benchmarks/data_check.py [--images 20000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ambiseg.data.check import check_dataset
from ambiseg.data.folder import DatasetInfo, write_folder
from ambiseg.data.sample import Sample

SIZE = 16


def samples(count: int, seed: int) -> Iterator[Sample]:
    """Random images with two masks."""
    random = np.random.default_rng(seed)
    for i in range(count):
        image = random.integers(0, 256, (1, SIZE, SIZE), np.uint8)
        masks = random.integers(0, 2, (2, SIZE, SIZE), np.uint8)
        yield Sample(f"{seed}-{i:07}", image, masks, np.full(2, 0.5), ("a", "b"))


def peak() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def check(path: Path) -> None:
    """Check a folder and print images, seconds and growth of the peak memory in MiB."""
    before, start = peak(), time.perf_counter()
    report = check_dataset(path)
    seconds = time.perf_counter() - start
    assert report.ok and not report.warnings, report.problems[:3]
    print(sum(s.images for s in report.summaries), seconds, peak() - before)


def main() -> None:
    """Measure N/10 and N images."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.check is not None:
        return check(arguments.check)
    found = []
    for count in (arguments.images // 10, arguments.images):
        with tempfile.TemporaryDirectory() as folder:
            path, test = Path(folder) / "many", count // 10
            splits = {"train": samples(count - test, 0), "test": samples(test, 1)}
            write_folder(path, splits, DatasetInfo("many"))
            words = [sys.executable, __file__, "--check", str(path)]
            answer = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        images, seconds, growth = map(float, answer.split())
        found.append((images, growth))
        print(f"{images:.0f} images: {images / seconds:.0f} images per second, growth {growth:.1f} MiB")
    (few, small), (many, large) = found
    print(f"per image: {1024 * (large - small) / (many - few):.2f} KiB")


if __name__ == "__main__":
    main()
