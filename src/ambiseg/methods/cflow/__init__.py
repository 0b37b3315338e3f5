"""cFlow: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ambiseg.data.layouts import LIDC
from ambiseg.methods.probabilistic_unet import ProbabilisticUNetSettings
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class CFlowSettings(ProbabilisticUNetSettings):
    """cFlow: a probabilistic U-Net whose latents go through normalising flows."""

    flow: Literal["planar", "radial", "coupling"] = "planar"
    """Kind of the steps: planar and radial (Rezende and Mohamed 2015), or those of Glow with affine couplings."""
    steps: int = field(default=4, metadata={"least": 0})
    """Steps of the posterior's flow; 0: the posterior is normal."""
    prior_steps: int = 0
    """Steps of the prior's flow; 0: the prior is normal (Selvan et al., Valiuddin et al.)."""
    spread: float = 1.0
    """Factor of the normal numbers of samples: below 1 masks are less diverse and nearer to the most plausible one."""


_PLAIN = {"log_variance_bound": 0.0, "same_encoder": True, "activation": "relu", "combine_layers": 4}
_WIDE = {"kind": "phiseg", "width": 32, "depth": 4, "factors": (1, 2, 4, 8), "convolutions": {"norm": None}}
"""Network of the public code of Selvan et al."""
_NARROW = {"kind": "phiseg", "width": 32, "depth": 4, "convolutions": {"norm": None}}
"""Network of the public code that both papers build on."""
_TRAINING = {
    "epochs": 200,
    "batch_size": 96,
    "lr": 1e-4,
    "optimiser": {"kind": "adam", "weight_decay": 1e-5 / 128**2},
    "schedule": {"kind": "constant"},
    "warmup": 0,
    "clip": 0.0,
    "ema": 0.0,
    "augment": False,
    "validate_every": 1,
    "validation_images": 0,
    "select": "loss",
    "early_stop": 20,
}
"""Training of the public code of Selvan et al. Its L2 belongs to a loss that is summed over 128x128 pixels."""
_SIZE = "the loss is divided by the number of pixels"
_DIFFERS = (
    f"{_SIZE}; no batch normalisation, which the code has at the end of each block and in the networks of planar steps;"
    " the flow begins as the identity; a rater is drawn for each image, there for each batch; no penalty on the norms of"
    " the weights of prior and posterior; weights are initialised as in PyTorch"
)
_GLOW = (
    f"{_DIFFERS}; coupling steps learn, in the code they stay random; their matrix is a product of triangular ones, and"
    " every dimension has a shift of its own, 5,140 parameters more"
)
_NF = (
    f"{_SIZE}; neither its configuration nor its training is public: 4 steps and 6 latent dimensions as in Selvan et al.,"
    " depth and widths of the code that it builds on; no batch normalisation in the networks of the steps; training and"
    " augmentation are the library's"
)


def _lidc(flow: str, source: str, differs: str, wide: bool) -> Preset:
    """A preset for lung nodules: of Selvan et al. if ``wide``, else of Valiuddin et al."""
    return Preset(
        source=source,
        differs=differs,
        train=_TRAINING if wide else {},
        backbone=_WIDE if wide else _NARROW,
        settings={**_PLAIN, "flow": flow},
        data=LIDC,
    )


SPEC = MethodSpec(
    name="cflow",
    summary="a probabilistic U-Net with normalising flows of its latent vector (Selvan et al.; Valiuddin et al.)",
    citation="""@inproceedings{selvan_cflow_2020,
  title     = {Uncertainty Quantification in Medical Image Segmentation with Normalizing Flows},
  author    = {Selvan, Raghavendra and Faye, Frederik and Middleton, Jon and Pai, Akshay},
  booktitle = {Machine Learning in Medical Imaging},
  year      = {2020}
}""",
    model="ambiseg.methods.cflow.model:CFlow",
    settings=CFlowSettings,
    search={"beta": "log:0.1..10", "latent_size": "3|6|12", "steps": "2|4|8"},
    presets={
        PAPER: Preset(
            source="Selvan et al. 2020: 6 latent dimensions, 4 steps of Glow, beta = 1, as in their public code",
            differs=f"{_SIZE}; network and optimiser are the library's",
            settings={"flow": "coupling", "log_variance_bound": 0.0, "combine_layers": 4},
        ),
        "lidc": _lidc(
            "coupling", "Selvan et al. 2020, Glow, with network and training of the public code", _GLOW, True
        ),
        "lidc-planar": _lidc(
            "planar",
            "Selvan et al. 2020, planar, with network and training of the public code",
            _DIFFERS,
            True,
        ),
        "lidc-nf-planar": _lidc("planar", "Valiuddin et al. 2021, planar steps", _NF, False),
        "lidc-nf-radial": _lidc("radial", "Valiuddin et al. 2021, radial steps", _NF, False),
        "jprobunet": Preset(
            source="after Zhang et al. 2022 (JProbU-Net): flows in the latent space, diversity and accuracy set by spread",
            differs="the text of the paper was not at hand: no model of the image, and the flows are our choice",
            settings={"flow": "coupling", "prior_steps": 4, "kl_warmup": 0.2, "free_bits": 0.5},
        ),
    },
    test=TestCase({"samples": 24, "steps": 2}, deterministic=False, steps=60, rate=1e-2, gain=0.0),
)
