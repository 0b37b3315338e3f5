"""Image2Image VAE: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass

from ambiseg.data.layouts import CITYSCAPES_TWINS, LIDC
from ambiseg.methods.probabilistic_unet import (
    CITYSCAPES_DIFFERS,
    CITYSCAPES_TRAINING,
    LIDC_DIFFERS,
    PLAIN_UNET,
)
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class Image2ImageVAESettings:
    """Image2Image VAE: a latent of a fixed prior goes into the U-Net beside the image."""

    latent_size: int = 6
    """Dimensions N of the latent space."""
    beta: float = 1.0
    """Weight of the Kullback-Leibler divergence against the cross-entropy of all pixels; 1 is the variational
    lower bound."""
    log_variance_bound: float = 10.0
    """The posterior's log-variances stay between minus and plus this."""
    same_encoder: bool = False
    """The posterior net has the encoder of the backbone, also where it is not the library's U-Net."""
    samples: int = 16
    """Number of masks drawn for an image; each is a full pass."""
    kl_warmup: float = 0.0
    """Share of the training over which beta rises from 0 (not in the paper)."""
    free_bits: float = 0.0
    """KL of each latent dimension, in nats and as a mean over the batch, that costs nothing (not in the paper)."""
    likelihood_samples: int = 64
    """Latent samples for the likelihood of a mask; each is a full pass."""


SPEC = MethodSpec(
    name="image2image-vae",
    summary="samples from a latent of a fixed prior that enters a U-Net with the image (Zhu et al.)",
    citation="""@inproceedings{zhu_bicyclegan_2017,
  title     = {Toward Multimodal Image-to-Image Translation},
  author    = {Zhu, Jun-Yan and Zhang, Richard and Pathak, Deepak and Darrell, Trevor and Efros, Alexei A.
               and Wang, Oliver and Shechtman, Eli},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2017}
}""",
    model="ambiseg.methods.image2image_vae.model:Image2ImageVAE",
    settings=Image2ImageVAESettings,
    search={"beta": "log:0.1..10", "latent_size": "3|6|12"},
    presets={
        PAPER: Preset(
            source=(
                "Zhu et al. 2017 as the baseline of Kohl et al. 2018, section 3.2; 6 latent "
                "dimensions as in Kohl et al."
            ),
            differs="log-variances are bounded; network and optimiser are the library's",
        ),
        "cityscapes": Preset(
            source="a baseline of Kohl et al. 2018, section 4.2, on the network of their public code",
            differs=f"log-variances are bounded; no code of it is public; {CITYSCAPES_DIFFERS}",
            train=CITYSCAPES_TRAINING,
            backbone=PLAIN_UNET,
            settings={"same_encoder": True},
            data=CITYSCAPES_TWINS,
        ),
        "lidc": Preset(
            source="a baseline of Kohl et al. 2018, section 4.1, on the network of their public code",
            differs=f"log-variances are bounded; {LIDC_DIFFERS}",
            backbone=PLAIN_UNET,
            settings={"same_encoder": True},
            data=LIDC,
        ),
    },
    validation="loss",
    test=TestCase({"samples": 24}, deterministic=False, steps=400, rate=4e-3),
)
