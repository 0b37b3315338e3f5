"""What the annotations alone say: how far the annotators agree, and what draws from them reach.

No number of a table means much without these two. Where annotators disagree, no model can agree with them
all (`annotator_agreement`); and a model that draws from the very distribution of the annotations still does
not reach GED 0 or HM IoU* 1 with finitely many samples (`annotation_oracle`, `reachable_table`).

Notation: annotations ``y_1..y_N`` of weights v, ``d = 1 - IoU``. Entries of weight 0 are padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.registry import metric_info
from ambiseg.overlap import pairwise_overlap

REPEATS = 20
"""How often the annotation oracle is drawn unless asked otherwise."""


@dataclass(frozen=True)
class AnnotatorAgreement:
    """How far the annotators of each image agree, ``(B,)`` float32 each; see `annotator_agreement`.

    Attributes:
        pairwise_iou: mean IoU of two different annotators, in [0, 1].
        pairwise_dice: mean Dice of two different annotators, in [0, 1].
        spread: ``d(Y, Y)``, the expected distance of two draws with the diagonal, in [0, 1].
        unanimous: share of the pixels valid for all on which all agree, in [0, 1].
        fleiss_kappa: agreement beyond chance, at most 1.
        ged_leave_one_out: GED² of one annotator against the others, in [0, 2].
    """

    pairwise_iou: Tensor
    pairwise_dice: Tensor
    spread: Tensor
    unanimous: Tensor
    fleiss_kappa: Tensor
    ged_leave_one_out: Tensor


@dataclass(frozen=True)
class Reachable:
    """A metric of the annotation oracle over repeated draws, per image; see `annotation_oracle`.

    Attributes:
        mean: mean over the repeats, ``(B,)``.
        std: standard deviation of one repeat (over n - 1), ``(B,)``; nan for a single repeat.
    """

    mean: Tensor
    std: Tensor


def annotator_agreement(annotations: MaskSet) -> AnnotatorAgreement:
    """How far the annotators of each image agree with one another, in six numbers.

    - ``pairwise_iou``, ``pairwise_dice``: ``sum_{i != j} v_i v_j IoU(y_i, y_j) / sum_{i != j} v_i v_j``, and
      with Dice; duplicates are kept, so two who agree count 1. 1 for a single annotator.
    - ``spread``: ``d(Y, Y) = sum_ij v_i v_j d(y_i, y_j)`` with the diagonal, the term that the squared energy
      distance of the probabilistic U-Net (`ged`) subtracts; its floor for n samples is ``spread / n``.
    - ``unanimous``: pixels on which all agree over pixels that are void for none.
    - ``fleiss_kappa``: ``(P - P_e) / (1 - P_e)`` of Fleiss (1971) with equal raters, those pixels as items
      and all classes as categories: ``P`` the mean share of agreeing pairs of raters, ``P_e = sum_c p_c^2``.
    - ``ged_leave_one_out``: mean over i, weighted v_i, of the squared energy distance (V-statistic) of y_i
      alone to the others, whose weights are renormalised:
      ``2 sum_j w_j d(y_i, y_j) - sum_jk w_j w_k d(y_j, y_k)``, ``w_j = v_j / sum_{l != i} v_l``.

    Returns:
        `AnnotatorAgreement`, ``(B,)`` each; higher means more agreement but for ``spread`` and
        ``ged_leave_one_out``, where lower does. nan: ``fleiss_kappa`` of one annotator, of a single class
        throughout, or without a valid pixel; ``unanimous`` without a valid pixel; ``ged_leave_one_out`` of
        one annotator.

    Raises:
        AmbisegError: an image has no annotation, or `MaskSet.validate` refuses them.

    Trap: pass annotators, not modes. Of merged masks (`MaskSet.merge_identical`) no two agree, so the
    pairwise numbers fall and kappa, which leaves weights aside, changes; ``spread`` alone stays. Pixels of a
    large background make ``unanimous`` and kappa high. ``ged_leave_one_out`` judges one single mask, which no
    one mask does well: it is no floor for a set of samples, that is `annotation_oracle`.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0], [0, 1, 0], [0, 1, 0]]]), LabelSpace.binary())
        >>> agreement = annotator_agreement(truth)
        >>> agreement.pairwise_iou, agreement.spread, agreement.unanimous
        (tensor([0.6667]), tensor([0.2222]), tensor([0.6667]))
        >>> agreement.fleiss_kappa, agreement.ged_leave_one_out
        (tensor([0.5500]), tensor([0.5000]))
    """
    _need_masks(annotations)
    annotations.validate("annotations")
    overlap = pairwise_overlap(annotations.masks, annotations.masks, annotations.labels)
    iou, dice = overlap.iou().double(), overlap.dice().double()
    v = annotations.weights.double()
    apart = 1 - torch.eye(v.shape[1], device=v.device, dtype=v.dtype)
    both = v[:, :, None] * v[:, None, :]
    pairs = (both * apart).sum((1, 2))

    def pairwise(value: Tensor) -> Tensor:
        total = (both * apart * value).sum((1, 2))
        return torch.where(pairs > 0, total / pairs.clamp(min=1e-300), 1.0).float()

    others = v[:, None, :] * apart
    share = others / others.sum(2, keepdim=True).clamp(min=1e-300)
    to_others = (share * (1 - iou)).sum(2)
    among_others = ((share @ (1 - iou)) * share).sum(2)
    alone = (v * (2 * to_others - among_others)).sum(1) / v.sum(1)
    unanimous, kappa = _agreement_by_pixel(annotations)
    return AnnotatorAgreement(
        pairwise_iou=pairwise(iou),
        pairwise_dice=pairwise(dice),
        spread=(both * (1 - iou)).sum((1, 2)).float(),
        unanimous=unanimous,
        fleiss_kappa=kappa,
        ged_leave_one_out=torch.where(pairs > 0, alone, torch.nan).float(),
    )


def annotation_oracle(
    annotations: MaskSet,
    metric: str | Callable[..., Tensor],
    samples: int,
    repeats: int = REPEATS,
    generator: torch.Generator | None = None,
) -> Reachable:
    """What a metric gives a sampler that draws from the annotations themselves.

    ``samples`` masks are drawn with replacement from the annotations by their weights and compared, as a
    uniform set, with the annotations; mean and standard deviation over ``repeats`` such draws. For `ged` with
    n samples the expectation is ``d(Y, Y) / n`` exactly, since ``E d(S, Y) = d(Y, Y)`` and, n of the n² pairs
    being of one sample with itself, ``E d(S, S) = (1 - 1/n) d(Y, Y)``; for `ged_unbiased` with n > 1 it is
    ``-d(Y, Y) sum_j v_j^2 / (1 - sum_j v_j^2)``, for that statistic takes the annotations for draws too.

    Args:
        annotations: ``(B, N, *S)``, taken as the whole truth.
        metric: key of `METRICS`, or a function ``(predictions, annotations) -> (B,)``.
        samples: masks drawn per image.
        repeats: how often.
        generator: source of randomness.

    Returns:
        `Reachable`, ``(B,)`` each. A floor where lower is better, a ceiling where higher is.

    Raises:
        AmbisegError: ``samples`` or ``repeats`` below 1, an image without annotation, or a metric that needs
            what draws do not have (selection scores, per-pixel probabilities).
        UnknownNameError: there is no such metric.

    Trap: the oracle is a sampler, not a bound. A set of masks with estimated weights can do better: the
    annotations themselves as predictions have GED 0. A drawn mask that comes twice stays twice, at weight 1/n
    each, so metrics of mode probabilities judge the model by its duplicates. The mean is of the drawn
    repeats, with standard error ``std / sqrt(repeats)``; one repeat of nan or inf makes it nan or inf.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0], [0, 0, 1]]]), LabelSpace.binary())
        >>> annotation_oracle(truth, "ged", samples=1).mean, annotator_agreement(truth).spread
        (tensor([0.5000]), tensor([0.5000]))
    """
    if isinstance(metric, str):
        return reachable_table(annotations, [metric], samples, repeats, generator)[metric]
    values = [
        metric(drawn, annotations) for drawn in oracle_samples(annotations, samples, repeats, generator)
    ]
    return _summary(values)


def reachable_table(
    annotations: MaskSet,
    names: Iterable[str],
    samples: int,
    repeats: int = REPEATS,
    generator: torch.Generator | None = None,
) -> dict[str, Reachable]:
    """`annotation_oracle` for several metrics on the same draws; overlaps and matching are computed once.

    Args:
        annotations: ``(B, N, *S)``, taken as the whole truth.
        names: keys of `METRICS`.
        samples: masks drawn per image.
        repeats: how often.
        generator: source of randomness.

    Returns:
        `Reachable` by name, in the order of ``names``.

    Raises:
        AmbisegError: ``samples`` or ``repeats`` below 1, an image without annotation, or a metric that needs
            what draws do not have (selection scores, per-pixel probabilities).
        UnknownNameError: there is no such metric.

    Trap: draw as many samples as the model whose row it stands beside: floor and ceiling move with n.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0]]]), LabelSpace.binary())
        >>> reachable_table(truth, ["hm_iou_unique", "ged"], samples=2, repeats=3)["hm_iou_unique"]
        Reachable(mean=tensor([1.]), std=tensor([0.]))
    """
    chosen = {name: metric_info(name) for name in names}
    for name, info in chosen.items():
        lacking = [need for need in info.needs if need != "weights"]
        if lacking:
            raise AmbisegError(
                f"draws from the annotations carry no {' and no '.join(lacking)}: leave {name} out"
            )
    values: dict[str, list[Tensor]] = {name: [] for name in chosen}
    for drawn in oracle_samples(annotations, samples, repeats, generator):
        pair = Comparison(drawn, annotations)
        for name, info in chosen.items():
            values[name].append(info.function(pair))
    return {name: _summary(found) for name, found in values.items()}


def oracle_samples(
    annotations: MaskSet, samples: int, repeats: int = REPEATS, generator: torch.Generator | None = None
) -> Iterator[MaskSet]:
    """What the annotation oracle predicts: ``repeats`` uniform sets of ``samples`` masks, drawn with
    replacement by weight.

    Raises:
        AmbisegError: ``samples`` or ``repeats`` below 1, or an image without annotation.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0]]]), LabelSpace.binary())
        >>> [drawn.masks.shape[1] for drawn in oracle_samples(truth, samples=3, repeats=2)]
        [3, 3]
    """
    for what, count in (("samples", samples), ("repeats", repeats)):
        if count < 1:
            raise AmbisegError(f"the annotation oracle needs {what} >= 1, received {count}")
    _need_masks(annotations)
    # A generator draws on its own device only.
    weights = annotations.weights if generator is None else annotations.weights.to(generator.device)
    for _ in range(repeats):
        index = torch.multinomial(weights, samples, replacement=True, generator=generator)
        drawn = annotations.hard().gather(index.to(annotations.masks.device))
        yield MaskSet.uniform(drawn.masks, annotations.labels)


def _summary(values: list[Tensor]) -> Reachable:
    found = torch.stack(values).double()
    std = found.std(0) if len(values) > 1 else torch.full_like(found[0], torch.nan)
    return Reachable(found.mean(0).float(), std.float())


def _agreement_by_pixel(annotations: MaskSet) -> tuple[Tensor, Tensor]:
    """Share of unanimous pixels and Fleiss' kappa, ``(B,)`` each, over the pixels void for none."""
    labels, masks = annotations.labels, annotations.masks.flatten(2)
    there = annotations.present[:, :, None]
    raters = annotations.count
    items = (labels.valid(masks) | ~there).all(1)
    pixels = items.sum(1)
    # Votes of all raters for class c, pixel by pixel; whole numbers throughout, so equalities are exact.
    most = torch.zeros_like(items, dtype=torch.int64)
    squares, totals = torch.zeros_like(pixels), []
    for c in range(labels.classes):
        votes = ((masks == c) & there).sum(1) * items
        most = torch.maximum(most, votes)
        squares = squares + votes.square().sum(1)
        totals.append(votes.sum(1))
    unanimous = ((most == raters[:, None]) & items).sum(1) / pixels
    total = torch.stack(totals, 1)
    ratings = pixels * raters
    agreeing = (squares - ratings) / (ratings * (raters - 1)).double()
    chance = (total / ratings[:, None].double()).square().sum(1)
    undefined = (raters < 2) | (total.amax(1) == ratings)
    kappa = torch.where(undefined, torch.nan, (agreeing - chance) / (1 - chance))
    return unanimous.float(), kappa.float()


def _need_masks(annotations: MaskSet) -> None:
    empty = torch.nonzero(annotations.count == 0).flatten()
    if len(empty):
        raise AmbisegError(f"annotations: image {int(empty[0])} has no mask of weight above 0, and needs one")
