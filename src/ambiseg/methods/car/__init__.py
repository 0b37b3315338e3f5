"""Calibrated adversarial refinement: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ambiseg.data.layouts import CITYSCAPES_PREDICTION, LIDC
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase
from ambiseg.methods.unet_ensemble import UNetEnsembleSettings


@dataclass(frozen=True)
class CARSettings:
    """Calibrated adversarial refinement: a generative adversarial network whose samples have the mean that a
    calibration network predicts."""

    latent_size: int = 8
    """Dimensions L of the noise."""
    train_samples: int = 5
    """Samples S of an image in training, over which the mean of the calibration loss is taken."""
    adversarial_weight: float = 10.0
    """Weight of the adversarial loss of the refinement network."""
    calibration_weight: float = 5.0
    """Weight of its calibration loss."""
    gradient_penalty: float = 10.0
    """Weight of the squared gradient of the discriminator at annotations (Mescheder et al. 2018)."""
    noise_layers: int = 1
    """Last layers of the decoder in which the noise comes in; all where there are fewer (refinement: backbone); the
    paper has 3."""
    calibration: Literal["backbone", "segnet", "small"] = "backbone"
    """Calibration network: the network of the run, or those of the public code: a SegNet, or five convolutions
    behind a black box."""
    refinement: Literal["backbone", "published"] = "backbone"
    """Refinement network: the network of the run, or that of the public code."""
    discriminator: Literal["pooled", "published"] = "pooled"
    """Discriminator: convolutions of stride 2 and a mean over positions, or that of the public code."""
    discriminator_width: int = 32
    """Channels of its first convolution."""
    discriminator_rate: float = 1.0
    """Its learning rate, as a factor of lr."""
    calibration_rate: float = 1.0
    """Learning rate of the calibration network, as a factor of lr."""
    discriminator_updates: int = 1
    """Steps in which the discriminator learns, before each pause."""
    discriminator_pause: int = 0
    """Steps of a pause of the discriminator; 0: it always learns."""
    accuracy_cap: float = 1.0
    """The discriminator learns from a batch only where its accuracy there is at most this."""
    black_box_channels: int = 0
    """Last channels of the images that are the prediction of another network, which only the calibration
    network sees."""
    train_calibration: bool = True
    """The calibration network learns; otherwise it is a black box, with the weights of the run in init."""
    samples: int = 16
    """Number of masks drawn for an image."""


def car_from_unet(ours: CARSettings, theirs: UNetEnsembleSettings) -> CARSettings:
    """The settings that a calibration network from a `unet-ensemble` needs: ours."""
    return ours


_TRAINING = {
    "lr": 2e-4,
    "optimiser": {"kind": "adam", "weight_decay": 5e-4, "betas": (0.5, 0.99)},
    "schedule": {"kind": "constant"},
    "warmup": 0,
    "clip": 0.0,
    "ema": 0.0,
}
"""Optimisers of the public code; those of calibration network and discriminator differ in their rates alone."""
_LOSSES = {
    "calibration_rate": 5e-4 / 2e-4,
    "discriminator_rate": 1e-5 / 2e-4,
    "discriminator_updates": 50,
    "discriminator_pause": 200,
    "accuracy_cap": 0.85,
}
_NETWORKS = {"refinement": "published", "discriminator": "published", "discriminator_width": 64}
_DIFFERS = (
    "the three networks learn from the same weights in each step, in the code one after the other; the accuracy"
    " of the discriminator is that of the batch itself; losses are means over pixels that are not void;"
    " predicted probabilities are bounded by 1e-6 in the calibration loss, not by 1e-3"
)

SPEC = MethodSpec(
    name="car",
    summary="samples of an adversarial network with the mean of a calibration network (Kassapis et al.)",
    citation="""@inproceedings{kassapis_car_2021,
  title     = {Calibrated Adversarial Refinement for Stochastic Semantic Segmentation},
  author    = {Kassapis, Elias and Dikov, Georgi and Gupta, Deepak K. and Nugteren, Cedric},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year      = {2021}
}""",
    model="ambiseg.methods.car.model:CAR",
    settings=CARSettings,
    search={"calibration_weight": "log:1..20", "gradient_penalty": "log:1..100", "latent_size": "4|8|16"},
    presets={
        PAPER: Preset(
            source=(
                "Kassapis et al. 2021 and their public code: 8 noise dimensions, 5 samples, weights 10 and 5, R1"
                " with weight 10, noise in the last three layers, the rates of the three networks and the"
                " pauses of the discriminator"
            ),
            differs=f"the networks are the library's; {_DIFFERS}",
            train=_TRAINING,
            settings={**_LOSSES, "noise_layers": 3},
        ),
        "lidc": Preset(
            source=(
                "Kassapis et al. 2021, lung nodules, with the networks of their public code: a SegNet, a U-Net"
                " of five resolutions and the discriminator, batches of 32"
            ),
            differs=f"the encoder of the SegNet is not pretrained; no length of training is published; {_DIFFERS}",
            train={**_TRAINING, "batch_size": 32, "binary_channels": 2, "augment": ("flip",)},
            settings={**_LOSSES, **_NETWORKS, "calibration": "segnet"},
            data=LIDC,
        ),
        "cityscapes": Preset(
            source=(
                "Kassapis et al. 2021, class flips on Cityscapes, with the networks of their public code: five"
                " convolutions behind a black box, 32 noise dimensions, batches of 16"
            ),
            differs=(
                "the black box gives one channel of class numbers, not one for each class; void is no class;"
                " crops have any side between the least and greatest; no length of training is published;"
                f" {_DIFFERS}"
            ),
            train={
                **_TRAINING,
                "batch_size": 16,
                "augment": (
                    "flip",
                    {"kind": "resized-crop", "height": 128, "width": 128, "low": 0.6, "high": 0.99},
                ),
            },
            settings={
                **_LOSSES,
                **_NETWORKS,
                "latent_size": 32,
                "calibration": "small",
                "black_box_channels": 1,
            },
            data=CITYSCAPES_PREDICTION,
        ),
    },
    validation="ged",
    starts_from={"unet-ensemble": car_from_unet},
    test=TestCase(
        # The mean of few samples is far from that of all: with the weights 10 and 5 that part of the loss is the larger
        # one. Adam sees their ratio alone.
        {
            "adversarial_weight": 2.0,
            "calibration_weight": 1.0,
            "discriminator_width": 4,
            "train_samples": 2,
            "samples": 24,
        },
        deterministic=False,
        steps=60,
        rate=8e-3,
        gain=0.02,
    ),
)
