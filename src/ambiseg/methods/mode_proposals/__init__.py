"""Mode proposals: spec and settings; the equations are in `model`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from ambiseg.data.layouts import CITYSCAPES, LIDC, MMFIRE, Layout
from ambiseg.methods.flow_matching import EDM, FlowMatchingSettings
from ambiseg.methods.spec import RECOMMENDED, MethodSpec, Preset, TestCase

EDM_NOISE = math.log(1e3) / 4
"""Time input of an EDM flow at pure noise: the greatest value of `ambiseg.flows.paths.c_noise`."""


@dataclass(frozen=True)
class ClosestAssignment:
    """Single labels: only the proposal closest to the mask learns from it (the paper)."""

    kind: Literal["closest"] = "closest"
    """Only the closest proposal learns."""


@dataclass(frozen=True)
class RelaxedAssignment:
    """Single labels: all other proposals learn a little from the mask as well (Rupprecht et al. 2017)."""

    kind: Literal["relaxed"] = "relaxed"
    """All other proposals learn a little."""
    share_of_others: float = 0.05
    """Share epsilon of the mask loss that all other proposals get together, evenly."""


@dataclass(frozen=True)
class AnnealedAssignment:
    """Single labels: proposals learn by their closeness to the mask, at a falling temperature (Perera et al.
    2024)."""

    kind: Literal["annealed"] = "annealed"
    """Every proposal learns with the weight ``softmax(-loss / T)``."""
    temperature: float = 0.1
    """T at the start of training, in units of the mask loss; it falls to 0 at half of the training."""


@dataclass(frozen=True)
class CompetitionSettings:
    """Single labels: near-duplicate proposals compete for the mask by their probabilities, so that one of
    them keeps the mode (not in the paper).

    The mask goes to the proposal whose loss less ``temperature`` times the log of its probability is least.
    """

    start: float = 0.15
    """Fraction of training after which near-duplicates compete, 0 to 1."""
    temperature: float = 0.01
    """How much the probability counts against the mask loss, in units of that loss; 0.01 suits dice-focal,
    0.001 mse."""
    probability_target: Literal["winner", "posterior"] = "winner"
    """What the probability head learns from a mask: the proposal that won it, or the posterior probability of
    every proposal (EM), which is fairer to modes that are nearly alike."""


@dataclass(frozen=True)
class SelectionSettings:
    """The selection scores, and the network that predicts scores and probabilities."""

    weight: float = 0.01
    """Weight lambda of the selection loss (equations 8 and 12). 0 trains no scores."""
    reaches_network: bool = False
    """The selection loss also trains the network and the masks, through what the head sees of them (the
    paper); so does the loss of the probability head. Otherwise the head learns beside them and changes no
    mask."""
    expected_modes: float | None = None
    """Single labels: modes N expected of an image. The prior of a proposal to be positive is pi = N / M (A.4);
    half of the M proposals if left out."""
    gradient: Literal["clamp", "kiryo"] = "clamp"
    """Single labels: where the estimated negative risk falls below 0, stop there (equation 11), or step back
    as Kiryo et al. do."""
    head_width: int = 32
    """Channels of the first layer of the head; they double at each layer up to 4 times this."""
    image_cue: bool = True
    """Show the head the image as well (not in the paper)."""
    duplicate_cue: bool = False
    """Show the head the IoU of every two proposals (not in the paper), so that it keeps one of duplicates."""


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
    """Weight of the energy score in the loss."""
    start: float = 0.0
    """Fraction of training after which the energy score is added to the loss."""
    kernel: Literal["iou", "dice", "jensen-shannon", "scales"] = "iou"
    """Distance between soft masks: one minus the IoU or Dice, the root of the Jensen-Shannon divergence of
    pixels, or one minus the IoU at several scales."""
    trains: Literal["both", "masks", "probabilities"] = "both"
    """What the energy score trains: masks, probabilities or both."""
    uniform_share: float = 1.0
    """How masks are weighted while they learn, 0 to 1: this share is spread evenly over the proposals, the
    rest by their probabilities. 1: as if all were equally probable; 0: a mask of probability 0 learns
    nothing."""
    reserved_proposals: int = 0
    """Number of proposals that are reserved for the energy score: only their masks learn from it, and only
    the others learn from the mask loss. 0: all masks learn from both."""
    mask_loss_weight: float = 1.0
    """Weight of the mask loss from ``start`` on."""


@dataclass(frozen=True)
class ModeProposalsSettings:
    """Mode proposals: M masks with selection scores and probabilities from one forward pass."""

    proposals: int = 16
    """Number of proposals M; twice the number of modes you expect."""
    mask_loss: Literal["dice-focal", "dice", "mse", "signed-mse"] = "dice-focal"
    """Loss of one proposal against one mask (table 6 of the paper). signed-mse compares the outputs themselves,
    without a sigmoid, with masks of -1 and 1, as diffusion models do."""
    matching_score_weight: float = 0.0
    """Full labels: weight of the score in the matching, as in DETR, so that equally good proposals do not
    change places. 0 matches by the mask loss alone (the paper)."""
    head_init_jitter: float = 0.1
    """Heads start as copies of one convolution, scaled by factors drawn from 1 +- this (A.2)."""
    head_init_scales: Literal["per-head", "per-weight"] = "per-head"
    """One factor for each head, or one for each of its weights (the paper)."""
    flow_input: bool = False
    """The network is that of a flow model and sees one fixed noise and one fixed time (A.2); ``--init`` of a
    flow-matching run sets it."""
    flow_time: float | None = None
    """Time input of this network: t from 0 (noise) to 1, or log(sigma)/4 of the noise level for an EDM
    flow. If left out, that of pure noise."""
    flow_path: Literal["linear", "cosine", "variance-preserving"] | None = None
    """Path of the flow if its network gives velocities: the fixed noise is then added to every proposal, as the
    velocity is the mask less the noise (20); ``--init`` sets it."""
    assignment: ClosestAssignment | RelaxedAssignment | AnnealedAssignment = ClosestAssignment()
    """Single labels: which proposals learn from the one mask of an image."""
    competition: CompetitionSettings | None = None
    """Single labels: competition of near-duplicate proposals for the mask; none: the closest proposal wins
    (the paper)."""
    inverse_propensity_power: float = 0.0
    """Single labels: power of the inverse of the winner's estimated probability by which its mask loss is
    weighted, so that rare modes count for more. 0: every sample counts the same (the paper); 1: every mode
    does, as with full labels. Above 0 the selection loss counts every mode alike."""
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
    edm = flow.parameterisation == "edm"
    noise = min(EDM_NOISE, math.log(flow.most_noise) / 4) if edm else 0.0
    time = noise if settings.flow_time is None else settings.flow_time
    return replace(settings, flow_input=True, flow_time=time, flow_path=None if edm else flow.path)


def _paper(**selection: float) -> dict[str, Any]:
    """Settings of the paper that all data sets share, with more of the selection scores."""
    return {
        "head_init_scales": "per-weight",
        "selection": {"image_cue": False, "reaches_network": True, **selection},
        "probability": None,
    }


def _table_6(
    data: Layout,
    width: int,
    epochs: int,
    lr: float,
    modes: int,
    full: tuple[str, float],
    single: tuple[str, float],
) -> Preset:
    """The experiments of a data set; mask loss and lambda with full and with single labels."""
    return Preset(
        source="Gerard and Sullivan, tables 1 and 6, on the network that their public code has for diffusion",
        differs=(
            "give --init of a flow-matching run with the preset of this name and the same labels, and"
            " train.freeze=encoder: without them the network is trained from scratch; the range of the random"
            " scales of the heads, batch size and optimiser are not printed; the whole loss chooses the best"
            " weights, not the mask loss alone"
        ),
        train={
            "epochs": epochs,
            "lr": lr,
            "select": "loss",
            "validate_every": 1,
            "validation_images": 0,
        },
        backbone={**EDM, "width": width},
        settings={
            **_paper(weight=full[1], expected_modes=float(modes)),
            "proposals": 2 * modes,
            "mask_loss": full[0],
        },
        single={"mask_loss": single[0], "selection": {"weight": single[1]}},
        data=data,
    )


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
    search={
        "selection.weight": "log:0.001..0.1",
        "probability.weight": "log:0.01..1",
        "matching_score_weight": "0..0.3",
    },
    presets={
        RECOMMENDED: Preset(
            source="docs/methods/mode-proposals.md: higher HM IoU* and selection F1 on wildfires, no gain on lung nodules",
            settings={"matching_score_weight": 0.1, "selection": {"duplicate_cue": True}},
            single={"competition": {"start": 0.15}, "inverse_propensity_power": 0.7},
        ),
        "paper": Preset(
            source="Gerard and Sullivan, sections 3.1 and 4",
            differs="network and training are the library's; the range of the random scales of the heads is not printed",
            settings=_paper(),
        ),
        "paper-with-probabilities": Preset(
            source="Gerard and Sullivan, sections 3.1 and 4, and a head for probabilities",
            differs=(
                "the probability head is not in the paper; scores and probabilities are learnt beside the masks and"
                " change none; heads start with one random scale each, not one for each weight; network and"
                " training are the library's"
            ),
            settings={"selection": {"image_cue": False}},
        ),
        "mmfire": _table_6(MMFIRE, 64, 100, 1e-3, 8, ("dice-focal", 0.01), ("signed-mse", 0.01)),
        "cityscapes": _table_6(CITYSCAPES, 128, 400, 1e-4, 16, ("signed-mse", 0.1), ("signed-mse", 0.1)),
        "lidc": _table_6(LIDC, 64, 100, 1e-3, 4, ("dice-focal", 0.1), ("dice-focal", 0.001)),
        "energy": Preset(
            source="docs/methods/energy-score.md, recipe 'quarter': lower GED, lower selection F1",
            settings={
                "matching_score_weight": 0.1,
                "selection": {"image_cue": False, "duplicate_cue": True},
                "probability": {"weight": 0.0},
                "energy": {"reserved_proposals": 4},
            },
        ),
    },
    test=TestCase(
        # Single labels: where the closest proposal alone learns, one of them may win every mask from the
        # start.
        {"proposals": 8, "selection": {"head_width": 8}, "assignment": {"kind": "annealed"}}
    ),
)
