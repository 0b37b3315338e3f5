"""Flow-SSN: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ambiseg.data.layouts import LIDC, REFUGE
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase
from ambiseg.networks.settings import UNetSettings


@dataclass(frozen=True)
class ContinuousFlow:
    """Continuous in time (equation 19): a small network is integrated from the base to a mask."""

    kind: Literal["continuous"] = "continuous"
    """Continuous in time (equation 19)."""
    prior: Literal["learned", "fixed"] = "learned"
    """Base of the flow: a network of the image, or N(0, I) under a flow that sees the image (figure 6)."""
    base_scale: Literal["one", "learned"] = "one"
    """Standard deviations of a learned prior: 1 (the authors' code), or learnt (equation 11)."""
    pushforward: Literal["identity", "log-softmax"] = "identity"
    """What the base goes through first; log-softmax makes it log-logistic-normal."""
    width: int = 16
    """Channels of the flow's own U-Net, which goes with a learned prior."""
    depth: int = 3
    """Its number of resolutions."""
    network: UNetSettings | None = None
    """Another network for the flow, with a width and depth of its own; none: the library's U-Net."""
    drift: Literal["initial", "conditional"] = "initial"
    """What the predicted mask is led away from: the draw that the flow began with (17), or (not in the paper)
    the mean of all draws that lead to the present state, which keeps the distribution at every time."""
    sampler: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] = "euler"
    """Solver of the differential equation (17)."""
    steps: int = 50
    """Its steps; dopri5 chooses its own."""
    tolerance: float = 1e-6
    """Relative and absolute tolerance of dopri5."""


@dataclass(frozen=True)
class StripTransformer:
    """A causal transformer over strips of pixels, for images of any size."""

    kind: Literal["transformer"] = "transformer"
    """Causal transformer over strips of pixels."""
    strip_height: int = 1
    """Rows of a strip, whose pixels do not see each other."""
    strip_width: int = 8
    """Columns of a strip."""
    within_strip: bool = False
    """A pixel also sees those before it in its own strip, through a linear map (not in the paper)."""
    layers: int = 1
    """Causal blocks."""
    width: int = 64
    """Channels."""
    heads: int = 4
    """Attention heads."""
    dropout: float = 0.0
    """Dropout of attention and of what each block adds, 0 to 1."""


@dataclass(frozen=True)
class LinearLayer:
    """One linear layer with MADE masks, for images of one size."""

    height: int
    """Height of all images."""
    width: int
    """Width of all images."""
    kind: Literal["linear"] = "linear"
    """One linear layer with MADE masks."""


@dataclass(frozen=True)
class EntropyBonus:
    """The entropy of the logits keeps samples apart (15)."""

    kind: Literal["entropy"] = "entropy"
    """The entropy of the logits is raised (15)."""
    weight: float = 0.1
    """Weight beta."""


@dataclass(frozen=True)
class SecondModel:
    """A masked autoregressive flow, trained beside the first, keeps samples apart."""

    kind: Literal["maf"] = "maf"
    """The divergence from a masked autoregressive flow is lowered, which is trained beside the first; needs
    estimator=mean-log."""


@dataclass(frozen=True)
class AutoregressiveFlow:
    """An inverse autoregressive flow (14): one step to sample."""

    kind: Literal["autoregressive"] = "autoregressive"
    """Inverse autoregressive (14)."""
    base_scale: Literal["learned", "one"] = "learned"
    """Standard deviations of the base: learnt (equation 11), or 1 (the authors' code)."""
    body: StripTransformer | LinearLayer = StripTransformer()
    """The autoregressive network."""
    draws: int = 16
    """Monte-Carlo samples S of the likelihood in training."""
    estimator: Literal["log-mean", "mean-log"] = "log-mean"
    """The Monte-Carlo likelihood of an annotation (13), or the mean of its logarithm as (14) and (15) are
    printed, under which samples become one."""
    against_collapse: EntropyBonus | SecondModel | None = None
    """The dual flow (15): what keeps samples from becoming one; none: nothing."""


@dataclass(frozen=True)
class FlowSSNSettings:
    """Flow-SSN: a learnt normal distribution of logits that a light flow turns into one with any
    covariance."""

    flow: ContinuousFlow | AutoregressiveFlow = ContinuousFlow()
    """The flow."""
    samples: int = 16
    """Number of masks drawn for an image."""
    likelihood_samples: int = 512
    """Monte-Carlo samples for the likelihood of a mask."""


_ADM = {"kind": "adm", "attention": True, "dropout": 0.1}
_LIDC = {**_ADM, "width": 32, "depth": 4, "max_width": 256}
_REFUGE = {**_ADM, "width": 32, "depth": 5, "factors": (1, 2, 2, 4, 6), "blocks": 2}
"""The authors' base networks."""
_LIDC_TRAINING = {
    "epochs": 1001,
    "batch_size": 32,
    "lr": 1e-4,
    "optimiser": {"weight_decay": 1e-4},
    "schedule": {"kind": "constant"},
    "warmup": 2000,
    "clip": 10.0,
    "ema": 0.9999,
    "augment": ("flip", "quarter-turns"),
    "validate_every": 16,
    "binary_channels": 2,
}
_REFUGE_TRAINING = {**_LIDC_TRAINING, "batch_size": 16, "warmup": 1000, "ema": 0.999}
_TRANSFORMER = {"kind": "transformer", "heads": 1, "dropout": 0.1}
_DIFFERS = (
    "layers of the code that no input reaches are left out (time and scale of the base, embedding of an"
    " image in both)"
)
_DISCRETE_DIFFERS = (
    f"{_DIFFERS}; positions of the transformer are sines and cosines, not learnt, and its last layer is"
    " linear"
)

_SMALL = {"kind": "autoregressive", "body": {"kind": "transformer", "width": 32}}

SPEC = MethodSpec(
    name="flow-ssn",
    summary="samples of a learnt normal distribution of logits through a light flow (De Sousa Ribeiro et al.)",
    citation="""@article{de_sousa_ribeiro_flow_ssn_2025,
  title  = {Flow Stochastic Segmentation Networks},
  author = {De Sousa Ribeiro, Fabio and Todd, Omar and Jones, Charles and Kori, Avinash and Mehta, Raghav
            and Glocker, Ben},
  year   = {2025}
}""",
    model="ambiseg.methods.flow_ssn.model:FlowSSN",
    settings=FlowSSNSettings,
    search={"flow.base_scale": "learned|one"},
    presets={
        PAPER: Preset(
            source=(
                "De Sousa Ribeiro et al. 2025, section 5 (equations 17 to 19): continuous, learnt "
                "base, Euler in 50 steps"
            ),
            differs=(
                "the base has standard deviation 1, as in the authors' code; network and optimiser "
                "are the library's"
            ),
        ),
        "lidc": Preset(
            source=(
                "De Sousa Ribeiro et al. 2025, table 1, continuous, with the networks of their public code:"
                " base of 14,290,660 and flow of 150,850 parameters"
            ),
            differs=f"{_DIFFERS}, so 13,591,170 and 150,514 remain",
            train=_LIDC_TRAINING,
            backbone=_LIDC,
            settings={
                "samples": 100,
                "flow": {"kind": "continuous", "network": {**_ADM, "width": 16, "depth": 3, "max_width": 16}},
            },
            data=LIDC,
        ),
        "lidc-discrete": Preset(
            source=(
                "De Sousa Ribeiro et al. 2025, table 1, discrete, with the base of their public code:"
                " 14,290,660 parameters"
            ),
            differs=_DISCRETE_DIFFERS,
            train={**_LIDC_TRAINING, "batch_size": 16},
            backbone=_LIDC,
            settings={
                "samples": 100,
                "flow": {"kind": "autoregressive", "base_scale": "one", "body": _TRANSFORMER},
            },
            data=LIDC,
        ),
        "refuge": Preset(
            source=(
                "De Sousa Ribeiro et al. 2025, table 2, continuous, with the networks of their public code:"
                " base of 14,626,180 and flow of 787,010 parameters"
            ),
            differs=f"{_DIFFERS}, so 13,695,522 and 785,826 remain",
            train=_REFUGE_TRAINING,
            backbone=_REFUGE,
            settings={
                "samples": 100,
                "flow": {"kind": "continuous", "network": {**_ADM, "width": 32, "depth": 4, "max_width": 32}},
            },
            data=REFUGE,
        ),
        "refuge-discrete": Preset(
            source=(
                "De Sousa Ribeiro et al. 2025, table 2, discrete, with the base of their public code:"
                " 14,626,180 parameters"
            ),
            differs=_DISCRETE_DIFFERS,
            train=_REFUGE_TRAINING,
            backbone=_REFUGE,
            settings={
                "samples": 512,
                "flow": {
                    "kind": "autoregressive",
                    "base_scale": "one",
                    "draws": 32,
                    "body": {**_TRANSFORMER, "strip_height": 8, "strip_width": 8, "layers": 2, "width": 128},
                },
            },
            data=REFUGE,
        ),
    },
    validation="loss",
    test=TestCase(
        {"samples": 24, "flow": {"kind": "continuous", "steps": 10}},
        deterministic=False,
        steps=400,
        rate=4e-3,
    ),
    variants={
        "autoregressive": TestCase(
            {"samples": 24, "flow": _SMALL}, deterministic=False, steps=400, rate=4e-3
        ),
        "dual": TestCase(
            {"samples": 24, "flow": {**_SMALL, "against_collapse": {"kind": "entropy", "weight": 0.01}}},
            deterministic=False,
            steps=400,
            rate=4e-3,
        ),
    },
)
