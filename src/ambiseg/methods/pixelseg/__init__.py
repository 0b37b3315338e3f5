"""PixelSeg: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ambiseg.data.layouts import LIDC
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class PixelSegSettings:
    """PixelSeg: a small mask is drawn pixel after pixel by a PixelCNN, and a network brings it to full resolution."""

    reduction: int = 4
    """Pixels of the image along each side of a pixel of the small mask, a power of 2 up to 64; 1: masks are drawn at full
    resolution, and their likelihood is exact. A sample takes as many steps as the small mask has pixels."""
    network: Literal["gated", "plain"] = "gated"
    """The PixelCNN: gated layers in two stacks, which see the image (van den Oord et al. 2016), or those of the
    public code, with batch normalisation, which see it in the last layer only."""
    width: int = 32
    """Channels of the PixelCNN."""
    layers: int = 6
    """Its layers with causal convolutions."""
    kernel: int = 5
    """Size of these convolutions, odd."""
    refinement: Literal["features", "logits"] = "features"
    """How a small mask comes to full resolution: convolutions of the mask and of the image's features, or one 1x1
    convolution of the PixelCNN's logits and of the logits of the U-Net (the public code)."""
    decision: Literal["mode", "sample"] = "mode"
    """Pixels at full resolution: the most probable class, or drawn independently (the public code)."""
    smoothing: bool = False
    """Close holes of masks and take the most frequent class of each 3x3 neighbourhood (the public code)."""
    foreground_weight: float = 1.0
    """Weight of pixels of the small mask that are not background, in training; any other than 1 trains no
    likelihood."""
    annotations: Literal["one", "all"] = "one"
    """Of several annotations of an image a training sample has one, drawn by its probability, or all by their
    probabilities, each at the cost of one."""
    samples: int = 16
    """Number of masks drawn for an image."""


_CODE = {
    "reduction": 2,
    "network": "plain",
    "width": 64,
    "layers": 8,
    "kernel": 7,
    "refinement": "logits",
    "decision": "sample",
    "smoothing": True,
    "foreground_weight": 3.0,
}
"""The public code of Zhang et al."""
_DIFFERS = (
    "entries of kernels that their mask sets to zero are left out, and the others begin by their own number; one"
    " sample in five is not replaced by an empty mask, as the code does before it measures"
)

SPEC = MethodSpec(
    name="pixelseg",
    summary="a small mask drawn pixel after pixel by a PixelCNN, then brought to full resolution (Zhang et al.)",
    citation="""@inproceedings{zhang_pixelseg_2022,
  title     = {{PixelSeg}: Pixel-by-Pixel Stochastic Semantic Segmentation for Ambiguous Medical Images},
  author    = {Zhang, Wei and Zhang, Xiaohong and Huang, Sheng and Lu, Yuting and Wang, Kun},
  booktitle = {Proceedings of the 30th ACM International Conference on Multimedia},
  pages     = {4742--4750},
  year      = {2022}
}""",
    model="ambiseg.methods.pixelseg.model:PixelSeg",
    settings=PixelSegSettings,
    search={"width": "16|32|64", "layers": "4|6|8"},
    presets={
        PAPER: Preset(
            source="Zhang et al. 2022, by their public code: half resolution, eight convolutions of 64 channels",
            differs=f"{_DIFFERS}; U-Net and optimiser are the library's",
            settings=_CODE,
        ),
        "lidc": Preset(
            source=(
                "Zhang et al. 2022, lung nodules, with the networks of their public code: 3,409,710 parameters,"
                " of which masks of kernels set 689,728 to zero"
            ),
            differs=_DIFFERS,
            train={
                "epochs": 100,
                "batch_size": 12,
                "lr": 1e-4,
                "optimiser": {"kind": "adam", "weight_decay": 0.0},
                "schedule": {"kind": "constant"},
                "warmup": 0,
                "clip": 0.0,
                "ema": 0.0,
                "select": "last",
                "augment": False,
                "binary_channels": 2,
            },
            backbone={"kind": "double", "width": 32, "depth": 5, "factors": (1, 2, 4, 6)},
            settings=_CODE,
            data=LIDC,
        ),
    },
    validation="loss",
    test=TestCase(
        {"width": 8, "layers": 2, "samples": 16}, deterministic=False, steps=80, rate=2e-2, gain=0.02
    ),
)
