"""Likelihood of label maps under a distribution of logits: the Monte-Carlo mean over draws of the logits, of
all annotations at once.

Monteiro et al. (2020), "Stochastic segmentation networks", equation 7, and De Sousa Ribeiro et al. (2025),
"Flow stochastic segmentation networks", equations 1 and 13. With draws ``eta_s ~ p(eta | x)`` of the logits
of all pixels:

    log p(y | x) ~ log 1/S sum_s p(y | eta_s),    p(y | eta) = prod_pixels Categorical(y; softmax(eta))

The draws do not depend on y, so annotations of one image share them: all pairs of draws and annotations are
one matrix product, and the expectation over annotations is exact. The estimate is below the true value on
average, and nearer the larger S is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import part_sizes


def pairwise_cross_entropy(logits: Tensor, masks: Tensor, labels: LabelSpace) -> Tensor:
    """``-log p(y_n | eta_s)`` in nats, the sum over the pixels that are not void, of all pairs.

    Args:
        logits: ``(B, S, C, *space)``.
        masks: label maps ``(B, N, *space)``.
        labels: the label space.

    Returns:
        ``(B, S, N)`` float32.

    Example:
        >>> z = torch.zeros(1, 2, 1, 1, 3)
        >>> pairwise_cross_entropy(z, torch.tensor([[[[0, 1, 255]]]]), LabelSpace.binary()).div(0.6931472)
        tensor([[[2.],
                 [2.]]])
    """
    with torch.autocast(logits.device.type, enabled=False):
        z, labels = labels.in_one_channel(logits.float().flatten(3), dim=2)
        y = masks.flatten(2)
        one_hot, valid = labels.one_hot(y, dim=2), labels.valid(y)
        if labels.channels > 1:
            return -_product(z.log_softmax(2), one_hot)
        everywhere = functional.softplus(z[:, :, 0])
        total = everywhere.sum(2)[:, :, None] if bool(valid.all()) else everywhere @ valid.float().mT
        return total - _product(z, one_hot)


def _product(values: Tensor, one_hot: Tensor) -> Tensor:
    return values.flatten(2) @ one_hot.flatten(2).mT


def marginal(nats: Tensor) -> Tensor:
    """``- log 1/S sum_s exp(-nats_s)`` over the second axis of ``(B, S, ...)``.

    Example:
        >>> marginal(-torch.tensor([[0.2, 0.4]]).log()).exp()
        tensor([3.3333])
    """
    return math.log(nats.shape[1]) - (-nats).logsumexp(1)


def expected_nats(nats: Tensor, annotations: MaskSet) -> Tensor:
    """Nats ``(B, N)`` of label maps over the numbers of their pixels that are not void, the mean by weight:
    ``(B,)``."""
    pixels = annotations.labels.valid(annotations.masks).flatten(2).sum(2).clamp(min=1)
    return (annotations.weights * nats / pixels).sum(1)


def draw_sizes(count: int, logits: int) -> list[int]:
    """Sizes of the parts of ``count`` draws of so many logits each, which hold their noise and the logits;
    antithetic pairs stay together.

    Noise is drawn part by part, so other parts give other samples.

    Example:
        >>> draw_sizes(5, 2**22)
        [2, 2, 1]
    """
    return part_sizes(count, 2 * logits, multiple=2)
