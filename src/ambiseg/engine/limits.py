"""Whether settings suit the images and this machine, found out before a model is built: its outline has
shapes and no memory (torch's meta device)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError
from ambiseg.methods.base import Segmenter
from ambiseg.networks.base import Backbone
from ambiseg.networks.foreign.pyramid import EncoderBackbone

BYTES_PER_WEIGHT = 20
"""Weight, gradient, two moments of Adam and the moving average, in float32."""

BYTES_PER_LOGIT = 12
"""Of the masks that are predicted: the logit, its probability, its gradient."""


def outline(build: Callable[[], Segmenter]) -> Segmenter | None:
    """The model that ``build`` makes, without memory; None where its code needs values.

    Raises:
        AmbisegError: the settings contradict each other.
    """
    try:
        with torch.device("meta"):
            return build()
    except AmbisegError:
        raise
    except Exception:  # code of others: the real build says what is wrong, if anything is
        return None


def check_depth(model: Segmenter, size: tuple[int, int]) -> None:
    """Refuse networks that halve images of this size below one pixel.

    Raises:
        AmbisegError: with the largest depth that fits.
    """
    networks = [part for part in model.modules() if isinstance(part, Backbone)]
    network = max(networks, key=lambda part: part.depth, default=None)
    deepest, most = 1 if network is None else network.depth, max(size).bit_length()
    if deepest > most and isinstance(network, EncoderBackbone):
        raise AmbisegError(
            f"the encoder {network.kind} has maps of 1/{2 ** (deepest - 1)} of an image, but these images have"
            f" {size[0]}x{size[1]} pixels: choose one with fewer stages (backbone.encoder.options), or larger images"
        )
    if deepest > most:
        raise AmbisegError(
            f"a network of depth {deepest} halves images of {size[0]}x{size[1]} pixels {deepest - 1} times, which leaves"
            f" less than a pixel: set depth to {most} at most (backbone.depth, or the depth of the method's own network)"
        )


def check_memory(model: Segmenter, size: tuple[int, int] = (0, 0), images: int = 0, masks: int = 0) -> None:
    """Refuse models whose training cannot fit into memory; what is counted is less than what it takes.

    Args:
        model: its outline.
        size: height and width of the images.
        images: in a step.
        masks: of each image.

    Raises:
        AmbisegError: with what takes how much.
    """
    available = memory()
    weights = sum(parameter.numel() for parameter in model.parameters())
    pixels = size[0] * size[1]
    layers = _activations(model, size)
    parts = {
        f"{weights:,} parameters (backbone.width, backbone.max_width, --masks)": BYTES_PER_WEIGHT * weights,
        f"{masks} masks of {images} images (--masks, --batch-size)": (
            BYTES_PER_LOGIT * masks * images * pixels * model.labels.channels
        ),
        f"the network's layers for {images} images (--batch-size, backbone.width)": 2 * images * layers,
    }
    if available is not None and sum(parts.values()) > available:
        largest = max(parts, key=lambda name: parts[name])
        raise AmbisegError(
            f"these settings need {_gib(sum(parts.values()))} of memory or more, this machine has {_gib(available)}:"
            f" {largest} take {_gib(parts[largest])}; lower these settings"
        )


def memory() -> int | None:
    """Bytes of memory of the GPU, or of the machine without one; None where that is not known."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


@torch.no_grad()
def _activations(model: Segmenter, size: tuple[int, int]) -> int:
    """Values that the layers of the networks of a model return for one image; 0 where that cannot be told."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() if isinstance(output, Tensor) else 0

    for network in (part for part in model.modules() if isinstance(part, Backbone)):
        hooks = [part.register_forward_hook(count) for part in network.modules() if not any(part.children())]
        try:
            images = torch.zeros(1, network.in_channels, *size, device="meta")
            network(images, torch.zeros(1, device="meta"))
        except Exception:  # no outline of such a network
            continue
        finally:
            for hook in hooks:
                hook.remove()
    return total


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
