"""What the losses of CAR are made of: the mean of annotations, a divergence per pixel, a squared gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

LEAST = 1e-6
"""Least probability inside a logarithm of the calibration loss."""


def expected(annotations: MaskSet) -> tuple[Tensor, Tensor]:
    """Probabilities of all classes at every pixel that the annotations give, ``(B, classes, H, W)``, and their
    sum ``(B, H, W)``, which is below 1 where some are void.

    Example:
        >>> one = MaskSet.uniform(torch.tensor([[[[0, 1]], [[1, 255]]]]).byte(), LabelSpace.binary())
        >>> expected(one)[0][0, :, 0].tolist(), expected(one)[1][0, 0].tolist()
        ([[0.5, 0.0], [0.5, 0.5]], [1.0, 0.5])
    """
    labels, masks = annotations.labels, annotations.masks
    shape = (masks.shape[0], labels.classes, *masks.shape[2:])
    target = torch.zeros(shape, device=masks.device)
    for k in range(masks.shape[1]):
        mask, weight = masks[:, k], annotations.weights[:, k, None, None].float()
        valid = labels.valid(mask)
        target.scatter_add_(1, mask.long().masked_fill(~valid, 0)[:, None], (weight * valid)[:, None])
    return target, target.sum(1)


def log_all_classes(logits: Tensor, labels: LabelSpace) -> Tensor:
    """Logarithms of the probabilities of all classes, ``(B, classes, H, W)``, of logits ``(B, C, H, W)``."""
    if labels.channels > 1:
        return labels.log_probabilities(logits)
    return torch.cat([functional.logsigmoid(-logits), functional.logsigmoid(logits)], 1)


def divergence(p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q)`` in nats at every pixel, ``(B, H, W)``; no probability counts as less than `LEAST`.

    Example:
        >>> p = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> divergence(p, torch.full_like(p, 0.5).log())
        tensor([[[0.6931]]])
    """
    least = torch.tensor(LEAST).log().item()
    return (p * (p.clamp(min=LEAST).log() - log_q.clamp(min=least))).sum(1)


def squared_gradient(scores: Tensor, inputs: Tensor) -> Tensor:
    """``|grad|^2`` of every score ``(B,)`` with respect to its own input ``(B, ...)``, ``(B,)``, itself
    differentiable."""
    (gradient,) = torch.autograd.grad(scores.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(1)
