"""Tiny simulated data sets in the layout of a public one, to try an experiment before its data are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped, unused-ignore]

from ambiseg.data.class_flips import ClassFlips
from ambiseg.data.importers.camvid import street_info
from ambiseg.data.importers.cityscapes import CLASSES, FLIPS
from ambiseg.data.info import DatasetInfo
from ambiseg.data.layouts import Layout
from ambiseg.data.sample import Sample
from ambiseg.data.simulators.lesions import simulate_lesions
from ambiseg.data.simulators.wildfire import simulate_wildfires
from ambiseg.data.source import open_split, write_dataset
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

SIDE = 64
"""Longer side of the images: a network of seven resolutions halves them to one pixel."""
IMAGES = {"train": 4, "val": 2, "test": 2}
"""Images of each split."""


def simulate_layout(layout: Layout, out: str | Path) -> Path:
    """Make a tiny data set with the channels, classes and number of masks of a public one.

    Its scene is one of `SCENES`. What is there already from an earlier call is kept.

    Returns:
        ``out``.

    Raises:
        AmbisegError: ``out`` is there and something else.

    Example:
        >>> from ambiseg.data.layouts import LIDC
        >>> simulate_layout(LIDC, "smoke.h5")  # doctest: +SKIP
    """
    target, info = Path(out), _info(layout)
    if target.exists():
        if open_split(target, "train").info.source != info.source:
            raise AmbisegError(f"{target} is not a data set of a smoke run: move it, or choose another --out")
        return target
    splits, first = {}, 0
    for name, count in IMAGES.items():
        splits[name] = list(SCENES[layout.scene](layout, first, count))
        first += count
    return write_dataset(target, splits, info)


def _info(layout: Layout) -> DatasetInfo:
    name, source = (
        f"smoke-{layout.name}",
        f"simulated in the layout of {layout.name}, to try programs with it",
    )
    if layout.flips:
        names, colors = (*CLASSES, "void"), (*(color for _, color in CLASSES.values()), (0, 0, 0))
        return street_info(name, names, colors, ClassFlips(FLIPS[layout.flips], layout.flips), source)
    return DatasetInfo(name, LabelSpace.binary(), source, "CC0-1.0", {"flip": True, "rotate": True})


def _wildfires(layout: Layout, first: int, count: int) -> Iterable[Sample]:
    """Fires of `wildfire`, whose channels and number of outcomes are those of the layout."""
    return simulate_wildfires(count, size=SIDE, start=first)


def _lesions(layout: Layout, first: int, count: int) -> Iterable[Sample]:
    """Binary masks of `lesions`; annotators have names like those of ISIC MultiAnnot++."""
    names = tuple(f"A{i:02}_T{i % 3 + 1}_S1" for i in range(layout.masks))
    weights = np.full(layout.masks, 1 / layout.masks)
    for sample in simulate_lesions(count, size=SIDE, start=first):
        brightness = np.linspace(1, 0.5, layout.channels, dtype=np.float32)[:, None, None]
        masks = sample.masks[np.arange(layout.masks) % len(sample.masks)]
        yield Sample(sample.id, sample.image.astype(np.float32) * brightness, masks, weights, names)


def _streets(layout: Layout, first: int, count: int) -> Iterable[Sample]:
    """Classes that flip."""
    return (_street(layout, index) for index in range(first, first + count))


def _street(layout: Layout, index: int) -> Sample:
    """Bands of a smooth random field, one of each class and of void, on an image twice as wide as high."""
    rng = np.random.default_rng([0, index])
    field = gaussian_filter(rng.standard_normal((SIDE // 2, SIDE)), SIDE / 16)
    count = len(CLASSES) + 1
    edges = np.quantile(field, np.arange(1, count) / count)
    label_map = np.searchsorted(edges, field).astype(np.uint8)
    image = np.stack([field, label_map / count, rng.standard_normal(field.shape)])
    if layout.prediction:
        image = np.concatenate([image, label_map[None]])
    return Sample(
        f"street-{index:05d}", image.astype(np.float32), label_map[None], np.ones(1), ("simulated",)
    )


SCENES: dict[str, Callable[[Layout, int, int], Iterable[Sample]]] = {
    "lesions": _lesions,
    "wildfire": _wildfires,
    "streets": _streets,
}
"""What is simulated, by the scene of a layout: so many samples from the first index on."""
