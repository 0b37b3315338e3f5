"""PixelCNN: logits of every pixel of a label map, given the pixels before it in raster order and features of
an image.

Van den Oord, Kalchbrenner and Kavukcuoglu (2016), "Pixel recurrent neural networks"; van den Oord, Kalchbrenner,
Espeholt, Vinyals, Graves and Kavukcuoglu (2016), "Conditional image generation with PixelCNN decoders". With pixels
``y_1, ..., y_n`` in raster order and features f,

    p(y | f) = prod_i p(y_i | y_1, ..., y_i-1, f).

A k x k convolution that sees no later pixel is the sum of two: one over the k // 2 rows above, and one over the
k // 2 pixels to the left, with the pixel itself in all layers but the first. So no weight is masked. The two parts
also say what stays the same while a row is drawn: rows above are summed once for each row, and a pixel adds what
stands to its left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.phiseg import BatchNorm
from ambiseg.networks.unet import group_norm


class CausalLayer(nn.Module, ABC):
    """One layer: what it says of a pixel depends on rows above and on what stands to its left.

    Args:
        kernel: size k of the convolution.
        first: whether the layer sees the label map, and so not the pixel itself.

    Attributes:
        above: whether the rows that it sees end above that of the pixel.
        left: convolution over the pixels to the left, without bias.
    """

    above: bool
    left: nn.Conv2d

    def __init__(self, kernel: int, first: bool) -> None:
        super().__init__()
        self.reach, self.first = kernel // 2, first

    @abstractmethod
    def context(self, rows: Tensor, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """What rows above and the image say of pixels, and the rows that the next layer sees.

        Args:
            rows: ``(N, C, H + reach - above, W + 2 reach)`` for H rows of pixels, zeros outside.
            features: ``(N, F, H, W)``.

        Returns:
            Sums ``(N, P, H, W)`` before the activation, and rows ``(N, C, H, W)``; None where the next layer sees
            the output of this one.
        """

    @abstractmethod
    def finish(self, sums: Tensor, h: Tensor) -> Tensor:
        """Output of pixels from the complete sums ``(N, P, *S)`` and the layer's input ``(N, C, *S)``."""

    def forward(self, v: Tensor, h: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of whole maps: rows and outputs of the layer before to those of this one."""
        r = self.reach
        rows = functional.pad(v, (r, r, r, 0))
        sums, upper = self.context(rows[..., :-1, :] if self.above else rows, features)
        beside = functional.pad(h, (r, 0))
        h = self.finish(sums + self.left(beside[..., :-1] if self.first else beside), h)
        return h if upper is None else upper, h

    def matrix(self) -> Tensor:
        """Weights of ``left`` for a window of pixels one after the other, ``(taps C, P)``."""
        return self.left.weight.squeeze(2).permute(2, 1, 0).flatten(0, 1)


class PlainLayer(CausalLayer):
    """Convolution, batch normalisation, ReLU, as in the public code of PixelSeg.

    It sees nothing to the right of k // 2 columns in the row above: the blind spot of van den Oord et al.
    """

    def __init__(self, inputs: int, width: int, kernel: int, first: bool) -> None:
        super().__init__(kernel, first)
        r, self.above = kernel // 2, True
        self.upper = nn.Conv2d(inputs, width, (r, kernel), bias=False)
        self.left = nn.Conv2d(inputs, width, (1, r if first else r + 1), bias=False)
        self.norm = BatchNorm(width)
        bound = (inputs * (r * kernel + r + (not first))) ** -0.5
        for part in (self.upper, self.left):
            nn.init.uniform_(part.weight, -bound, bound)

    def context(self, rows: Tensor, features: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.upper(rows), None

    def finish(self, sums: Tensor, h: Tensor) -> Tensor:
        return functional.relu(
            self.norm(sums) if sums.dim() > 2 else self.norm(sums[..., None, None])[..., 0, 0]
        )


class GatedLayer(CausalLayer):
    """Two stacks of gates ``tanh(a) sigmoid(b)``, one over rows and one over pixels, the latter with a skip
    connection (van den Oord et al. 2016, "Conditional image generation", figure 2): no blind spot.

    The features join the gates of the pixels through a 1x1 convolution.
    """

    def __init__(self, inputs: int, width: int, kernel: int, first: bool, features: int) -> None:
        super().__init__(kernel, first)
        r, self.above = kernel // 2, first
        self.upper = nn.Conv2d(inputs, 2 * width, (r if first else r + 1, kernel))
        self.left = nn.Conv2d(inputs, 2 * width, (1, r if first else r + 1), bias=False)
        self.link = nn.Conv2d(2 * width, 2 * width, 1, bias=False)
        self.condition = nn.Conv2d(features, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def context(self, rows: Tensor, features: Tensor) -> tuple[Tensor, Tensor | None]:
        upper = self.upper(rows)
        return self.link(upper) + self.condition(features), _gate(upper)

    def finish(self, sums: Tensor, h: Tensor) -> Tensor:
        out = pointwise(self.out, _gate(sums))
        return out if self.first else h + out


def pointwise(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of maps ``(N, C, H, W)``, or of single pixels ``(N, C)`` as a matrix product."""
    if x.dim() == 2:
        return functional.linear(x, layer.weight.flatten(1), layer.bias)
    out: Tensor = layer(x)
    return out


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class PixelCNN(nn.Module, ABC):
    """Logits of pixels given earlier ones: causal layers and a head.

    Args:
        inputs: channels of the label map in its channel form.
        layers: the causal layers, first one first.
    """

    def __init__(self, inputs: int, layers: list[CausalLayer]) -> None:
        super().__init__()
        self.inputs, self.layers = inputs, nn.ModuleList(layers)

    @abstractmethod
    def head(self, h: Tensor, features: Tensor) -> Tensor:
        """Logits ``(N, C, *S)`` of outputs ``(N, width, *S)`` of the last layer and features ``(N, F, *S)``."""

    @abstractmethod
    def prepared(self, features: Tensor) -> Tensor:
        """The features in the form in which layers and head take them."""

    def forward(self, seen: Tensor, features: Tensor) -> Tensor:
        """Logits of all pixels at once.

        Args:
            seen: the label map in channel form ``(N, inputs, H, W)``.
            features: ``(N, F, H, W)``.

        Returns:
            ``(N, C, H, W)`` float32; those of a pixel depend on earlier pixels of ``seen`` only.
        """
        features = self.prepared(features)
        v = h = seen
        for layer in self.layers:
            v, h = layer(v, h, features)
        return self.head(h, features).float()

    @torch.no_grad()
    def sample(self, features: Tensor, choose: Callable[[Tensor, int, int], Tensor]) -> tuple[Tensor, Tensor]:
        """Draw label maps pixel after pixel, those of all features side by side.

        Rows above enter once for each row; a pixel takes one matrix product per layer. Of earlier rows each layer
        keeps k // 2.

        Args:
            features: ``(N, F, H, W)``.
            choose: from logits ``(N, C)``, row and column to the channel form of the drawn pixels ``(N, inputs)``.

        Returns:
            The label maps in channel form ``(N, inputs, H, W)``, and the logits ``(N, C, H, W)`` that they were
            drawn with.
        """
        features = self.prepared(features)
        count, _, height, width = features.shape
        layers = list(cast(Iterable[CausalLayer], self.layers))
        sizes = [layer.left.in_channels for layer in layers]
        kept = [
            features.new_zeros(count, c, layer.reach, width) for c, layer in zip(sizes, layers, strict=True)
        ]
        matrices = [layer.matrix() for layer in layers]
        drawn, logits = [], []
        for row in range(height):
            here = features[:, :, row : row + 1]
            sums = self._begin_row(layers, kept, here)
            lines = [
                features.new_zeros(count, width + layer.reach, c)
                for c, layer in zip(sizes, layers, strict=True)
            ]
            said = []
            for column in range(width):
                out = self._pixel(layers, matrices, sums, lines, column)
                said.append(self.head(out, here[:, :, 0, column]).float())
                lines[0][:, column + layers[0].reach] = choose(said[-1], row, column).to(features.dtype)
            for i, layer in enumerate(layers):
                if layer.above:
                    line = lines[i][:, layer.reach :].mT[:, :, None]
                    kept[i] = torch.cat([kept[i], line], 2)[:, :, 1:]
            drawn.append(lines[0][:, layers[0].reach :].mT)
            logits.append(torch.stack(said, 2))
        return torch.stack(drawn, 2), torch.stack(logits, 2)

    @staticmethod
    def _begin_row(layers: list[CausalLayer], kept: list[Tensor], features: Tensor) -> list[Tensor]:
        """What rows above and the image say of a row, ``(N, W, P)`` for each layer."""
        found, v = [], None
        for i, layer in enumerate(layers):
            rows = kept[i]
            if not layer.above and v is not None:
                rows = torch.cat([rows, v], 2)
                kept[i] = rows[:, :, 1:]
            sums, v = layer.context(functional.pad(rows, (layer.reach, layer.reach)), features)
            found.append(sums.squeeze(2).mT)
        return found

    @staticmethod
    def _pixel(
        layers: list[CausalLayer],
        matrices: list[Tensor],
        sums: list[Tensor],
        lines: list[Tensor],
        column: int,
    ) -> Tensor:
        """Output ``(N, width)`` of the last layer at a pixel; ``lines`` hold the inputs of the layers in its row."""
        out = lines[0][:, column + layers[0].reach]
        for layer, line, matrix, above in zip(layers, lines, matrices, sums, strict=True):
            line[:, column + layer.reach] = out
            window = line[:, column : column + layer.reach + (not layer.first)].flatten(1)
            out = layer.finish(torch.addmm(above[:, column], window, matrix), out)
        return out


class PlainPixelCNN(PixelCNN):
    """The network of the public code of PixelSeg: plain layers, and one 1x1 convolution of their output beside the
    features.

    Args:
        inputs, features, outputs: channels of the label map, of the features, of the logits.
        width, count, kernel: channels, number and size of the convolutions.

    Raises:
        AmbisegError: no layer, or an even kernel.

    Example:
        >>> PlainPixelCNN(1, 3, 2, width=4, count=2, kernel=3)(torch.zeros(5, 1, 6, 7), torch.zeros(5, 3, 6, 7)).shape
        torch.Size([5, 2, 6, 7])
    """

    def __init__(self, inputs: int, features: int, outputs: int, width: int, count: int, kernel: int) -> None:
        check_sizes(width, count, kernel)
        first = PlainLayer(inputs, width, kernel, True)
        super().__init__(
            inputs, [first, *(PlainLayer(width, width, kernel, False) for _ in range(count - 1))]
        )
        self.out = nn.Conv2d(width + features, outputs, 1)

    def prepared(self, features: Tensor) -> Tensor:
        return features

    def head(self, h: Tensor, features: Tensor) -> Tensor:
        return pointwise(self.out, torch.cat([h, features], 1))


class GatedPixelCNN(PixelCNN):
    """Gated layers that see the features, and two 1x1 convolutions; the last one starts at 0.

    Args:
        inputs, features, outputs: channels of the label map, of the features, of the logits.
        width, count, kernel: channels, number and size of the convolutions.

    Raises:
        AmbisegError: no layer, or an even kernel.

    Example:
        >>> GatedPixelCNN(2, 3, 1, width=4, count=2, kernel=3)(torch.zeros(5, 2, 6, 7), torch.zeros(5, 3, 6, 7)).shape
        torch.Size([5, 1, 6, 7])
    """

    def __init__(self, inputs: int, features: int, outputs: int, width: int, count: int, kernel: int) -> None:
        check_sizes(width, count, kernel)
        first = GatedLayer(inputs, width, kernel, True, features)
        others = (GatedLayer(width, width, kernel, False, features) for _ in range(count - 1))
        super().__init__(inputs, [first, *others])
        self.norm = group_norm(features)
        self.join = nn.Conv2d(width + features, width, 1)
        self.out = nn.Conv2d(width, outputs, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(cast(Tensor, self.out.bias))

    def prepared(self, features: Tensor) -> Tensor:
        return functional.silu(self.norm(features))

    def head(self, h: Tensor, features: Tensor) -> Tensor:
        joined = pointwise(self.join, torch.cat([functional.silu(h), features], 1))
        return pointwise(self.out, functional.silu(joined))


def check_sizes(width: int, count: int, kernel: int) -> None:
    """Raise `AmbisegError` for sizes of which no PixelCNN can be made."""
    if min(width, count) < 1:
        raise AmbisegError(f"a PixelCNN has one layer and one channel or more, received {count} and {width}")
    if kernel < 3 or kernel % 2 == 0:
        raise AmbisegError(f"the kernel of a PixelCNN is odd and 3 or more, received {kernel}")
