"""Pixel-wise calibration with soft targets: expected calibration error, bins of its reliability diagram.

At each pixel the *confidence* is a class's share of the weighted predictions and the *target* its share of
the weighted annotations. Pixels are sorted into equal bins by confidence, and a calibrated model has equal
means of both in every bin. A void pixel of an annotation leaves only that annotation out, the weights of the
others being divided by their sum there; so does one of a prediction, unless the predictions keep per-pixel
probabilities, which then count everywhere. A pixel that is void in all annotations, or in all predictions, is
left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.dialects import PixelRule
from ambiseg.metrics.votes import weighted_votes

KINDS = ("auto", "foreground", "top1", "classwise")
"""What the bins may be about."""
EDGE = 1e-6
"""Shares this close count as tied, and one this little below the edge of a bin as at it: weights round."""


@dataclass(frozen=True)
class PixelBins:
    """Sums over the pixels of each bin: B images, G groups of classes, bins of [0, 1].

    Sums add up, so the bins of several batches are those of all their images: pool each batch, then add.

    Attributes:
        confidence: sum of the predicted shares, ``(B, G, bins)`` float64.
        target: sum of the annotators' shares, ``(B, G, bins)`` float64.
        count: number of pixels, ``(B, G, bins)`` int64.
        outside: number of pixels that count and fall into no bin (`PixelRule`), ``(B, G)`` int64; none if left
            out.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> bins = pixel_bins(truth.top(1), truth, bins=2)
        >>> (bins.pooled() + bins.pooled()).count
        tensor([[[0, 4]]])
    """

    confidence: Tensor
    target: Tensor
    count: Tensor
    outside: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.outside is None:
            object.__setattr__(self, "outside", torch.zeros_like(self.count[..., 0]))

    def __add__(self, other: PixelBins) -> PixelBins:
        """Image by image, group by group and bin by bin.

        Raises:
            AmbisegError: the two differ in images, groups or bins.
        """
        shapes = tuple(self.count.shape), tuple(other.count.shape)
        if shapes[0] != shapes[1]:
            raise AmbisegError(
                f"bins of shape {shapes[0]} and {shapes[1]} (images, groups, bins) cannot be added:"
                " make both with the same settings and pool each first"
            )
        sums = zip(self._columns(), other._columns(), strict=True)
        return PixelBins(*(ours + theirs for ours, theirs in sums))

    def pooled(self) -> PixelBins:
        """The bins of all images together, ``(1, G, bins)``."""
        return PixelBins(*(value.sum(0, keepdim=True) for value in self._columns()))

    def _columns(self) -> tuple[Tensor, ...]:
        return self.confidence, self.target, self.count, self.outside

    def error(self) -> Tensor:
        """Expected calibration error ``sum_b n_b/n |mean target_b - mean confidence_b|``, mean over groups; n are
        the pixels of all bins and those outside.

        Returns:
            ``(B,)`` in [0, 1], lower is better; nan where no pixel counts.
        """
        gap = (self.target - self.confidence).abs().sum(-1)
        pixels = self.count.sum(-1) + self.outside
        error = torch.where(pixels > 0, gap / pixels.clamp(min=1), torch.nan)
        return error.nanmean(1).float()

    def curve(self) -> tuple[Tensor, Tensor]:
        """Mean confidence and mean target of each bin, what a reliability diagram shows.

        Returns:
            ``(B, G, bins)`` each, in [0, 1]; nan where the bin is empty.
        """
        return (self.confidence / self.count).float(), (self.target / self.count).float()


def pixel_bins(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    bins: int = 10,
    kind: str = "auto",
) -> PixelBins:
    """Sort the pixels of each image into equal bins of confidence.

    With the shares ``p_c = sum_i u_i p_ic`` (of the label maps where no probabilities are kept) and ``t_c =
    sum_j v_j [y_j = c]``, confidence and target of a pixel are, by ``kind``,

    - "foreground": ``p_1`` and ``t_1``, class 1 of a binary space. The dialect of MoSE for LIDC.
    - "top1": ``p_k`` and ``t_k`` of ``k = argmax_c p_c`` over *all* classes; the usual confidence calibration
      (Guo et al., 2017), with soft targets the dialect of MoSE for several classes.
    - "classwise": ``p_c`` and ``t_c`` of each evaluated class c (Nixon et al., 2019; Kull et al., 2019).
    - "auto": "foreground" if there are two classes, else "top1".

    Args:
        predictions: ``(B, M, *S)``.
        annotations: ``(B, N, *S)``; their label maps count, also where they keep probabilities.
        bins: number of equal bins over [0, 1]; 1 falls into the last.
        kind: see above.

    Returns:
        `PixelBins` with G = 1, or the number of evaluated classes for "classwise".

    Raises:
        UnknownNameError: ``kind`` is none of these.
        AmbisegError: ``bins`` below 1, "foreground" of several classes, or the sets do not belong together.

    Trap: a confidence at an edge belongs to the upper bin, one less than 1e-6 below it too, since weights
    round. Of tied classes "top1" takes the lowest, and samples tie often. The dialect "mose" has another rule
    (`PixelRule`): edges belong to the lower bin, 0 to none, and of several classes a pixel falls into a bin only
    if its most probable class is evaluated, or its confidence is that of the evaluated class if there is one.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0], [0, 1, 0]]]), LabelSpace.binary())
        >>> both = pixel_bins(truth.top(1), truth, bins=2)
        >>> both.confidence, both.target
        (tensor([[[0., 2.]]], dtype=torch.float64), tensor([[[0.0000, 1.5000]]], dtype=torch.float64))
    """
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    if bins < 1:
        raise AmbisegError(f"bins must be at least 1, received {bins}")
    pair = Comparison.of(predictions, annotations)
    labels, rule = pair.annotations.labels, pair.dialect.pixels
    if kind == "auto":
        kind = "foreground" if labels.is_binary else "top1"
        if rule.evaluated and len(labels.evaluated) == 1 and not labels.is_binary:
            kind = "classwise"
    if kind == "foreground" and not labels.is_binary:
        raise AmbisegError(
            f"kind 'foreground' is for two classes, received {labels.classes}: use 'top1' or 'classwise'"
        )
    ours, theirs = _Shares(pair.predictions), _Shares(pair.annotations.hard())
    seen = inside = ours.seen & theirs.seen
    if kind == "top1":
        top, confidence = ours.greatest()
        groups = [(confidence, theirs.of(top))]
        if rule.evaluated:
            inside = seen & torch.isin(
                top, torch.tensor(labels.evaluated, dtype=top.dtype, device=top.device)
            )
    else:
        chosen = (1,) if kind == "foreground" else labels.evaluated
        groups = [(ours.of(c), theirs.of(c)) for c in chosen]
    sums = [_sums(confidence, target, inside, bins, rule.zero) for confidence, target in groups]
    found = PixelBins(*(torch.stack(column, 1) for column in zip(*sums, strict=True)))
    if rule == PixelRule():
        return found
    return replace(found, outside=seen.sum(1)[:, None] - found.count.sum(-1))


def ece(
    predictions: MaskSet | Comparison,
    annotations: MaskSet | None = None,
    bins: int = 10,
    kind: str = "auto",
) -> Tensor:
    """Expected calibration error of the pixels of each image, against the annotators' shares.

    ``sum_b n_b/n |t_b - p_b|`` over equal bins of confidence, with mean confidence p_b, mean target t_b and
    n_b of the n pixels in bin b; "classwise" is the mean over the evaluated classes. The dialect of MoSE (10
    bins; foreground of LIDC, most probable class of Cityscapes); see `pixel_bins` for ``kind``.

    Returns:
        ``(B,)`` in [0, 1], lower is better; nan where no pixel counts. MoSE prints per cent.

    Raises:
        UnknownNameError: ``kind`` is unknown.
        AmbisegError: ``bins`` below 1, "foreground" of several classes, or the sets do not belong together.

    Trap: the reported number pools the pixels of all images first (``pixel_bins(...).pooled()`` of each
    batch, added up, then ``.error()``); over images of equal size the mean of these values is never smaller
    and often much larger. Easy background makes both tiny, and neither says which masks are plausible.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> ece(truth.top(1), truth), ece(truth, truth)
        (tensor([0.2500]), tensor([0.]))
    """
    return pixel_bins(predictions, annotations, bins, kind).error()


class _Shares:
    """Share of each class at each pixel of a weighted set, ``(B, P)`` float64; `seen` is where it exists."""

    def __init__(self, given: MaskSet) -> None:
        self.labels, self.masks, self.weights = given.labels, given.masks.flatten(2), given.weights.double()
        self.soft: Tensor | None = None
        if given.probabilities is not None:
            mean = replace(given, probabilities=given.probabilities.float()).mean()
            self.soft = self.labels.all_classes(mean, dim=1).flatten(2).double()
            self.mass = torch.ones_like(self.soft[:, 0])
        else:
            valid = self.labels.valid(self.masks)
            if bool(valid.all()):
                self.mass = self.weights.sum(1, keepdim=True).expand(-1, self.masks.shape[2])
            else:
                self.mass = weighted_votes(self.weights, valid)
        self.seen = self.mass > 0

    def of(self, c: int | Tensor) -> Tensor:
        """Share of class ``c``, or of the class that ``c (B, P)`` names at each pixel (label maps only)."""
        if self.soft is not None and isinstance(c, int):
            return self.soft[:, c]
        hit = self.masks == (c[:, None] if isinstance(c, Tensor) else c)
        return weighted_votes(self.weights, hit) / self.mass.clamp(min=1e-30)

    def greatest(self) -> tuple[Tensor, Tensor]:
        """Class of the greatest share (the lowest of several) as uint8, and that share; ``(B, P)`` each."""
        share = self.of(0)
        top = torch.zeros_like(share, dtype=torch.uint8)
        for c in range(1, self.labels.classes):
            other = self.of(c)
            ahead = other > share + EDGE
            share, top = torch.where(ahead, other, share), top.masked_fill(ahead, c)
        return top, share


def _sums(
    confidence: Tensor, target: Tensor, seen: Tensor, bins: int, zero: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of confidence and target and number of the pixels of each bin, ``(B, bins)`` each; see `PixelRule`
    for ``zero``."""
    images = len(confidence)
    if zero:
        place = ((confidence + EDGE) * bins).long().clamp(0, bins - 1)
    else:
        place = (((confidence - EDGE) * bins).ceil().long() - 1).clamp(0, bins - 1)
        seen = seen & (confidence > 0)
    place = torch.where(seen, place, bins)  # one bin more, for the pixels that are left out
    place = (place + (bins + 1) * torch.arange(images, device=place.device)[:, None]).flatten()

    def total(value: Tensor) -> Tensor:
        empty = torch.zeros(images * (bins + 1), dtype=value.dtype, device=value.device)
        return empty.index_add(0, place, value.flatten()).view(images, bins + 1)[:, :bins]

    return total(confidence), total(target), total(torch.ones_like(place))
