"""Layouts of the public data sets that experiments of papers are made for. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ambiseg.data.importers import importer
from ambiseg.errors import AmbisegError


@dataclass(frozen=True)
class Layout:
    """What images and masks of a data set look like, and how to get them.

    Attributes:
        name: what presets, suites and messages call it.
        channels: of an image.
        classes: of a mask, twins among them; 2: binary.
        masks: of an image: annotators, outcomes, or modes of class flips.
        importer: of `ambiseg.data.importers.IMPORTERS`.
        options: of the importer.
        flips: what class flips make of the labels, "binary" or "twins"; empty where no class flips.
        prediction: the last channel is the prediction of another network, which the importer does not make.
        scene: what a smoke run simulates in its place, of `ambiseg.data.simulators.layouts.SCENES`.

    Example:
        >>> LIDC.how_to_get("lidc.h5")  # doctest: +ELLIPSIS
        "'ambiseg data import lidc-crops SOURCE --split lidcv1 --out lidc.h5' makes it, SOURCE is the pickle ..."
    """

    name: str
    channels: int
    classes: int
    masks: int
    importer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    flips: str = ""
    prediction: bool = False
    scene: str = "lesions"

    def missing(self, data: object = "") -> AmbisegError:
        """The error where there is no data set at ``data``, or none is named; it says how to get one."""
        what = f"there is no data set at {data}" if data else "missing --data PATH"
        return AmbisegError(f"{what}: {self.how_to_get(data or f'{self.name}.h5')}")

    def how_to_get(self, out: object) -> str:
        """How to make the data set ``out``, as a part of a sentence."""
        words = ["ambiseg", "data", "import", self.importer, "SOURCE"]
        for name, value in self.options.items():
            values = value if isinstance(value, (tuple, list)) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
        command = shlex.join([*words, "--out", str(out)])
        more = (
            " and then add the prediction of another network as the last channel;" if self.prediction else ","
        )
        return (
            f"'{command}' makes it{more} SOURCE is the {importer(self.importer).source.removeprefix('the ')}"
        )


LIDC = Layout("lidc", 1, 2, 4, "lidc-crops", {"split": "lidcv1"})
MMFIRE = Layout("mmfire", 7, 2, 8, "mmfire", scene="wildfire")
CITYSCAPES = Layout("cityscapes", 3, 2, 16, "cityscapes", flips="binary", scene="streets")
CITYSCAPES_TWINS = Layout(
    *("cityscapes-twins", 3, 24, 32, "cityscapes", {"output": "twins", "size": (256, 512)}),
    flips="twins",
    scene="streets",
)
CITYSCAPES_PREDICTION = Layout(
    *("cityscapes-prediction", 4, 24, 32, "cityscapes", {"output": "twins", "size": (128, 256)}),
    flips="twins",
    prediction=True,
    scene="streets",
)
REFUGE = Layout("refuge", 3, 2, 7, "refuge")
ISIC = Layout("isic", 3, 2, 3, "isic")

LAYOUTS = {
    layout.name: layout
    for layout in (LIDC, MMFIRE, CITYSCAPES, CITYSCAPES_TWINS, CITYSCAPES_PREDICTION, REFUGE, ISIC)
}
"""All of them by name."""
