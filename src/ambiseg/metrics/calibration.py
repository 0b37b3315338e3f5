"""How well the weights of the predictions match the probabilities of the annotated modes.

The *modes* are the distinct annotations. Two assignments of predictions to modes, by IoU, are in use, and one
is ours:

- *matched*: one to one. The entries compared are each pair (estimated u_k, true v_j), each proposal without a
  mode (u_k, 0), and each mode without a proposal (0, v_j); max(M, N*) entries in all, so mass on a wrong mask
  and a missing mode both count as error (mode proposals, eq. 23).
- *nearest*: every prediction gives its weight to the mode most like it, so the entries are exactly the modes,
  each with the frequency at which it is produced (MoSE, C.2). For samples; forgives masks that are no mode.
- *merged* (ours): nearest, where modes that are near-duplicates of a more probable one count with it, as
  those among proposals do. Which of two modes that differ by a few pixels a prediction is nearest to says
  more of its errors than of its probability.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.ranking import first_largest

EPSILON = 1e-8
"""Keeps the skill score from dividing by 0; a uniform guess with less error than this is perfect."""
ASSIGNMENTS = ("matched", "nearest", "merged")
"""How predictions are assigned to modes."""
FLOOR = 1e-6
"""Least estimated probability in `mode_kl`."""


@dataclass(frozen=True)
class ModeProbabilities:
    """Estimated beside true probabilities, ``(B, E)`` each, E entries of which ``there`` says which exist.

    Attributes:
        estimated: weight of the proposal; 0 for a mode without one.
        true: weight of the mode; 0 for a proposal without one.
        is_mode: whether the entry has a mode, bool.
        there: whether the entry exists, bool.
    """

    estimated: Tensor
    true: Tensor
    is_mode: Tensor
    there: Tensor


@dataclass(frozen=True)
class BrierScores:
    """Mean squared error of the estimate and of the uniform guess, ``(B,)`` each.

    Example:
        >>> BrierScores(torch.tensor([0.1]), torch.tensor([0.2])).skill()
        tensor([0.5000])
    """

    score: Tensor
    uniform: Tensor

    def skill(self) -> Tensor:
        """``1 - BS / (BS_uniform + eps)``; nan where ``BS_uniform < eps``."""
        value = 1 - self.score / (self.uniform + EPSILON)
        return torch.where(self.uniform < EPSILON, torch.nan, value)


@dataclass(frozen=True)
class ModeReliability:
    """What a reliability diagram of mode probabilities shows.

    Attributes:
        estimated: estimated probability of every entry of every image, ``(E,)``.
        true: its true probability, ``(E,)``.
        bin_estimated: mean estimate of each bin ``(bins,)``, nan where it is empty.
        bin_true: mean truth of each bin ``(bins,)``, nan where it is empty.
        bin_count: entries of each bin ``(bins,)`` int64.
    """

    estimated: Tensor
    true: Tensor
    bin_estimated: Tensor
    bin_true: Tensor
    bin_count: Tensor


def mode_probabilities(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    assignment: str = "matched",
) -> ModeProbabilities:
    """Pair the weights of predictions with those of the distinct annotations, by IoU.

    "matched": one to one, of greatest total IoU (mode proposals). "nearest": ``u_j = sum_i u_i [j = argmax_l
    IoU(s_i, y_l)]``, the first mode of several nearest (MoSE, C.2). "merged": the same, then each
    mode counts with the more probable one that `MaskSet.duplicate_index` keeps for it.

    Returns:
        `ModeProbabilities`; "matched" with ``E = M + N*`` columns: the M proposals, then the modes that found
        none; "nearest" with the ``E = N*`` modes in the order of the annotations, "merged" as well, with those
        there that are kept.

    Raises:
        UnknownNameError: ``assignment`` is none of `ASSIGNMENTS`.
        AmbisegError: the sets do not belong together.

    Trap: "nearest" asks for no resemblance: a prediction of IoU 0 with every mode counts for the first.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 1]]]), LabelSpace.binary())
        >>> pairs = mode_probabilities(MaskSet.uniform(torch.tensor([[[0, 1]]]), LabelSpace.binary()), truth)
        >>> pairs.estimated[pairs.there], pairs.true[pairs.there]
        (tensor([1., 0.]), tensor([0.3333, 0.6667]))
    """
    if assignment not in ASSIGNMENTS:
        raise UnknownNameError("assignment", assignment, ASSIGNMENTS)
    pair = Comparison.of(predictions, annotations)
    if assignment == "matched":
        return _matched(pair)
    return _merged(pair) if assignment == "merged" else _nearest(pair)


def mode_ratio(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> ModeProbabilities:
    """Mode ratio: how often each mode is produced, beside its probability.

    ``u_j = sum_i u_i [j = argmax_l IoU(s_i, y_l)]`` beside v_j: each prediction counts for its nearest mode.
    The dialect of MoSE (C.2), after the probabilistic U-Net's figure of Cityscapes modes.

    Returns:
        `ModeProbabilities` of ``(B, N*)``, the modes in the order of the annotations; each row of
        ``estimated`` and of ``true`` sums to 1. Good is estimated = true.

    Raises:
        AmbisegError: the sets do not belong together.

    Trap: a prediction unlike every mode still counts for one, so print an IoU beside it. Modes of different
    images are different masks: averages over images need a data set that numbers its modes.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 1]]]), LabelSpace.binary())
        >>> ratio = mode_ratio(truth[:1].gather(torch.tensor([[0, 2]])).normalised(), truth)
        >>> ratio.estimated, ratio.true
        (tensor([[0.5000, 0.5000]]), tensor([[0.6667, 0.3333]]))
    """
    return mode_probabilities(predictions, annotations, assignment="nearest")


def total_variation(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    assignment: str = "nearest",
) -> Tensor:
    """Total variation between estimated and true mode probabilities.

    ``1/2 sum_e |u_e - v_e|`` over the entries of `mode_probabilities`: the share of probability that is on
    the wrong mode. Own definition, for the mode ratio of MoSE (C.2), which is printed as a figure only.

    Returns:
        ``(B,)`` in [0, 1], lower is better, 0 for equal probabilities.

    Raises:
        UnknownNameError: ``assignment`` is none of `ASSIGNMENTS`.
        AmbisegError: the sets do not belong together.

    Trap: of M draws even a perfect model does not reach 0 (two even modes, M = 16: .10 on average). With
    "nearest" it looks at the probabilities only and not at the masks: where there is one mode it is 0.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> total_variation(truth.top(1), truth)
        tensor([0.5000])
    """
    entries = mode_probabilities(predictions, annotations, assignment)
    return ((entries.estimated - entries.true).abs() * entries.there).sum(1) / 2


def mode_kl(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    assignment: str = "nearest",
    floor: float = FLOOR,
) -> Tensor:
    """Kullback-Leibler divergence of the estimated from the true mode probabilities, in nats.

    ``sum_e v_e log(v_e / max(u_e, floor))`` over the entries of `mode_probabilities`: true against estimated.
    Own definition, for the mode ratio of MoSE (C.2).

    Returns:
        ``(B,)`` from 0 (for equal probabilities) to ``log(1 / floor)``, lower is better.

    Raises:
        UnknownNameError: ``assignment`` is none of `ASSIGNMENTS`.
        AmbisegError: ``floor`` outside (0, 1), or the sets do not belong together.

    Trap: a mode that is never produced would make it infinite; the floor makes that ``v log(v / floor)``, so
    with few samples the value is mostly the floor's: compare at equal floor. The floor adds mass, so values
    may lie below 0 by up to N* floor.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> mode_kl(truth, truth), mode_kl(truth.top(1), truth, floor=0.125)
        (tensor([0.]), tensor([0.3466]))
    """
    if not 0 < floor < 1:
        raise AmbisegError(f"floor must lie between 0 and 1, both excluded, received {floor}")
    entries = mode_probabilities(predictions, annotations, assignment)
    estimated, true = entries.estimated.double().clamp(min=floor), entries.true.double()
    return (torch.xlogy(true, true / estimated) * entries.there).sum(1).float()


def brier_scores(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    assignment: str = "matched",
) -> BrierScores:
    """Brier score of the estimated mode probabilities, and of the uniform guess, for each image.

    ``BS = 1/E sum_e (u_e - v_e)^2`` over the E = max(M, N*) entries (pairs, proposals without a mode, modes
    without a proposal). *Uniform* here knows the modes but not their probabilities: 1/N* for each mode, 0 for
    every proposal without one; its error is taken over the same E entries (mode proposals, eq. 23). With
    ``assignment="nearest"`` the E = N* entries are those of `mode_ratio`; "merged" has fewer where modes are
    alike.

    Returns:
        `BrierScores`, ``(B,)`` each, in [0, 2], lower is better.

    Raises:
        UnknownNameError: ``assignment`` is none of `ASSIGNMENTS`.
        AmbisegError: the sets do not belong together.

    Trap: of two near-identical proposals only one finds the mode and the other's weight counts as error; drop
    near-duplicates first. Many unmatched proposals of weight near 0 lower both scores alike, through E.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> truth = MaskSet(masks, torch.tensor([[0.75, 0.25]]), LabelSpace.binary())
        >>> scores = brier_scores(MaskSet(masks, torch.tensor([[1.0, 1e-9]]), LabelSpace.binary()), truth)
        >>> scores.score, scores.uniform
        (tensor([0.0625]), tensor([0.0625]))
    """
    pair = Comparison.of(predictions, annotations)
    entries = mode_probabilities(pair, assignment=assignment)
    guess = entries.is_mode / entries.is_mode.sum(1, keepdim=True)
    count = entries.there.sum(1)

    def mean_square(estimate: Tensor) -> Tensor:
        return ((estimate - entries.true).square() * entries.there).sum(1) / count

    return BrierScores(mean_square(entries.estimated), mean_square(guess))


def brier_skill_score(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    assignment: str = "matched",
) -> Tensor:
    """Brier skill score of the estimated mode probabilities for each image (mode proposals, eq. 23).

    ``BSS = 1 - BS / (BS_uniform + eps)`` of `brier_scores`: 1 is perfect, 0 as good as the uniform guess over
    the annotated modes, below 0 worse.

    Returns:
        ``(B,)`` at most 1, higher is better; nan where the true modes are equally probable (all of them, or
        only one), for then the guess is perfect and no skill can be measured.

    Raises:
        UnknownNameError: ``assignment`` is none of `ASSIGNMENTS`.
        AmbisegError: the sets do not belong together.

    Trap: unbounded below, so one image of nearly equal modes can ruin a mean. The reported number divides the
    mean BS by the mean BS_uniform of all images (`PooledOverImages`).

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> truth = MaskSet(masks, torch.tensor([[0.75, 0.25]]), LabelSpace.binary())
        >>> even = MaskSet.uniform(masks, LabelSpace.binary())
        >>> brier_skill_score(truth, truth), brier_skill_score(truth, even)
        (tensor([1.]), tensor([nan]))
    """
    return brier_scores(predictions, annotations, assignment).skill()


def mode_reliability(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, bins: int = 10
) -> ModeReliability:
    """Estimated against true mode probabilities, as points and in equal bins of the estimate over [0, 1].

    Returns:
        `ModeReliability` over all entries of all images (pairs, proposals without a mode, modes without a
        proposal).

    Raises:
        AmbisegError: ``bins`` below 1, or the sets do not belong together.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> truth = MaskSet(masks, torch.tensor([[0.75, 0.25]]), LabelSpace.binary())
        >>> mode_reliability(truth, truth, bins=2).bin_true
        tensor([0.2500, 0.7500])
    """
    if bins < 1:
        raise AmbisegError(f"a reliability diagram needs at least one bin, received {bins}")
    entries = mode_probabilities(predictions, annotations)
    estimated, true = entries.estimated[entries.there], entries.true[entries.there]
    index = (estimated * bins).long().clamp(0, bins - 1)
    count = torch.bincount(index, minlength=bins)

    def bin_mean(value: Tensor) -> Tensor:
        return torch.zeros(bins, device=value.device).index_add(0, index, value) / count

    return ModeReliability(estimated, true, bin_mean(estimated), bin_mean(true), count)


def _matched(pair: Comparison) -> ModeProbabilities:
    """Proposals and modes paired one to one."""
    partner, modes = pair.partners, pair.modes
    matched = partner >= 0
    truth = modes.weights.float()
    extra = torch.zeros(len(truth), truth.shape[1] + 1, dtype=torch.bool, device=truth.device)
    found = extra.scatter(1, torch.where(matched, partner, truth.shape[1]), True)[:, :-1]
    alone = modes.present & ~found
    return ModeProbabilities(
        estimated=torch.cat([pair.predictions.weights.float(), torch.zeros_like(truth)], 1),
        true=torch.cat([truth.gather(1, partner.clamp(min=0)) * matched, truth * alone], 1),
        is_mode=torch.cat([matched, alone], 1),
        there=torch.cat([pair.predictions.present, alone], 1),
    )


def _nearest(pair: Comparison) -> ModeProbabilities:
    """Each mode with the weight of the predictions it is nearest to."""
    modes = pair.modes
    iou = pair.to_modes.iou().masked_fill(~modes.present[:, None], -1)
    nearest = first_largest(iou, 2)
    truth = modes.weights.float()
    return ModeProbabilities(
        estimated=torch.zeros_like(truth).scatter_add(1, nearest, pair.predictions.weights.float()),
        true=truth,
        is_mode=modes.present,
        there=modes.present,
    )


def _merged(pair: Comparison) -> ModeProbabilities:
    """Each mode that is kept, with what is nearest to it or to one that counts with it."""
    entries, kept = _nearest(pair), replace(pair.modes, scores=None).duplicate_index()
    itself = entries.there & (kept == torch.arange(kept.shape[1], device=kept.device))
    estimated, true = (torch.zeros_like(v).scatter_add(1, kept, v) for v in (entries.estimated, entries.true))
    return ModeProbabilities(estimated, true, itself, itself)
