"""What pictures show: images as RGB, classes as colours, large maps at the size of a screen.

Nothing here draws. Images come with any number of channels and any numeric type; a person needs three of
them in 0..1, and no more pixels than a panel has.
Shapes: C channels, K masks, ``(H, W)`` space, ``(h, w)`` the reduced space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ambiseg.data.volumes.settings import own_channels
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

Floats = NDArray[np.float64]
Labels = NDArray[np.uint8]

LONGEST_SIDE = 360
"""Larger images are reduced for display until their longer side fits."""
VOID_COLOR = (0.62, 0.62, 0.62)
"""Colour of pixels that nobody is to judge."""

_FIRE = np.array([1.0, 0.36, 0.05])
_LIGHT_AZIMUTH, _LIGHT_ALTITUDE = np.deg2rad(135.0), np.deg2rad(45.0)  # from the north-west, halfway up


def check_image(image: NDArray[np.generic], *sets: MaskSet | None) -> None:
    """Refuse what no picture can show.

    Raises:
        AmbisegError: an image that is not ``(C, H, W)``, a batch instead of one image, masks of another size.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise AmbisegError(f"an image to draw is (C, H, W) and not empty, received shape {image.shape}")
    for one in sets:
        if one is None:
            continue
        if len(one) != 1:
            raise AmbisegError(f"one picture shows one image, received masks of {len(one)}: pass masks[i]")
        size = tuple(one.masks.shape[2:])
        if size != image.shape[1:]:
            raise AmbisegError(f"masks of size {size} do not fit an image of size {image.shape[1:]}")


def background_of(image: NDArray[np.generic], channels: Sequence[str] = ()) -> Floats:
    """An image as a person would want to see it.

    Three channels are RGB; one channel, or the first of an unusual number, is grey with its contrast
    stretched. Named channels know better: "red", "green" and "blue" are RGB, "elevation" becomes shaded
    relief, and "fire" glows on top of whatever lies below. Neighbours of a slice are not shown.

    Args:
        image: ``(C, H, W)`` of any numeric type; values that are not finite count as 0.
        channels: names of the channels, as far as they have any.

    Returns:
        ``(H, W, 3)`` in 0..1.

    Raises:
        AmbisegError: not ``(C, H, W)``, or empty.
    """
    check_image(image)
    own = own_channels(channels, len(image))
    image, channels = image[own], [channels[i] for i in own if i < len(channels)]
    values = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    place = {name.lower(): i for i, name in reversed(list(enumerate(channels[: len(values)])))}
    rgb = [place[name] for name in ("red", "green", "blue") if name in place]
    if "elevation" in place:
        base = _grey(_hillshade(values[place["elevation"]]))
    elif len(rgb) == 3 or (len(values) == 3 and "fire" not in place):
        base = _color(values[rgb] if len(rgb) == 3 else values, image.dtype)
    else:
        first = next((i for i in range(len(values)) if i != place.get("fire")), None)
        base = _grey(np.zeros(values.shape[1:]) if first is None else _stretch(values[first]))
    if "fire" in place:
        fire = np.clip(values[place["fire"]], 0, None)
        glow = 0.8 * (fire / max(float(fire.max()), 1e-12))[..., None]
        base = base * (1 - glow) + _FIRE * glow
    return base


def _grey(value: Floats) -> Floats:
    return np.repeat(value[..., None], 3, axis=2)


def _stretch(value: Floats) -> Floats:
    """Percentiles 1 and 99 to 0 and 1; a constant becomes mid-grey."""
    low, high = np.percentile(value, [1, 99])
    if high <= low:
        low, high = value.min(), value.max()
    if high <= low:
        return np.full(value.shape, 0.5)
    return np.asarray(np.clip((value - low) / (high - low), 0, 1))


def _color(value: Floats, kind: np.dtype[np.generic]) -> Floats:
    """Three channels as RGB: 0..1 and 0..255 as they are, any other range stretched."""
    low, high = float(value.min()), float(value.max())
    if kind == np.uint8 or (low >= 0 and 1 < high <= 255):
        value = value / 255
    elif low < 0 or high > 1:
        value = _stretch(value)
    return np.moveaxis(value, 0, 2)


def _hillshade(elevation: Floats) -> Floats:
    """Relief lit from the north-west, exaggerated to a usual steepness, with a hint of the height itself."""
    if min(elevation.shape) < 2:
        return _stretch(elevation)
    south, east = np.gradient(elevation)
    steep = float(np.percentile(np.hypot(south, east), 90))
    scale = 0.8 / steep if steep > 0 else 0.0
    slope_x, slope_y = east * scale, -south * scale
    toward = np.cos(_LIGHT_ALTITUDE) * (np.cos(_LIGHT_AZIMUTH) * slope_x + np.sin(_LIGHT_AZIMUTH) * slope_y)
    light = (np.sin(_LIGHT_ALTITUDE) - toward) / np.sqrt(1 + slope_x**2 + slope_y**2)
    return np.asarray(0.15 + 0.6 * np.clip(light, 0, 1) + 0.25 * _stretch(elevation))


def dimmed(rgb: Floats) -> Floats:
    """``(H, W, 3)`` darkened and nearly grey, so that what is drawn on it stands out."""
    grey = rgb @ np.array([0.3, 0.59, 0.11])
    return np.asarray(0.55 * (0.25 * rgb + 0.75 * grey[..., None]))


def palette(labels: LabelSpace) -> Floats:
    """RGB in 0..1 of every integer that a label map can hold, ``(256, 3)``; grey where it is no class."""
    table = np.tile(np.array(VOID_COLOR), (256, 1))
    table[: labels.classes] = np.array(labels.colors) / 255.0
    return table


def shown_size(height: int, width: int) -> tuple[int, int]:
    """``(h, w)`` at which a map of that size is drawn, its shape kept.

    Example:
        >>> shown_size(64, 64), shown_size(960, 480)
        ((64, 64), (360, 180))
    """
    ratio = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def reduce_image(rgb: Floats) -> Floats:
    """``(H, W, 3)`` to ``(h, w, 3)``, each pixel the mean of those that it covers."""
    size = shown_size(*rgb.shape[:2])
    if size == rgb.shape[:2]:
        return rgb
    channels_first = torch.from_numpy(rgb).movedim(2, 0)[None]
    return np.asarray(functional.interpolate(channels_first, size=size, mode="area")[0].movedim(0, 2).numpy())


def reduce_masks(masks: Tensor) -> Tensor:
    """Label maps ``(..., H, W)`` to ``(..., h, w)``, each pixel the one at its centre: classes do not mix."""
    height, width = masks.shape[-2:]
    new_height, new_width = shown_size(height, width)
    if (new_height, new_width) == (height, width):
        return masks
    rows = ((torch.arange(new_height) + 0.5) * (height / new_height)).long().clamp(max=height - 1)
    columns = ((torch.arange(new_width) + 0.5) * (width / new_width)).long().clamp(max=width - 1)
    return masks[..., rows[:, None], columns]


def mean_and_entropy(one: MaskSet) -> tuple[Floats, Floats]:
    """Expected probabilities ``(C, h, w)`` and their entropy in nats ``(h, w)``; nan where all is void.

    One mask at a time, so that forty masks of a hundred classes fit into memory.
    """
    labels, there = one.labels, one.present[0].nonzero().flatten()
    small = reduce_masks(one.masks[0])
    total = torch.zeros(labels.channels, *small.shape[1:], dtype=torch.float64)
    for k in there.tolist():
        if one.probabilities is None:
            part = labels.one_hot(small[k], dim=0, dtype=torch.float64)
        else:
            soft = one.probabilities[:, k].double()
            part = functional.interpolate(soft, size=small.shape[1:], mode="area")[0]
        total += float(one.weights[0, k]) * part
    full = labels.all_classes(total, dim=0).clamp(min=0)
    entropy = torch.special.entr(full).sum(0)
    nobody = ~labels.valid(small[there]).any(0)
    total[:, nobody], entropy[nobody] = torch.nan, torch.nan
    return np.asarray(total.numpy()), np.asarray(entropy.numpy())
