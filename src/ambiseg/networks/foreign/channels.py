"""The first convolution of a network that was trained on other channels.

The rule is that of timm (Wightman 2019, "PyTorch image models"): one channel gets the sum of the weights of all
channels; C channels get these weights repeated in turn and scaled by 3 / C, so that an image with the same values in
every channel gives the same activations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError


def adapted_weight(weight: Tensor, channels: int) -> Tensor:
    """Weights ``(F, C, h, w)`` of a convolution for another number of channels.

    Example:
        >>> adapted_weight(torch.ones(1, 3, 1, 1), 1).flatten().tolist()
        [3.0]
        >>> adapted_weight(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1), 4).flatten().tolist()
        [0.75, 1.5, 2.25, 0.75]
    """
    before = weight.shape[1]
    if channels == before:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    turns = -(-channels // before)
    return weight.repeat(1, turns, 1, 1)[:, :channels] * (before / channels)


def first_convolution(module: nn.Module, kind: str = "this network") -> tuple[str, nn.Conv2d]:
    """Name and layer of the first convolution of a network, in the order of its modules.

    Raises:
        AmbisegError: it has none, or one in groups.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            if layer.groups > 1:
                break
            return name, layer
    raise AmbisegError(
        f"{kind} begins with no plain 2-D convolution, so it cannot be fitted to other channels"
    )


@torch.no_grad()
def adapt_first_convolution(module: nn.Module, channels: int, kind: str = "this network") -> str:
    """Change the first convolution of a network to ``channels`` channels, with its weights.

    Returns:
        What was done, in one sentence; empty where nothing had to be.

    Raises:
        AmbisegError: it has no such convolution.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> adapt_first_convolution(net, 1), net[0].in_channels
        ('this network takes 3 channels: its first convolution was changed to 1, with the sum of the weights', 1)
    """
    name, layer = first_convolution(module, kind)
    before = layer.in_channels
    if before == channels:
        return ""
    layer.weight = nn.Parameter(adapted_weight(layer.weight, channels), layer.weight.requires_grad)
    layer.in_channels = channels
    return f"{kind} takes {before} channels: its first convolution was changed to {channels}, {rule(before, channels)}"


def rule(before: int, channels: int) -> str:
    """How weights of so many channels became those of others, for messages."""
    if channels == 1:
        return "with the sum of the weights"
    return f"with the weights repeated and scaled by {before}/{channels}"
