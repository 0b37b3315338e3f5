"""Weighted votes of masks at each pixel; equal weights, the usual case of samples, are counted as integers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_MOST = 255
"""What 8 bits count."""


def weighted_votes(weights: Tensor, hit: Tensor) -> Tensor:
    """``sum_k w_bk hit_bkp``, ``(B, P)`` in the type of the weights; image by image, for all at once as numbers may
    not fit.

    Args:
        weights: ``(B, K)``, at least 0.
        hit: ``(B, K, P)`` bool.

    Example:
        >>> weighted_votes(torch.tensor([[0.25, 0.75]]), torch.tensor([[[True, False], [True, True]]]))
        tensor([[1.0000, 0.7500]])
    """
    with torch.autocast(hit.device.type, enabled=False):
        return torch.stack([_of_image(w, h) for w, h in zip(weights, hit, strict=True)])


def _of_image(weights: Tensor, hit: Tensor) -> Tensor:
    there = weights > 0
    present = weights[there]
    if weights.device.type != "cpu" or not len(present) or bool((present != present[0]).any()):
        return weights @ hit.to(weights.dtype)
    rows = (hit if len(present) == len(weights) else hit[there]).contiguous().view(torch.uint8).numpy()
    counts = np.zeros(rows.shape[1], np.int64)
    for start in range(0, len(rows), _MOST):
        counts += np.add.reduce(rows[start : start + _MOST], axis=0, dtype=np.uint8)
    return torch.from_numpy(counts).to(weights.dtype) * present[0]
