"""How much is computed together, so that memory does not grow with the number of samples, and how much a
prediction takes."""

from __future__ import annotations

import torch

ELEMENTS = 2**24
"""Values of one layer that are held together: 64 MiB in float32."""
MASKS = 64
"""Masks that pass through a whole network together. It is a number of masks, not of values: dropout patterns
are drawn part by part, so other parts would give other samples, and a CPU is slower with more of small
masks."""
NETWORK_ELEMENTS = 2**27
"""Values of one layer of a whole network that are held together: 512 MiB in float32. Up to 256x256 pixels and a
width of 32, `MASKS` decides."""
CPU_ELEMENTS = 2**21
"""Values of one layer that a CPU computes together where parts give the same result: 8 MiB in float32. For larger ones
the system hands out new pages at every layer, which took as long as the layers (``docs/hardware.md``)."""
BYTES_OF_NETWORK = 34
"""Bytes that a U-Net takes in float32 for each pixel and channel at full resolution: about nine layers."""
BYTES_OF_MASK = 15
"""Bytes for each pixel and channel of features and masks: as they are made, joined and filtered."""


def part_sizes(count: int, size: int, most: int | None = None, multiple: int = 1) -> list[int]:
    """Sizes of the parts of ``count`` items, all equal but the last; one part while a model is exported.

    Args:
        count: items in all.
        size: what each of them takes of the budget.
        most: the budget; `ELEMENTS` if None.
        multiple: items that stay together, such as antithetic pairs; a part is at least one such group.

    Example:
        >>> part_sizes(5, 2**22)
        [4, 1]
        >>> part_sizes(7, 20, most=100, multiple=2)
        [4, 3]
    """
    if torch.compiler.is_exporting():
        return [count]
    budget = ELEMENTS if most is None else most
    part = max(multiple, budget // max(1, size) // multiple * multiple)
    return [min(part, count - start) for start in range(0, count, part)]


def network_parts(count: int, images: int, values: int) -> list[int]:
    """Sizes of the parts in which ``count`` masks of each image pass through a whole network.

    Args:
        count: masks of each image.
        images: images of the batch.
        values: of one layer of the network, for one mask of each image.

    Example:
        >>> network_parts(100, images=2, values=2**20)
        [32, 32, 32, 4]
        >>> network_parts(3, images=2, values=2**27)
        [1, 1, 1]
    """
    if torch.compiler.is_exporting():
        return [count]
    return part_sizes(count, 1, min(MASKS // images, NETWORK_ELEMENTS // values))


def prediction_bytes(pixels: int, width: int, channels: int, together: int = 1, bf16: bool = False) -> int:
    """About what a prediction takes of memory at its peak: in the U-Net, or with the masks that it gives.

    The factors were measured (``benchmarks/reliability/memory.py``).

    Args:
        pixels: of all images of the batch.
        width: channels of the network at full resolution.
        channels: of all masks of an image together, as the label space has them.
        together: masks of each image that pass through the network together.
        bf16: whether the network computes in bfloat16.

    Example:
        >>> prediction_bytes(20000 * 20000, width=32, channels=16) // 2**30
        405
    """
    features = width // 2 if bf16 else width
    return pixels * max(BYTES_OF_NETWORK * features * together, BYTES_OF_MASK * (features + channels))
