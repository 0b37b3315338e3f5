"""The U-Net of denoising diffusion in the form in which ATFM has it for its flow (ST-net).

Ho, Jain and Abbeel (2020), "Denoising diffusion probabilistic models", in a widespread form:

- the weights of each 3x3 convolution in a block are standardised (Qiao, Wang, Liu, Shen and Yuille 2019,
  "Micro-batch training with batch-channel normalization and weight standardization"), and GroupNorm has one
  group;
- behind the last block of every level there is linear attention (Shen, Zhang, Zhao, Yi and Li 2021,
  "Efficient attention: attention with linear complexities"), and between the blocks in the middle full
  attention;
- the first convolution is 1x1; pixels of 2x2 become channels on the way down;
- blocks of a level keep its channels on the way down; those of the next one come with the step there;
- one more block at full resolution sees the first convolution.

Li et al. (2026), "Ambiguity-aware truncated flow matching for ambiguous medical image segmentation", have
width 128 or 256, depth 3 and 2 blocks, and put the image beside the state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.networks.base import repeated
from ambiseg.networks.diffusion import DiffusionUNet
from ambiseg.networks.phiseg import refuse
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import GroupNorm, TimeEmbedding, level_widths

HEADS, HEAD_WIDTH = 4, 32
"""Heads of all attention, and channels of each."""
LONGEST = 10_000.0
"""Ratio of the longest to the shortest period of the time's sines and cosines."""


class StandardisedConv(nn.Conv2d):
    """Convolution whose weights have mean 0 and variance 1 for every output channel (Qiao et al. 2019).

    Example:
        >>> conv = StandardisedConv(2, 3, 3, padding=1)
        >>> x = torch.randn(1, 2, 5, 5)
        >>> before = conv(x)
        >>> with torch.no_grad():
        ...     _ = conv.weight.mul_(4.0).add_(1.0)
        >>> torch.allclose(conv(x), before, atol=1e-2)
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * (variance + 1e-5).rsqrt()
        return functional.conv2d(x, weight, self.bias, padding=self.padding)


class Block(nn.Module):
    """``skip(x) + silu(norm(conv(silu(scale norm(conv(x)) + shift))))``, and attention behind it.

    Args:
        inputs, outputs: channels.
        time: length of the time embedding, which gives scale and shift, 0 for none.
        attention: what comes behind, or None.
    """

    def __init__(self, inputs: int, outputs: int, time: int, attention: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = StandardisedConv(inputs, outputs, 3, padding=1)
        self.conv2 = StandardisedConv(outputs, outputs, 3, padding=1)
        self.norm1, self.norm2 = GroupNorm(1, outputs), GroupNorm(1, outputs)
        self.modulation = nn.Linear(time, 2 * outputs) if time else None
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = nn.Identity() if attention is None else attention

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.norm1(self.conv1(x))
        if self.modulation is not None and time is not None:
            scale, shift = self.modulation(time)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        h = functional.silu(self.norm2(self.conv2(functional.silu(h))))
        out: Tensor = self.attention(self.skip(x) + h)
        return out


class FullAttention(nn.Module):
    """``x + out(softmax(q^T k) v)`` over all positions, of the normalised x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(1, channels)
        self.qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.out: nn.Module = nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, *space = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, HEADS, HEAD_WIDTH, -1)
        out: Tensor = x + self.out(self.mix(*qkv.unbind(1)).reshape(batch, HEADS * HEAD_WIDTH, *space))
        return out

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Values ``(B, heads, channels, positions)`` from queries, keys and values of that shape."""
        return functional.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT


class LinearAttention(FullAttention):
    """The same with a softmax over the channels of q and one over the positions of k, whose cost is linear in
    the positions, and a norm at the end (Shen et al. 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.out = nn.Sequential(self.out, GroupNorm(1, channels))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        context = v @ k.softmax(3).mT
        mixed: Tensor = context @ (q.softmax(2) * HEAD_WIDTH**-0.5)
        return mixed


class Down(nn.Module):
    """Half the resolution: pixels of 2x2 become channels, then a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        out: Tensor = self.conv(functional.pixel_unshuffle(x, 2))
        return out


class Up(nn.Module):
    """Twice the resolution: pixels are repeated, then a 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        out: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Middle(nn.Module):
    """To the channels of the middle, a block, full attention, a block."""

    def __init__(self, inputs: int, outputs: int, time: int, attention: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.first = Block(outputs, outputs, time, FullAttention(outputs) if attention else None)
        self.second = Block(outputs, outputs, time)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        out: Tensor = self.second(self.first(self.conv(x), time), time)
        return out


class DDPM(DiffusionUNet):
    """Image ``(B, C, H, W)`` to features ``(B, width, H, W)``.

    Args:
        in_channels: image channels C.
        settings: width, depth, blocks, greatest width or factors, attention (linear at every level, full in
            the middle); there is no dropout.
        time: whether `forward` takes a time.

    Raises:
        AmbisegError: settings that it has no use for, or an image with another number of channels.

    Example:
        >>> net = DDPM(3, UNetSettings(kind="ddpm", width=8, depth=3), time=True)
        >>> net(torch.zeros(1, 3, 13, 21), torch.zeros(1)).shape, net.widths, net.up_widths
        (torch.Size([1, 8, 13, 21]), (8, 8, 32), (8, 16, 32))
    """

    EXTRA = 0

    def __init__(self, in_channels: int, settings: UNetSettings | None = None, time: bool = False) -> None:
        super().__init__()
        s = settings or UNetSettings(kind="ddpm")
        refuse(s, "ddpm", time=False, dropout=0.0)
        outer = level_widths(s)
        inner = [outer[0], *outer[:-1]]
        self.depth, self.blocks, self._up_widths = s.depth, s.blocks, tuple(outer)
        self.widths = (*inner[:-1], outer[-1])
        self.in_channels, self.out_channels = in_channels, outer[0]
        size = 4 * s.width if time else 0
        self.time = TimeEmbedding(size, _frequencies(s.width), nn.GELU) if time else None

        def level(inputs: list[int], outputs: int) -> nn.ModuleList:
            attention = [None] * (len(inputs) - 1) + [LinearAttention(outputs) if s.attention else None]
            return nn.ModuleList(Block(i, outputs, size, a) for i, a in zip(inputs, attention, strict=True))

        self.stem = nn.Conv2d(in_channels, outer[0], 1)
        self.encoder = nn.ModuleList(level([w] * s.blocks, w) for w in inner)
        self.down = nn.ModuleList(Down(*pair) for pair in zip(inner, inner[1:], strict=False))
        self.middle = nn.ModuleList([Middle(inner[-1], outer[-1], size, s.attention)])
        pairs = list(zip(inner, outer, strict=True))[::-1]
        self.decoder = nn.ModuleList(level([o + i] * s.blocks, o) for i, o in pairs)
        self.up = nn.ModuleList(Up(o, i) for i, o in pairs[:-1])
        self.conv = nn.Conv2d(outer[0], outer[0], 3, padding=1)
        self.last = Block(2 * outer[0], outer[0], size)

    @property
    def up_widths(self) -> tuple[int, ...]:
        return self._up_widths

    def end(self, x: Tensor, skips: list[Tensor], embedding: Tensor | None) -> Tensor:
        joined = torch.cat([self.conv(x), repeated(skips[-1], x)], 1)
        features: Tensor = self.last(joined, embedding)
        return features

    def head(self, outputs: int, kernel: int) -> nn.Conv2d:
        """A 1x1 convolution."""
        return super().head(outputs, 1)


def _frequencies(width: int) -> Tensor:
    count = max(1, width // 2)
    return LONGEST ** (-torch.arange(count) / max(1, count - 1))
