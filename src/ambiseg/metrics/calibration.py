"""How well the weights of the predictions match the probabilities of the annotated modes: Brier skill score.

Proposals and distinct annotations (modes) are paired one to one by IoU. The entries compared are then: each
pair (estimated u_k, true v_j), each proposal without a mode (u_k, 0), and each mode without a proposal (0,
v_j); max(M, N*) entries in all, so mass on a wrong mask and a missing mode both count as error (mode
proposals, eq. 23).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison

EPSILON = 1e-8
"""Keeps the skill score from dividing by 0; a uniform guess with less error than this is perfect."""


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
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None
) -> ModeProbabilities:
    """Pair the weights of proposals with those of the distinct annotations, one to one by IoU.

    Returns:
        `ModeProbabilities` with ``E = M + N*`` columns: the M proposals, then the modes that found none.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 1]]]), LabelSpace.binary())
        >>> pairs = mode_probabilities(MaskSet.uniform(torch.tensor([[[0, 1]]]), LabelSpace.binary()), truth)
        >>> pairs.estimated[pairs.there], pairs.true[pairs.there]
        (tensor([1., 0.]), tensor([0.3333, 0.6667]))
    """
    pair = Comparison.of(predictions, annotations)
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


def brier_scores(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> BrierScores:
    """Brier score of the estimated mode probabilities, and of the uniform guess, for each image.

    ``BS = 1/E sum_e (u_e - v_e)^2`` over the E = max(M, N*) entries (pairs, proposals without a mode, modes
    without a proposal). *Uniform* here knows the modes but not their probabilities: 1/N* for each mode, 0 for
    every proposal without one; its error is taken over the same E entries (mode proposals, eq. 23).

    Returns:
        `BrierScores`, ``(B,)`` each, in [0, 2], lower is better.

    Raises:
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
    entries = mode_probabilities(pair)
    guess = entries.is_mode / pair.modes.count[:, None]
    count = entries.there.sum(1)

    def mean_square(estimate: Tensor) -> Tensor:
        return ((estimate - entries.true).square() * entries.there).sum(1) / count

    return BrierScores(mean_square(entries.estimated), mean_square(guess))


def brier_skill_score(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Brier skill score of the estimated mode probabilities for each image (mode proposals, eq. 23).

    ``BSS = 1 - BS / (BS_uniform + eps)`` of `brier_scores`: 1 is perfect, 0 as good as the uniform guess over
    the annotated modes, below 0 worse.

    Returns:
        ``(B,)`` at most 1, higher is better; nan where the true modes are equally probable (all of them, or
        only one), for then the guess is perfect and no skill can be measured.

    Raises:
        AmbisegError: the sets do not belong together.

    Trap: unbounded below, so one image of nearly equal modes can ruin a mean. The reported number divides the
    mean BS by the mean BS_uniform of all images (`BrierSkillScore` among the accumulators).

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> truth = MaskSet(masks, torch.tensor([[0.75, 0.25]]), LabelSpace.binary())
        >>> even = MaskSet.uniform(masks, LabelSpace.binary())
        >>> brier_skill_score(truth, truth), brier_skill_score(truth, even)
        (tensor([1.]), tensor([nan]))
    """
    return brier_scores(predictions, annotations).skill()


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
