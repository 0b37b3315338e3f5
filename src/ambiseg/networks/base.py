"""`Backbone`: what every shared network is, a way down and a way up that can be run one after the other.

Levels count from full resolution (0) down to the lowest (depth - 1), the bottleneck. Layers of the decoder
count from the bottleneck up: layer q ends at level ``depth - 1 - q``, the last one, ``depth - 1``, at full
resolution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError
from ambiseg.networks.checkpointing import checkpointed


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the way down says of images.

    Attributes:
        levels: output of every level ``(B, widths[level], h, w)``, the last one the bottleneck, as the
            decoder begins with it.
        skips: what the decoder takes over, in the order of the encoder.
        embedding: of the time, where there is one.
        size: height and width of the images, to which features are cut back.
    """

    levels: list[Tensor]
    skips: list[Tensor]
    embedding: Tensor | None
    size: tuple[int, int]


class Backbone(nn.Module, ABC):
    """A U-shaped network: images ``(B, C, H, W)`` to features ``(B, out_channels, H, W)``, any size.

    Attributes:
        in_channels, out_channels: of images and features.
        depth: number of levels.
        widths: channels at every level on the way down, the last one the bottleneck.
        up_widths: those on the way up, the same unless a network says otherwise.
        checkpointing: whether the backward pass computes the inside of blocks again (`run`).
    """

    checkpointing = False

    in_channels: int
    out_channels: int
    depth: int
    widths: tuple[int, ...]

    @property
    def up_widths(self) -> tuple[int, ...]:
        return self.widths

    @abstractmethod
    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        """The way down; ``time (B,)`` in [0, 1] where the network was built with one."""

    @abstractmethod
    def decode(
        self, encoded: Encoded, x: Tensor | None = None, first: int = 0, last: int | None = None
    ) -> Tensor:
        """The way up, or a part of it.

        Args:
            encoded: of B images.
            x: output of layer ``first``, ``(n B, ...)``, n entries for each image in turn; None begins at the
                bottleneck.
            first: the layer that ``x`` is the output of.
            last: where to stop; None goes to the end.

        Returns:
            Features ``(n B, out_channels, H, W)``, or the output of layer ``last`` as it is.
        """

    def run(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        """``block(*inputs)``, whose inside is not kept for the backward pass under `checkpointing`."""
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        out: Tensor = checkpointed(block, *inputs) if again else block(*inputs)
        return out

    @property
    def export_obstacle(self) -> str:
        """Why the network cannot be part of an exported graph, as the end of a sentence; empty where it can."""
        return ""

    def encoder_parts(self) -> list[nn.Module]:
        """The modules of the way down, to be kept as they are by `ambiseg.methods.base.Segmenter.freeze`.

        Raises:
            AmbisegError: the network does not name them.
        """
        raise AmbisegError(
            f"{type(self).__name__} has no encoder to freeze: leave train.freeze out, or choose"
            " --set backbone.kind=unet or ncsnpp"
        )

    def keep_way_down(self) -> None:
        """Remove the modules of the way up, so that `encode` is left, for a method that needs the levels alone.

        Raises:
            AmbisegError: the network does not name them.
        """
        raise AmbisegError(
            f"{type(self).__name__} does not give its levels alone, which this method needs: choose"
            " --set backbone.kind=unet or phiseg, or an encoder of another package"
        )

    def innermost_parts(self, levels: int) -> list[nn.Module]:
        """The modules of the innermost encoder levels, of the middle, and of the innermost decoder levels.

        Args:
            levels: how many levels of the encoder and how many of the decoder; all where there are fewer.

        Raises:
            AmbisegError: the network does not name them.
        """
        raise AmbisegError(
            f"{type(self).__name__} does not name the modules of its levels: choose --set backbone.kind=unet or ncsnpp"
        )

    def head(self, outputs: int, kernel: int) -> nn.Conv2d:
        """The last convolution of a method: from features to ``outputs`` channels, of size ``kernel``.

        A network that was published with a last convolution of its own gives that one, whatever the size.
        """
        return nn.Conv2d(self.out_channels, outputs, kernel, padding=kernel // 2)

    def features(self, images: Tensor, time: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Features of images, and the outputs of the encoder's levels, the last one the bottleneck, from one
        pass."""
        encoded = self.encode(images, time)
        return self.decode(encoded), encoded.levels

    def forward(self, images: Tensor, time: Tensor | None = None) -> Tensor:
        """Features of ``images``; ``time (B,)`` in [0, 1] where the network was built with one."""
        return self.decode(self.encode(images, time))


def repeated(value: Tensor, x: Tensor) -> Tensor:
    """``value (B, ...)`` for a batch ``x (n B, ...)`` that has n entries for each of its images."""
    batch = value.shape[0]
    return value if batch == x.shape[0] else value.repeat_interleave(x.shape[0] // batch, 0)
