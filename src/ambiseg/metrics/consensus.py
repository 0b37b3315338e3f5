"""What the two sets say as one: the mean prediction and single predictions against the majority of the
annotations.

Each function takes predictions ``s_1..s_M`` of weights u and annotations ``y_1..y_N`` of weights v (or one
`Comparison` of both) and gives one value per image, ``(B,)`` float32. IoU and Dice are means over the
evaluated classes present in either mask, 1 where both are empty; void pixels of either mask are left out.
Entries of weight 0 are padding. All raise `AmbisegError` where the two sets do not belong together (see
`Comparison`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.votes import weighted_votes
from ambiseg.overlap import pairwise_overlap
from ambiseg.ranking import ROUNDING, exceeds

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Where `soft_dice` cuts the two means."""


def dice_of_mean(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Dice of the decided mean of the predictions against the majority of the annotations.

    ``Dice(decide(sum_i u_i p_i), majority_v(y))``, a tie going to the background. The mean is that of the
    probabilities where the predictions keep them, else of the label maps. The dialect of Flow-SSN's "Dice".

    Returns:
        ``(B,)`` in [0, 1], higher is better; 1 where both are empty.

    Trap: says nothing about ambiguity. Of several classes tied without the background the lowest wins. A
    pixel is left out where all annotations (or all label maps of the predictions) are void there; otherwise
    the others vote.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0], [0, 1, 0]]]), LabelSpace.binary())
        >>> dice_of_mean(MaskSet.uniform(torch.tensor([[[1, 1, 0]]]), LabelSpace.binary()), truth)
        tensor([0.6667])
    """
    pair = Comparison.of(predictions, annotations)
    ours, theirs = consensus(pair.predictions), consensus(pair.annotations.hard())
    overlap = pairwise_overlap(ours[:, None], theirs[:, None], pair.annotations.labels)
    return overlap.dice(pair.dialect.consensus)[:, 0, 0]


def expected_dice(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Expected Dice of one drawn prediction against one drawn annotation.

    ``sum_ij u_i v_j Dice(s_i, y_j)``: what a user gets who takes a single mask at random, judged by a random
    annotator.

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Trap: its best value is reached by one mask in the middle, not by the true distribution; the annotators
    among themselves reach less than 1 (`annotator_agreement`).

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> expected_dice(truth, truth)
        tensor([0.8333])
    """
    pair = Comparison.of(predictions, annotations)
    u, v = pair.predictions.weights.double(), pair.annotations.weights.double()
    return torch.einsum("bi,bij,bj->b", u, pair.cross.dice(pair.dialect.consensus).double(), v).float()


def soft_dice(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> Tensor:
    """Dice of the mean prediction against the mean annotation, both cut at several thresholds, averaged.

    ``mean over t and evaluated classes c of Dice([p_c > t], [q_c > t])`` with ``p = sum_i u_i p_i``, ``q =
    sum_j v_j y_j``. The dialect of the QUBIQ challenge and of the soft Dice of D-Persona and CM-Net users.

    Returns:
        ``(B,)`` in [0, 1], higher is better. Where a class is cut away from both at a threshold, that pair counts 1.

    Raises:
        AmbisegError: a threshold outside [0, 1), or none.

    Trap: depends on the thresholds: with four annotators q takes five values only. A pixel is left out where
    all annotations (or all label maps of the predictions) are void; otherwise a void one counts as not of the
    class there.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0], [0, 1, 0]]]), LabelSpace.binary())
        >>> soft_dice(truth, truth), soft_dice(truth[0].top(1), truth, (0.25, 0.75))
        (tensor([1.]), tensor([0.8333]))
    """
    pair = Comparison.of(predictions, annotations)
    if not thresholds or not all(0 <= t < 1 for t in thresholds):
        raise AmbisegError(f"thresholds must lie in [0, 1), at least one, received {thresholds}")
    ours, theirs = (_shares(s) for s in (pair.predictions, pair.annotations.hard()))
    seen = (pair.predictions.labelled & pair.annotations.labelled).flatten(1)[:, None]
    values = []
    for threshold in thresholds:
        a, b = exceeds(ours, threshold) & seen, exceeds(theirs, threshold) & seen
        size = a.sum(-1) + b.sum(-1)
        values.append(torch.where(size > 0, 2 * (a & b).sum(-1) / size.clamp(min=1), 1.0).mean(1))
    return torch.stack(values).mean(0)


def _shares(given: MaskSet) -> Tensor:
    """Mean probability of each evaluated class ``(B, C, P)``: of the label maps, where a void pixel is of no
    class."""
    labels = given.labels
    if given.probabilities is not None:
        return labels.all_classes(given.mean().float(), dim=1).flatten(2)[:, list(labels.evaluated)]
    weights, masks = given.weights[:, :, None], given.masks.flatten(2)
    return torch.stack([(weights * (masks == c)).sum(1) for c in labels.evaluated], 1)


def consensus(given: MaskSet) -> Tensor:
    """One label map ``(B, *S)`` uint8 of each set: the class of most weight; void where every mask is void.

    A tie goes to the background, or to the lowest class if the background is not among the tied.
    Probabilities, where a set keeps them, are averaged in place of votes.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> consensus(MaskSet.uniform(torch.tensor([[[2, 2, 255], [0, 1, 255]]]), LabelSpace.of_classes(3)))
        tensor([[  0,   1, 255]], dtype=torch.uint8)
    """
    labels, space = given.labels, given.masks.dim() - 2
    flat = given.masks.flatten(2)
    votes = torch.stack([weighted_votes(given.weights, flat == c) for c in range(labels.classes)], 1)
    votes = votes.view(*votes.shape[:2], *given.masks.shape[2:])
    void = votes.sum(1) <= 0
    if given.probabilities is not None:
        votes = labels.all_classes(given.mean().float(), dim=1)
    ahead = torch.arange(labels.classes, 0, -1, device=votes.device, dtype=votes.dtype)
    if labels.background is not None:
        ahead[labels.background] = labels.classes + 1
    votes = votes + ROUNDING * ahead.view(-1, *[1] * space)
    decided = (votes[:, 1] > votes[:, 0] if labels.is_binary else votes.argmax(1)).to(torch.uint8)
    return decided.masked_fill(void, labels.void)
