"""Cross-entropy of a share of the pixels, drawn with probabilities in proportion to it.

Kohl et al. (2019), "A hierarchical probabilistic U-Net for modeling multi-scale ambiguities", section 3: most pixels
of a mask are easy, and a mean over all of them hides those that are wrong. Of n pixels k are drawn without replacement,
pixel i with probability in proportion to its cross-entropy l_i: the k largest

    log l_i + g_i,    g_i ~ Gumbel(0, 1)                                    (Kool, van Hoof and Welling 2019)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hard_pixels(nats: Tensor, valid: Tensor, share: float, stochastic: bool = True) -> Tensor:
    """Which pixels of a batch count: ``floor(share n)`` of the n that are valid, at least one if there is one.

    The pixels of all images are drawn together, so an image that is hard has more of them.

    Args:
        nats: of every pixel, ``(B, *S)``, at least 0.
        valid: pixels that may be drawn, same shape.
        share: above 0, up to 1; 1 takes all of them.
        stochastic: draw; otherwise the pixels with the most nats count.

    Returns:
        ``(B, *S)`` bool.

    Example:
        >>> nats = torch.tensor([[1.0, 0.0, 3.0, 9.0]])
        >>> hard_pixels(nats, torch.tensor([[True, True, True, False]]), 0.7, stochastic=False)
        tensor([[ True, False,  True, False]])
    """
    if share >= 1:
        return valid
    allowed = valid.flatten()
    with torch.no_grad():
        tiny = torch.finfo(torch.float32).tiny
        score = nats.flatten().float().clamp(min=tiny).log()
        if stochastic:  # minus the logarithm of an exponential number is a Gumbel number
            score = score - torch.empty_like(score).exponential_().clamp(min=tiny).log()
        score = score.masked_fill(~allowed, -math.inf)
        most = max(1, math.floor(share * score.numel()))
        count = (share * allowed.sum().double()).floor().clamp(min=1)
        best = score.topk(most).indices  # the best first, void last
        taken = torch.arange(most, device=score.device) < count
        drawn = torch.zeros_like(allowed).scatter_(0, best, taken)
    return (drawn & allowed).view_as(valid)
