"""Flow-SSN: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ambiseg.methods.spec import MethodSpec, TestCase


@dataclass(frozen=True)
class FlowSSNSettings:
    """Flow-SSN: a learnt normal distribution of logits that a light flow turns into one with any
    covariance."""

    kind: Literal["continuous", "iaf", "dual"] = "continuous"
    """The flow: continuous in time (equation 19), an inverse autoregressive one (14), or that one with an
    entropy or a second model against collapse (15)."""
    prior: Literal["learned", "fixed"] = "learned"
    """The base of the flow: a network of the image, or N(0, I) under a flow that sees the image (continuous
    only)."""
    base_scale: Literal["auto", "learned", "one"] = "auto"
    """Standard deviations of the base: learnt, or 1; auto learns them for iaf and dual."""
    pushforward: Literal["identity", "log-softmax"] = "identity"
    """Continuous: what the base goes through first; log-softmax makes it log-logistic-normal."""
    flow_width: int = 16
    """Continuous: channels of the flow's own U-Net."""
    flow_depth: int = 3
    """Continuous: its number of resolutions."""
    drift: Literal["initial", "conditional"] = "initial"
    """Continuous: what the predicted mask is led away from: the draw that the flow began with (17), or (not
    in the paper) the mean of all draws that lead to the present state, which keeps the distribution at every
    time."""
    sampler: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] = "euler"
    """Continuous: solver of the differential equation (17)."""
    steps: int = 50
    """Continuous: its steps; dopri5 chooses its own."""
    tolerance: float = 1e-6
    """Continuous: relative and absolute tolerance of dopri5."""
    body: Literal["transformer", "linear"] = "transformer"
    """iaf, dual: causal transformer over strips of pixels, or one linear layer with MADE masks for images of
    one size."""
    strip_height: int = 1
    """Transformer: rows of a strip, whose pixels do not see each other."""
    strip_width: int = 8
    """Transformer: columns of a strip."""
    within_strip: bool = False
    """Transformer: a pixel also sees those before it in its own strip, through a linear map (not in the
    paper)."""
    layers: int = 1
    """Transformer: causal blocks."""
    body_width: int = 64
    """Transformer: channels."""
    heads: int = 4
    """Transformer: attention heads."""
    image_height: int | None = None
    """Linear: height of all images."""
    image_width: int | None = None
    """Linear: width of all images."""
    draws: int = 16
    """iaf, dual: Monte-Carlo samples S of the likelihood in training."""
    estimator: Literal["log-mean", "mean-log"] = "log-mean"
    """iaf, dual: the Monte-Carlo likelihood of an annotation (13), or the mean of its logarithm as (14) and
    (15) are printed, under which samples become one."""
    second: Literal["uniform", "maf"] = "uniform"
    """dual: the second model, improper uniform (15) or a masked autoregressive flow that is trained beside
    the first."""
    entropy_weight: float = 0.1
    """dual, uniform: weight beta of the entropy of the logits (15)."""
    samples: int = 16
    """Number of masks drawn for an image."""
    likelihood_samples: int = 512
    """Monte-Carlo samples for the likelihood of a mask."""


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
    validation="loss",
    test=TestCase({"samples": 24, "steps": 10}, deterministic=False, steps=400, rate=4e-3),
    variants={
        "iaf": TestCase(
            {"kind": "iaf", "samples": 24, "body_width": 32}, deterministic=False, steps=400, rate=4e-3
        ),
        "dual": TestCase(
            {"kind": "dual", "entropy_weight": 0.01, "samples": 24, "body_width": 32},
            deterministic=False,
            steps=400,
            rate=4e-3,
        ),
    },
)
