"""Mode proposals: spec and settings; the equations are in `model`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from ambiseg.methods.flow_matching import FlowMatchingSettings
from ambiseg.methods.spec import MethodSpec, TestCase

EDM_NOISE = math.log(1e3) / 4
"""What an EDM flow is told where all is noise: `ambiseg.flows.paths.c_noise` at its greatest."""


@dataclass(frozen=True)
class ModeProposalsSettings:
    """Mode proposals: M masks with selection scores and probabilities from one forward pass."""

    proposals: int = 16
    """Number of proposals M; twice the number of modes you expect."""
    mask_loss: Literal["dice-focal", "dice", "mse"] = "dice-focal"
    """Loss of one proposal against one mask (table 6 of the paper)."""
    score_cost: float = 0.0
    """Full labels: weight of the score in the matching, as DETR has it; equally good copies do not change
    places then. 0 matches by mask loss alone (the paper)."""
    selection_weight: float = 0.01
    """Weight lambda of the selection loss (equations 8 and 12); 0 trains no scores."""
    positive_prior: float = 0.5
    """Prior pi that a proposal is positive (single labels): modes / proposals."""
    pu_gradient: Literal["clamp", "kiryo"] = "clamp"
    """Where the estimated negative risk falls below 0: stop there (equation 11), or step back as Kiryo et al.
    do."""
    probability_head: bool = True
    """Predict the probability of every proposal (not in the paper); without it all are equally probable."""
    probability_weight: float = 0.1
    """Weight of the probability head's cross-entropy."""
    head_width: int = 32
    """Channels of the first layer of the selection and probability head; they double at each layer up to 4
    times this."""
    image_cue: bool = True
    """Also show the selection and probability head the image (not in the paper): what tells how probable an
    outcome is, as a wind that prevails, need not be in features that were trained to draw masks."""
    duplicate_cue: bool = False
    """Also show the selection and probability head how alike every two proposals are (not in the paper), so
    that where outcomes coincide it keeps one of them."""
    head_spread: float = 0.1
    """Heads start as copies of one convolution, each scaled by a factor drawn from 1 +- this."""
    flow_input: bool = False
    """The network is that of a flow model and also sees one fixed noise and one fixed time (A.2); ``--init``
    of a flow-matching run sets it."""
    flow_time: float | None = None
    """What that network is told of the time: t from 0 (noise) to 1, or, if it is of an EDM flow, log(sigma)/4
    of the noise level. If left out, that all is noise."""
    settle: float = 1.0
    """Single labels: share of the training after which near-duplicates are settled, by `settle_prior` or by
    `settle_margin`. 1: never."""
    settle_prior: float = 0.0
    """Above 0 the proposal learns whose loss less this times the log of its probability is least, so that of
    copies the one that wins more often wins more and more; 0.01 suits dice-focal. 0: settle by the margin."""
    probability_target: Literal["winner", "posterior"] = "winner"
    """What the probability head learns of a mask that `settle_prior` has given away: that the winner won, or
    by how much, the posterior of every proposal (EM), which is fairer to modes that are nearly alike."""
    settle_margin: float = 0.2
    """Proposals whose loss is up to this share above the closest one's count as about as close: of them the
    most probable one learns a mask that is covered, the least probable one a mask that is not."""
    balance: float = 0.0
    """Single labels: weigh the mask loss by the winner's estimated probability to the power of minus this, so
    that rare modes count for more. 0: every visit counts the same (the paper); 1: every mode does, as with
    full labels. Above 0 the selection loss counts every mode alike. Needs the probability head, as `settle`
    does."""
    sharing: Literal["winner", "annealed", "relaxed"] = "winner"
    """Single labels: who learns from a mask. The closest proposal (the paper), also its near rivals at a
    falling temperature, or also all others with a small fixed share."""
    temperature: float = 0.1
    """Starting temperature of `annealed` sharing, in units of the mask loss; it falls to 0 over half the
    training."""
    relaxation: float = 0.05
    """Share of the losers together under `relaxed` sharing."""
    energy_weight: float = 0.0
    """Weight of the energy score of all proposals with their probabilities (not in the paper): a proper
    score, whose mean is the squared GED but for a constant. 0: none."""
    energy_start: float = 0.0
    """Share of the training after which the energy score counts."""
    energy_kernel: Literal["iou", "dice", "jensen-shannon", "scales"] = "iou"
    """Distance of masks in the energy score, soft: one minus the IoU or Dice, the root of the Jensen-Shannon
    divergence of pixels, or one minus the IoU at several scales."""
    energy_gradient: Literal["both", "masks", "probabilities"] = "both"
    """What the energy score trains."""
    energy_floor: float = 1.0
    """Share of the weight that is spread evenly over the proposals that the energy score trains, so that one
    of no probability learns too. 1: masks learn as if all were equally probable; 0: by their own
    probabilities."""
    energy_proposals: int = 0
    """Proposals that the energy score alone trains, and the only ones whose masks it trains; those of the
    others are left to the mask loss, their probabilities to both. 0: the energy score trains all masks, along
    with the mask loss."""
    winner_weight: float = 1.0
    """Weight of the mask loss once the energy score counts."""


def proposals_from_flow(settings: ModeProposalsSettings, flow: FlowMatchingSettings) -> ModeProposalsSettings:
    """Settings of proposals that start from the network of a flow model (Gerard and Sullivan, A.2).

    Example:
        >>> proposals_from_flow(ModeProposalsSettings(), FlowMatchingSettings()).flow_time
        0.0
    """
    noise = EDM_NOISE if flow.parameterisation == "edm" else 0.0
    time = noise if settings.flow_time is None else settings.flow_time
    return replace(settings, flow_input=True, flow_time=time)


SPEC = MethodSpec(
    name="mode-proposals",
    summary="all modes with scores and probabilities from one deterministic pass (Gerard and Sullivan)",
    citation="""@article{gerard_mode_proposals,
  title  = {Deterministic Mode Proposals: An Efficient Alternative to Generative Sampling
            for Ambiguous Segmentation},
  author = {Gerard, Sebastian and Sullivan, Josephine}
}""",
    model="ambiseg.methods.mode_proposals.model:ModeProposals",
    settings=ModeProposalsSettings,
    starts_from={"flow-matching": proposals_from_flow},
    test=TestCase(
        # Single labels: where the closest proposal alone learns, one of them may win every mask from the
        # start.
        {"proposals": 8, "head_width": 8, "sharing": "annealed"}
    ),
)
