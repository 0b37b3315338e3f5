"""Does the uncertainty of the predictions lie where they disagree with the annotations? Normalised cross-correlation.

Baumgartner, Tezcan, Chaitanya, Hötker, Muehlematter, Schawkat, Becker, Donati and Konukoglu (2019), "PHiSeg: capturing
uncertainty in medical image segmentation". With the probability p_ic of class c at a pixel in prediction i and the mean
m_c = sum_i u_i p_ic, the *surprise* of a class is its expected cross-entropy,

    l_c = -sum_i u_i log(p_ic + 1e-8),

so the expected cross-entropy between the mean and a prediction is ``sum_c m_c l_c``, and that between annotation j and a
prediction is ``l`` of the class that it has there. Both are maps over the pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison

SMALLEST = 1e-8
"""Added to probabilities before the logarithm, as in the public code of PHiSeg."""
CONSTANT = 1e-5
"""A map whose standard deviation is at most this, in nats, counts as constant."""


def ncc(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Normalised cross-correlation of the uncertainty of the predictions with their error against an annotation.

    ``sum_j v_j corr(sum_c m_c l_c, l_[y_j])`` over the pixels, where `corr` is the correlation coefficient of two maps
    (S_NCC of Baumgartner et al. 2019), of all classes. Without per-pixel probabilities those of the label maps are 0 and 1. A
    void pixel of an annotation is left out of its correlation; one of a label map of the predictions leaves that one out
    there.

    Where one of the two maps is constant the correlation is 0: a model that claims to be equally sure everywhere says
    nothing about its errors. Where both are constant, as of sure predictions without any error, it is not defined, and
    the annotation is left out.

    Returns:
        ``(B,)`` in [-1, 1], higher is better; nan where it is defined for no annotation.

    Raises:
        AmbisegError: the sets do not belong together.

    Trap: the public code has no value where a map is constant. The correlation does not see the size of the uncertainty,
    so predictions that are far too sure, or not sure enough, may have a high value.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0]]]), LabelSpace.binary())
        >>> ncc(truth, truth), ncc(truth.top(1), truth)
        (tensor([1.]), tensor([0.]))
    """
    pair = Comparison.of(predictions, annotations)
    return torch.stack([_of_image(pair, image) for image in range(len(pair.predictions))]).float()


def _of_image(pair: Comparison, image: int) -> Tensor:
    theirs = pair.annotations
    there = theirs.present[image]
    masks, weights = theirs.masks[image][there].flatten(1), theirs.weights[image][there].double()
    mean, surprise, seen = _maps(pair.predictions, image)
    valid = theirs.labels.valid(masks)
    error = surprise.gather(0, torch.where(valid, masks, 0).long())
    found = _correlation((mean * surprise).sum(0).expand_as(error), error, valid & seen)
    counts = found.isfinite()
    return torch.where(counts, found, 0.0) @ weights / (weights * counts).sum()


def _maps(given: MaskSet, image: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and surprise of every class at every pixel of an image, ``(C, P)`` float64, and where they exist."""
    there, labels = given.present[image], given.labels
    u = given.weights[image][there].double()
    u = u / u.sum()
    if given.probabilities is None:
        masks = given.masks[image][there].flatten(1)
        mass = u @ labels.valid(masks).double()
        shares = [u @ (masks == c).double() / mass.clamp(min=1e-30) for c in range(labels.classes)]
        mean = torch.stack(shares)
        sure, no = (torch.tensor(p + SMALLEST, dtype=torch.float64).log() for p in (1.0, 0.0))
        return mean, -(mean * sure + (1 - mean) * no), mass > 0
    soft = given.probabilities[image][there].flatten(2)
    means, surprises = [], []
    for c in range(labels.classes):  # one by one: all classes in double precision may not fit
        p = (soft[:, 0] if c else 1 - soft[:, 0]) if soft.shape[1] == 1 else soft[:, c]
        means.append(u @ p.double())
        surprises.append(-(u @ (p.double() + SMALLEST).log()))
    mean = torch.stack(means)
    return mean, torch.stack(surprises), torch.ones_like(mean[0], dtype=torch.bool)


def _correlation(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """Correlation of two maps ``(N, P)`` each over their valid pixels, ``(N,)``; 0 where one of them is constant, nan
    where both are."""
    pixels = valid.sum(1).clamp(min=1)

    def centred(value: Tensor) -> tuple[Tensor, Tensor]:
        value = value.masked_fill(~valid, 0.0)
        apart = (value - (value.sum(1) / pixels)[:, None]).masked_fill(~valid, 0.0)
        return apart, (apart.square().sum(1) / pixels).sqrt()

    (a, of_a), (b, of_b) = centred(a), centred(b)
    varies = torch.stack([of_a > CONSTANT, of_b > CONSTANT])
    found = (a * b).sum(1) / (pixels * of_a * of_b)
    found = torch.where(varies.all(0), found.clamp(-1, 1), 0.0)
    return found.masked_fill(~varies.any(0), torch.nan)
