"""Probabilistic U-Net: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """1x1 convolutions that combine features and latent."""
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
    presets={
        PAPER: Preset(
            source=(
                "Kohl et al. 2018, section 2 (equation 4): 6 latent dimensions, three 1x1 "
                "convolutions, beta = 1"
            ),
            differs="the loss is divided by the number of pixels; network and optimiser are the library's",
            settings={"log_variance_bound": 0.0},
        )
    },
    test=TestCase({"samples": 24}, deterministic=False, steps=450, rate=4e-3),
)
