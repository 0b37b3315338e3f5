"""MMFire, simulated wildfires with eight outcomes each, as its authors distribute it: ``X.npy`` and
``Y.npy``; read and written.

``X`` is (n, 7, 64, 64), the channels of `ambiseg.data.simulators.wildfire.CHANNELS` in their order, each
min-max scaled by the first 5000 scenarios; ``Y`` is (n, 8, 64, 64) of 0 and 1, the fire under a wind of ``j x
45`` degrees. The first 5000 train, the next 2500 validate, the rest (2108 of 9608) tests. The masks have
probability ``2^j / 255``, or all alike.

Our own simulated wildfires are written in the same layout by `write_mmfire`, so that code made for MMFire
reads them.

Reference: Gerard and Sullivan (2025), Wildfire spread scenarios.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.atomic_write import replacing_folder
from ambiseg.data.files.reading import check_size
from ambiseg.data.files.validation import FileProblem, canonical_image
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.reading import collected, nothing_found, own_file
from ambiseg.data.importers.settings import MMFireSettings
from ambiseg.data.info import AUGMENTATIONS, DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.simulators.wildfire import CHANNELS, WIND_DIRECTIONS
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

FILES = ("X.npy", "Y.npy")
BLOCK = 64
"""Scenarios that are scaled at a time."""


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
        image, burned = canonical_image(np.asarray(images[i], np.float32), where), np.asarray(masks[i])
        if not ((burned == 0) | (burned == 1)).all():
            raise FileProblem(where, "a mask holds other values than 0 and 1", "copy Y.npy again")
        return Sample(f"fire-{i:05}", image, burned.astype(np.uint8), weights, names)

    first, second = settings.train, settings.train + settings.val
    ranges = {"train": range(first), "val": range(first, second), "test": range(second, count)}
    info = DatasetInfo(
        "mmfire",
        LabelSpace.binary("fire"),
        "MMFire (Gerard and Sullivan 2025)",
        augment=dict.fromkeys(AUGMENTATIONS, False),
        channels=CHANNELS,
    )
    problems: list[FileProblem] = []
    splits = {split: collected(indices, read, problems) for split, indices in ranges.items()}
    return Imported(info, splits, f"official: first {first}, next {settings.val}, rest", problems)


def write_mmfire(
    out: str | PathLike[str], samples: Iterable[Sample], count: int, train: int, overwrite: bool = False
) -> Path:
    """Write simulated wildfires as ``X.npy`` (float32, min-max scaled) and ``Y.npy`` (uint8), or nothing if
    it fails.

    Args:
        out: folder to make.
        samples: ``count`` scenarios with seven channels and eight masks, such as `simulate_wildfires` makes.
        count: number of scenarios.
        train: how many of the first ones give minimum and maximum of each channel.
        overwrite: replace ``out`` if it holds nothing but these two files.

    Raises:
        AmbisegError: ``out`` exists, senseless numbers, a scenario of another shape, fewer than ``count``.
    """
    target, written = Path(out), 0
    if not 1 <= train <= count:
        raise AmbisegError(f"train is 1 to the number of scenarios, {count}, received {train}")
    with replacing_folder(
        target, overwrite, lambda path: {p.name for p in path.iterdir()} <= {*FILES}
    ) as folder:
        images: Any = None
        masks: Any = None
        for i, sample in enumerate(samples):
            if i == count:
                break
            if images is None:
                size = sample.image.shape[1:]
                images = _create(folder / "X.npy", (count, len(CHANNELS), *size), "<f4")
                masks = _create(folder / "Y.npy", (count, len(WIND_DIRECTIONS), *size), "|u1")
            if sample.image.shape != images.shape[1:] or sample.masks.shape != masks.shape[1:]:
                raise AmbisegError(
                    f"scenario {sample.id!r} has image {sample.image.shape}, masks {sample.masks.shape}, not"
                    f" {images.shape[1:]} and {masks.shape[1:]}: write wildfires of one size without a prevailing wind"
                )
            images[i], masks[i] = sample.image, sample.masks
            written += 1
        if written < count:
            raise AmbisegError(f"{written} scenarios came, {count} were announced: pass their number")
        low, high = images[:train].min((0, 2, 3)), images[:train].max((0, 2, 3))
        span = np.where(high > low, high - low, 1)
        for start in range(0, count, BLOCK):
            block = images[start : start + BLOCK]
            block[...] = (block - low[:, None, None]) / span[:, None, None]
        images.flush()
        masks.flush()
    return target


def _create(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    return np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=shape)


def _open(path: Path) -> NDArray[Any]:
    """An array that stays on disk; a truncated file is named."""
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        line = " ".join(str(error).split())
        raise FileProblem(
            path, f"cannot be read as a NumPy array ({line})", "it may be truncated; copy it again"
        ) from error
    if values.ndim != 4 or values.dtype.kind not in "buif" or 0 in values.shape:
        raise FileProblem(path, f"the array has shape {values.shape}, type {values.dtype}", "copy it again")
    check_size(path, values.shape[1:])
    return values
