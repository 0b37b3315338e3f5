"""Losses of one mask against another, for all pairs of a set at once, and the cross-entropy of pixels.

For proposals ``m_k`` with logits ``z_k`` and annotations ``y_i``, void pixels of ``y_i`` left out, P pixels
counted:

    MSE(k, i)   = 1/(P C) sum (m_k - y_i)^2;   signed: z_k against y_i in {-1, 1}
    Dice(k, i)  = 1 - mean_c 2 <m_kc, y_ic> / (|m_kc| + |y_ic|)           (soft; Milletari, Navab and Ahmadi 2016)
    Focal(k, i) = 1/P sum_pixels (1 - q)^2 (-log q),  q the probability of the annotated class   (Lin et al. 2017)

Each is a sum of products of something of k and something of i, so all pairs come from matrix products.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ambiseg.labels import LabelSpace
from ambiseg.memory_budget import part_sizes

DICE_SMOOTHING = 1.0
"""Added to numerator and denominator of the soft Dice, in pixels: two empty masks have no loss."""
FOCAL_GAMMA = 2.0
"""Focusing exponent of the focal loss."""

VALUES_IN_CACHE = 2**19
"""Values of proposals that are taken together on a CPU: more do not stay in its cache from one product to the
next."""


def pairwise_mask_loss(kind: str, logits: Tensor, masks: Tensor, labels: LabelSpace) -> Tensor:
    """Loss of every proposal against every annotation.

    Args:
        kind: ``mse``, ``signed-mse``, ``dice``, or ``dice-focal`` (their sum 1:1).
        logits: ``(B, M, C, *S)``.
        masks: label maps ``(B, N, *S)``.
        labels: the label space.

    Returns:
        ``(B, M, N)`` float32.

    Example:
        >>> z = torch.tensor([[[[9.0, -9.0]], [[-9.0, -9.0]]]])
        >>> pairwise_mask_loss("mse", z, torch.tensor([[[1, 0]]]), LabelSpace.binary()).round(decimals=3)
        tensor([[[0.0000],
                 [0.5000]]])
    """
    if kind != "signed-mse":  # of masks, not of logits
        logits, labels = labels.in_one_channel(logits, dim=2)
    sizes = part_sizes(len(logits), logits[:1].numel(), VALUES_IN_CACHE)
    if logits.device.type == "cpu" and len(sizes) > 1:
        parts = zip(torch.split(logits, sizes), torch.split(masks, sizes), strict=True)
        return torch.cat([pairwise_mask_loss(kind, z, y, labels) for z, y in parts])
    pairs = _Pairs(logits, masks, labels)
    losses: dict[str, Callable[[], Tensor]] = {
        "mse": lambda: pairs.squared_error(pairs.m),
        "signed-mse": lambda: 4 * pairs.squared_error((pairs.logits + 1) / 2),
        "dice": pairs.dice,
        "dice-focal": lambda: pairs.dice() + pairs.focal(),
    }
    return losses[kind]()


def cross_entropy(logits: Tensor, masks: Tensor, labels: LabelSpace) -> Tensor:
    """Negative log-likelihood of a label map under independent pixels, in nats: its sum over the pixels that
    are not void.

        CE(z, y) = - sum_pixels log q,    q the probability of the annotated class (sigmoid or softmax of z)

    Args:
        logits: ``(B, C, *S)``.
        masks: label maps ``(B, *S)``.
        labels: the label space.

    Returns:
        ``(B,)`` float32.

    Example:
        >>> cross_entropy(torch.zeros(1, 1, 2, 2), torch.tensor([[[0, 1], [1, 255]]]), LabelSpace.binary()).div(0.6931472)
        tensor([3.])
    """
    return pixel_cross_entropy(logits, masks, labels).flatten(1).sum(1)


def pixel_cross_entropy(logits: Tensor, masks: Tensor, labels: LabelSpace) -> Tensor:
    """`cross_entropy` pixel by pixel, ``(B, *S)``; 0 where void.

    Example:
        >>> pixel_cross_entropy(torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 255]]]), LabelSpace.binary())
        tensor([[[0.6931, 0.0000]]])
    """
    z, labels = labels.in_one_channel(logits.float())
    valid = labels.valid(masks)
    if labels.is_binary:
        nats = functional.softplus(z[:, 0]) - z[:, 0] * (masks == 1)
    else:
        nats = functional.cross_entropy(z, masks.long().masked_fill(~valid, 0), reduction="none")
    return nats * valid


def cross_entropy_per_pixel(logits: Tensor, masks: Tensor, labels: LabelSpace) -> Tensor:
    """`cross_entropy` over the number of pixels that are not void, ``(B,)``; 0 where all are.

    Example:
        >>> cross_entropy_per_pixel(torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 255]]]), LabelSpace.binary())
        tensor([0.6931])
    """
    return cross_entropy(logits, masks, labels) / labels.valid(masks).flatten(1).sum(1).clamp(min=1)


class _Pairs:
    """Proposals and annotations flattened to ``(B, M, C, P)`` and ``(B, N, C, P)``, ready for products."""

    def __init__(self, logits: Tensor, masks: Tensor, labels: LabelSpace) -> None:
        self.binary = labels.is_binary
        self.logits = logits.float().flatten(3)
        self.m = labels.probabilities(self.logits, dim=2)
        flat = masks.flatten(2)
        self.y = labels.one_hot(flat, dim=2)
        valid = labels.valid(flat)
        self.pixels = valid.sum(-1).clamp(min=1)[:, None, :].float()
        self.v = None if bool(valid.all()) else valid.float()[:, :, None]

    def squared_error(self, m: Tensor) -> Tensor:
        error = self._sum_valid(m.square()) - 2 * _product(m, self.y) + self.y.sum((2, 3))[:, None]
        return error.clamp(min=0) / (self.pixels * m.shape[2])

    def dice(self) -> Tensor:
        both = torch.einsum("bmcp,bncp->bmnc", self.m, self.y)
        valid = torch.ones_like(self.y[:, :1, 0]) if self.v is None else self.v[:, :, 0]
        area = torch.einsum("bmcp,bnp->bmnc", self.m, valid)
        size = area + self.y.sum(-1)[:, None]
        return 1 - ((2 * both + DICE_SMOOTHING) / (size + DICE_SMOOTHING)).mean(-1)

    def focal(self) -> Tensor:
        z, m = self.logits, self.m
        if self.binary:
            # -log(1 - m) once, for -log m = softplus(z) - z; hit - miss, where a pixel is on or off in the
            # annotation.
            softplus = functional.softplus(z)
            miss = m.pow(FOCAL_GAMMA) * softplus
            hit = (1 - m).pow(FOCAL_GAMMA) * (softplus - z)
            return (_product(hit - miss, self.y) + self._sum_valid(miss)) / self.pixels
        return _product((1 - m).pow(FOCAL_GAMMA) * -z.log_softmax(2), self.y) / self.pixels

    def _sum_valid(self, value: Tensor) -> Tensor:
        """Sum of a quantity of the proposals over the pixels that count in each annotation, ``(B, M, N or
        1)``."""
        if self.v is None:
            return value.sum((2, 3))[:, :, None]
        return _product(value, self.v.expand(-1, -1, value.shape[2], -1))


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a.flatten(2) @ b.flatten(2).mT
