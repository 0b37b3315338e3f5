"""Predictions as `ambiseg predict` writes them, for tests of the viewer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ambiseg.data.files.reading import write_mask
from ambiseg.labels import LabelSpace

HOSTILE = "<script>document.title='taken'</script>&\"'"
WEIGHTS = (0.5, 0.3, 0.2)
READERS = ("anna", "bo", "cy")


@dataclass(frozen=True)
class Written:
    """What lies on the disk."""

    predictions: Path
    images: Path
    data: Path
    masks: np.ndarray
    """Predicted masks ``(images, 3, 24, 32)``."""
    annotations: np.ndarray


def disks(index: int, shift: int = 0) -> np.ndarray:
    """Three disks of growing size ``(3, 24, 32)``."""
    rows, columns = np.mgrid[:24, :32]
    apart = np.hypot(rows - 12, columns - 12 - index % 7 - shift)
    return np.stack([apart < radius for radius in (4, 6, 9)]).astype(np.uint8)


def write_prediction(folder: Path, image: Path, masks, weights=WEIGHTS, classes=("rest", "lesion")) -> None:
    """A folder of `ambiseg predict`."""
    folder.mkdir(parents=True)
    entries = []
    for k, (mask, weight) in enumerate(zip(masks, weights, strict=True)):
        write_mask(folder / f"mask-{k + 1:02}.png", mask, None, LabelSpace(tuple(classes)).colors)
        entries.append({"file": f"mask-{k + 1:02}.png", "probability": weight, "score": None})
    content = {"image": image.name, "path": str(image), "classes": list(classes), "masks": entries}
    (folder / "prediction.json").write_text(json.dumps(content), encoding="utf-8")
