"""napari: predictions as layers, by the plugin of ``napari.yaml``, or from files that need no ambiseg.

Reference: https://napari.org/stable/plugins/technical_references/contributions.html.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.errors import AmbisegError
from ambiseg.escaping import visible
from ambiseg.exchange.images import Hypotheses, Images, PredictedImages, predicted_folders
from ambiseg.exchange.outcome import Outcome, images_without
from ambiseg.exchange.settings import ConvertSettings
from ambiseg.predictions.written import PREDICTION

MOST = 16
"""Images that a viewer opens at once."""
SCRIPT = "show.py"
Layer = tuple[NDArray[Any], dict[str, Any], str]
"""Data, arguments and kind of a layer, as napari takes them from plugins."""


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[Layer]] | None:
    """What napari asks of a plugin: a function that reads ``path``, None where that holds no predictions.

    Example:
        >>> get_reader("a.tif") is None
        True
    """
    if not isinstance(path, str):
        return None
    try:
        predicted_folders(_folder(path))
    except (AmbisegError, OSError):
        return None
    return read_layers


def read_layers(path: str | list[str]) -> list[Layer]:
    """The layers of a folder of predictions, or of the folder of one image.

    Raises:
        AmbisegError: more than `MOST` images, or files that are damaged.
    """
    images = PredictedImages(_folder(path if isinstance(path, str) else path[0]))
    if len(images) > MOST:
        raise AmbisegError(f"{images.place} holds {len(images)} images: open the folder of one of them")
    return [layer for one in images for layer in layers(one, images.labels.names)]


def _folder(path: str) -> Path:
    """The folder that holds a ``prediction.json``, or the path itself."""
    return Path(path).parent if Path(path).name == PREDICTION else Path(path)


def layers(one: Hypotheses, classes: tuple[str, ...] = ()) -> list[Layer]:
    """The image, if it is at hand, and a layer of labels for each mask; only the first mask is shown.

    Example:
        >>> masks = np.zeros((2, 3, 4), np.uint8)
        >>> found = layers(Hypotheses("a", "a.png", None, masks, (0.7, 0.3), ("mask-01", "mask-02")))
        >>> [(kind, options["name"]) for _, options, kind in found]
        [('labels', 'a: mask-01 (0.7)'), ('labels', 'a: mask-02 (0.3)')]
    """
    pixels, name = one.read_pixels(), visible(one.name)
    found: list[Layer] = []
    if pixels is not None:
        colors = len(pixels) == 3 and pixels.dtype == np.uint8
        values = np.moveaxis(pixels, 0, -1) if colors else pixels[0] if len(pixels) == 1 else pixels
        found.append((values, {"name": name, "rgb": colors}, "image"))
    for k, mask in enumerate(one.masks):
        options = {
            "name": visible(f"{one.name}: {one.annotators[k]} ({one.probabilities[k]:.3g})"),
            "metadata": {**one.facts(k), "image": one.image, "classes": list(classes)},
            "visible": k == 0,
            "opacity": 0.5,
        }
        found.append((mask, options, "labels"))
    return found


def write_napari(images: Images, partial: Path, settings: ConvertSettings) -> Outcome:
    """Write ``<image>.npz`` and ``show.py`` into a folder.

    A file holds an array for each layer, ``layer-0`` and so on, and their options as JSON in ``layers``.
    """
    without = 0
    for one in images:
        found = layers(one, images.labels.names)
        without += found[0][2] != "image"
        arrays: dict[str, Any] = {f"layer-{i}": data for i, (data, _, _) in enumerate(found)}
        recipe = json.dumps(
            [{"kind": kind, "options": options} for _, options, kind in found], allow_nan=False
        )
        np.savez_compressed(partial / f"{one.name}.npz", **arrays, layers=np.array(recipe))
    script = files("ambiseg.exchange").joinpath("show_in_napari.py").read_text("utf-8")
    (partial / SCRIPT).write_text(script, encoding="utf-8", newline="\n")
    return images_without(without, len(images), "file at hand: only the masks were written")
