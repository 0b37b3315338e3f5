"""Autoregressive networks on fields: what is said about a variable depends on earlier variables only.

A field ``u (N, C, H, W)`` is read as a sequence of D = C H W variables. A network maps it to two fields of
the same shape,

    m_i(u_<i)  and  s_i(u_<i),    i = 1, ..., D,

called mean and log-scale after their use in affine flows. `MaskedLinear` is the single linear layer with the
masks of Germain, Gregor, Murray and Larochelle (2015), "MADE: masked autoencoder for distribution
estimation"; `CausalTransformer` sees the image as a sequence of strips of pixels (Vaswani et al. 2017,
"Attention is all you need"; as De Sousa Ribeiro et al. 2025, "Flow stochastic segmentation networks", section
5.1, use it).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.dropout import Dropout


class AutoregressiveNetwork(nn.Module, ABC):
    """Maps a field ``u (N, C, H, W)`` to mean and log-scale, each depending on earlier variables of ``u``
    only."""

    @abstractmethod
    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """``m(u)`` and ``s(u)``, ``(N, C, H, W)`` each, float32 (or the float64 of the weights), also under
        autocast."""

    @abstractmethod
    def order(self, height: int, width: int) -> Tensor:
        """The sequence: position in ``u.flatten(1)`` of the first, second, ... variable, ``(D,)``
        integers."""

    @abstractmethod
    def steps(self, height: int, width: int) -> int:
        """How many groups of variables follow one another; the variables of a group do not depend on one
        another."""


class MaskedLinear(AutoregressiveNetwork):
    """One linear layer with strictly triangular weights over all variables of a field (Germain et al. 2015).

        m(u) = b + tril(W) u,    s(u) = c + tril(V) u,

    tril keeps what lies strictly below the diagonal. Pixels come in raster order, the channels of a pixel one
    after another. ``W`` starts at N(0, 0.01 / D), so that independent variables of variance 1 give means of
    variance 0.01 at most; the rest starts at 0.

    Memory grows with the square of D: 2 D^2 weights.

    Args:
        channels, height, width: of the fields, fixed.

    Attributes:
        weight: ``W`` and ``V``, ``(2, D, D)``, in the order of the sequence.
        bias: ``b`` and ``c``, ``(2, D)``.

    Raises:
        AmbisegError: a size below 1, or a field of another size.

    Example:
        >>> layer = MaskedLinear(1, 2, 2)
        >>> with torch.no_grad():
        ...     _ = layer.weight.fill_(1.0)
        >>> mean, log_scale = layer(torch.ones(1, 1, 2, 2))
        >>> mean.tolist()
        [[[[0.0, 1.0], [2.0, 3.0]]]]
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        if min(channels, height, width) < 1:
            raise AmbisegError(
                "the masked linear layer needs at least one channel, row and column,"
                f" received {channels} channel(s) of {height} x {width} pixels"
            )
        self.size = (channels, height, width)
        variables = channels * height * width
        self.weight = nn.Parameter(torch.zeros(2, variables, variables))
        self.bias = nn.Parameter(torch.zeros(2, variables))
        nn.init.normal_(self.weight[0], std=0.1 / math.sqrt(variables))

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        channels, height, width = self.size
        if u.shape[1:] != self.size:
            raise AmbisegError(
                f"the masked linear layer was built for images of {height} x {width} pixels and {channels} channel(s),"
                f" received {u.shape[2]} x {u.shape[3]} and {u.shape[1]}: resize or crop the images, or use the causal"
                " transformer, which takes any size"
            )
        sequence = u.permute(0, 2, 3, 1).flatten(1)
        out = functional.linear(sequence, self.weight.tril(-1).flatten(0, 1), self.bias.flatten())
        mean, log_scale = full_precision(out).view(-1, 2, height, width, channels).permute(1, 0, 4, 2, 3)
        return mean, log_scale

    def order(self, height: int, width: int) -> Tensor:
        channels = self.size[0]
        return (
            torch.arange(channels * height * width).view(channels, height, width).permute(1, 2, 0).flatten()
        )

    def steps(self, height: int, width: int) -> int:
        return self.size[0] * height * width


class CausalBlock(nn.Module):
    """Causal self-attention, then a two-layer network, each behind a LayerNorm and beside a skip
    connection."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        share = self.dropout.p if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=share, is_causal=True)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


class CausalTransformer(AutoregressiveNetwork):
    """Causal transformer over strips of pixels: mean and log-scale of a strip from all earlier strips.

    The image is cut into strips of ``rows x columns`` pixels in raster order; a strip with its C rows columns
    variables (pixels in raster order, the channels of a pixel one after another) is one token. The token that
    speaks of strip i holds the variables of strip i - 1 (a learnt start for the first) and sines and cosines
    of the row and column of strip i, so that any image size works. The variables of one strip do not depend
    on one another. The last layer starts at 0: mean and log-scale 0.

    With ``within_strip`` (not in the paper) a strictly triangular linear map of the strip itself, the same
    for all strips, is added to both, so that each variable depends on every earlier one: 2 (C rows columns)^2
    more weights, hardly more time to evaluate, but as many steps to invert as there are variables.

    Where strips reach over the lower or right border, the variables there are zeros that carry nothing, and
    what is said about them is cut off.

    Args:
        channels: of the fields.
        strip: rows and columns of a strip.
        width: length of a token inside the transformer.
        layers: number of transformer blocks.
        heads: of the attention; they share ``width`` equally.
        within_strip: whether variables depend on earlier ones of their own strip.
        dropout: share of dropped activations in training.

    Raises:
        AmbisegError: a strip without pixels, no layer, or a width that the heads cannot share.

    Example:
        >>> body = CausalTransformer(3, strip=(2, 4), width=16)
        >>> mean, log_scale = body(torch.randn(5, 3, 7, 9))
        >>> mean.shape, body.steps(7, 9)
        (torch.Size([5, 3, 7, 9]), 12)
    """

    def __init__(
        self,
        channels: int,
        strip: tuple[int, int] = (1, 8),
        width: int = 64,
        layers: int = 1,
        heads: int = 4,
        within_strip: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(strip) < 1:
            raise AmbisegError(f"a strip has at least one row and one column, received {tuple(strip)}")
        if layers < 1:
            raise AmbisegError(f"the causal transformer needs at least one layer, received {layers}")
        if heads < 1 or width < 1 or width % heads:
            raise AmbisegError(
                f"the width of the causal transformer is a multiple of its heads, received width {width} and {heads} heads"
            )
        self.channels, self.strip, self.width = channels, (strip[0], strip[1]), width
        variables = channels * strip[0] * strip[1]
        self.start = nn.Parameter(torch.zeros(width))
        self.embed = nn.Linear(variables, width)
        self.blocks = nn.Sequential(*(CausalBlock(width, heads, dropout) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2 * variables)
        self.within = nn.Parameter(torch.zeros(2, variables, variables)) if within_strip else None
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        height, width = u.shape[2:]
        strips = self._cut(u)
        start = self.start.expand(u.shape[0], 1, -1)
        tokens = torch.cat([start, self.embed(strips[:, :-1])], 1) + self._positions(height, width, u.device)
        mean, log_scale = full_precision(self.head(self.norm(self.blocks(tokens)))).chunk(2, 2)
        if self.within is not None:
            more = full_precision(torch.einsum("nlj,kij->knli", strips, self.within.tril(-1)))
            mean, log_scale = mean + more[0], log_scale + more[1]
        return self._join(mean, height, width), self._join(log_scale, height, width)

    def order(self, height: int, width: int) -> Tensor:
        index = torch.arange(self.channels * height * width).view(1, self.channels, height, width)
        sequence = self._cut(index, outside=-1).flatten()
        return sequence[sequence >= 0]

    def steps(self, height: int, width: int) -> int:
        return math.prod(self._grid(height, width)) if self.within is None else self.channels * height * width

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """How many strips lie below and beside one another."""
        rows, columns = self.strip
        return (height + rows - 1) // rows, (width + columns - 1) // columns

    def _cut(self, u: Tensor, outside: int = 0) -> Tensor:
        """A field ``(N, C, H, W)`` as strips ``(N, L, C rows columns)``, extended where they reach over the
        border."""
        (height, width), (rows, columns) = u.shape[2:], self.strip
        down, across = self._grid(height, width)
        u = functional.pad(u, (0, across * columns - width, 0, down * rows - height), value=outside)
        cells = u.reshape(*u.shape[:2], down, rows, across, columns)
        return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def _join(self, strips: Tensor, height: int, width: int) -> Tensor:
        """The inverse of `_cut`."""
        cells = strips.reshape(strips.shape[0], *self._grid(height, width), *self.strip, self.channels)
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)[..., :height, :width]

    def _positions(self, height: int, width: int, device: torch.device) -> Tensor:
        """Sines and cosines of the row and column of each strip, ``(L, width)`` (Vaswani et al. 2017, section
        3.5)."""
        down, across = self._grid(height, width)
        place = torch.cartesian_prod(torch.arange(down, device=device), torch.arange(across, device=device))
        count = -(-self.width // 4)
        frequencies = 10000 ** (-torch.arange(count, device=device) / count)
        angle = (place[:, :, None] * frequencies).flatten(1)
        return torch.cat([angle.sin(), angle.cos()], 1)[:, : self.width]


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where it is more precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
