"""Augmentation of an image together with all its masks.

Four kinds, each of which a data set can forbid in its ``dataset.yaml`` (wind directions do not survive a
flip, street scenes do not survive a turn): ``flip`` left-right, ``rotate`` by quarter turns, ``scale`` by a
factor around the centre, and ``intensity``, a gain and an offset per channel of the normalised image. Flips
and turns are exact; scaling reads the image bilinearly and the masks at the nearest pixel, and marks what
lies outside as void.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

DEFAULTS: Mapping[str, bool] = {"flip": True, "rotate": False, "scale": False, "intensity": False}
"""What is done where a data set does not say."""


@dataclass(frozen=True)
class Augmentation:
    """Which kinds of augmentation are done, and how strongly.

    Attributes:
        flip, rotate, scale, intensity: the kinds.
        scale_range: largest enlargement f; factors are drawn log-uniformly from 1/f to f.
        intensity_range: gains are drawn from 1 +- this, offsets from +- this (in standard deviations).

    Example:
        >>> rng = np.random.default_rng(3)
        >>> image, masks = torch.arange(4.0).view(1, 2, 2), torch.tensor([[[0, 1], [0, 1]]], dtype=torch.uint8)
        >>> turned, turned_masks = Augmentation(rotate=True)(image, masks, 255, rng)
        >>> bool(((turned[0] % 2).to(torch.uint8) == turned_masks[0]).all())
        True
    """

    flip: bool = True
    rotate: bool = False
    scale: bool = False
    intensity: bool = False
    scale_range: float = 1.25
    intensity_range: float = 0.1

    @classmethod
    def of(cls, allowed: Mapping[str, bool]) -> Augmentation:
        """The defaults with a data set's own wishes on top."""
        return cls(**{**DEFAULTS, **allowed})

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation at all."""
        return cls(flip=False)

    def __call__(
        self, image: Tensor, masks: Tensor, void: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Image ``(C, H, W)`` and masks ``(N, H, W)``, moved alike."""
        if self.flip and rng.random() < 0.5:
            image, masks = image.flip(-1), masks.flip(-1)
        if self.rotate:
            square = image.shape[-1] == image.shape[-2]
            turns = int(rng.integers(4)) if square else 2 * int(rng.integers(2))
            image, masks = image.rot90(turns, (-2, -1)), masks.rot90(turns, (-2, -1))
        if self.scale:
            limit = float(np.log(self.scale_range))
            image, masks = _rescale(image, masks, float(np.exp(rng.uniform(-limit, limit))), void)
        if self.intensity:
            shape = (image.shape[0], 1, 1)
            gain = 1 + rng.uniform(-self.intensity_range, self.intensity_range, shape)
            offset = rng.uniform(-self.intensity_range, self.intensity_range, shape)
            image = image * torch.from_numpy(gain).float() + torch.from_numpy(offset).float()
        return image, masks


def _rescale(image: Tensor, masks: Tensor, factor: float, void: int) -> tuple[Tensor, Tensor]:
    """Enlarge by ``factor`` around the centre, keeping the size."""
    theta = torch.tensor([[[1 / factor, 0, 0], [0, 1 / factor, 0]]])
    grid = functional.affine_grid(theta, [1, 1, *image.shape[1:]], align_corners=False)
    zoomed = functional.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
    (rows, above), (columns, beside) = (_nearest(size, factor) for size in masks.shape[1:])
    moved = masks.index_select(1, rows).index_select(2, columns)
    moved[:, above[:, None] | beside] = void
    return zoomed, moved


def _nearest(size: int, factor: float) -> tuple[Tensor, Tensor]:
    """Where each row (or column) comes from, and whether that is outside, ``(size,)`` each."""
    centre = (size - 1) / 2
    source = ((torch.arange(size) - centre) / factor + centre).round().long()
    return source.clamp(0, size - 1), (source < 0) | (source >= size)
