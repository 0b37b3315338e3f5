"""Conditioned probabilistic U-Net: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass

from ambiseg.data.layouts import ISIC
from ambiseg.methods.probabilistic_unet import ProbabilisticUNetSettings
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase
from ambiseg.methods.style_settings import CITATION, DIFFERS, TRAINING, UNET, StyleSettings


@dataclass(frozen=True)
class ConditionedProbabilisticUNetSettings(StyleSettings, ProbabilisticUNetSettings):
    """Conditioned probabilistic U-Net: samples from one U-Net pass and a latent vector that depends on the annotator."""

    latent_convolutions: int | None = None
    """Convolutions at each level of prior and posterior net, with the network phiseg; those of the U-Net if left
    out."""


_DIFFERS = (
    "the loss is divided by the number of pixels, and weights and biases of prior net, posterior net and 1x1 convolutions"
    f" have no penalty of their norms (1e-5 in the public code); {DIFFERS}"
)
_TRAINING = {**TRAINING, "optimiser": {"weight_decay": 0.0}}
_SETTINGS = {
    "beta": 10 / 6,
    "combine_layers": 4,
    "activation": "relu",
    "same_encoder": True,
    "log_variance_bound": 0.0,
    "latent_convolutions": 2,
}
"""The public code adds a cross-entropy that is summed over a batch and ten times the mean of its divergences, so beta is
10 over the 6 images of a batch."""

SPEC = MethodSpec(
    name="c-probabilistic-unet",
    summary="a probabilistic U-Net conditioned on who drew the mask: samples in the style of an annotator (Zepf et al.)",
    citation=CITATION,
    model="ambiseg.methods.c_probabilistic_unet.model:ConditionedProbabilisticUNet",
    settings=ConditionedProbabilisticUNetSettings,
    search={"beta": "log:0.1..10", "latent_size": "3|6|12"},
    presets={
        PAPER: Preset(
            source=(
                "Zepf et al. 2023, defaults of the public code: 6 latent dimensions, four 1x1 convolutions, beta = 10 for"
                " batches of 6"
            ),
            differs=_DIFFERS,
            train=_TRAINING,
            backbone=UNET,
            settings=_SETTINGS,
        ),
        "isic": Preset(
            source=(
                "Zepf et al. 2023, skin lesions, and Li et al. 2026, table 2: the training of the public code of the"
                " former, 100 samples; styles are the tools T1, T2 and T3 of ISIC MultiAnnot++"
            ),
            differs=_DIFFERS,
            train=_TRAINING,
            backbone=UNET,
            settings={**_SETTINGS, "samples": 100, "name_part": 2},
            data=ISIC,
        ),
    },
    test=TestCase(
        {"samples": 24, "annotators": ("anna", "ben"), "shares": (0.25, 0.75)},
        deterministic=False,
        steps=60,
        rate=1e-2,
    ),
    by_annotator=True,
)
