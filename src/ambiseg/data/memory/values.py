"""Images and masks as other libraries hand them over, under the rules of files.

An image or a mask is an array of numpy or torch (also one of MONAI), nested lists, a picture of Pillow, an image of
TorchIO with one slice, or the path of a file that this library reads. TorchIO and MONAI are recognised without being
imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.pictures import pixels_of
from ambiseg.data.files.reading import label_map_of, read_image, read_mask
from ambiseg.data.files.validation import FileProblem, canonical_image, canonical_mask

COLOR_CHANNELS = (1, 3, 4)
"""Channels by which an image with channels last is known, where no mask tells its height and width."""


def image_of(value: Any, size: tuple[int, ...], where: str) -> NDArray[np.generic]:
    """An image ``(C, H, W)`` in one of the number types of files.

    Args:
        value: the image; an array is ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``.
        size: height and width of its masks, which tell the last two forms apart; where both fit, channels are first.
        where: the item, for messages.

    Raises:
        FileProblem: no image, a volume, NaN, or a file that cannot be read.
    """
    if isinstance(value, (str, PathLike)):
        return read_image(value)
    array = array_of(value, where, "image")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 3:
        raise _volume(array.shape, where, "image")
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[1:] != size:
        last = array.shape[2] in COLOR_CHANNELS and array.shape[0] not in COLOR_CHANNELS
        array = np.moveaxis(array, 2, 0) if last or array.shape[:2] == size else array
    return canonical_image(array, where)


def mask_of(value: Any, rules: MaskRules, where: str) -> NDArray[np.uint8]:
    """A label map ``(H, W)``; `FileProblem` if it is none."""
    if isinstance(value, (str, PathLike)):
        return read_mask(value, rules)
    if isinstance(value, Image.Image):
        return label_map_of(pixels_of(value), where, rules).mask
    return canonical_mask(array_of(value, where, "mask"), where, rules)


def separate(value: Any, where: str) -> list[tuple[str, Any]]:
    """The masks of one image, each with the name of its annotator; names are empty where nothing names them.

    Args:
        value: one mask, an array ``(N, H, W)`` of several, a list of masks, or a dictionary of masks by names.
        where: the item, for messages.

    Raises:
        FileProblem: none of these, or a volume.
    """
    if isinstance(value, Mapping) and not is_torchio(value):
        return [(str(name), mask) for name, mask in value.items()]
    if isinstance(value, (str, PathLike, Image.Image)):
        return [("", value)]
    if isinstance(value, Sequence) and not (
        value and all(isinstance(one, (int, float, list, tuple)) for one in value)
    ):
        return [("", mask) for mask in value]
    array = array_of(value, where, "mask")
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[-1]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim > 3:
        raise _volume(array.shape, where, "mask")
    several = array.ndim == 3 and array.shape[-1] != 1
    return [("", mask) for mask in array] if several else [("", array)]


def is_torchio(value: Any) -> TypeGuard[Any]:
    """Whether a value is an image or a label map of TorchIO."""
    return _is_a(value, "torchio", "Image")


def is_label_map(value: Any) -> bool:
    """Whether a value is a label map of TorchIO."""
    return _is_a(value, "torchio", "LabelMap")


def _is_a(value: Any, package: str, name: str) -> bool:
    """Whether a value is of a class of another package, which need not be installed."""
    return any(
        kind.__name__ == name and kind.__module__.partition(".")[0] == package for kind in type(value).__mro__
    )


def array_of(value: Any, where: str, what: str) -> NDArray[Any]:
    """The numbers of an array, of nested lists, of a picture, or of an image of TorchIO with one slice.

    Raises:
        FileProblem: something else, or a volume of TorchIO.
    """
    if is_torchio(value):
        return _slice(value, where, what)
    if isinstance(value, Image.Image):
        return pixels_of(value).shown()
    if isinstance(value, torch.Tensor):
        value = value.detach() if value.layout == torch.strided else value.detach().to_dense()
        value = value.as_subclass(torch.Tensor).cpu()
        return np.asarray(value.float() if value.dtype == torch.bfloat16 else value)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # lists of unequal length
        array = np.empty(0, object)
    if array.dtype.kind not in "buifc":
        raise FileProblem(
            where,
            f"the {what} is a {type(value).__name__}"
            + (" of objects" if isinstance(value, np.ndarray) else ""),
            "give an array of numpy or torch, a picture of Pillow or the path of a file",
        )
    return array


def _slice(value: Any, where: str, what: str) -> NDArray[Any]:
    """``(C, H, W)`` of an image of TorchIO, whose axes are channels, width, height and depth."""
    data = np.asarray(value.data)
    if data.shape[-1] != 1:
        raise FileProblem(
            where,
            f"the {what} is a volume of {data.shape[-1]} slices",
            "give slices, images of TorchIO with depth 1",
        )
    return data[..., 0].swapaxes(1, 2)


def _volume(shape: tuple[int, ...], where: str, what: str) -> FileProblem:
    return FileProblem(
        where,
        f"the {what} has shape {shape}, a volume",
        "give slices (channels, height, width), an item each",
    )
