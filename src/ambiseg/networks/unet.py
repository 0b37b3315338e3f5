"""The plain U-Net: residual blocks with GroupNorm and SiLU, optional self-attention and time embedding.

After Ronneberger, Fischer and Brox (2015), "U-Net", with the residual blocks of Ho, Jain and Abbeel (2020),
"Denoising diffusion probabilistic models": h = x + conv(silu(norm(conv(silu(norm(x)))))), the second
convolution starting at zero, so that every block starts as the identity. It knows nothing of ambiguity:
images in, features at full resolution out; the methods put their own heads on top. Any image size: the input
is extended at its lower and right border by repeating edge pixels until every resolution divides, and the
features are cut back.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.base import Backbone, Encoded, repeated
from ambiseg.networks.dropout import Dropout
from ambiseg.networks.settings import UNetSettings


class GroupNorm(nn.GroupNorm):
    """GroupNorm that always asks for the gradient of its input in training.

    PyTorch's CPU kernel in channels-last order writes that gradient also where the input needs none, as
    behind a frozen encoder, and crashes (2.13).
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.weight.requires_grad and not x.requires_grad:
            x = x.detach().requires_grad_()
        return super().forward(x)


def group_norm(channels: int) -> GroupNorm:
    """GroupNorm with groups of 16 channels (one group below that).

    Wide groups matter for speed: on CPUs in channels-last order, groups of 2 or 4 channels take several times
    as long (``benchmarks/speed.py model`` measures it).
    """
    return GroupNorm(channels // 16 if channels % 16 == 0 else 1, channels)


SMALL_SIDE = 64
"""Images are extended to so many pixels without question."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip connection; a time embedding shifts and scales the middle.

    Args:
        inputs, outputs: channels.
        dropout: share of dropped activations before the second convolution.
        time: length of the time embedding, 0 for none.
        resample: changes the resolution of both paths, or None.
        kernel: size of the convolution of the skip connection, where channels change.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dropout: float = 0.0,
        time: int = 0,
        resample: nn.Module | None = None,
        kernel: int = 1,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(inputs), group_norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.dropout = Dropout(dropout)
        same = inputs == outputs
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.resample = nn.Identity() if resample is None else resample
        self.modulation = nn.Linear(time, 2 * outputs) if time else None
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(self.resample(functional.silu(self.norm1(x)))))
        if self.modulation is not None and time is not None:
            scale, shift = self.modulation(time)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        out: Tensor = self.skip(self.resample(x)) + self.conv2(self.dropout(functional.silu(h)))
        return out


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, with a skip connection (Vaswani et al. 2017)."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *space = x.shape
        q, k, v = (
            self.qkv(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, -1).mT.unbind(1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v).mT.reshape(batch, channels, *space)
        out: Tensor = x + self.out(mixed)
        return out


class TimeEmbedding(nn.Module):
    """Sine and cosine features of a time in [0, 1] through a two-layer network (Ho et al. 2020): ``(B,) ->
    (B, size)``.

    Args:
        size: of the embedding.
        frequencies: in radians; half as many as the embedding has numbers, 1 to 1000, if None.
        activation: between the layers.
    """

    frequencies: Tensor

    def __init__(
        self, size: int, frequencies: Tensor | None = None, activation: Callable[[], nn.Module] = nn.SiLU
    ) -> None:
        super().__init__()
        if frequencies is None:
            frequencies = torch.exp(torch.linspace(0.0, math.log(1000.0), size // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.net = nn.Sequential(
            nn.Linear(2 * len(frequencies), size), activation(), nn.Linear(size, size), nn.SiLU()
        )

    def forward(self, time: Tensor) -> Tensor:
        angle = time[:, None] * self.frequencies
        out: Tensor = self.net(torch.cat([angle.sin(), angle.cos()], 1))
        return out


class ResidualDecoder(Backbone):
    """The way up of residual blocks: what `UNet` and encoders of other packages have behind them.

    Attributes:
        up: 1x1 convolutions in front of the upsampling, by the level that they lead to.
        decoder: residual blocks of every level but the lowest.
        norm: in front of the last activation.
    """

    up: nn.ModuleList
    decoder: nn.ModuleList
    norm: nn.Module

    def keep_way_down(self) -> None:
        del self.up, self.decoder, self.norm

    def decode(
        self, encoded: Encoded, x: Tensor | None = None, first: int = 0, last: int | None = None
    ) -> Tensor:
        x = encoded.levels[-1] if x is None else x
        embedding = None if encoded.embedding is None else repeated(encoded.embedding, x)
        for layer in range(first, self.depth - 1 if last is None else last):
            level = self.depth - 2 - layer
            x = functional.interpolate(self.up[level](x), scale_factor=2.0, mode="nearest")
            x = torch.cat([x, repeated(encoded.skips[level], x)], 1)
            for block in self.decoder[level]:  # type: ignore[attr-defined]
                x = self.run(block, x, embedding)
        if last is not None:
            return x
        height, width = encoded.size
        return functional.silu(self.norm(x))[..., :height, :width]


class UNet(ResidualDecoder):
    """Encoder, decoder and skip connections: image ``(B, C, H, W)`` to features ``(B, width, H, W)``.

    Args:
        in_channels: image channels C.
        settings: width, depth and the rest.
        time: whether `forward` takes a time (generative methods).

    Raises:
        AmbisegError: an image with another number of channels.

    Example:
        >>> net = UNet(3, UNetSettings(width=8, depth=3))
        >>> net(torch.zeros(1, 3, 13, 21)).shape
        torch.Size([1, 8, 13, 21])
    """

    def __init__(self, in_channels: int, settings: UNetSettings | None = None, time: bool = False) -> None:
        super().__init__()
        s = settings or UNetSettings()
        self.in_channels, self.out_channels, self.depth = in_channels, s.width, s.depth
        widths = level_widths(s)
        self.widths = tuple(widths)
        size = 4 * s.width if time else 0
        self.time = TimeEmbedding(size) if time else None
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, s.dropout, size)

        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, w in enumerate(widths):
            self.encoder.append(nn.ModuleList(block(w, w) for _ in range(s.blocks)))
            if level + 1 < s.depth:
                self.down.append(nn.Conv2d(w, widths[level + 1], 3, stride=2, padding=1))
                self.up.append(nn.Conv2d(widths[level + 1], w, 1))
                self.decoder.append(nn.ModuleList(block(2 * w if i == 0 else w, w) for i in range(s.blocks)))
        self.attention = SelfAttention(widths[-1]) if s.attention else nn.Identity()
        self.middle = block(widths[-1], widths[-1])
        self.norm = group_norm(s.width)

    def encoder_parts(self) -> list[nn.Module]:
        """The way down: everything before the lowest resolution's attention."""
        return [self.stem, self.encoder, self.down, *([self.time] if self.time is not None else [])]

    def innermost_parts(self, levels: int) -> list[nn.Module]:
        """Encoder and decoder levels around the middle; the decoder's have the numbers of the encoder's."""
        first = max(0, self.depth - levels)
        return [*self.encoder[first:], self.middle, *self.decoder[max(0, first - 1) :]]

    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        """Levels of the encoder; the bottleneck is what attention and the block in the middle give."""
        check_channels(images, self.in_channels)
        x = self.stem(extend(images, 2 ** (self.depth - 1)))
        embedding = self.time(time) if self.time is not None and time is not None else None
        skips = []
        for level in range(self.depth):
            for block in self.encoder[level]:  # type: ignore[attr-defined]
                x = self.run(block, x, embedding)
            if level + 1 < self.depth:
                skips.append(x)
                x = self.down[level](x)
        x = self.run(self.middle, self.attention(x), embedding)
        return Encoded([*skips, x], skips, embedding, (images.shape[-2], images.shape[-1]))


def level_widths(settings: UNetSettings) -> list[int]:
    """Channels of every level: doubled from ``width`` up to ``max_width``, or by the ``factors``.

    Raises:
        AmbisegError: a width above the greatest, or a factor below 1.

    Example:
        >>> level_widths(UNetSettings(width=8, depth=4, factors=(1, 3)))
        [8, 24, 24, 24]
    """
    factors = settings.factors
    if factors:
        if min(factors) < 1:
            raise AmbisegError(f"backbone.factors are 1 or more, received {list(factors)}")
        return [
            settings.width * factor for factor in (*factors, *factors[-1:] * settings.depth)[: settings.depth]
        ]
    if settings.width > settings.max_width:
        raise AmbisegError(
            f"backbone.width {settings.width} is above backbone.max_width {settings.max_width}: raise that one, too"
        )
    return [min(settings.width * 2**level, settings.max_width) for level in range(settings.depth)]


def check_channels(images: Tensor, expected: int) -> None:
    """Raise `AmbisegError` where images have another number of channels than the network takes."""
    if images.shape[1] != expected:
        raise AmbisegError(
            f"the images have {images.shape[1]} channel(s), but the model takes {expected}:"
            " predict with images like those it was trained on"
        )


def extended(side: int, multiple: int) -> int:
    """The next multiple of a height or width.

    Example:
        >>> extended(1, 16), extended(32, 16)
        (16, 32)
    """
    return (side + multiple - 1) // multiple * multiple


def extend(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sizes are multiples of ``multiple``.

    Raises:
        AmbisegError: images far smaller than that, of which a small one would become very large.
    """
    if multiple > SMALL_SIDE and multiple > max(images.shape[-2:]):
        raise AmbisegError(
            f"images of {images.shape[-2]}x{images.shape[-1]} pixels are too small for a network that halves them"
            f" {multiple.bit_length() - 1} times: give images of {multiple} pixels or more, or train with a lower depth"
        )
    bottom, right = (extended(side, multiple) - side for side in images.shape[-2:])
    if torch.compiler.is_exporting() or bottom or right:
        return functional.pad(images, (0, right, 0, bottom), mode="replicate")
    return images
