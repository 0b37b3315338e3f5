"""Mode proposals: spec and settings; the equations are in `model`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from ambiseg.methods.flow_matching import FlowMatchingSettings
from ambiseg.methods.spec import RECOMMENDED, MethodSpec, Preset, TestCase

EDM_NOISE = math.log(1e3) / 4
"""What an EDM flow is told where all is noise: `ambiseg.flows.paths.c_noise` at its greatest."""


@dataclass(frozen=True)
class ClosestLearns:
    """Single labels: the proposal closest to a mask learns from it, alone (the paper)."""

    kind: Literal["closest"] = "closest"
    """The closest proposal learns, alone."""


@dataclass(frozen=True)
class AllLearn:
    """Single labels: all other proposals learn a little, too (Rupprecht et al. 2017)."""

    kind: Literal["relaxed"] = "relaxed"
    """All others learn a little."""
    share: float = 0.05
    """Share of the others together."""


@dataclass(frozen=True)
class NearLearn:
    """Single labels: near rivals learn, too, at a falling temperature (Perera et al. 2024)."""

    kind: Literal["annealed"] = "annealed"
    """Near rivals learn, too, by ``softmax(-loss / T)``."""
    temperature: float = 0.1
    """T at the start, in units of the mask loss; it falls to 0 over half of the training."""


@dataclass(frozen=True)
class AssignmentSettings:
    """Single labels: which proposals learn from the one mask of an image."""

    sharing: ClosestLearns | AllLearn | NearLearn = ClosestLearns()
    """Which proposals share a mask."""
    start: float = 1.0
    """Fraction of training after which duplicate proposals compete for the same mask: it goes to the proposal
    whose loss less `temperature` times the log of its probability is least. 1: never."""
    temperature: float = 0.01
    """Temperature of that competition, in units of the mask loss; 0.01 suits dice-focal, 0.001 mse."""
    target: Literal["winner", "posterior"] = "winner"
    """What the probability head learns of a mask in that competition: which proposal won, or the posterior of
    every proposal (EM), which is fairer to modes that are nearly alike."""
    inverse_propensity_power: float = 0.0
    """Power of the inverse of the winner's estimated probability by which its mask loss is weighted, so that
    rare modes count for more. 0: every sample counts the same (the paper); 1: every mode does, as with full
    labels. Above 0 the selection loss counts every mode alike."""


@dataclass(frozen=True)
class SelectionSettings:
    """The selection scores, and the network that predicts scores and probabilities."""

    weight: float = 0.01
    """Weight lambda of the selection loss (equations 8 and 12). 0 trains no scores."""
    positive_prior: float = 0.5
    """Single labels: prior pi that a proposal is positive, modes / proposals."""
    gradient: Literal["clamp", "kiryo"] = "clamp"
    """Single labels: where the estimated negative risk falls below 0, stop there (equation 11), or step back
    as Kiryo et al. do."""
    head_width: int = 32
    """Channels of the first layer of the head; they double at each layer up to 4 times this."""
    image_cue: bool = True
    """Show the head the image as well (not in the paper)."""
    duplicate_cue: bool = False
    """Show the head how alike every two proposals are (not in the paper), so that it keeps one of
    duplicates."""


@dataclass(frozen=True)
class ProbabilitySettings:
    """The probability head (not in the paper)."""

    weight: float = 0.1
    """Weight of its cross-entropy."""


@dataclass(frozen=True)
class EnergySettings:
    """The energy score of all proposals with their probabilities (not in the paper): a proper score, the
    squared GED but for a constant."""

    weight: float = 1.0
    """Its weight."""
    start: float = 0.0
    """Fraction of training after which it counts."""
    kernel: Literal["iou", "dice", "jensen-shannon", "scales"] = "iou"
    """Distance of masks, soft: one minus the IoU or Dice, the root of the Jensen-Shannon divergence of
    pixels, or one minus the IoU at several scales."""
    trains: Literal["both", "masks", "probabilities"] = "both"
    """What it trains."""
    floor: float = 1.0
    """Share of the weight that is spread evenly over the proposals that it trains, 0 to 1, so that one of no
    probability learns too. 1: masks learn as if all were equally probable; 0: by their own probabilities."""
    proposals: int = 0
    """Number of proposals that it trains alone, and the only ones whose masks it trains; the others learn by
    the mask loss. 0: it trains all masks, along with the mask loss."""
    mask_loss_weight: float = 1.0
    """Weight of the mask loss once the energy score counts."""


@dataclass(frozen=True)
class ModeProposalsSettings:
    """Mode proposals: M masks with selection scores and probabilities from one forward pass."""

    proposals: int = 16
    """Number of proposals M; twice the number of modes you expect."""
    mask_loss: Literal["dice-focal", "dice", "mse"] = "dice-focal"
    """Loss of one proposal against one mask (table 6 of the paper)."""
    matching_score_weight: float = 0.0
    """Full labels: weight of the score in the matching, as in DETR, so that equally good proposals do not
    change places. 0 matches by the mask loss alone (the paper)."""
    head_init_jitter: float = 0.1
    """Heads start as copies of one convolution, each scaled by a factor drawn from 1 +- this (A.2)."""
    flow_input: bool = False
    """The network is that of a flow model and sees one fixed noise and one fixed time (A.2); ``--init`` of a
    flow-matching run sets it."""
    flow_time: float | None = None
    """Time that this network is told: t from 0 (noise) to 1, or log(sigma)/4 of the noise level for an EDM
    flow. If left out, that of pure noise."""
    assignment: AssignmentSettings = AssignmentSettings()
    """Single labels: which proposals learn from a mask."""
    selection: SelectionSettings = SelectionSettings()
    """Selection scores."""
    probability: ProbabilitySettings | None = ProbabilitySettings()
    """Probability head; none: all proposals are equally probable."""
    energy: EnergySettings | None = None
    """Energy score; none: only the losses of the paper and of the probability head."""


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
    masks="proposals",
    starts_from={"flow-matching": proposals_from_flow},
    presets={
        RECOMMENDED: Preset(
            source="docs/methods/mode-proposals.md: what won on wildfires, class flips and lung nodules",
            settings={"matching_score_weight": 0.1, "selection": {"duplicate_cue": True}},
            single={"assignment": {"start": 0.15, "inverse_propensity_power": 0.7}},
        ),
        "paper": Preset(
            source="Gerard and Sullivan, sections 3.1 and 4",
            differs="network and training are the library's; a probability head is added, which leaves masks as they are",
            settings={"selection": {"image_cue": False}},
        ),
        "energy": Preset(
            source="docs/energy-score.md, recipe 'quarter': lower GED, better probabilities, lower selection F1",
            settings={
                "matching_score_weight": 0.1,
                "selection": {"image_cue": False, "duplicate_cue": True},
                "probability": {"weight": 0.0},
                "energy": {"proposals": 4},
            },
        ),
    },
    test=TestCase(
        # Single labels: where the closest proposal alone learns, one of them may win every mask from the
        # start.
        {"proposals": 8, "selection": {"head_width": 8}, "assignment": {"sharing": {"kind": "annealed"}}}
    ),
)
