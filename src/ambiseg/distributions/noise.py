"""Random numbers that a generator makes where it lives, on the device where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError


class GivenNoise(torch.Generator):
    """Standard normal numbers that were drawn before, handed out in the order in which a method asks for them.

    It takes the place of a generator in ``predict``, so that the numbers are an input, as in an exported model.
    Without ``given`` it draws, and remembers what it was asked for.

    Attributes:
        shapes: what was asked for so far.

    Example:
        >>> noise = GivenNoise([torch.ones(2, 3)])
        >>> standard_normal((2, 3), torch.device("cpu"), noise).sum(), noise.shapes
        (tensor(6.), [(2, 3)])
    """

    given: Sequence[Tensor] | None
    shapes: list[tuple[int, ...]]

    def __new__(cls, given: Sequence[Tensor] | None = None) -> GivenNoise:
        return super().__new__(cls)

    def __init__(self, given: Sequence[Tensor] | None = None) -> None:
        self.given, self.shapes = given, []

    def next(self, shape: tuple[int, ...]) -> Tensor:
        """The next numbers, in this shape.

        Raises:
            AmbisegError: more are asked for than were given, or another number of them.
        """
        place = len(self.shapes)
        self.shapes.append(tuple(shape))
        if self.given is None:
            return torch.randn(shape)
        if place >= len(self.given):
            raise AmbisegError(
                f"the method asks for more than {place} tensors of noise: give all that it draws"
            )
        return self.given[place].reshape(shape)


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
    if isinstance(generator, GivenNoise):
        return generator.next(shape).to(device, dtype)
    made_on = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=made_on, dtype=dtype).to(device)
