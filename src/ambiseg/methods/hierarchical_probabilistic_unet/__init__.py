"""Hierarchical probabilistic U-Net: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ambiseg.data.layouts import LIDC
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class HierarchicalProbabilisticUNetSettings:
    """Hierarchical probabilistic U-Net: latents on several scales of a decoder say which mask to draw."""

    latents: tuple[int, ...] = ()
    """Channels of the latent at each scale, the coarsest first, such as [1, 1, 1, 1]; empty: one channel at each of the
    four coarsest resolutions, or of as many as the network has below the finest."""
    constraint: Literal["geco", "beta"] = "geco"
    """Minimise the KL under a bound on the cross-entropy (the paper; Rezende and Viola 2018), or weigh it by beta; only
    then beta and its rise count."""
    geco_target: float = 0.05
    """Bound kappa on the cross-entropy for `geco`, in nats for each pixel that counts."""
    geco_speed: float = 0.03
    """Step of the logarithm of the multiplier of this bound; 0.01 in the paper's code."""
    geco_memory: float = 0.9
    """Weight of the past in the running mean that moves the multiplier, 0 to below 1; 0.99 in the paper's code."""
    top_k: float = 1.0
    """Share of the pixels of a batch whose cross-entropy counts, 0.02 in the paper; 1: all of them."""
    stochastic: bool = True
    """These pixels are drawn in proportion to their cross-entropy (the paper); otherwise the worst ones count."""
    beta: float = 1.0
    """Weight of the KL for `beta`."""
    samples: int = 16
    """Number of masks drawn for an image."""
    kl_warmup: float = 0.0
    """Share of the training over which beta rises from 0 (not in the paper)."""
    free_bits: float = 0.0
    """KL of each scale, in nats and as a mean over the batch, that costs nothing (not in the paper)."""
    log_variance_bound: float = 10.0
    """Log-variances stay within plus or minus this, smoothly (not in the paper); 0: no bound."""
    likelihood_samples: int = 64
    """Latent samples for the likelihood of a mask."""


PAPER_LOSS = {"geco_speed": 0.01, "geco_memory": 0.99, "top_k": 0.02, "log_variance_bound": 0.0}
"""Hard pixels, the step of the public code, no bound on variances."""
LIDC_NETWORK = {"kind": "hpunet", "width": 24, "depth": 8, "blocks": 3, "factors": (1, 2, 4, 8)}
"""That of the public code."""
DRAWN = int(0.02 * 128 * 128)
"""Pixels of an image that count on average."""
LIDC_TRAINING = {
    "updates": 240_000,
    "batch_size": 32,
    "lr": 1e-4,
    "optimiser": {"kind": "adam", "weight_decay": 2e-5 / DRAWN},
    "schedule": {
        "kind": "steps",
        "shares": (0.25, 0.5, 0.75, 0.875),
        "factors": (0.5, 0.25, 0.125, 0.0625),
    },
    "warmup": 0,
    "clip": 0.0,
    "ema": 0.0,
    "select": "last",
    "binary_channels": 2,
    "augment": (
        "flip",
        {"kind": "elastic", "strength": 4.3, "smoothness": 30.0},
        {"kind": "rotate", "degrees": 22.5},
        {"kind": "scale", "low": 0.83, "high": 1.25},
    ),
}
"""Length and rates are those of a public reproduction. The L2 penalty of 1e-5 belongs to a loss that is summed over the
pixels that count; the losses here are divided by their number."""
LIDC_DIFFERS = (
    "the last level of the code's posterior, which no output reaches, is left out; the multiplier follows the constraint"
    " in closed form, not by the optimiser; the loss is divided by the number of pixels that count; crops of 128x128,"
    " theirs are cut at random from 180x180 in another split; augmentation is that of the probabilistic U-Net without"
    " brightness"
)

SPEC = MethodSpec(
    name="hierarchical-probabilistic-unet",
    summary="latents on several scales of a decoder, a hierarchical conditional VAE (Kohl et al.)",
    citation="""@article{kohl_hierarchical_2019,
  title   = {A Hierarchical Probabilistic {U-Net} for Modeling Multi-Scale Ambiguities},
  author  = {Kohl, Simon A. A. and Romera-Paredes, Bernardino and Maier-Hein, Klaus H. and Jimenez Rezende, Danilo and
             Eslami, S. M. Ali and Kohli, Pushmeet and Zisserman, Andrew and Ronneberger, Olaf},
  journal = {arXiv preprint arXiv:1905.13077},
  year    = {2019}
}""",
    model="ambiseg.methods.hierarchical_probabilistic_unet.model:HierarchicalProbabilisticUNet",
    settings=HierarchicalProbabilisticUNetSettings,
    search={"geco_target": "log:0.01..0.5", "top_k": "0.1|1"},
    presets={
        PAPER: Preset(
            source="Kohl et al. 2019, section 3, and their public code: GECO with kappa = 0.05, 2 % of the pixels",
            differs="the loss is divided by the number of pixels that count; network and optimiser are the library's",
            settings=PAPER_LOSS,
        ),
        "lidc": Preset(
            source=(
                "Kohl et al. 2019, LIDC, with the networks, the four latent scales, kappa and the drawn pixels of their"
                " public code; length and learning rates as in a public reproduction"
            ),
            differs=LIDC_DIFFERS,
            train=LIDC_TRAINING,
            backbone=LIDC_NETWORK,
            settings=PAPER_LOSS,
            data=LIDC,
        ),
    },
    test=TestCase(
        {"samples": 8, "constraint": "beta", "beta": 0.3}, deterministic=False, steps=120, rate=8e-3
    ),
)
