"""Random numbers that a generator makes where it lives, on the device where they are wanted."""

from __future__ import annotations

import torch
from torch import Tensor


def standard_normal(
    shape: tuple[int, ...],
    device: torch.device,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Standard normal numbers on ``device``: the same on every device for the same generator.

    Example:
        >>> standard_normal((2, 3), torch.device("cpu"), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """
    made_on = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=made_on, dtype=dtype).to(device)
