"""Ambiguity-aware truncated flow matching: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ambiseg.data.layouts import ISIC, LIDC
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase
from ambiseg.methods.ssn import GTR, GTR_DIFFERS, SSNSettings
from ambiseg.networks.settings import UNetSettings


@dataclass(frozen=True)
class ATFMSettings:
    """ATFM: a normal distribution of logits, then a flow from its samples to masks."""

    prior_share: float = 0.5
    """Share of the training that is the prior's, before it is frozen and the flow's begins; 0 leaves the
    prior as it is, which is for one that is trained already: ``--init`` of an ssn run sets it."""
    rank: int = 10
    """Prior: columns of the covariance factor; at most the pixels times the channels of an image."""
    draws: int = 20
    """Prior: Monte-Carlo samples M of the likelihood in training (equation 5)."""
    estimator: Literal["log-mean", "mean-log"] = "log-mean"
    """Prior: the Monte-Carlo likelihood of an annotation, or the mean of its logarithm as (5) is printed,
    under which samples become one."""
    start: Literal["prior", "noise"] = "prior"
    """Where the flow begins: samples of the prior, or N(0, I) without any prior."""
    source: Literal["probabilities", "logits"] = "probabilities"
    """What of a sample of the prior the flow begins with: its sigmoid or softmax, or its logits as they
    are."""
    alpha: float = 1e-3
    """Weight of the Dice loss against the squared error of the velocity (algorithm 1); 0: none."""
    dice: Literal["soft", "hard"] = "soft"
    """The Dice loss of the mask that a state leads to as it is, or after a threshold, through which there is
    no gradient."""
    flow_width: int | None = None
    """Channels of the flow's network at full resolution; if left out, those of the backbone. The flow is a
    unet where the backbone accepts no time."""
    flow_depth: int | None = None
    """Its number of resolutions; if left out, that of the backbone."""
    flow_max_width: int | None = None
    """Its channels double up to this many; if left out, as in the backbone."""
    flow_network: UNetSettings | None = None
    """Another network for the flow, such as one that takes a time where the prior's takes none; none: the
    backbone, of the sizes above."""
    grey: bool = False
    """The flow sees a colour image as grey."""
    sampler: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] = "euler"
    """Solver of the flow."""
    steps: int = 25
    """Its steps; dopri5 chooses its own."""
    samples: int = 16
    """Number of masks drawn for an image."""


def atfm_from_ssn(settings: ATFMSettings, ssn: SSNSettings) -> ATFMSettings:
    """Settings of a flow whose prior is an SSN that is trained already.

    Example:
        >>> chosen = atfm_from_ssn(ATFMSettings(), SSNSettings(rank=4))
        >>> chosen.prior_share, chosen.rank
        (0.0, 4)
    """
    return replace(settings, prior_share=0.0, rank=ssn.rank)


_FLOW = {"kind": "ddpm", "width": 128, "depth": 3, "max_width": 512, "blocks": 2, "attention": True}
_TRAINING = {
    "lr": 1e-4,
    "optimiser": {"kind": "adam"},
    "schedule": {"kind": "constant"},
    "warmup": 0,
    "clip": 0.0,
    "ema": 0.0,
}
_DIFFERS = (
    "the flow's last convolution begins at 0; a Dice with a gradient; times are drawn from [0, 1], not from"
    " 1000 steps; give --init of an ssn run with the preset {prior}, otherwise half of the training is the"
    f" prior's; of the prior: {GTR_DIFFERS}"
)

SPEC = MethodSpec(
    name="atfm",
    summary="samples of a low-rank normal distribution of logits, each led to a mask by a flow (Li et al.)",
    citation="""@inproceedings{li_atfm_2026,
  title     = {Ambiguity-aware Truncated Flow Matching for Ambiguous Medical Image Segmentation},
  author    = {Li, Fanding and Li, Xiangyu and Su, Xianghe and Qiu, Xingyu and Dong, Suyu and Wang, Wei and
               Wang, Kuanquan and Luo, Gongning and Li, Shuo},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2026}
}""",
    model="ambiseg.methods.atfm.model:ATFM",
    settings=ATFMSettings,
    search={"rank": "5|10|20", "prior_share": "0.3..0.7"},
    presets={
        PAPER: Preset(
            source=(
                "Li et al. 2026, algorithm 1 and 'Implementation Details': M = 20, alpha = 1e-3 as "
                "for LIDC, Euler"
            ),
            differs=(
                "equation 5 by its first line (estimator=mean-log is the second), a Dice with a "
                "gradient, one training for both stages; network and optimiser are the library's"
            ),
        ),
        "lidc": Preset(
            source=(
                "Li et al. 2026, table 1, with the networks of their public code: prior of 2,262,444 and"
                " flow of 38,547,585 parameters"
            ),
            differs=_DIFFERS.format(prior="atfm-lidc"),
            train={**_TRAINING, "epochs": 200, "batch_size": 6},
            backbone=GTR,
            settings={"flow_network": _FLOW},
            data=LIDC,
        ),
        "isic": Preset(
            source=(
                "Li et al. 2026, table 2, with the networks of their public code: flow of 152,133,889"
                " parameters, which sees a grey image"
            ),
            differs=f"grey is made of the normalised channels; {_DIFFERS.format(prior='atfm-isic')}",
            train={**_TRAINING, "epochs": 120, "batch_size": 1},
            backbone=GTR,
            settings={
                "flow_network": {**_FLOW, "width": 256, "max_width": 1024},
                "grey": True,
                "alpha": 1e-4,
                "steps": 50,
            },
            data=ISIC,
        ),
    },
    validation="loss",
    starts_from={"ssn": atfm_from_ssn},
    test=TestCase({"rank": 1, "samples": 24}, deterministic=False, steps=600, rate=4e-3),
)
