"""Settings of methods that are conditioned on label styles, and the sources of their presets. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CITATION = """@inproceedings{zepf_label_style_2023,
  title     = {That Label's Got Style: Handling Label Style Bias for Uncertain Image Segmentation},
  author    = {Zepf, Kilian and Petersen, Eike and Frellsen, Jes and Feragen, Aasa},
  booktitle = {International Conference on Learning Representations},
  year      = {2023}
}"""
UNET: Mapping[str, Any] = {"kind": "phiseg", "width": 32, "depth": 4, "convolutions": {"norm": None}}
"""Network of the public code: 32, 64, 128 and 192 channels, three convolutions at each level, no normalisation."""
TRAINING: Mapping[str, Any] = {
    "epochs": 600,
    "batch_size": 6,
    "labels": "single",
    "lr": 1e-4,
    "optimiser": {"weight_decay": 1e-4},
    "schedule": {"kind": "constant"},
    "warmup": 0,
    "clip": 0.0,
    "ema": 0.0,
    "select": "last",
    "augment": (
        "flip",
        {"kind": "rotate", "degrees": 15.0},
        {"kind": "scale", "low": 0.9, "high": 1.1},
    ),
}
"""Training of the public code. One of its 200 epochs sees every mask of an image, one with single labels sees one of
them: three are as many steps where images have three masks."""
DIFFERS = (
    "masks are drawn, three times as many epochs see one of each image; shifts by half a pixel and shears are left out;"
    " weights are initialised as in PyTorch; bilinear upsampling keeps the borders of images, not the centres of their"
    " corner pixels; biases have no weight decay"
)
MOST_STYLES = 4096
"""Greatest number of styles."""


@dataclass(frozen=True)
class StyleSettings:
    """Label styles: whose masks a model can draw."""

    annotators: tuple[str, ...] = ()
    """Names of the annotators (styles). Training fills in those of its data; without names there is one style."""
    shares: tuple[float, ...] = ()
    """Share of each of them in the masks of training, in the same order, sum 1; equal if left out."""
    name_part: int = 0
    """Which piece of an annotator's name between underscores is the style: 1 the first, 2 the second; 0: the whole
    name. With 2, masks of A02_T3_S1 and A05_T3_S2 have the style T3."""
