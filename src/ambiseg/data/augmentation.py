"""Augmentation of an image together with all its masks.

The kinds and their ranges are in `ambiseg.data.augmentation_kinds`, each of which a data set can forbid in
its ``dataset.yaml``. They are done in three steps, whatever their order in the list:

1. flips and quarter turns, which are exact;
2. all other moves as one resampling: the pixel at x in the result is read from the image at

       c' + S H R (x - c + u(x)),

   c and c' the centres of the result and of the region that is read, S, H and R scaling, shear and rotation,
   u the elastic displacement. The image is read bilinearly and continued by its border, masks are read at the
   nearest pixel and are void outside;
3. changes of the values of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ambiseg.data.augmentation_kinds import (
    KINDS,
    Crop,
    Elastic,
    Flip,
    FlipVertical,
    Gamma,
    Intensity,
    Kind,
    QuarterTurns,
    ResizedCrop,
    Rotate,
    Scale,
    Shear,
)

_ORDER = {name: place for place, name in enumerate(KINDS)}


@dataclass(frozen=True)
class Augmentation:
    """What is done to a sample: a pure function of the sample and a random generator.

    Attributes:
        kinds: each at most once; their order has no meaning.

    Example:
        >>> rng = np.random.default_rng(3)
        >>> image, masks = torch.arange(4.0).view(1, 2, 2), torch.tensor([[[0, 1], [0, 1]]], dtype=torch.uint8)
        >>> turned, turned_masks = Augmentation((QuarterTurns(),))(image, masks, 255, rng)
        >>> bool(((turned[0] % 2).to(torch.uint8) == turned_masks[0]).all())
        True
    """

    kinds: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        ordered = sorted(self.kinds, key=lambda kind: _ORDER[kind.kind])
        object.__setattr__(self, "kinds", tuple(ordered))

    def __call__(
        self, image: Tensor, masks: Tensor, void: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Image ``(C, H, W)`` and masks ``(N, H, W)``, moved alike."""
        drawn = [kind for kind in self.kinds if _happens(getattr(kind, "probability", 1.0), rng)]
        moves: list[Kind] = []
        for kind in drawn:
            match kind:
                case Flip() | FlipVertical():
                    if rng.random() < 0.5:
                        axis = -1 if isinstance(kind, Flip) else -2
                        image, masks = image.flip(axis), masks.flip(axis)
                case QuarterTurns():
                    square = image.shape[-1] == image.shape[-2]
                    turns = int(rng.integers(4)) if square else 2 * int(rng.integers(2))
                    image, masks = image.rot90(turns, (-2, -1)), masks.rot90(turns, (-2, -1))
                case Intensity() | Gamma():
                    continue
                case _:
                    moves.append(kind)
        if moves:
            image, masks = _Warp.drawn(moves, image.shape[-2:], rng)(image, masks, void)
        for kind in drawn:
            if isinstance(kind, Intensity):
                shape = (image.shape[0], 1, 1)
                gain, offset = (rng.uniform(-kind.range, kind.range, shape) for _ in range(2))
                image = image * torch.from_numpy(1 + gain).float() + torch.from_numpy(offset).float()
            elif isinstance(kind, Gamma):
                image = _power(image, _log_uniform(rng, kind.low, kind.high, (image.shape[0], 1, 1)))
        return image, masks


@dataclass
class _Warp:
    """One resampling of image and masks.

    Attributes:
        size: rows and columns of the result.
        centre: of the region that is read, row and column.
        matrix: from offsets in the result to offsets in the image, ``(2, 2)``, rows first.
        shifts: displacement of each pixel of the result, ``(2, rows, columns)``; None: none.
    """

    size: tuple[int, int]
    centre: NDArray[Any]
    matrix: NDArray[Any] = field(default_factory=lambda: np.eye(2))
    shifts: Tensor | None = None

    @classmethod
    def drawn(cls, moves: Sequence[Kind], size: Sequence[int], rng: np.random.Generator) -> _Warp:
        """All moves, drawn and joined into one."""
        shape = np.array(size)
        warp = cls((size[0], size[1]), (shape - 1) / 2)
        for kind in moves:
            match kind:
                case Rotate():
                    angle = math.radians(rng.uniform(-kind.degrees, kind.degrees))
                    cos, sin = math.cos(angle), math.sin(angle)
                    warp.matrix = np.array([[cos, -sin], [sin, cos]]) @ warp.matrix
                case Scale():
                    warp.matrix = warp.matrix / _log_uniform(rng, kind.low, kind.high)
                case Shear():
                    slope = math.tan(math.radians(rng.uniform(-kind.degrees, kind.degrees)))
                    warp.matrix = np.array([[1, 0], [slope, 1]]) @ warp.matrix
                case Crop() | ResizedCrop():
                    warp.size = (kind.height, kind.width)
                    region = np.array(warp.size)
                    if isinstance(kind, ResizedCrop):
                        factor = float((shape / region).min()) * rng.uniform(kind.low, kind.high)
                        first = rng.uniform(0, np.maximum(shape - factor * region, 0))
                        warp.centre = first + (factor * region - 1) / 2
                        warp.matrix = warp.matrix * factor
                    else:
                        room = shape - region
                        first = rng.integers(np.minimum(room, 0), np.maximum(room, 0), endpoint=True)
                        warp.centre = first + (region - 1) / 2
        for kind in moves:
            if isinstance(kind, Elastic):
                strength = rng.uniform(0, kind.strength)
                warp.shifts = strength * _smooth_noise(warp.size, kind.smoothness, rng)
        return warp

    def __call__(self, image: Tensor, masks: Tensor, void: int) -> tuple[Tensor, Tensor]:
        """Read image and masks."""
        down, right = ((torch.arange(n) - (n - 1) / 2).float() for n in self.size)
        rows, columns = down[:, None], right[None]
        if self.shifts is not None:
            rows, columns = rows + self.shifts[0], columns + self.shifts[1]
        (a, b), (c, d) = self.matrix.tolist()
        y, x = self.centre.tolist()
        if b == c == 0:
            rows, columns = a * rows + y, d * columns + x
        else:
            rows, columns = a * rows + b * columns + y, c * rows + d * columns + x
        return _bilinear(image, rows, columns), _nearest(masks, rows, columns, void)


def _bilinear(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The image at some places, continued by its border; places are ``(rows, columns)`` or broadcast to it."""
    height, width = image.shape[-2:]
    if rows.shape[1] == columns.shape[0] == 1 and not (rows.frac().any() or columns.frac().any()):
        across = image.index_select(1, rows[:, 0].long().clamp(0, height - 1))
        return across.index_select(2, columns[0].long().clamp(0, width - 1))
    down, right = (2 * rows + 1) / height - 1, (2 * columns + 1) / width - 1
    size = (rows.shape[0], columns.shape[1])
    grid = torch.stack([right.expand(size), down.expand(size)], -1)[None]
    return functional.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]


def _nearest(masks: Tensor, rows: Tensor, columns: Tensor, void: int) -> Tensor:
    """The masks at the pixels nearest to some places, void outside."""
    height, width = masks.shape[-2:]
    rows, columns = rows.round().long(), columns.round().long()
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    rows, columns = rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)
    if rows.shape[1] == columns.shape[0] == 1:
        moved = masks.index_select(1, rows[:, 0]).index_select(2, columns[0])
    else:
        places = (rows * width + columns).numpy()  # NumPy takes a fifth of the time of index_select
        moved = torch.from_numpy(np.take(masks.flatten(1).numpy(), places, axis=1))
    return moved.masked_fill_(outside, void)


def _smooth_noise(size: tuple[int, int], smoothness: float, rng: np.random.Generator) -> Tensor:
    """Two Gaussian random fields of standard deviation 1, ``(2, rows, columns)``.

    White noise on a lattice of spacing s, smoothed by a Gaussian of standard deviation s, which differs from
    smoothed white noise of all pixels by less than 1e-4.
    """
    weights = []
    for count in size:
        nodes = np.arange(-4, math.ceil(count / smoothness) + 4) * smoothness
        kernel = np.exp(-(((np.arange(count)[:, None] - nodes) / smoothness) ** 2) / 2)
        weights.append(kernel / np.linalg.norm(kernel, axis=1, keepdims=True))
    noise = rng.standard_normal((2, weights[0].shape[1], weights[1].shape[1]))
    return torch.from_numpy((weights[0] @ noise @ weights[1].T).astype(np.float32))


def _power(image: Tensor, exponent: NDArray[Any]) -> Tensor:
    """A power of each channel between its least and greatest value, mean and standard deviation kept."""
    low, high = image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
    changed = ((image - low) / (high - low).clamp(min=1e-8)) ** torch.from_numpy(exponent).float()
    spread, mean = torch.std_mean(image, (1, 2), correction=0, keepdim=True)
    other_spread, other_mean = torch.std_mean(changed, (1, 2), correction=0, keepdim=True)
    return (changed - other_mean) * (spread / other_spread.clamp(min=1e-8)) + mean


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """Draw whether; a certain event takes no random number."""
    return probability == 1 or rng.random() < probability


def _log_uniform(rng: np.random.Generator, low: float, high: float, shape: Any = None) -> Any:
    """Numbers between two others, uniform in their logarithm."""
    return np.exp(rng.uniform(math.log(low), math.log(high), shape))
