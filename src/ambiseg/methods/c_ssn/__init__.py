"""Conditioned stochastic segmentation networks: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass

from ambiseg.data.layouts import ISIC
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase
from ambiseg.methods.ssn import SSNSettings
from ambiseg.methods.style_settings import CITATION, DIFFERS, TRAINING, UNET, StyleSettings


@dataclass(frozen=True)
class ConditionedSSNSettings(StyleSettings, SSNSettings):
    """Conditioned SSN: a joint normal distribution of all logits for each annotator."""


_DIFFERS = f"the diagonal begins at 0.1 and its logarithm is cut at 15; {DIFFERS}"

SPEC = MethodSpec(
    name="c-ssn",
    summary="an SSN conditioned on who drew the mask: samples in the style of an annotator (Zepf et al.)",
    citation=CITATION,
    model="ambiseg.methods.c_ssn.model:ConditionedSSN",
    settings=ConditionedSSNSettings,
    search={"rank": "5|10|20", "draws": "10|20|40"},
    presets={
        PAPER: Preset(
            source="Zepf et al. 2023, defaults of the public code: rank 10, 20 Monte-Carlo samples",
            differs=_DIFFERS,
            train=TRAINING,
            backbone=UNET,
        ),
        "isic": Preset(
            source=(
                "Zepf et al. 2023, skin lesions, and Li et al. 2026, table 2: the training of the public code of the"
                " former, 100 samples; styles are the tools T1, T2 and T3 of ISIC MultiAnnot++"
            ),
            differs=_DIFFERS,
            train=TRAINING,
            backbone=UNET,
            settings={"samples": 100, "name_part": 2},
            data=ISIC,
        ),
    },
    validation="ged",
    test=TestCase(
        {"rank": 1, "samples": 24, "annotators": ("anna", "ben"), "shares": (0.25, 0.75)},
        deterministic=False,
        steps=50,
    ),
    by_annotator=True,
)
