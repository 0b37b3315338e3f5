"""How far the dialects of metrics are apart on one example: the table of docs/metrics/dialects.md.

    python benchmarks/dialects.py

200 label maps of 16x16 pixels show some of sky, car, road and tree in blocks of 4x4. Annotations and predictions
are variants: car and road turn into their twins with probability 1/2 each, and a mask loses its car, or road, or
both (1/4 each). There are 4 annotations and 3 predictions for each image, with equal weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import DIALECTS, evaluate_all, metric_collection

LABELS = LabelSpace(("sky", "car", "road", "tree", "car-twin", "road-twin"))
IMAGES, SIDE, BLOCK = 200, 16, 4
NAMES = ("ged", "hm_iou_unique", "hm_iou_tiled", "m_iou", "dice_of_mean", "ece")


def variants(base: Tensor, count: int, generator: torch.Generator) -> MaskSet:
    """Masks ``(images, count, side, side)`` in which classes are flipped or gone."""

    def chance(below: float) -> Tensor:
        return torch.rand(len(base), count, 1, 1, generator=generator) < below

    masks = base[:, None].repeat(1, count, 1, 1)
    for c, twin in ((1, 4), (2, 5)):
        there = masks == c
        masks[there & chance(0.5)] = twin
        masks[there & chance(0.25)] = 0
    return MaskSet.uniform(masks, LABELS)


def main() -> None:
    """Print the table."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 4, (IMAGES, SIDE // BLOCK, SIDE // BLOCK), generator=generator)
    lacking = torch.randint(0, 4, (IMAGES, 1, 1), generator=generator)
    blocks[blocks == lacking] = 0
    base = blocks.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2).to(torch.uint8)
    truth, ours = variants(base, 4, generator), variants(base, 3, generator)
    print("| dialect | " + " | ".join(f"`{name}`" for name in NAMES) + " | images with a GED² |")
    print("| --- " * (len(NAMES) + 2) + "|")
    for name in DIALECTS:
        total = metric_collection(NAMES, dialect=name)
        total.update(ours, truth)
        figures = [f"{float(value):.3f}".lstrip("0") for value in total.compute().values()]
        valued = int((~evaluate_all(ours, truth, "ged", name)["ged"].isnan()).sum())
        print(f"| `{name}` | " + " | ".join(figures) + f" | {valued} |")


if __name__ == "__main__":
    main()
