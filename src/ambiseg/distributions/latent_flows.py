"""Normalising flows of latent vectors: chains of steps (`ambiseg.distributions.latent_steps`) whose parameters are functions
of what a network saw, and the distributions that they make of normal ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ambiseg.distributions.latent import Gaussian
from ambiseg.distributions.latent_steps import HIDDEN, Coupling, CouplingNetwork, Planar, Radial, Step
from ambiseg.errors import AmbisegError


class LatentFlow(nn.Module, ABC):
    """A chain of steps of latents, with parameters from a context; it begins as the identity.

    Args:
        size: dimensions N of the latent.
        context: size F of the context.
        steps: how many.

    Example:
        >>> flow = FLOWS["planar"](6, 32, 4)
        >>> z, log_det = flow(torch.randn(2, 5, 6), torch.randn(2, 32))
        >>> z.shape, log_det.shape, float(log_det.detach().abs().max())
        (torch.Size([2, 5, 6]), torch.Size([2, 5]), 0.0)
    """

    def __init__(self, size: int, context: int, steps: int) -> None:
        super().__init__()
        self.size, self.steps = size, steps

    @abstractmethod
    def chain(self, context: Tensor) -> list[Step]:
        """The steps for contexts ``(B, F)``."""

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``(B, K, N)`` behind all steps, and the sum of their log-determinants, ``(B, K)``."""
        log_det = z.new_zeros(z.shape[:2])
        for step in self.chain(context):
            z, more = step.forward(z)
            log_det = log_det + more
        return z, log_det

    @torch.no_grad()
    def inverse(self, z: Tensor, context: Tensor) -> Tensor:
        """The latents that `forward` takes to these; no gradients."""
        for step in reversed(self.chain(context)):
            z = step.inverse(z)
        return z


class PlanarFlow(LatentFlow):
    """Planar steps, whose u, w and b are two linear layers each of the context (Selvan et al. 2020)."""

    def __init__(self, size: int, context: int, steps: int) -> None:
        super().__init__(size, context, steps)
        self.u, self.w = _two_layers(context, steps * size), _two_layers(context, steps * size)
        self.b = _two_layers(context, steps)
        _silence(self.u[-1])

    def chain(self, context: Tensor) -> list[Step]:
        u, w = (net(context).unflatten(1, (self.steps, self.size)) for net in (self.u, self.w))
        return [Planar(*values) for values in zip(u.unbind(1), w.unbind(1), self.b(context).T, strict=True)]


class RadialFlow(LatentFlow):
    """Radial steps, whose z0, alpha and beta are two linear layers each of the context."""

    def __init__(self, size: int, context: int, steps: int) -> None:
        super().__init__(size, context, steps)
        self.centre = _two_layers(context, steps * size)
        self.a, self.b = _two_layers(context, steps), _two_layers(context, steps)
        _silence(self.b[-1])

    def chain(self, context: Tensor) -> list[Step]:
        centre = self.centre(context).unflatten(1, (self.steps, self.size))
        numbers = self.a(context).T, self.b(context).T
        return [Radial(*values) for values in zip(centre.unbind(1), *numbers, strict=True)]


class CouplingFlow(LatentFlow):
    """Steps of Glow that see the context: scale and shift are linear in it, L U two layers of it.

    Raises:
        AmbisegError: a latent of one dimension, which has no two halves.
    """

    def __init__(self, size: int, context: int, steps: int) -> None:
        super().__init__(size, context, steps)
        if size < 2:
            raise AmbisegError(
                f"flow=coupling needs a latent of 2 dimensions or more, received latent_size={size}: choose planar or radial"
            )
        self.matrix = nn.Sequential(
            nn.Linear(context, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, steps * size * size)
        )
        self.scale, self.shift = nn.Linear(context, steps * size), nn.Linear(context, steps * size)
        halves = [(size + 1) // 2, size // 2]
        networks = [CouplingNetwork(halves[i % 2], halves[1 - i % 2], context) for i in range(steps)]
        self.networks = nn.ModuleList(networks)
        last = [net for network in networks for net in (network.log_scale[-1], network.shift[-1])]
        for layer in (self.matrix[-1], self.scale, self.shift, *last):
            _silence(layer)

    def chain(self, context: Tensor) -> list[Step]:
        vectors = [net(context).unflatten(1, (self.steps, self.size)) for net in (self.scale, self.shift)]
        matrix = self.matrix(context).unflatten(1, (self.steps, self.size, self.size))
        scale, shift, matrices = (values.unbind(1) for values in (*vectors, matrix))
        return [
            Coupling(scale[i], shift[i], matrices[i], network, context, i % 2)
            for i, network in enumerate(cast(Iterable[CouplingNetwork], self.networks))
        ]


@dataclass(frozen=True, eq=False)
class Pushed:
    """The distribution of f(z) where z has a normal one: quick to draw from, with the density of what it draws.

    Attributes:
        base: of z.
        flow: f; None for the identity.
        context: of the flow, ``(B, F)``.
    """

    base: Gaussian
    flow: LatentFlow | None
    context: Tensor

    def sampled(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of standard normal numbers ``(B, K, N)``, and their log-density in nats, ``(B, K)``."""
        z, density = self.base.sampled(noise)
        if self.flow is None:
            return z, density
        z, log_det = self.flow(z, self.context)
        return z, density - log_det


@dataclass(frozen=True, eq=False)
class Pulled:
    """The distribution of z where f(z) has a normal one: its density is quick to compute anywhere.

    Attributes:
        base: of f(z).
        flow: f.
        context: of the flow, ``(B, F)``.
    """

    base: Gaussian
    flow: LatentFlow
    context: Tensor

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of ``z (B, K, N)``, ``(B, K)``."""
        moved, log_det = self.flow(z, self.context)
        density: Tensor = self.base.log_prob(moved) + log_det
        return density

    def place(self, noise: Tensor) -> Tensor:
        """Latents of standard normal numbers ``(B, K, N)``, same shape; no gradients, and no autocast, whose numbers
        are too coarse to solve for z."""
        with torch.autocast(noise.device.type, enabled=False):
            z: Tensor = self.flow.inverse(self.base.place(noise), self.context)
        return z


FLOWS: dict[str, type[LatentFlow]] = {"planar": PlanarFlow, "radial": RadialFlow, "coupling": CouplingFlow}
"""Kinds of flows by name."""


def _two_layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LeakyReLU(0.2), nn.Linear(outputs, outputs))


def _silence(layer: nn.Module) -> None:
    """Let a linear layer begin with zeros."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
