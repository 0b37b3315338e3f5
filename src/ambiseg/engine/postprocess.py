"""Post-processing: near-duplicates and low scores are dropped, and kept masks get their probabilities.

Gerard and Sullivan, "Deterministic Mode Proposals", section 3.2. Proposals are filtered first (table 5). Then
the kept masks keep the method's own probabilities (``head``), or take those that explain what a flow model
says about the image:

- ``velocity``: its velocity at t = 0, averaged over draws, as a weighted sum of masks (equation 22);
- ``mean``: the same from one evaluation; at t = 0 the velocity carries the mean mask and nothing else;
- ``posterior``: its posterior means at t > 0, whose weights depend on the noise (equation 19; not in the
  paper);
- ``samples``: samples drawn from it, each counted for its nearest mask.

Where masks are areas that are present or absent independently (class flips, appendix B.2), these are a first
estimate p^ only: ``flips`` areas T_c are found in the masks, and
``p_j = prod_c q_c^b_jc (1 - q_c)^(1 - b_jc)`` with ``q_c = sum_j p^_j b_jc``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.defaults import DUPLICATE_IOU, LEAST_PROBABILITY, SCORE_THRESHOLD
from ambiseg.engine.fitted_filter import FilterValues, FittedFilter
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.run_folder import RunConfig
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.methods.flow_matching.model import FlowMatching
from ambiseg.mode_probabilities.class_flips import PATTERNS, structured_decomposition
from ambiseg.mode_probabilities.posterior_decomposition import posterior_decomposition
from ambiseg.mode_probabilities.representative_masks import represent, select_and_represent
from ambiseg.mode_probabilities.velocity_decomposition import (
    assignment_counts,
    velocity_decomposition,
    with_probabilities,
)
from ambiseg.ranking import exceeds

Image = NDArray[np.generic]
Kind = Literal["head", "velocity", "mean", "posterior", "samples"]
Auto = Literal["auto"]
DRAWS = 64
"""Draws of noise, or samples, for each image (table 11)."""


class LoadedModel(Protocol):
    """What post-processing needs of a run (`ambiseg.engine.run.Run`)."""

    config: RunConfig
    model: Segmenter
    hardware: Hardware
    folder: Path | None

    @property
    def fitted(self) -> FittedFilter | None: ...


@dataclass(frozen=True)
class EstimateSettings:
    """Where the probabilities of kept masks come from.

    Attributes:
        kind: ``head`` for the method's own; ``velocity``, ``mean``, ``posterior`` or ``samples`` need a flow
            model.
        draws: draws of noise, or samples; ``mean`` needs one.
        flips: areas that are present or absent independently of each other; 0 for no such structure.
        robust: let ``velocity``, ``mean`` and ``posterior`` explain medians over areas
            (`ambiseg.mode_probabilities.areas`).

    Raises:
        UnknownNameError: no such kind.
        AmbisegError: fewer than one draw, a number of flips that cannot be, or counted samples that should be
            robust.
    """

    kind: Kind = "head"
    draws: int = DRAWS
    flips: int = 0
    robust: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UnknownNameError("kind of probabilities", self.kind, get_args(Kind))
        if self.draws < 1:
            raise AmbisegError(f"probabilities need at least one draw, received {self.draws}")
        if self.robust and self.kind == "samples":
            raise AmbisegError("samples are counted, there is nothing to make robust: leave it out")
        if not 0 <= self.flips <= PATTERNS:
            raise AmbisegError(
                f"flips is 0 to {PATTERNS}, received {self.flips}: count the areas of the masks that are present or absent"
                " independently, 0 for none"
            )

    def record(self, flow: LoadedModel | None = None) -> dict[str, Any]:
        """How probabilities are made, as plain values."""
        entries: dict[str, Any] = {"kind": self.kind, "flips": self.flips}
        if self.kind == "head":
            return entries
        folder = None if flow is None or flow.folder is None else str(flow.folder)
        draws = 1 if self.kind == "mean" else self.draws
        return {**entries, "flow": folder, "draws": draws, "robust": self.robust}


@dataclass(frozen=True)
class PredictSettings:
    """What is asked of a model and what is kept of its prediction.

    "auto" stands for the value that was fitted on the run's validation images (`ambiseg.engine.filter_choice`); for
    the default named below where none was.

    Attributes:
        score_threshold: proposals with a lower selection score are dropped, and their probability goes to the masks
            that represent them best; None keeps all. Default: .5.
        duplicate_iou: of proposals more alike than this, the best stays and takes their probability; 1 for
            identical ones, None keeps all. Default: 1 where scores reject copies
            (`Segmenter.full_labels_reject_copies`) and low ones are dropped, else .95.
        samples: masks asked of the model; None for the method's own number.
        top: at most this many masks, those that represent all of them best, each with its share of the
            probability; None for all. Default: None.
        estimate: where the probabilities of kept masks come from.
        foreground_threshold: pixels with a higher probability are foreground (binary labels). Default: .5.
        probability_threshold: masks to which the method gives a lower probability are dropped, as by
            ``score_threshold``. Default: None. Where one of the two thresholds is given, "auto" for the other one
            and for ``top`` is None.
        temperature: the method's own probabilities of kept masks become w^(1/T), normalised. Default: 1. A fitted
            one counts with the fitted filter only.
        annotator: draw masks in the style of this annotator, with a method that is conditioned on them; all if None.
    """

    score_threshold: float | Auto | None = "auto"
    duplicate_iou: float | Auto | None = "auto"
    samples: int | None = None
    top: int | Auto | None = "auto"
    estimate: EstimateSettings = field(default_factory=EstimateSettings)
    foreground_threshold: float | Auto = "auto"
    probability_threshold: float | Auto | None = "auto"
    temperature: float | Auto = "auto"
    annotator: str | None = None

    def values(self, fitted: FittedFilter | None = None, rejects_copies: bool = False) -> FilterValues:
        """The filter that these settings come to.

        Args:
            fitted: that of the run.
            rejects_copies: whether low scores of the run mark copies.

        Example:
            >>> PredictSettings(probability_threshold=0.05).values()  # doctest: +NORMALIZE_WHITESPACE
            FilterValues(score_threshold=None, probability_threshold=0.05, duplicate_iou=0.95,
                foreground_threshold=0.5, temperature=1.0, top=None)
        """
        known = FilterValues() if fitted is None else fitted.values
        if fitted is not None and self.samples not in (None, fitted.predicted):
            # these depend on how many masks the model is asked for
            known = replace(known, probability_threshold=None, top=None)
        drops = (self.score_threshold, self.probability_threshold)
        if drops != ("auto", "auto"):
            known = replace(known, score_threshold=None, probability_threshold=None, top=None)
        score = _given(self.score_threshold, known.score_threshold)
        if fitted is None:
            known = replace(known, duplicate_iou=1.0 if rejects_copies and score else DUPLICATE_IOU)
        as_fitted = {*drops, self.duplicate_iou} == {"auto"} and self.estimate.kind == "head"
        return FilterValues(
            score,
            _given(self.probability_threshold, known.probability_threshold),
            _given(self.duplicate_iou, known.duplicate_iou),
            _given(self.foreground_threshold, known.foreground_threshold),
            _given(self.temperature, known.temperature if as_fitted else 1.0),
            _given(self.top, known.top),
        )

    def for_run(self, run: LoadedModel) -> PredictSettings:
        """The same with what "auto" means for a run.

        Raises:
            AmbisegError: an annotator whose style the run does not have.
        """
        if self.annotator is not None:
            run.model.of_annotator(self.annotator)
        if "auto" not in asdict(self).values():
            return self
        rejects = run.model.full_labels_reject_copies and run.config.train.labels == "full"
        return replace(self, **asdict(self.values(run.fitted, rejects)))

    def record(self) -> dict[str, Any]:
        """The settings as plain values, for ``prediction.json`` and ``metrics.json``; an annotator only where one is
        chosen. `EstimateSettings` record themselves."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "estimate"}
        if self.annotator is None:
            del values["annotator"]
        return values


def _given(value: Any, automatic: Any) -> Any:
    return automatic if value == "auto" else value


@dataclass(frozen=True)
class Postprocessed:
    """Kept masks and what is known of them.

    Attributes:
        masks: the masks with their probabilities, on the CPU.
        determined: of each image, whether the flow model left one choice of probabilities; where it left
            several, the most even ones are given. With flips this is said of the first estimate.
    """

    masks: MaskSet
    determined: tuple[bool, ...]


def postprocess(
    proposals: MaskSet,
    settings: PredictSettings,
    images: Sequence[Image] = (),
    flow: LoadedModel | None = None,
    generator: torch.Generator | None = None,
) -> Postprocessed:
    """Drop near-duplicates, then low scores and low probabilities; estimate probabilities; keep the masks that represent
    all best; sort by probability.

    A near-duplicate adds its probability to the mask that it is a copy of. What a threshold drops, or ``top``, is
    represented by the masks that stay (`ambiseg.mode_probabilities.representative_masks`).

    Args:
        proposals: all that a model predicts.
        settings: filters and probabilities; "auto" (see `PredictSettings.for_run`) is the default, and .95 for
            near-duplicates. The foreground threshold has been applied before (`Run.propose`).
        images: of one size, ``(C, H, W)`` each, not normalised; only a flow model needs them.
        flow: a loaded run of flow-matching, for the kinds of probabilities that need one.
        generator: source of noise of the flow model.

    Raises:
        AmbisegError: no flow model where one is needed, or one of another method.
    """
    values = settings.values()
    masks = filtered(proposals, values, settings.estimate.kind)
    found = estimate_probabilities(masks, settings.estimate, images, flow, generator)
    return replace(found, masks=ranked(found.masks, values.top))


def filtered(proposals: MaskSet, values: FilterValues, kind: Kind = "head") -> MaskSet:
    """What stays of proposals before probabilities are estimated, see `postprocess`."""
    masks = proposals
    if values.duplicate_iou is not None:
        masks = masks.drop_near_duplicates(values.duplicate_iou)
    if values.score_threshold is not None:
        masks = drop_low_scores(masks, values.score_threshold)
    if values.probability_threshold is not None:
        masks = select_and_represent(masks, exceeds(masks.weights, values.probability_threshold))
    if values.temperature != 1 and kind == "head":
        masks = tempered(masks, values.temperature)
    return masks


def ranked(masks: MaskSet, top: int | None) -> MaskSet:
    """The masks by descending probability, or the ``top`` that represent all of them best."""
    return masks.sort() if top is None else represent(masks, top)


def tempered(masks: MaskSet, temperature: float) -> MaskSet:
    """The same masks with probabilities ``w^(1/T)``, normalised: more even for T > 1.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> pair = MaskSet(torch.tensor([[[0, 1], [1, 1]]]), torch.tensor([[0.8, 0.2]]), LabelSpace.binary())
        >>> tempered(pair, 2.0).weights
        tensor([[0.6667, 0.3333]])
    """
    powers = (masks.weights.double().log() / temperature).softmax(1).to(masks.weights.dtype)
    return replace(masks, weights=powers.clamp(min=LEAST_PROBABILITY) * masks.present).normalised()


def drop_low_scores(proposals: MaskSet, threshold: float = SCORE_THRESHOLD) -> MaskSet:
    """Keep proposals with ``score > threshold`` (mode proposals, section 3.1); the best one where that is none. What is
    dropped is represented by those that stay. Without scores, all stay."""
    if proposals.scores is None:
        return proposals
    return select_and_represent(proposals, exceeds(proposals.scores, threshold))


def estimate_probabilities(
    masks: MaskSet,
    settings: EstimateSettings,
    images: Sequence[Image] = (),
    flow: LoadedModel | None = None,
    generator: torch.Generator | None = None,
) -> Postprocessed:
    """The same masks with probabilities of the asked kind; arguments as of `postprocess`.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]]])
        >>> first = MaskSet(masks, torch.tensor([[0.5, 0.3, 0.1, 0.1]]), LabelSpace.binary())
        >>> found = estimate_probabilities(first, EstimateSettings(flips=2))  # flip probabilities 0.6 and 0.4
        >>> found.masks.weights
        tensor([[0.3600, 0.1600, 0.2400, 0.2400]])
    """
    if settings.kind == "head":
        found = Postprocessed(masks, (True,) * len(masks))
    else:
        found = _estimate_by_flow(masks, settings, images, flow, generator)
    if not settings.flips:
        return found
    product = structured_decomposition(masks, found.masks.weights, count=settings.flips)
    return replace(found, masks=with_probabilities(masks, product))


@torch.no_grad()
def _estimate_by_flow(
    masks: MaskSet,
    settings: EstimateSettings,
    images: Sequence[Image],
    flow: LoadedModel | None,
    generator: torch.Generator | None,
) -> Postprocessed:
    network, flow = _velocity_of(settings, flow)
    hardware = flow.hardware
    batch = hardware.images(flow.config.normalization.stack(images))
    with hardware.autocast():
        if settings.kind == "samples":
            samples = network.predict(batch, settings.draws, generator).hard().to("cpu")
            counted = with_probabilities(masks, assignment_counts(samples, masks))
            return Postprocessed(counted, (True,) * len(masks))
        estimate: Any = posterior_decomposition if settings.kind == "posterior" else velocity_decomposition
        draws = 1 if settings.kind == "mean" else settings.draws
        found = estimate(network, batch, masks, draws=draws, generator=generator, robust=settings.robust)
    return Postprocessed(with_probabilities(masks, found.probabilities), tuple(found.unique.tolist()))


def _velocity_of(settings: EstimateSettings, flow: LoadedModel | None) -> tuple[FlowMatching, LoadedModel]:
    """The network of the flow run, and the run, or an error."""
    if flow is None:
        raise AmbisegError(
            f"probabilities of the kind {settings.kind!r} need a flow model: give a run of flow-matching"
        )
    if not isinstance(flow.model, FlowMatching):
        raise AmbisegError(
            f"a run of {flow.config.method} has no velocity: give a run of 'ambiseg train flow-matching'"
        )
    return flow.model, flow


def check_estimate(settings: EstimateSettings, run: LoadedModel, flow: LoadedModel | None = None) -> None:
    """Raise `AmbisegError` where the masks of a run cannot have such probabilities.

    That is: flips of more than two classes, no flow model where one is needed, one of another method, or one
    trained with other channels or classes than the run.
    """
    ours = run.config
    if settings.flips and not ours.labels.is_binary:
        raise AmbisegError(
            f"flips are areas of masks with two classes, this run has {ours.labels.classes}: leave flips at 0"
        )
    if settings.kind == "head":
        return
    theirs = _velocity_of(settings, flow)[1].config
    named = bool(ours.channels and theirs.channels)
    for what, one, other in (
        ("channels", ours.in_channels, theirs.in_channels),
        ("channels", list(ours.channels) if named else [], list(theirs.channels) if named else []),
        ("classes", list(ours.labels.names), list(theirs.labels.names)),
    ):
        if one != other:
            raise AmbisegError(
                f"the flow run was trained on data of other {what} ({other}) than this run ({one}): train one on the"
                " same data"
            )


def flow_remark(run: LoadedModel, flow: LoadedModel | None) -> str:
    """One sentence where the two runs were trained on other images, else nothing: no mistake, each normalises
    in its own way."""
    if flow is None:
        return ""
    ours, theirs = run.config, flow.config
    if (ours.data_digest, ours.normalization) == (theirs.data_digest, theirs.normalization):
        return ""
    return (
        f"the flow run was trained on other images ({theirs.data or 'unknown data'}, digest {theirs.data_digest[:12]})"
        f" than this run ({ours.data or 'unknown data'}, digest {ours.data_digest[:12]}): its probabilities hold for"
        " images like its own"
    )
