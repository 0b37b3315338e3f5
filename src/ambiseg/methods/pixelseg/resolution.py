"""Between small masks and full resolution: `reduced`, two networks for the way back, and the smoothing of the public
code."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.labels import LabelSpace

WIDTH = 16
"""Channels of `FromFeatures`."""


def reduced(masks: Tensor, factor: int, labels: LabelSpace) -> Tensor:
    """The most frequent class of ``factor x factor`` pixels, the lowest of several; void where all of them are.

    Args:
        masks: label maps ``(N, H, W)``.
        factor: pixels along each side; the last cell of a row or column may have fewer.
        labels: the label space.

    Returns:
        ``(N, ceil(H / factor), ceil(W / factor))`` uint8.

    Example:
        >>> reduced(torch.tensor([[[0, 1, 1], [1, 1, 255]]]), 2, LabelSpace.binary())
        tensor([[[1, 1]]], dtype=torch.uint8)
    """
    if factor == 1:
        return masks.to(torch.uint8)
    below, right = (-side % factor for side in masks.shape[-2:])
    padded = functional.pad(masks, (0, right, 0, below), value=labels.void)
    most = torch.zeros((), device=masks.device)
    found = torch.full((), labels.void, dtype=torch.uint8, device=masks.device)
    for c in range(labels.classes):
        share = functional.avg_pool2d((padded == c).float(), factor)
        found = torch.where(share > most, torch.tensor(c, dtype=torch.uint8, device=masks.device), found)
        most = torch.maximum(share, most)
    return found


class FromFeatures(nn.Module):
    """Logits at full resolution from a small mask and features of the image, by three convolutions.

    The first is the sum of one over the features, made once per image, and one over the mask, which is scaled up
    bilinearly.

    Args:
        factor: pixels along each side of a pixel of the small mask.
        features, inputs, outputs: channels of the features, of the mask in channel form, of the logits.
    """

    def __init__(self, factor: int, features: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.factor = factor
        self.of_features = nn.Conv2d(features, WIDTH, 3, padding=1)
        self.of_mask = nn.Conv2d(inputs, WIDTH, 3, padding=1, bias=False)
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.out = nn.Conv2d(WIDTH, outputs, 1)

    def forward(self, features: Tensor, image: Tensor, seen: Tensor, logits: Tensor) -> Tensor:
        """Logits ``(N, C, H, W)``.

        Args:
            features: ``(B, F, H, W)``.
            image: which image a mask belongs to, ``(N,)``.
            seen: small masks in channel form ``(N, inputs, h, w)``.
            logits: those that they were drawn with, not used.
        """
        mask = scaled_up(seen, self.factor, features)
        x = functional.silu(self.of_features(features)[image] + self.of_mask(mask))
        out: Tensor = self.out(functional.silu(self.mix(x)))
        return out


class FromLogits(nn.Module):
    """Logits at full resolution from those of the U-Net and those of the small mask, by a 1x1 convolution (the
    public code).

    The logits of the small mask are scaled up bilinearly; no gradient goes back through them.

    Args:
        factor: pixels along each side of a pixel of the small mask.
        features, outputs: channels of the features, of the logits.
    """

    def __init__(self, factor: int, features: int, outputs: int) -> None:
        super().__init__()
        self.factor = factor
        self.own = nn.Conv2d(features, outputs, 1)
        self.final = nn.Conv2d(2 * outputs, outputs, 1)

    def forward(self, features: Tensor, image: Tensor, seen: Tensor, logits: Tensor) -> Tensor:
        """Logits ``(N, C, H, W)``; arguments as of `FromFeatures`, logits ``(N, C, h, w)`` in place of the masks."""
        own = self.own(features)[image]
        small = scaled_up(logits.detach(), self.factor, features)
        out: Tensor = self.final(torch.cat([own, small.to(own.dtype)], 1))
        return out


def scaled_up(small: Tensor, factor: int, features: Tensor) -> Tensor:
    """Maps ``(N, C, h, w)`` at the resolution of ``(B, F, H, W)``, bilinearly; what reaches over the border is cut
    off."""
    height, width = features.shape[-2:]
    scaled = functional.interpolate(small, scale_factor=float(factor), mode="bilinear", align_corners=False)
    return scaled[..., :height, :width]


def smoothed(masks: Tensor, labels: LabelSpace) -> Tensor:
    """Label maps ``(B, K, H, W)`` after a closing with 3x3 pixels (two classes only) and the most frequent class of
    3x3 pixels, the lowest of several; outside of the image is class 0.

    Of two classes the latter is the median.

    Example:
        >>> spot = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
        >>> spot[..., 2, 2] = 1
        >>> int(smoothed(spot, LabelSpace.binary()).sum())
        0
    """
    if labels.is_binary:
        grown = functional.max_pool2d(masks.float(), 3, 1, 1)
        masks = (-functional.max_pool2d(-grown, 3, 1, 1)).to(torch.uint8)
    inside = functional.pad(masks, (1, 1, 1, 1))
    found = torch.zeros_like(masks)
    most = functional.avg_pool2d((inside == 0).float(), 3, 1)
    for c in range(1, labels.classes):
        share = functional.avg_pool2d((inside == c).float(), 3, 1)
        found = torch.where(share > most, torch.tensor(c, dtype=torch.uint8, device=masks.device), found)
        most = torch.maximum(share, most)
    return found
