"""PHiSeg: spec and settings; the equations are in `model`, the networks in `networks`."""

from __future__ import annotations

from dataclasses import dataclass

from ambiseg.data.layouts import LIDC
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class PHiSegSettings:
    """PHiSeg: samples from latent maps at several resolutions, each of which refines the mask."""

    latent_levels: int = 0
    """Resolutions L with a latent, the coarsest ones of the network; 0: two fewer than it has, at least one."""
    latent_channels: int = 2
    """Channels of every latent."""
    beta: float = 1.0
    """Weight of the KL between posterior and prior against the cross-entropy summed over pixels."""
    level_factor: float = 4.0
    """The KL of latent level l, counted from the finest (0), has this to the power of l as a weight; 1: all have the
    same, which makes the loss a bound of the likelihood."""
    deep_supervision: bool = True
    """The cross-entropy of the mask after every level counts; else that of the last one."""
    samples: int = 16
    """Number of masks drawn for an image."""
    kl_warmup: float = 0.0
    """Share of the training over which beta rises from 0 (not in the paper)."""
    free_bits: float = 0.0
    """KL of each latent level, in nats and as a mean over the batch, that costs nothing (not in the paper)."""
    likelihood_samples: int = 64
    """Latent samples for the likelihood of a mask."""


NETWORK = {
    "kind": "phiseg",
    "width": 32,
    "depth": 7,
    "convolutions": {"norm": {"eps": 1e-3, "momentum": 0.01}},
}
"""Network of the public code, which its baselines share."""
LIDC_TRAINING = {
    "updates": 500_000,
    "batch_size": 12,
    "lr": 1e-3,
    "optimiser": {"kind": "adam", "weight_decay": 0.0},
    "schedule": "constant",
    "warmup": 0,
    "clip": 0.0,
    "ema": 0.0,
    "binary_channels": 2,
    "augment": (
        {"kind": "rotate", "degrees": 10.0, "probability": 0.5},
        {"kind": "scale", "low": 1.0, "high": 1.3, "probability": 0.5},
    ),
    "validation_images": 100,
    "validations": 100,
    "select": "ged",
}
"""Training of this code. Its flips are left out: it asks for them by a name that it does not read."""
LIDC_DIFFERS = (
    "training ends after 500,000 updates, while the public code goes on to 5,000,000 or until it is stopped; 100"
    " validations, not one every 500 updates; rotation and scaling (there a crop of 98 to 128 pixels at a random place) are drawn"
    " independently"
)
_DIFFERS = (
    "the loss is divided by the number of pixels; weights are initialised as in PyTorch; bilinear upsampling keeps the"
    " borders of images, not the centres of their corner pixels"
)

SPEC = MethodSpec(
    name="phiseg",
    summary="samples from latent maps at several resolutions, a hierarchical conditional VAE (Baumgartner et al.)",
    citation="""@inproceedings{baumgartner_phiseg_2019,
  title     = {{PHiSeg}: Capturing Uncertainty in Medical Image Segmentation},
  author    = {Baumgartner, Christian F. and Tezcan, Kerem C. and Chaitanya, Krishna and H{\\"o}tker, Andreas M. and
               Muehlematter, Urs J. and Schawkat, Khoschy and Becker, Anton S. and Donati, Olivio and
               Konukoglu, Ender},
  booktitle = {Medical Image Computing and Computer Assisted Intervention},
  year      = {2019}
}""",
    model="ambiseg.methods.phiseg.model:PHiSeg",
    settings=PHiSegSettings,
    search={"beta": "log:0.1..10", "latent_channels": "1|2|4"},
    presets={
        PAPER: Preset(
            source=(
                "Baumgartner et al. 2019, the network PHiSeg (L = 5): 7 resolutions, 5 latent levels of 2 channels,"
                " weights 4^l of the KL"
            ),
            differs=f"{_DIFFERS}; one channel of logits for two classes; the training is the library's",
            backbone=NETWORK,
        ),
        "lidc": Preset(
            source=("Baumgartner et al. 2019 and their public code for lung nodules (experiment phiseg_7_5)"),
            differs=f"{_DIFFERS}; {LIDC_DIFFERS}",
            train=LIDC_TRAINING,
            backbone=NETWORK,
            data=LIDC,
        ),
    },
    test=TestCase({"samples": 24, "latent_levels": 2}, deterministic=False, steps=120),
)
