"""Losses of latent-variable models: the evidence bound with a weighted divergence, or a constraint on the cross-entropy.

For a mask Y of an image X, latents z, prior P and posterior Q:

    log p(Y|X)  >=  E_{z ~ Q}[log P(Y|X, z)] - KL(Q || P)                       (Kingma and Welling 2014)
    L = CE + beta sum_l a_l max(KL_l, b)          b nats of each l are free    (Higgins et al. 2017; Kingma et al. 2016)

or, with a multiplier lambda of a constraint (Rezende and Viola 2018, "Taming VAEs"):

    min KL    subject to  CE <= kappa,            CE, kappa in nats per pixel
    L = KL + lambda (CE - kappa),      lambda <- lambda exp(eta c),      c the running mean of CE / kappa - 1

Both are summed over a batch and divided by its pixels that are not void: nats per pixel. A constant factor leaves the
minimiser where it is, and the size of the gradients does not depend on that of the images.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ambiseg.errors import TrainingWarning

MULTIPLIER_SPEED = 0.01
"""Step eta of the logarithm of the multiplier lambda."""
MULTIPLIER_MEMORY = 0.99
"""Weight of the past in the running mean of the constraint (Rezende and Viola 2018)."""
MOST_MULTIPLIER = 1e4
"""The multiplier stays between one over this and this."""


UPDATES_BETWEEN_LOOKS = 100
"""Updates after which the multiplier is looked at, which waits for the device."""


class Geco(nn.Module):
    """The multiplier lambda of the constraint ``CE <= kappa`` (Rezende and Viola 2018); it learns in training mode.

    It warns once where the constraint is still broken although the multiplier is as large as it gets.

    Args:
        target: kappa, above 0, in the unit of what is constrained.
        speed: step eta of the logarithm of the multiplier.
        memory: weight of the past in the running mean of the constraint, 0 to below 1.

    Example:
        >>> geco = Geco(0.5, speed=0.1, memory=0.0)
        >>> [round(float(geco(torch.tensor(0.75))), 4) for _ in range(3)]
        [0.25, 0.2628, 0.2763]
    """

    multiplier: Tensor
    violation: Tensor

    def __init__(
        self, target: float, speed: float = MULTIPLIER_SPEED, memory: float = MULTIPLIER_MEMORY
    ) -> None:
        super().__init__()
        self.target, self.speed, self.memory = target, speed, memory
        self.register_buffer("multiplier", torch.ones(()))
        self.register_buffer("violation", torch.zeros(()))
        self._updates, self._warned = 0, False

    def forward(self, found: Tensor) -> Tensor:
        """``lambda (CE - kappa)`` for CE as it was found, a scalar."""
        term = self.multiplier.clone() * (found - self.target)
        if self.training:
            self._adapt(found.detach() - self.target)
        return term

    @torch.no_grad()
    def _adapt(self, excess: Tensor) -> None:
        """One step of the multiplier; the constraint counts as at most +-1, whatever the start."""
        self.violation.lerp_((excess / self.target).clamp(max=1.0), 1 - self.memory)
        grown = self.multiplier * (self.speed * self.violation).exp()
        self.multiplier.copy_(grown.clamp(1 / MOST_MULTIPLIER, MOST_MULTIPLIER))
        self._updates += 1
        if self._updates % UPDATES_BETWEEN_LOOKS == 0 and not self._warned:
            self._look(float(self.multiplier), float(self.violation))

    def _look(self, multiplier: float, violation: float) -> None:
        if multiplier < MOST_MULTIPLIER or violation <= 0:
            return
        self._warned = True
        warnings.warn(
            f"the cross-entropy stays above its bound of {self.target:g} nats per pixel although its weight has grown to"
            f" {MOST_MULTIPLIER:g}, so the divergence hardly counts: raise geco_target",
            TrainingWarning,
            stacklevel=2,
        )


def evidence_loss(
    nats: Tensor,
    divergence: Tensor,
    pixels: Tensor,
    beta: float = 1.0,
    free_bits: float = 0.0,
    geco: Geco | None = None,
    weights: Sequence[float] | None = None,
    counted: Tensor | None = None,
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
        weights: a_l of each part, 1 if left out; the divergence that is returned is without them.
        counted: over how many of these pixels ``nats`` sums, ``(B,)``; all of them if None. The loss is per such pixel.

    Example:
        >>> one = evidence_loss(torch.tensor([8.0]), torch.tensor([[2.0, 1.0]]), torch.tensor([16]), beta=2.0)
        >>> {name: float(value) for name, value in one.items()}
        {'loss': 0.875, 'cross_entropy': 8.0, 'kl': 3.0}
    """
    count = (pixels if counted is None else counted).sum().clamp(min=1)
    images = (pixels > 0).sum().clamp(min=1)
    total = nats.sum()
    mean = (divergence * (pixels > 0)[:, None]).sum(0) / images
    # An estimate of a divergence may be below 0, and must then keep its gradient.
    paid = mean.clamp(min=free_bits) if free_bits > 0 else mean
    penalty = (paid if weights is None else paid * paid.new_tensor(weights)).sum() * images
    loss = (total + beta * penalty) / count if geco is None else penalty / count + geco(total / count)
    return {"loss": loss, "cross_entropy": (total / images).detach(), "kl": mean.sum().detach()}
