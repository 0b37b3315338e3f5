"""MMFire, simulated wildfires with eight outcomes each, as its authors distribute it: ``X.npy`` and
``Y.npy``.

``X`` is (n, 7, 64, 64), the channels of `ambiseg.data.simulators.wildfire.CHANNELS` in their order, each
min-max scaled by the first 5000 scenarios; ``Y`` is (n, 8, 64, 64) of 0 and 1, the fire under a wind of ``j x
45`` degrees. The first 5000 train, the next 2500 validate, the rest (2108 of 9608) tests. The masks have
probability ``2^j / 255``, or all alike.

Reference: Gerard and Sullivan (2025), Wildfire spread scenarios.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.augmentation_kinds import NONE
from ambiseg.data.files.reading import check_size
from ambiseg.data.files.validation import FileProblem, canonical_image
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.masks import binary_values
from ambiseg.data.importers.reading import collected, nothing_found, own_file
from ambiseg.data.importers.settings import MMFireSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.simulators.wildfire import CHANNELS, WIND_DIRECTIONS
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

FILES = ("X.npy", "Y.npy")


def read_mmfire(source: Path, settings: MMFireSettings) -> Imported:
    """Open ``X.npy`` and ``Y.npy``; scenarios are read from disk one at a time.

    Raises:
        AmbisegError: a file is missing, truncated or of another shape, or no scenario is left to test.
    """
    if not all((source / name).is_file() for name in FILES):
        raise nothing_found(source, "X.npy and Y.npy")
    images, masks = (_open(own_file(source, source / name)) for name in FILES)
    count, outcomes = len(images), len(WIND_DIRECTIONS)
    if images.shape[1] != len(CHANNELS) or masks.shape != (count, outcomes, *images.shape[2:]):
        raise FileProblem(
            source,
            f"X has shape {images.shape}, Y {masks.shape}",
            f"X is (n, {len(CHANNELS)}, H, W), Y (n, {outcomes}, H, W); copy both again",
        )
    if min(settings.train, settings.val) < 1 or settings.train + settings.val >= count:
        raise AmbisegError(
            f"{source}: {settings.train} scenarios to train and {settings.val} to validate leave none of {count} to"
            " test: choose --train and --val"
        )
    weights = np.asarray(2.0 ** np.arange(outcomes) / (2.0**outcomes - 1), np.float64)
    if settings.probabilities == "uniform":
        weights = np.full(outcomes, 1 / outcomes)
    names = tuple(f"wind-{direction:03.0f}" for direction in WIND_DIRECTIONS)

    def read(i: int) -> Sample:
        where = f"{source}, scenario {i}"
        image = canonical_image(np.asarray(images[i], np.float32), where)
        return Sample(f"fire-{i:05}", image, binary_values(masks[i], where), weights, names)

    first, second = settings.train, settings.train + settings.val
    ranges = {"train": range(first), "val": range(first, second), "test": range(second, count)}
    info = DatasetInfo(
        "mmfire",
        LabelSpace.binary("fire"),
        "MMFire (Gerard and Sullivan 2025)",
        augment=NONE,
        channels=CHANNELS,
    )
    problems: list[FileProblem] = []
    splits = {split: collected(indices, read, problems) for split, indices in ranges.items()}
    return Imported(info, splits, f"official: first {first}, next {settings.val}, rest", problems)


def _open(path: Path) -> NDArray[Any]:
    """An array that stays on disk; a truncated file is named."""
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy objects to a damaged header in many ways
        line = " ".join(str(error).split())[:200]
        raise FileProblem(
            path, f"cannot be read as a NumPy array ({line})", "it may be truncated; copy it again"
        ) from error
    if values.ndim != 4 or values.dtype.kind not in "buif" or 0 in values.shape:
        raise FileProblem(path, f"the array has shape {values.shape}, type {values.dtype}", "copy it again")
    check_size(path, values.shape[1:])
    return values
