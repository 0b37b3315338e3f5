"""Losses of latent-variable models: the evidence bound with a weighted divergence, or a constraint on the cross-entropy.

For a mask Y of an image X, latents z, prior P and posterior Q:

    log p(Y|X)  >=  E_{z ~ Q}[log P(Y|X, z)] - KL(Q || P)                       (Kingma and Welling 2014)
    L = CE + beta sum_l max(KL_l, b)              b nats of each l are free    (Higgins et al. 2017; Kingma et al. 2016)

or, with a multiplier lambda of a constraint (Rezende and Viola 2018, "Taming VAEs"):

    min KL    subject to  CE <= kappa,            CE, kappa in nats per pixel
    L = KL + lambda (CE - kappa),      lambda <- lambda exp(eta c),      c the running mean of CE / kappa - 1

Both are summed over a batch and divided by its pixels that are not void: nats per pixel. A constant factor leaves the
minimiser where it is, and the size of the gradients does not depend on that of the images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MULTIPLIER_SPEED = 0.01
"""Step eta of the logarithm of the multiplier lambda."""
MULTIPLIER_MEMORY = 0.99
"""Weight of the past in the running mean of the constraint (Rezende and Viola 2018)."""
MOST_MULTIPLIER = 1e4
"""The multiplier stays between one over this and this."""


class Geco(nn.Module):
    """The multiplier lambda of the constraint ``CE <= kappa`` (Rezende and Viola 2018); it learns in training mode.

    Args:
        target: kappa, above 0, in the unit of what is constrained.
    """

    multiplier: Tensor
    violation: Tensor

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target
        self.register_buffer("multiplier", torch.ones(()))
        self.register_buffer("violation", torch.zeros(()))

    def forward(self, found: Tensor) -> Tensor:
        """``lambda (CE - kappa)`` for CE as it was found, a scalar."""
        term = self.multiplier.clone() * (found - self.target)
        if self.training:
            self._adapt(found.detach() - self.target)
        return term

    @torch.no_grad()
    def _adapt(self, excess: Tensor) -> None:
        """One step of the multiplier; the constraint counts as at most +-1, whatever the start."""
        self.violation.lerp_((excess / self.target).clamp(max=1.0), 1 - MULTIPLIER_MEMORY)
        grown = self.multiplier * (MULTIPLIER_SPEED * self.violation).exp()
        self.multiplier.copy_(grown.clamp(1 / MOST_MULTIPLIER, MOST_MULTIPLIER))


def evidence_loss(
    nats: Tensor,
    divergence: Tensor,
    pixels: Tensor,
    beta: float = 1.0,
    free_bits: float = 0.0,
    geco: Geco | None = None,
) -> dict[str, Tensor]:
    """The loss of a batch in nats per pixel that is not void, and its parts in nats per image.

    Args:
        nats: cross-entropy of each image, summed over its pixels that are not void, ``(B,)``.
        divergence: KL of each image in parts l that have free bits of their own, ``(B, L)``.
        pixels: how many pixels of each image are not void, ``(B,)``; an image of nothing but void says nothing about its
            latent.
        beta: weight of the divergence; without effect with ``geco``.
        free_bits: nats of each part, as a mean over the batch, that cost nothing.
        geco: the multiplier of a constraint on the cross-entropy per pixel.

    Example:
        >>> one = evidence_loss(torch.tensor([8.0]), torch.tensor([[2.0, 1.0]]), torch.tensor([16]), beta=2.0)
        >>> {name: float(value) for name, value in one.items()}
        {'loss': 0.875, 'cross_entropy': 8.0, 'kl': 3.0}
    """
    count, images = pixels.sum().clamp(min=1), (pixels > 0).sum().clamp(min=1)
    total = nats.sum()
    mean = (divergence * (pixels > 0)[:, None]).sum(0) / images
    # An estimate of a divergence may be below 0, and must then keep its gradient.
    penalty = (mean.clamp(min=free_bits) if free_bits > 0 else mean).sum() * images
    loss = (total + beta * penalty) / count if geco is None else penalty / count + geco(total / count)
    return {"loss": loss, "cross_entropy": (total / images).detach(), "kl": mean.sum().detach()}
