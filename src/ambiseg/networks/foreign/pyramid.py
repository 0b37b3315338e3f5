"""`EncoderBackbone`: any encoder that returns feature maps, with a convolution stem and the decoder of the U-Net.

An encoder halves the image again and again, as convolutional and hierarchical networks do (He et al. 2016; Liu et al.
2021, 2022): its maps have strides such as 4, 8, 16 and 32. Or it cuts the image into patches, as vision transformers do
(Dosovitskiy et al. 2021): then all maps have the stride of a patch, and those of several depths are resampled to a
pyramid (Ranftl, Bochkovskiy and Koltun 2021, "Vision transformers for dense prediction"; Li, Mao, Girshick and He 2022,
"Exploring plain vision transformer backbones for object detection").

Level l of the pyramid has stride 2^l. Levels that are finer than the first map come from a stem of ours on the image.
Each map goes through a 1x1 convolution to the width of its level, which ``backbone.width`` and the like say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.base import Encoded
from ambiseg.networks.foreign.channels import first_convolution
from ambiseg.networks.foreign.saying import in_one_sentence
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import (
    ResidualBlock,
    ResidualDecoder,
    SelfAttention,
    TimeEmbedding,
    check_channels,
    extend,
    group_norm,
    level_widths,
)

TRIED = 64
"""Height and width of the image in the pass that finds channels and strides."""
FINEST_OF_PATCHES = 2
"""The finest level of the pyramid of an encoder of patches, of stride 4."""


@dataclass(frozen=True)
class Pyramid:
    """Which map of an encoder every level takes.

    Attributes:
        channels: of the maps, in their order.
        first: the finest level that comes from the encoder.
        sources: index of the map for each level from `first` on.
        patch: side of a patch in pixels, 0 where the encoder halves the image.
        stride: of the coarsest map, in pixels of the image; a power of two.
    """

    channels: tuple[int, ...]
    first: int
    sources: tuple[int, ...]
    patch: int
    stride: int

    @property
    def depth(self) -> int:
        """Number of levels."""
        return self.first + len(self.sources)

    @classmethod
    def of(cls, encoder: nn.Module, in_channels: int, kind: str) -> Pyramid:
        """That of an encoder, found by one pass over a black image of at most 64x64 pixels.

        Raises:
            AmbisegError: the encoder does not take such an image, or its maps make no pyramid.
        """
        patch = _patch(encoder, kind)
        side = TRIED // patch * patch if 1 < patch <= TRIED else TRIED
        with in_one_sentence(
            f"the encoder {kind} does not take images of {side}x{side} pixels with {in_channels} channel(s)",
            "choose another one, or other backbone.encoder.options",
        ):
            found = _tried(encoder, in_channels, side)
        if (
            not isinstance(found, Sequence)
            or not found
            or not all(isinstance(one, Tensor) and one.dim() == 4 for one in found)
        ):
            raise AmbisegError(
                f"the encoder {kind} must return a list of feature maps (B, F, h, w), received {_shown(found)}"
            )
        sizes = [tuple(one.shape[2:]) for one in found]
        channels = tuple(one.shape[1] for one in found)
        if patch > 1 and set(sizes) == {(side // patch, side // patch)}:
            return cls._of_patches(channels, patch)
        return cls._of_sizes(channels, sizes, side, kind)

    @classmethod
    def _of_patches(cls, channels: tuple[int, ...], patch: int) -> Pyramid:
        """The last levels of as many maps as there are levels, spread over the depth of the encoder."""
        last = round(math.log2(patch))
        first = min(FINEST_OF_PATCHES, last)
        count = last - first + 1
        return cls(channels, first, spread(len(channels), count), patch, 2**last)

    @classmethod
    def _of_sizes(
        cls, channels: tuple[int, ...], sizes: list[tuple[int, ...]], side: int, kind: str
    ) -> Pyramid:
        """Of several maps of one stride the last one counts; a level between two maps takes the coarser one."""
        strides = [side / size[0] for size in sizes]
        levels = [math.log2(stride) for stride in strides]
        if (
            any(size[0] != size[1] for size in sizes)
            or not all(level.is_integer() for level in levels)
            or levels != sorted(levels)
        ):
            shown = ", ".join(f"{stride:g}" for stride in strides)
            raise AmbisegError(
                f"the maps of the encoder {kind} have strides {shown}, but powers of two that rise are needed, or one"
                " patch size: choose another encoder"
            )
        first, last = int(levels[0]), int(levels[-1])
        sources = [
            max(i for i, level in enumerate(levels) if level == min(one for one in levels if one >= wanted))
            for wanted in range(first, last + 1)
        ]
        return cls(channels, first, tuple(sources), 0, 2**last)


def returns_maps(module: nn.Module, in_channels: int) -> bool:
    """Whether a module returns a list, so that it is an encoder, for a black image of 64x64 pixels."""
    try:
        return isinstance(_tried(module, in_channels, TRIED), list | tuple)
    except Exception:  # whoever builds it says what is wrong
        return False


@torch.no_grad()
def _tried(module: nn.Module, in_channels: int, side: int) -> object:
    """What a module returns for a black image, in evaluation mode; its mode stays."""
    modes = [(part, part.training) for part in module.modules()]
    device = next((value.device for value in module.parameters()), torch.device("cpu"))
    try:
        return module.eval()(torch.zeros(1, in_channels, side, side, device=device))
    finally:
        for part, mode in modes:
            part.training = mode


def spread(maps: int, count: int) -> tuple[int, ...]:
    """Indices of ``count`` of so many maps: the last one and others at equal distances.

    Example:
        >>> spread(12, 3), spread(1, 3)
        ((3, 7, 11), (0, 0, 0))
    """
    return tuple(max(0, round((i + 1) * maps / count) - 1) for i in range(count))


class EncoderBackbone(ResidualDecoder):
    """Images ``(B, C, H, W)`` to features ``(B, width, H, W)`` through an encoder of another package.

    The stem and the decoder see a time, where there is one; the encoder does not.

    Args:
        encoder: maps images ``(B, C, h, w)`` to a list of feature maps, from fine to coarse.
        in_channels: image channels C.
        settings: width, max_width, factors, blocks, attention and dropout of stem and decoder; the encoder decides
            the depth.
        time: whether `forward` takes a time.

    Attributes:
        encoder: as given.
        pyramid: which of its maps every level takes.

    Raises:
        AmbisegError: an encoder that returns something else, or an image with another number of channels.

    Example:
        >>> class Halving(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layers = nn.ModuleList(nn.Conv2d(c, 8, 2, stride=2) for c in (3, 8, 8))
        ...     def forward(self, x):
        ...         maps = []
        ...         for layer in self.layers:
        ...             x = layer(x)
        ...             maps.append(x)
        ...         return maps
        >>> net = EncoderBackbone(Halving(), 3, UNetSettings(width=8))
        >>> net(torch.zeros(1, 3, 13, 21)).shape, net.widths
        (torch.Size([1, 8, 13, 21]), (8, 16, 32, 64))
    """

    def __init__(
        self, encoder: nn.Module, in_channels: int, settings: UNetSettings, time: bool = False
    ) -> None:
        super().__init__()
        s, self.kind = settings, settings.kind
        self.pyramid = Pyramid.of(encoder, in_channels, s.kind)
        self.in_channels, self.depth = in_channels, self.pyramid.depth
        widths = level_widths(replace(s, depth=self.depth))
        self.widths, self.out_channels = tuple(widths), widths[0]
        size = 4 * widths[0] if time else 0
        self.time = TimeEmbedding(size) if time else None
        self.encoder = encoder

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, s.dropout, size)

        first = self.pyramid.first
        self.stem, self.stem_blocks = nn.ModuleList(), nn.ModuleList()
        for inputs, w, stride in zip([in_channels, *widths], widths[:first], (1, *[2] * first), strict=False):
            self.stem.append(nn.Conv2d(inputs, w, 3, stride=stride, padding=1))
            self.stem_blocks.append(block(w, w))
        self.lateral = nn.ModuleList(
            nn.Conv2d(self.pyramid.channels[source], w, 1)
            for source, w in zip(self.pyramid.sources, widths[first:], strict=True)
        )
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for w, lower in zip(widths, widths[1:], strict=False):
            self.up.append(nn.Conv2d(lower, w, 1))
            self.decoder.append(nn.ModuleList(block(2 * w if i == 0 else w, w) for i in range(s.blocks)))
        self.attention = SelfAttention(widths[-1]) if s.attention else nn.Identity()
        self.middle = block(widths[-1], widths[-1])
        self.norm = group_norm(widths[0])

    @property
    def export_obstacle(self) -> str:
        if "swin" in self.kind.lower():
            return (
                f"the windows of the encoder {self.kind} are other views of memory in a graph, where it fails"
            )
        return ""

    def encoder_parts(self) -> list[nn.Module]:
        """The encoder of the other package; stem and 1x1 convolutions are ours and begin at random."""
        return [self.encoder]

    def innermost_parts(self, levels: int) -> list[nn.Module]:
        """The block in the middle and decoder levels; the layers of the encoder stay as its package has them."""
        return [self.middle, *self.decoder[max(0, self.depth - levels - 1) :]]

    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        """Levels of stem and encoder; the bottleneck is what attention and the block in the middle give."""
        check_channels(images, self.in_channels)
        embedding = self.time(time) if self.time is not None and time is not None else None
        x = extend(images, 2 ** (self.depth - 1))
        maps, levels, h = self._maps(x), [], x
        for convolution, block in zip(self.stem, self.stem_blocks, strict=True):
            h = block(convolution(h), embedding)
            levels.append(h)
        for layer, source in zip(self.lateral, self.pyramid.sources, strict=True):
            level = len(levels)
            levels.append(_resized(layer(maps[source]), x.shape[-2] >> level, x.shape[-1] >> level))
        bottom = self.middle(self.attention(levels.pop()), embedding)
        return Encoded([*levels, bottom], levels, embedding, (images.shape[-2], images.shape[-1]))

    def _maps(self, x: Tensor) -> Sequence[Tensor]:
        """Feature maps of an extended image. Patches of another side than a power of two see it resized, so that every
        patch is that many pixels of the image."""
        patch, stride = self.pyramid.patch, self.pyramid.stride
        if patch not in (0, stride):
            x = _resized(x, x.shape[-2] // stride * patch, x.shape[-1] // stride * patch)
        maps: Sequence[Tensor] = self.encoder(x)
        return maps


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    if tuple(x.shape[-2:]) == (height, width):
        return x
    return functional.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


def _patch(encoder: nn.Module, kind: str) -> int:
    """Side of the patches that the first convolution cuts; 0 where it cuts none."""
    try:
        layer = first_convolution(encoder, kind)[1]
    except AmbisegError:
        return 0
    square = layer.stride[0] == layer.stride[1]
    return int(layer.stride[0]) if square else 0


def _shown(found: object) -> str:
    if isinstance(found, Tensor):
        return f"one tensor of shape {tuple(found.shape)}"
    if isinstance(found, list | tuple):
        return f"{len(found)} entries, the first of which is {_shown(found[0])}" if found else "an empty list"
    return type(found).__name__
