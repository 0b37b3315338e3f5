"""M-heads: spec and settings; the equations are in `model`."""

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
class MHeadsSettings:
    """M-heads: M masks from one pass, trained so that the best of them explains each annotation."""

    heads: int = 16
    """Number of heads M, each of which gives one mask."""
    relaxation: float = 0.05
    """Weight epsilon of all heads but the best together, 0 to 1; 0 trains the best alone."""


SPEC = MethodSpec(
    name="m-heads",
    summary="one mask from each of M heads, trained by the loss of the best head (Rupprecht et al.)",
    citation="""@inproceedings{rupprecht_uncertain_world_2017,
  title     = {Learning in an Uncertain World: Representing Ambiguity Through Multiple Hypotheses},
  author    = {Rupprecht, Christian and Laina, Iro and DiPietro, Robert and Baust, Maximilian and Tombari, Federico
               and Navab, Nassir and Hager, Gregory D.},
  booktitle = {International Conference on Computer Vision},
  year      = {2017}
}""",
    model="ambiseg.methods.m_heads.model:MHeads",
    settings=MHeadsSettings,
    search={"relaxation": "log:0.01..0.2"},
    presets={
        PAPER: Preset(
            source=("Rupprecht et al. 2017 as the baseline of Kohl et al. 2018, section 3.2: epsilon = 0.05"),
            differs="weights of a single head sum to 1; network and optimiser are the library's",
        ),
        "cityscapes": Preset(
            source="a baseline of Kohl et al. 2018, section 4.2, on the network of their public code",
            differs=f"weights of a single head sum to 1; no code of it is public; {CITYSCAPES_DIFFERS}",
            train=CITYSCAPES_TRAINING,
            backbone=PLAIN_UNET,
            settings={"heads": 16},
            data=CITYSCAPES_TWINS,
        ),
        "lidc": Preset(
            source="a baseline of Kohl et al. 2018, section 4.1, on the network of their public code",
            differs=f"weights of a single head sum to 1; {LIDC_DIFFERS}",
            backbone=PLAIN_UNET,
            settings={"heads": 16},
            data=LIDC,
        ),
    },
    masks="heads",
    test=TestCase({"heads": 8}, draws_labels=True),
)
