"""Latents of variational methods: independent normal distributions, the nets that give them, and how a net sees a
mask.

Kingma and Welling (2014), "Auto-encoding variational Bayes"; the nets as in Kohl et al. (2018), "A
probabilistic U-Net for segmentation of ambiguous images", section 2: an encoder with a mean over positions at
its end, and a linear map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ambiseg.labels import LabelSpace
from ambiseg.networks.encoder import Encoder, encoder_like
from ambiseg.networks.settings import UNetSettings


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Normal distributions with independent dimensions, one per image: vectors ``(B, N)``, or spatial latents ``(B, N,
    h, w)``.

    Attributes:
        mean: ``(B, *N)``.
        log_variance: ``(B, *N)``.

    Example:
        >>> one = Gaussian(torch.tensor([[1.0]]), torch.tensor([[0.0]]))
        >>> one.kl(Gaussian(torch.tensor([[0.0]]), torch.tensor([[0.0]])))
        tensor([[0.5000]])
    """

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def standard(cls, like: Tensor) -> Gaussian:
        """``N(0, I)`` of the shape ``(B, *N)`` of a tensor."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    def place(self, noise: Tensor) -> Tensor:
        """``z = mu + sigma e`` for standard normal numbers e ``(B, K, *N)``, same shape."""
        return self.mean[:, None] + (self.log_variance / 2).exp()[:, None] * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of ``z (B, K, *N)``, ``(B, K)``."""
        square = (z - self.mean[:, None]).square() * (-self.log_variance)[:, None].exp()
        return -0.5 * (square + self.log_variance[:, None] + math.log(2 * math.pi)).flatten(2).sum(2)

    def sampled(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`place`, and the log-density there."""
        z = self.place(noise)
        return z, self.log_prob(z)

    def kl(self, other: Gaussian) -> Tensor:
        """``KL(self || other)`` of every dimension in nats, ``(B, *N)``.

        KL = 1/2 (v/v' - 1 - log v/v' + (mu - mu')^2 / v'),    v the variances
        """
        ratio = self.log_variance - other.log_variance
        square = (self.mean - other.mean).square() * (-other.log_variance).exp()
        return 0.5 * (ratio.expm1() - ratio + square)


def hierarchy_kl(posteriors: Sequence[Gaussian], priors: Sequence[Gaussian]) -> Tensor:
    """``KL(Q_l || P_l)`` of every level l of a hierarchy of latents, summed over its dimensions, in nats: ``(B, L)``.

    Every position counts, void or not: latents below void pixels inform their neighbours, so a bound without them
    would not be one. `ambiseg.losses.evidence.evidence_loss` leaves out images that are nothing but void.

    Example:
        >>> one = Gaussian(torch.ones(1, 1, 2, 3), torch.zeros(1, 1, 2, 3))
        >>> hierarchy_kl([one, one], [Gaussian.standard(one.mean), one])
        tensor([[3., 0.]])
    """
    levels = [q.kl(p).flatten(1).sum(1) for q, p in zip(posteriors, priors, strict=True)]
    return torch.stack(levels, 1)


class LatentNet(nn.Module):
    """Prior or posterior net: ``(B, C, H, W)`` to a `Gaussian` of N dimensions, float32.

    Args:
        in_channels: channels C.
        size: N.
        backbone: size of the encoder.
        bound: log-variances are ``b tanh(s / b)`` of the network's output s; 0 for s itself.
        same: the encoder is that of the backbone, whichever that is; otherwise that of the library's U-Net.
    """

    def __init__(
        self, in_channels: int, size: int, backbone: UNetSettings, bound: float = 0.0, same: bool = False
    ) -> None:
        super().__init__()
        self.encoder = (encoder_like if same else Encoder)(in_channels, backbone)
        self.out = nn.Linear(self.encoder.out_channels, 2 * size)
        self.bound = bound

    def forward(self, x: Tensor) -> Gaussian:
        return self.of(self.encoder(x))

    def of(self, seen: Tensor) -> Gaussian:
        """The distribution for what the encoder says, ``(B, F)``."""
        with torch.autocast(seen.device.type, enabled=False):
            mean, spread = self.out(seen.float()).chunk(2, dim=1)
            return Gaussian(mean, self.bound * (spread / self.bound).tanh() if self.bound else spread)


def centred(masks: Tensor, labels: LabelSpace) -> Tensor:
    """Label maps ``(B, *S)`` as a net sees them, ``(B, C, *S)``: one-hot channels less one half, 0 where
    void.

    Example:
        >>> centred(torch.tensor([[0, 1]]), LabelSpace.binary()).tolist()
        [[[-0.5, 0.5]]]
    """
    return (labels.one_hot(masks, dim=1) - 0.5) * labels.valid(masks)[:, None]
