"""Probabilistic U-Net: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ambiseg.data.layouts import CITYSCAPES_TWINS, LIDC
from ambiseg.methods.phiseg import LIDC_DIFFERS as PHISEG_DIFFERS
from ambiseg.methods.phiseg import LIDC_TRAINING as PHISEG_TRAINING
from ambiseg.methods.phiseg import NETWORK as PHISEG_NETWORK
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class ProbabilisticUNetSettings:
    """Probabilistic U-Net: samples from one U-Net pass and a latent vector that says which mask to draw."""

    latent_size: int = 6
    """Dimensions N of the latent vector."""
    beta: float = 1.0
    """Weight of the KL between posterior and prior against the cross-entropy summed over pixels (equation
    4)."""
    samples: int = 16
    """Number of masks drawn for an image."""
    combine_layers: int = 3
    """1x1 convolutions that combine features and latent, the last one among them."""
    activation: Literal["silu", "relu"] = "silu"
    """Between these convolutions."""
    same_encoder: bool = False
    """Prior and posterior net have the encoder of the backbone (the paper), also where it is not the
    library's U-Net."""
    kl_warmup: float = 0.0
    """Share of the training over which beta rises from 0 (not in the paper)."""
    free_bits: float = 0.0
    """KL of each latent dimension, in nats and as a mean over the batch, that costs nothing (not in the
    paper; Kingma et al. 2016): dimensions that would collapse to the prior stay in use."""
    log_variance_bound: float = 10.0
    """Log-variances stay within plus or minus this, smoothly (not in the paper); 0: no bound."""
    constraint: Literal["beta", "geco"] = "beta"
    """Weigh the KL by beta (the paper), or (Rezende and Viola 2018) minimise it under a bound on the
    cross-entropy; beta and its rise have no part in that."""
    geco_target: float = 0.05
    """Bound on the cross-entropy for `geco`, in nats per pixel."""
    likelihood_samples: int = 64
    """Latent samples for the likelihood of a mask."""


PLAIN_UNET = {"kind": "phiseg", "width": 32, "depth": 7, "convolutions": {"norm": None}}
"""Network of the public code of Kohl et al. for Cityscapes, which their baselines share."""
CITYSCAPES_TRAINING = {
    "updates": 240_000,
    "batch_size": 10,
    "lr": 1e-4,
    "optimiser": {"kind": "adam", "weight_decay": 1e-5 / (256 * 512)},
    "schedule": {"kind": "steps", "shares": (1 / 3, 2 / 3), "factors": (0.5, 0.1)},
    "warmup": 0,
    "clip": 0.0,
    "ema": 0.0,
    "select": "last",
    "augment": (
        "flip",
        {"kind": "elastic", "strength": 4.3, "smoothness": 30.0},
        {"kind": "rotate", "degrees": 22.5},
        {"kind": "scale", "low": 0.83, "high": 1.25},
        {"kind": "gamma", "low": 0.7, "high": 1.5, "probability": 0.3},
    ),
}
"""Training of this code, as far as the library has it. Its fourth rate begins at the end. Its L2 of 1e-5 belongs to a
loss that is summed over the pixels of 256x512; the losses here are divided by their number. Its elastic deformation
has alpha = 0 to 800 and sigma = 25 to 35: a displacement has the standard deviation alpha / sqrt(12 pi) / sigma, at
most 4.3 where sigma = 30."""
CITYSCAPES_DIFFERS = (
    "weights are initialised as in PyTorch; bilinear upsampling keeps the borders of images, not the"
    " centres of their corner pixels; the L2 penalty is on biases too; elastic deformations have one smoothness,"
    " images are continued by their border, not by black, and read bilinearly"
)
LIDC_DIFFERS = (
    "no public code for lung nodules: depth and widths are those of the code for Cityscapes; weights are initialised"
    " as in PyTorch; training and augmentation are the library's"
)
_NETWORK = {"log_variance_bound": 0.0, "same_encoder": True, "activation": "relu"}

SPEC = MethodSpec(
    name="probabilistic-unet",
    summary="samples from one U-Net pass and a latent vector, a conditional VAE (Kohl et al.)",
    citation="""@inproceedings{kohl_probabilistic_unet_2018,
  title     = {A Probabilistic {U-Net} for Segmentation of Ambiguous Images},
  author    = {Kohl, Simon A. A. and Romera-Paredes, Bernardino and Meyer, Clemens and De Fauw, Jeffrey and
               Ledsam, Joseph R. and Maier-Hein, Klaus H. and Eslami, S. M. Ali and Jimenez Rezende, Danilo and
               Ronneberger, Olaf},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2018}
}""",
    model="ambiseg.methods.probabilistic_unet.model:ProbabilisticUNet",
    settings=ProbabilisticUNetSettings,
    search={"beta": "log:0.1..10", "latent_size": "3|6|12"},
    presets={
        PAPER: Preset(
            source=(
                "Kohl et al. 2018, section 2 (equation 4): 6 latent dimensions, three 1x1 "
                "convolutions, beta = 1"
            ),
            differs="the loss is divided by the number of pixels; network and optimiser are the library's",
            settings={"log_variance_bound": 0.0},
        ),
        "cityscapes": Preset(
            source=(
                "Kohl et al. 2018, section 4.2, with the network of their public code: 17,954,736"
                " parameters with 24 classes; f_comb is three 1x1 convolutions with ReLU and a fourth to"
                " the logits (the paper speaks of three)"
            ),
            differs=f"the loss is divided by the number of pixels; {CITYSCAPES_DIFFERS}",
            train=CITYSCAPES_TRAINING,
            backbone=PLAIN_UNET,
            settings={**_NETWORK, "combine_layers": 4},
            data=CITYSCAPES_TWINS,
        ),
        "lidc": Preset(
            source="Kohl et al. 2018, section 4.1: the U-Net without normalisation, three 1x1 convolutions",
            differs=f"the loss is divided by the number of pixels; {LIDC_DIFFERS}",
            backbone=PLAIN_UNET,
            settings=_NETWORK,
            data=LIDC,
        ),
        "lidc-phiseg": Preset(
            source="a baseline of Baumgartner et al. 2019, with the network and training of their public code (probunet)",
            differs=(
                "the loss is divided by the number of pixels; the way up has the channels of its own levels, not of the"
                " next lower ones; no batch normalisation between the 1x1 convolutions; log-variances in place of"
                f" softplus of the deviations; {PHISEG_DIFFERS}"
            ),
            train=PHISEG_TRAINING,
            backbone=PHISEG_NETWORK,
            settings={**_NETWORK, "combine_layers": 4},
            data=LIDC,
        ),
    },
    test=TestCase({"samples": 24}, deterministic=False, steps=450, rate=4e-3),
)
