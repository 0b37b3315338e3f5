"""How often modes and class flips are produced, beside how probable they are, over all images of a data set
(MoSE, C.2).

Some data have the same ambiguity in every image: annotation j stands for mode j everywhere, or class c turns
into its twin, or is switched on, with a probability of its own. Then estimates may be compared event by event
over the data set, mask by mask (`numbered_mode_ratios`, `flip_ratios`) or pixel by pixel (`class_flips`).
Notation as in `ambiseg.metrics.calibration`: predictions s_i of weights u_i, annotations y_j of weights v_j.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.calibration import mode_ratio
from ambiseg.metrics.comparison import Comparison


@dataclass(frozen=True)
class Ratios:
    """Estimated beside true probability of events that mean the same in every image, ``(B, E)`` float64 each.

    Attributes:
        estimated: weight of the predictions that show the event.
        true: weight of the annotations that show it; both are nan where it does not apply to the image.

    Example:
        >>> one = Ratios(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.75, 0.25]]))
        >>> two = Ratios(torch.tensor([[1.0, torch.nan]]), torch.tensor([[0.75, torch.nan]]))
        >>> both = Ratios.joined([one, two])
        >>> both.means()
        (tensor([0.7500, 0.5000]), tensor([0.7500, 0.2500]))
        >>> both.error()
        tensor([0.2500, 0.2500])
    """

    estimated: Tensor
    true: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Ratios]) -> Ratios:
        """The images of several batches together."""
        return cls(torch.cat([part.estimated for part in parts]), torch.cat([part.true for part in parts]))

    def means(self) -> tuple[Tensor, Tensor]:
        """Estimated and true probability of every event, the mean over its images, ``(E,)`` each; nan for one
        of no image."""
        return self.estimated.nanmean(0), self.true.nanmean(0)

    def error(self) -> Tensor:
        """Absolute error of every event, the mean over its images, ``(E,)``, lower is better."""
        return (self.estimated - self.true).abs().nanmean(0)


@dataclass(frozen=True)
class TwinPixels:
    """Weighted pixels of pairs (class, twin), ``(B, P)`` float64 each: sums, so images and batches add up.

    Attributes:
        estimated_twin: pixels that the predictions label twin.
        estimated_either: pixels that the predictions label class or twin.
        true_twin: pixels that the annotations label twin.
        true_either: pixels that the annotations label class or twin.

    Example:
        >>> four = TwinPixels(*(torch.tensor([[n]]) for n in (1.0, 4.0, 1.0, 2.0)))
        >>> (four + four).ratio()
        (tensor([[0.2500]]), tensor([[0.5000]]))
    """

    estimated_twin: Tensor
    estimated_either: Tensor
    true_twin: Tensor
    true_either: Tensor

    def __add__(self, other: TwinPixels) -> TwinPixels:
        """Image by image and pair by pair.

        Raises:
            AmbisegError: the two differ in images or pairs.
        """
        shapes = tuple(self.true_twin.shape), tuple(other.true_twin.shape)
        if shapes[0] != shapes[1]:
            raise AmbisegError(
                f"class flips of shape {shapes[0]} and {shapes[1]} (images, pairs) cannot be added:"
                " count the same pairs and pool each first"
            )
        sums = zip(self._columns(), other._columns(), strict=True)
        return TwinPixels(*(ours + theirs for ours, theirs in sums))

    def pooled(self) -> TwinPixels:
        """The sums over all images, ``(1, P)``."""
        return TwinPixels(*(value.sum(0, keepdim=True) for value in self._columns()))

    def ratio(self) -> tuple[Tensor, Tensor]:
        """Estimated and true flip ratio ``twin / (class or twin)``.

        Returns:
            ``(B, P)`` each, in [0, 1]; nan where there is neither class nor twin.
        """
        return (
            (self.estimated_twin / self.estimated_either).float(),
            (self.true_twin / self.true_either).float(),
        )

    def _columns(self) -> tuple[Tensor, ...]:
        return self.estimated_twin, self.estimated_either, self.true_twin, self.true_either


def numbered_mode_ratios(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Ratios:
    """Mode ratio where the modes have numbers: annotation j is mode j in every image.

    ``u_j = sum_i u_i [j = argmax_l IoU(s_i, y_l)]`` beside v_j, as `mode_ratio`. Modes that give the same
    mask in an image, such as flips of a class that it does not show, cannot be told apart there: they share
    by their own probabilities.

    Args:
        predictions: ``(B, M, *S)``.
        annotations: ``(B, N, *S)``, the modes in the same order for all images, duplicates not merged.

    Returns:
        `Ratios` of N events; each row sums to 1.

    Raises:
        AmbisegError: the sets do not belong together.

    Trap: as with `mode_ratio`, a prediction unlike every mode counts for one.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> modes = torch.tensor([[[0, 0], [1, 0], [0, 1]], [[0, 0], [1, 0], [0, 0]]])  # the third is empty in image 2
        >>> truth = MaskSet(modes, torch.tensor([[0.5, 0.2, 0.3]]).repeat(2, 1), LabelSpace.binary())
        >>> numbered_mode_ratios(truth, truth).estimated[1]
        tensor([0.5000, 0.2000, 0.3000], dtype=torch.float64)
    """
    pair = Comparison.of(predictions, annotations)
    given, modes, found = pair.annotations, pair.modes, mode_ratio(pair)
    per_weight = found.estimated.double() / found.true.double().clamp(min=1e-30)
    masks = given.labels.without_others(given.masks)
    same = [(modes.masks == masks[:, j : j + 1]).flatten(2).all(2) for j in range(masks.shape[1])]
    true = given.weights.double()
    return Ratios(true * (torch.stack(same, 1) * per_weight[:, None]).sum(2), true)


def flip_ratios(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    *,
    templates: Tensor | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Ratios:
    """How probable it is that a class is flipped, by whole masks.

        q_c = sum_i u_i [ |{s_i is on} and T_c| > |T_c| / 2 ]          beside the same of y_j and v_j

    ``templates``: the area T_c of each class is given, and on is what is not background (Cityscapes with
    classes that are switched on or off). ``pairs``: T_c is where some annotation has the class or its twin,
    and on is the twin (MoSE).

    Args:
        predictions: ``(B, M, *S)``; their label maps count, also where they keep probabilities.
        annotations: ``(B, N, *S)``.
        templates: ``(B, P, *S)`` bool or 0 and 1.
        pairs: class ids (class, twin), P of them.

    Returns:
        `Ratios` of P events, nan in the images that do not show the class.

    Raises:
        AmbisegError: not one of ``templates`` and ``pairs``, templates of other images, wrong pairs (see
            `class_flips`), or the sets do not belong together.

    Trap: a mask that has neither the class nor its twin there counts as not flipped, as does one that flips
    exactly half; void is not on.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> modes = torch.tensor([[[0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]]])
        >>> truth = MaskSet(modes, torch.tensor([[0.2, 0.3, 0.2, 0.3]]), LabelSpace.binary())
        >>> flip_ratios(truth.top(2), truth, templates=torch.tensor([[[1, 1, 0], [0, 0, 1]]]))
        Ratios(estimated=tensor([[1.0000, 0.5000]], dtype=torch.float64), true=tensor([[0.6000, 0.5000]], dtype=torch.float64))
    """
    pair = Comparison.of(predictions, annotations)
    if (templates is None) == (pairs is None):
        raise AmbisegError(
            "flip_ratios needs the areas of classes or pairs of classes: pass templates or pairs"
        )
    areas: list[tuple[Tensor, int | None]]
    if pairs is not None:
        _check_pairs(pairs, pair.annotations.labels.classes)
        areas = [(_covered(pair.annotations, ids), ids[1]) for ids in pairs]
    else:
        assert templates is not None
        areas = [(area.flatten(1) > 0, None) for area in _fitting(templates, pair.annotations).unbind(1)]

    def ratio(given: MaskSet) -> Tensor:
        columns = []
        for area, twin in areas:
            size = area.sum(1)
            flipped = 2 * (_on(given, twin) & area[:, None]).sum(2) > size[:, None]
            columns.append((given.weights.double() * flipped).sum(1).masked_fill(size == 0, torch.nan))
        return torch.stack(columns, 1)

    return Ratios(ratio(pair.predictions), ratio(pair.annotations))


def class_flips(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    *,
    pairs: Sequence[tuple[int, int]],
) -> TwinPixels:
    """Pixel-wise class flip ratio: how many of a class's pixels carry its twin's label.

    For each pair (c, c'): ``sum_i u_i |s_i = c'|`` over ``sum_i u_i (|s_i = c| + |s_i = c'|)`` for the
    predictions, the same with y_j and v_j for the annotations. The dialect of MoSE (C.2) for ambiguous
    Cityscapes, after the probabilistic U-Net.

    Args:
        predictions: ``(B, M, *S)``; their label maps count, also where they keep probabilities.
        annotations: ``(B, N, *S)``.
        pairs: class ids (class, twin), P of them.

    Returns:
        `TwinPixels` of ``(B, P)``; good is an estimated `TwinPixels.ratio` equal to the true one.

    Raises:
        AmbisegError: ``pairs`` is empty, or holds other than two different classes; or the sets do not belong
            together.

    Trap: the reported ratio pools the pixels of all images first (add up `TwinPixels.pooled`). A pixel that
    is void in all annotations or in all predictions is left out on both sides, one that is void in some masks
    only there. Right ratios need no coherent masks: every pixel may flip by itself.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> four = LabelSpace.of_classes(4)
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0], [3, 3, 0], [3, 3, 0], [1, 1, 0]]]), four)
        >>> class_flips(truth.top(1), truth, pairs=[(1, 3)]).ratio()
        (tensor([[0.]]), tensor([[0.5000]]))
    """
    pair = Comparison.of(predictions, annotations)
    _check_pairs(pairs, pair.annotations.labels.classes)
    both = (pair.predictions, pair.annotations)
    seen = (pair.predictions.labelled & pair.annotations.labelled).flatten(1)[:, None]
    columns = []
    for given in both:
        masks = given.masks.flatten(2)
        pixels = {c: ((masks == c) & seen).sum(-1) * given.weights.double() for ids in pairs for c in ids}
        areas = {c: value.sum(1) for c, value in pixels.items()}
        columns.append(torch.stack([areas[twin] for _, twin in pairs], 1))
        columns.append(torch.stack([areas[one] + areas[twin] for one, twin in pairs], 1))
    return TwinPixels(*columns)


def _check_pairs(pairs: Sequence[tuple[int, int]], classes: int) -> None:
    """Raise `AmbisegError` where a pair is not two classes."""
    if len(pairs) == 0:
        raise AmbisegError("pairs is empty: name at least one (class, twin)")
    for ids in pairs:
        if len(ids) != 2 or ids[0] == ids[1] or not all(0 <= c < classes for c in ids):
            raise AmbisegError(f"pairs holds {ids}: each is two different classes of 0..{classes - 1}")


def _fitting(templates: Tensor, annotations: MaskSet) -> Tensor:
    """The templates on the device of the masks, if they are of these images."""
    wanted = (len(annotations), *annotations.masks.shape[2:])
    if templates.dim() != annotations.masks.dim() or (templates.shape[0], *templates.shape[2:]) != wanted:
        raise AmbisegError(
            f"templates of shape {tuple(templates.shape)} do not fit masks of shape {tuple(annotations.masks.shape)}:"
            " pass (B, P, *S)"
        )
    return templates.to(annotations.masks.device)


def _covered(annotations: MaskSet, ids: Sequence[int]) -> Tensor:
    """Pixels that some annotation gives one of these classes, ``(B, pixels)`` bool."""
    masks = annotations.masks.flatten(2)
    hit = (masks == ids[0]) | (masks == ids[1])
    return (hit & annotations.present[:, :, None]).any(1)


def _on(given: MaskSet, twin: int | None) -> Tensor:
    """Pixels of class ``twin``, or of any that is not background, ``(B, K, pixels)`` bool."""
    masks = given.masks.flatten(2)
    if twin is not None:
        return masks == twin
    background = 0 if given.labels.background is None else given.labels.background
    return (masks != background) & given.labels.valid(masks)
