"""Networks without the end of their way up, for what reads a decoder halfway."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from ambiseg.networks.base import Backbone

SMALLEST_SIDE = 8
"""Height and width of the image in the pass that finds which layers are in use, or more where the depth asks for it."""

AnyBackbone = TypeVar("AnyBackbone", bound=Backbone)


def truncated(network: AnyBackbone, last: int) -> AnyBackbone:
    """The network itself, without the layers that only its decoder behind layer ``last`` uses.

    Two passes over a black image find them by their gradients, so it works for networks of any kind.

    Example:
        >>> from ambiseg.networks.settings import UNetSettings
        >>> from ambiseg.networks.unet import UNet
        >>> network = truncated(UNet(3, UNetSettings(width=8, depth=3)), 1)
        >>> [type(part).__name__ for part in network.decoder]
        ['Identity', 'ModuleList']
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> network.decode(network.encode(images), last=1).shape
        torch.Size([1, 16, 4, 4])
    """
    modes = [(part, part.training) for part in network.modules()]
    images = torch.zeros(1, network.in_channels, *[max(SMALLEST_SIDE, 2 ** (network.depth - 1))] * 2)
    with torch.enable_grad():
        encoded = network.eval().encode(images)
        whole = _reached(network, network.decode(encoded))
        needed = _reached(network, network.decode(encoded, last=last))
    for part, mode in modes:
        part.training = mode
    _drop(network, whole - needed, needed)
    return network


def _reached(network: nn.Module, output: Tensor) -> set[int]:
    """Identities of the parameters that an output depends on."""
    parameters = [value for value in network.parameters() if value.requires_grad]
    found = torch.autograd.grad(output.sum(), parameters, retain_graph=True, allow_unused=True)
    return {id(value) for value, gradient in zip(parameters, found, strict=True) if gradient is not None}


def _drop(module: nn.Module, unused: set[int], needed: set[int]) -> None:
    """Replace every part that has parameters, of which all are unused."""
    for name, child in module.named_children():
        own = {id(value) for value in child.parameters()}
        if own & unused and not own & needed:
            setattr(module, name, nn.Identity())
        else:
            _drop(child, unused, needed)
