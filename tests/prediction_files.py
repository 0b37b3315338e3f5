"""Folders as `ambiseg predict` writes them, without a model."""

from __future__ import annotations

import json

import numpy as np

from ambiseg.data.files.reading import write_mask
from ambiseg.labels import LabelSpace


def write_prediction(
    folder,
    masks,
    probabilities=None,
    *,
    labels=None,
    image=None,
    path="",
    suffix=".png",
    affine=None,
    **extra,
):
    """One image: ``folder/mask-01.png`` and so on, with ``prediction.json``."""
    labels = LabelSpace.binary() if labels is None else labels
    folder.mkdir(parents=True)
    count = len(masks)
    entries = []
    for k, mask in enumerate(masks):
        name = f"mask-{k + 1:02}{suffix}"
        write_mask(folder / name, np.asarray(mask, np.uint8), affine, labels.colors)
        probability = 1 / count if probabilities is None else probabilities[k]
        entries.append({"file": name, "probability": probability, "score": None, "area": 0.0})
    content = {
        "image": f"{folder.name}.png" if image is None else image,
        "path": str(path),
        "size": list(np.shape(masks)[1:]),
        "classes": list(labels.names),
        "masks": entries,
        "settings": {},
        **extra,
    }
    (folder / "prediction.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def random_masks(seed, count=3, classes=2, size=(9, 13), density=0.5):
    """Label maps ``(count, H, W)`` of random blocks, with holes and single pixels."""
    rng = np.random.default_rng(seed)
    masks = rng.integers(1, classes, (count, *size)) if classes > 2 else np.ones((count, *size), int)
    return (masks * (rng.random((count, *size)) < density)).astype(np.uint8)
