"""Dropout U-Net: spec and settings; the equations are in `model`."""

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
class DropoutUNetSettings:
    """Dropout U-Net: dropout in the innermost levels of a U-Net, kept on when sampling."""

    dropout: float = 0.5
    """Share p of the activations that are dropped, 0 to below 1."""
    levels: int = 3
    """Dropout is in this many innermost levels of the encoder and of the decoder, or in all where there are
    fewer."""
    samples: int = 16
    """Number of masks drawn for an image; each is a full pass."""


SPEC = MethodSpec(
    name="dropout-unet",
    summary="samples by dropout in the innermost levels of a U-Net, kept on (Kendall et al.)",
    citation="""@article{kendall_bayesian_segnet_2015,
  title   = {Bayesian SegNet: Model Uncertainty in Deep Convolutional Encoder-Decoder Architectures
             for Scene Understanding},
  author  = {Kendall, Alex and Badrinarayanan, Vijay and Cipolla, Roberto},
  journal = {arXiv preprint arXiv:1511.02680},
  year    = {2015}
}""",
    model="ambiseg.methods.dropout_unet.model:DropoutUNet",
    settings=DropoutUNetSettings,
    search={"dropout": "0.2..0.6"},
    presets={
        PAPER: Preset(
            source=(
                "Kendall et al. 2015 as the baseline of Kohl et al. 2018, section 3.2: p = 0.5 in "
                "the three innermost blocks"
            ),
            differs="dropout is inside the residual blocks; network and optimiser are the library's",
        ),
        "cityscapes": Preset(
            source=(
                "a baseline of Kohl et al. 2018, section 4.2, on the network of their public code: dropout with"
                " p = 0.5 of what enters the three innermost blocks of encoder and decoder"
            ),
            differs=f"no code of it is public; {CITYSCAPES_DIFFERS}",
            train=CITYSCAPES_TRAINING,
            backbone=PLAIN_UNET,
            data=CITYSCAPES_TWINS,
        ),
        "lidc": Preset(
            source="a baseline of Kohl et al. 2018, section 4.1, on the network of their public code",
            differs=LIDC_DIFFERS,
            backbone=PLAIN_UNET,
            data=LIDC,
        ),
    },
    validation="loss",
    test=TestCase({"samples": 40}, deterministic=False, gain=0.0),
)
