"""Likelihood of the annotations under weighted per-pixel probabilities, in nats and in bits per dimension.

Predictions that keep their per-pixel probabilities are a mixture of factorised distributions over label maps,

    p(y | x) = sum_i u_i prod_pixels p_i(y at the pixel),

and so give each annotation a likelihood. A method whose own distribution is another (Monte-Carlo estimates of
SSN or Flow-SSN, closed forms of autoregressive models) computes its log-likelihoods itself and turns them
into comparable numbers with `bits_of`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison

SURE = 1e-6
"""Least probability of a class at a pixel, else one that is sure and wrong would make everything infinite."""


def log_likelihood(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Log-likelihood of each annotation under the mixture of the factorised predictions.

    ``log sum_i u_i prod_pixels p_i(y_j)`` in nats, with probabilities clamped to [1e-6, 1 - 1e-6] (several
    classes: and divided by their sum, so that it is a distribution still). Void pixels of y_j contribute
    nothing. The likelihood that SSN and Flow-SSN estimate by Monte Carlo, where the predictions are M uniform
    draws of their per-pixel probabilities.

    Returns:
        ``(B, N)`` float64, at most 0, higher is better; nan for padding (annotations of weight 0).

    Raises:
        AmbisegError: the predictions keep no per-pixel probabilities, or the sets do not belong together.

    Trap: as an estimate from M draws it lies below the model's own value on average and grows with M. Each
    pixel on which all predictions are sure and wrong costs 13.8 nats, so predictions close to 0 and 1 are
    judged by the clamp.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> sure, half = [[0.8, 0.4]], [[0.5, 0.5]]
        >>> mix = MaskSet.from_probabilities(torch.tensor([[sure, half]]), LabelSpace.binary())
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 0], [1, 255]]]), LabelSpace.binary())
        >>> log_likelihood(mix, truth).exp()
        tensor([[0.3650, 0.6500]], dtype=torch.float64)
    """
    pair = Comparison.of(predictions, annotations)
    ours, theirs = pair.predictions, pair.annotations
    if ours.probabilities is None:
        raise AmbisegError(
            "these predictions keep no per-pixel probabilities, which a likelihood needs: make them with"
            " MaskSet.from_probabilities, or leave the likelihood out for this method"
        )
    table = torch.stack(
        [
            _all_pairs(probabilities.flatten(2), masks.flatten(1), theirs)
            for probabilities, masks in zip(ours.probabilities, theirs.masks, strict=True)
        ]
    )
    weights = ours.weights.double()
    prior = (weights / weights.sum(1, keepdim=True)).log()
    joint = (prior[:, :, None] + table).masked_fill(~ours.present[:, :, None], -math.inf)
    return joint.logsumexp(1).masked_fill(~theirs.present, math.nan)


def bits_per_dimension(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Expected negative log-likelihood of an annotation, in bits per pixel.

    ``-sum_j v_j log p(y_j | x) / (pixels_j log 2)`` of `log_likelihood`, where pixels_j counts the pixels of
    y_j that are not void. An annotation that is void throughout is left out, the weights of the others being
    divided by their sum. The number ("BPD") of Flow-SSN.

    Returns:
        ``(B,)`` at least 0, lower is better; nan where all annotations are void throughout.

    Raises:
        AmbisegError: the predictions keep no per-pixel probabilities, or the sets do not belong together.

    Trap: it depends on the number of classes (guessing costs log2 C), on image size and on how much easy
    background there is, so compare on the same data only. Unbounded in principle, here at most about 20 by
    the clamp of `log_likelihood`. A pixel is a dimension, whatever the number of classes.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> coin = MaskSet.from_probabilities(torch.tensor([[[[0.5, 0.5]]]]), LabelSpace.binary())
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 0], [1, 1]]]), LabelSpace.binary())
        >>> bits_per_dimension(coin, truth)
        tensor([1.])
    """
    pair = Comparison.of(predictions, annotations)
    return bits_of(log_likelihood(pair), pair.annotations)


def bits_of(log_likelihood: Tensor, annotations: MaskSet) -> Tensor:
    """Bits per dimension of log-likelihoods that a method computed itself.

    ``-sum_j v_j l_j / (pixels_j log 2)``, the conversion in `bits_per_dimension`.

    Args:
        log_likelihood: ``(B, N)`` in nats, of the whole label map each; padding may hold anything.
        annotations: ``(B, N, *S)``.

    Returns:
        ``(B,)``, lower is better; nan where all annotations are void throughout.

    Raises:
        AmbisegError: ``log_likelihood`` has another shape than the weights of the annotations.

    Trap: densities of continuous values (such as of dequantised label maps) are no probabilities of label
    maps, and their bits no bits of these.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 0], [1, 255]]]), LabelSpace.binary())
        >>> bits_of(torch.tensor([[0.25, 0.25]]).log(), truth)
        tensor([1.5000])
    """
    weights = annotations.weights.double()
    if log_likelihood.shape != weights.shape:
        raise AmbisegError(
            f"log_likelihood of shape {tuple(log_likelihood.shape)} does not fit the annotations:"
            f" pass one value for each, (B, N) = {tuple(weights.shape)}"
        )
    pixels = annotations.labels.valid(annotations.masks.flatten(2)).sum(-1)
    counts = (pixels > 0) & annotations.present
    bits = log_likelihood.double() / (-math.log(2) * pixels.clamp(min=1))
    total = (torch.where(counts, bits, 0.0) * weights).sum(1)
    return (total / (weights * counts).sum(1)).float()


def _all_pairs(probabilities: Tensor, masks: Tensor, annotations: MaskSet) -> Tensor:
    """Log-likelihood ``(M, N)`` of label maps ``(N, P)`` under predictions ``(M, C, P)``, of one image."""
    labels = annotations.labels
    shares = labels.all_classes(probabilities.double(), dim=1) if labels.is_binary else probabilities
    total = torch.zeros(len(shares), len(masks), dtype=torch.float64, device=masks.device)
    mass = torch.zeros(len(shares), masks.shape[1], dtype=torch.float64, device=masks.device)
    with torch.autocast(masks.device.type, enabled=False):
        for c in range(labels.classes):  # one by one: all classes in double precision may not fit
            sure = shares[:, c].double().clamp(SURE, 1 - SURE)
            total, mass = total + sure.log() @ (masks == c).double().mT, mass + sure
        return total - mass.log() @ labels.valid(masks).double().mT
