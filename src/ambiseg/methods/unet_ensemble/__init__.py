"""U-Net ensemble: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass

from ambiseg.data.layouts import CITYSCAPES_TWINS, LIDC
from ambiseg.methods.phiseg import LIDC_DIFFERS as PHISEG_DIFFERS
from ambiseg.methods.phiseg import LIDC_TRAINING as PHISEG_TRAINING
from ambiseg.methods.phiseg import NETWORK as PHISEG_NETWORK
from ambiseg.methods.probabilistic_unet import (
    CITYSCAPES_DIFFERS,
    CITYSCAPES_TRAINING,
    LIDC_DIFFERS,
    PLAIN_UNET,
)
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class UNetEnsembleSettings:
    """U-Net ensemble: U-Nets that differ in their initialisation and in the annotations they were shown."""

    members: int = 4
    """Number of U-Nets, each of which gives one mask; 1 is the plain U-Net."""


SPEC = MethodSpec(
    name="unet-ensemble",
    summary="one mask from each of several independent U-Nets (Lakshminarayanan et al.)",
    citation="""@inproceedings{lakshminarayanan_ensembles_2017,
  title     = {Simple and Scalable Predictive Uncertainty Estimation Using Deep Ensembles},
  author    = {Lakshminarayanan, Balaji and Pritzel, Alexander and Blundell, Charles},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2017}
}""",
    model="ambiseg.methods.unet_ensemble.model:UNetEnsemble",
    settings=UNetEnsembleSettings,
    presets={
        PAPER: Preset(
            source="Lakshminarayanan et al. 2017 as the baseline of Kohl et al. 2018, section 3.2",
            differs=(
                "members are trained side by side on the same images; network and optimiser are the library's"
            ),
        ),
        "cityscapes": Preset(
            source="a baseline of Kohl et al. 2018, section 4.2, on the network of their public code",
            differs=f"members are trained side by side; no code of it is public; {CITYSCAPES_DIFFERS}",
            train=CITYSCAPES_TRAINING,
            backbone=PLAIN_UNET,
            settings={"members": 16},
            data=CITYSCAPES_TWINS,
        ),
        "lidc": Preset(
            source="a baseline of Kohl et al. 2018, section 4.1, on the network of their public code",
            differs=f"members are trained side by side; {LIDC_DIFFERS}",
            backbone=PLAIN_UNET,
            settings={"members": 16},
            data=LIDC,
        ),
        "lidc-phiseg": Preset(
            source="the single U-Net of Baumgartner et al. 2019, with the network and training of their public code (detunet)",
            differs=(
                "a drawn annotation, not the first annotator's; the way up has the channels of its own levels, not of the"
                f" next lower ones; one 1x1 convolution at the end, not four; {PHISEG_DIFFERS}"
            ),
            train=PHISEG_TRAINING,
            backbone=PHISEG_NETWORK,
            settings={"members": 1},
            data=LIDC,
        ),
    },
    masks="members",
    test=TestCase({"members": 3}, draws_labels=True, gain=0.0),
)
