"""What the page shows of one image: masks as runs of pixels, figures, matching; and the picture below them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ambiseg.maskset import MaskSet
from ambiseg.report.display import background_of
from ambiseg.viewer.gallery import Case

LONGEST_SIDE = 2048
"""Larger images are reduced until their longer side fits."""
MOST_VALUES = 1 << 25
"""Pixels of all masks of an image together, which a browser holds; larger ones are reduced further."""
FIGURES = (
    "hm_iou_unique",
    "ged",
    "m_iou",
    "max_dice_matching",
    "dice_of_mean",
    "diversity",
    "total_variation",
)
"""Metrics of one image that the page shows, where there are predictions and annotations."""


def shown_size(height: int, width: int, masks: int) -> tuple[int, int]:
    """``(h, w)`` at which an image and its masks are shown, their shape kept.

    Example:
        >>> shown_size(64, 64, 16), shown_size(4096, 2048, 1), shown_size(2048, 2048, 32)
        ((64, 64), (2048, 1024), (1024, 1024))
    """
    ratio = min(
        1.0, LONGEST_SIDE / max(height, width), math.sqrt(MOST_VALUES / (max(1, masks) * height * width))
    )
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def runs_of(mask: NDArray[np.uint8]) -> str:
    """A label map ``(h, w)`` as runs of equal pixels, which end with each row, in base64: a byte with the class for
    each run, then its length as two bytes, the lower one first.

    Example:
        >>> base64.b64decode(runs_of(np.array([[1, 1, 1, 0], [0, 0, 0, 0]], np.uint8))).hex(" ")
        '01 00 00 03 00 01 00 04 00'
    """
    starts = np.ones(mask.shape, bool)
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    first = np.flatnonzero(starts)
    lengths = np.diff(first, append=mask.size).astype("<u2")
    return base64.b64encode(mask.ravel()[first].tobytes() + lengths.tobytes()).decode()


def record_of(case: Case) -> dict[str, Any]:
    """What the page shows of an image, as plain values for JSON."""
    sets = [one for one in (case.predictions, case.annotations) if one is not None]
    labels = sets[0].labels
    height, width = sets[0].masks.shape[2:]
    size = shown_size(height, width, sum(one.masks.shape[1] for one in sets))
    record: dict[str, Any] = {
        "height": size[0],
        "width": size[1],
        "full": [height, width],
        "picture": case.image is not None,
        "remark": case.remark,
        "classes": [
            {"name": name, "color": list(color)}
            for name, color in zip(labels.names, labels.colors, strict=True)
        ],
        "background": labels.background,
        "void": labels.void,
        "predictions": _masks(case.predictions, (), size),
        "annotations": _masks(case.annotations, case.annotators, size),
        "figures": [],
    }
    if case.predictions is not None and case.annotations is not None:
        _compare(record, case.predictions, case.annotations)
    return record


def picture_of(case: Case, channels: Sequence[str]) -> bytes | None:
    """The image as a PNG of the size of the record; None where it cannot be read."""
    if case.image is None:
        return None
    count = sum(one.masks.shape[1] for one in (case.predictions, case.annotations) if one is not None)
    full_height, full_width = case.image.shape[1:]
    height, width = shown_size(full_height, full_width, count)
    pixels = np.round(np.clip(background_of(case.image, channels), 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BOX)
    stream = io.BytesIO()
    picture.save(stream, format="png", compress_level=3)
    return stream.getvalue()


def _masks(found: MaskSet | None, names: Sequence[str], size: tuple[int, int]) -> list[dict[str, Any]]:
    if found is None:
        return []
    areas, small = found.areas()[0], _reduced(found.masks[0], size).numpy()
    return [
        {
            "name": names[k] if k < len(names) else "",
            "weight": round(float(found.weights[0, k]), 6),
            "score": None if found.scores is None else _plain(float(found.scores[0, k])),
            "area": round(float(areas[k]), 6),
            "runs": runs_of(small[k].astype(np.uint8)),
            "partners": [],
        }
        for k in range(found.masks.shape[1])
    ]


def _plain(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _reduced(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Label maps ``(K, H, W)`` to ``(K, h, w)``, each pixel the one at its centre."""
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for new, old in zip(size, masks.shape[1:], strict=True)
    )
    return masks if tuple(masks.shape[1:]) == size else masks[:, rows[:, None], columns]


def _compare(record: dict[str, Any], predictions: MaskSet, annotations: MaskSet) -> None:
    """Add figures, and to each mask the masks on the other side that it is matched with, with their IoU.

    Predictions are matched one-to-one with distinct annotations, as in HM IoU*; all annotations that are
    identical are partners.
    """
    from ambiseg.metrics.comparison import Comparison  # takes as long to load as all else together
    from ambiseg.metrics.registry import METRICS

    both = Comparison(predictions, annotations)
    for name in FIGURES:
        info = METRICS[name]
        value = float(info.function(both)[0])
        record["figures"].append(
            {
                "title": info.title,
                "value": _plain(value),
                "better": {True: "higher", False: "lower", None: ""}[info.higher_is_better],
                "description": info.description,
            }
        )
    iou, modes = both.to_modes.iou()[0], both.modes.masks[0]
    same = (
        (both.annotations.labels.without_others(both.annotations.masks[0])[:, None] == modes[None])
        .flatten(2)
        .all(2)
    )
    for k, mode in enumerate(both.partners[0].tolist()):
        if mode < 0:
            continue
        value = round(float(iou[k, mode]), 4)
        for j in same[:, mode].nonzero().flatten().tolist():
            record["predictions"][k]["partners"].append([j, value])
            record["annotations"][j]["partners"].append([k, value])
