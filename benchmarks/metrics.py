"""How fast the metrics are on this machine; each ratio is against a baseline of the same run.

    python benchmarks/metrics.py [--threads 2] [--json]

Things that are compared alternate, and the median of their times counts. Random blobs; every candidate must
give the same integers before it is timed.

- overlaps: intersections of all pairs of 100 samples and 4 annotations of one 128x128 image, one thread: pair
  by pair in numpy (the straightforward way), one product of float32, of int8, and packed bits (what
  `pairwise_overlap` does);
- GED of the same image: a loop over pairs against `ged`;
- suite: all default metrics of masks without scores, for 100 images x 100 samples;
- memory: peak of the overlaps of 1,000 samples of 512x512 with each other, above what the masks themselves
  take.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Comparison, default_metrics, evaluate_all, ged
from ambiseg.overlap import pairwise_overlap
from speed import medians

BINARY = LabelSpace.binary()


def blobs(rng: np.random.Generator, count: int, size: int) -> NDArray[np.uint8]:
    """Smooth random masks that resemble one another, ``(count, size, size)``."""
    common = gaussian_filter(rng.standard_normal((size, size)), size / 10)
    own = gaussian_filter(rng.standard_normal((count, size, size)), (0, size / 16, size / 16))
    height: NDArray[np.float64] = common / common.std() + 0.5 * own / own.std()
    return (height > 0.8).astype(np.uint8)


def pair_by_pair(masks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Intersections the straightforward way."""
    flags = masks == 1
    return np.array([[np.count_nonzero(a & b) for b in flags] for a in flags])


def ged_pair_by_pair(samples: NDArray[np.uint8], annotations: NDArray[np.uint8]) -> float:
    """Squared GED the straightforward way."""

    def distance(p: NDArray[np.bool_], q: NDArray[np.bool_]) -> float:
        union = np.logical_or(p, q).sum()
        return 0.0 if union == 0 else 1 - float(np.logical_and(p, q).sum() / union)

    def mean(p: NDArray[np.bool_], q: NDArray[np.bool_]) -> float:
        return float(np.mean([distance(a, b) for a in p for b in q]))

    s, y = samples == 1, annotations == 1
    return 2 * mean(s, y) - mean(s, s) - mean(y, y)


def overlaps(rng: np.random.Generator) -> dict[str, float]:
    """Candidates for counting the intersections of 104 masks."""
    masks = blobs(rng, 104, 128)
    tensor = torch.from_numpy(masks)[None]

    def float_product() -> torch.Tensor:
        flat = (tensor[0].flatten(1) == 1).float()
        return flat @ flat.T

    def int8_product() -> torch.Tensor:
        flat = (tensor[0].flatten(1) == 1).to(torch.int8)
        return torch._int_mm(flat, flat.T)

    actions: dict[str, Callable[[], Any]] = {
        "pair by pair": lambda: pair_by_pair(masks),
        "float32 product": float_product,
        "int8 product": int8_product,
        "packed bits": lambda: pairwise_overlap(tensor, tensor, BINARY).intersection[0, :, :, 0],
    }
    wanted = pair_by_pair(masks)
    for name, action in actions.items():
        if not (np.asarray(action()) == wanted).all():
            raise SystemExit(f"{name} counts wrongly")
    return medians(actions, repeats=9)


def distances(rng: np.random.Generator) -> dict[str, float]:
    """GED of one image of 100 samples and 4 annotations."""
    masks = blobs(rng, 104, 128)
    samples = MaskSet.uniform(torch.from_numpy(masks[None, 4:]), BINARY)
    annotations = MaskSet.uniform(torch.from_numpy(masks[None, :4]), BINARY)
    plain = ged_pair_by_pair(masks[4:], masks[:4])
    if abs(plain - float(ged(samples, annotations))) > 1e-6:
        raise SystemExit("ged disagrees with the plain version")
    return medians(
        {
            "pair by pair": lambda: ged_pair_by_pair(masks[4:], masks[:4]),
            "ged": lambda: ged(samples, annotations),
        },
        repeats=5,
    )


def suite(rng: np.random.Generator, threads: int) -> float:
    """Seconds for the whole suite on 100 images of 100 samples, images shared among threads."""
    images = [blobs(rng, 104, 128)[None] for _ in range(100)]

    def one(masks: NDArray[np.uint8]) -> None:
        samples = MaskSet.uniform(torch.from_numpy(masks[:, 4:]), BINARY)
        evaluate_all(samples, MaskSet.uniform(torch.from_numpy(masks[:, :4]), BINARY))

    one(images[0])
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, images))
    return time.perf_counter() - began


def memory(rng: np.random.Generator) -> dict[str, float]:
    """Peak memory in MiB above that of the masks, and seconds."""
    masks = torch.from_numpy(np.tile(blobs(rng, 50, 512), (20, 1, 1))[None])
    given = MaskSet.uniform(masks, BINARY)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    Comparison(given, MaskSet.uniform(masks[:, :4], BINARY)).among_predictions.iou()
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"masks_mib": masks.numel() / 2**20, "peak_mib": (after - before) / 1024, "seconds": seconds}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of the suite")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    result = {
        "overlaps_seconds": overlaps(rng),
        "ged_seconds": distances(rng),
        "threads": arguments.threads,
        "suite_metrics": default_metrics(MaskSet.uniform(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), BINARY)),
        "suite_seconds": suite(rng, arguments.threads),
        "thousand_samples": memory(rng),
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for key, title in (
        ("overlaps_seconds", "overlaps of 104 masks 128x128"),
        ("ged_seconds", "GED of 100 samples"),
    ):
        base = result[key]["pair by pair"]
        for name, seconds in result[key].items():
            print(f"{title}, {name}: {1000 * seconds:.2f} ms, {base / seconds:.0f} x")
    print(f"suite, 100 images x 100 samples, {arguments.threads} threads: {result['suite_seconds']:.2f} s")
    big = result["thousand_samples"]
    print(
        f"1,000 samples 512x512 ({big['masks_mib']:.0f} MiB): {big['peak_mib']:.0f} MiB more, {big['seconds']:.1f} s"
    )


if __name__ == "__main__":
    main()
