"""What the U-Nets of diffusion models share: the decoder takes over the output of every block of the
encoder."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from ambiseg.networks.base import Backbone, Encoded, repeated
from ambiseg.networks.unet import check_channels, extend


class DiffusionUNet(Backbone):
    """Stem, blocks of every level, blocks that change the resolution, and blocks in the middle.

    Attributes:
        stem: first convolution.
        time: embedding of a time, or None.
        encoder, decoder: lists of blocks for each level, from full resolution down and from the lowest up.
        down, up: blocks that change the resolution, in the order in which they are run.
        middle: blocks at the lowest resolution, between encoder and decoder.
        blocks: blocks of a level in the encoder.
        EXTRA: how many more the decoder has: one takes over the stem, or what changed the resolution.
    """

    EXTRA = 1

    stem: nn.Module
    time: nn.Module | None
    encoder: nn.ModuleList
    decoder: nn.ModuleList
    down: nn.ModuleList
    up: nn.ModuleList
    middle: nn.ModuleList
    blocks: int

    @abstractmethod
    def end(self, x: Tensor, skips: list[Tensor], embedding: Tensor | None) -> Tensor:
        """Features from the output of the last level of the decoder and the skips that are left."""

    def encoder_parts(self) -> list[nn.Module]:
        """The way down: everything before the blocks in the middle."""
        parts: list[nn.Module] = [self.stem, self.encoder, self.down]
        return parts + ([self.time] if self.time is not None else [])

    def innermost_parts(self, levels: int) -> list[nn.Module]:
        """Encoder and decoder levels around the middle; a block that changes the resolution belongs to the
        level behind it."""
        first = max(0, self.depth - levels)
        down, up = self.down[max(0, first - 1) :], self.up[: levels - 1]
        return [*self.encoder[first:], self.middle, *down, *self.decoder[:levels], *up]

    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        """Levels of the encoder; the bottleneck is what the blocks in the middle give."""
        check_channels(images, self.in_channels)
        embedding = self.time(time) if self.time is not None and time is not None else None
        x = self.stem(extend(images, 2 ** (self.depth - 1)))
        skips, levels = [x], []
        for level in range(self.depth):
            if level:
                x = self.run(self.down[level - 1], x, embedding)
                skips += [x] * self.EXTRA
            for block in self.encoder[level]:  # type: ignore[attr-defined]
                x = self.run(block, x, embedding)
                skips.append(x)
            levels.append(x)
        for block in self.middle:
            x = self.run(block, x, embedding)
        return Encoded([*levels[:-1], x], skips, embedding, (images.shape[-2], images.shape[-1]))

    def decode(
        self, encoded: Encoded, x: Tensor | None = None, first: int = 0, last: int | None = None
    ) -> Tensor:
        begin = 0 if x is None else first + 1
        x = encoded.levels[-1] if x is None else x
        embedding = None if encoded.embedding is None else repeated(encoded.embedding, x)
        skips = encoded.skips[: len(encoded.skips) - begin * (self.blocks + self.EXTRA)]
        for i in range(begin, self.depth if last is None else last + 1):
            if i:
                x = self.run(self.up[i - 1], x, embedding)
            for block in self.decoder[i]:  # type: ignore[attr-defined]
                x = self.run(block, torch.cat([x, repeated(skips.pop(), x)], 1), embedding)
        if last is not None:
            return x
        height, width = encoded.size
        return self.end(x, skips, embedding)[..., :height, :width]
