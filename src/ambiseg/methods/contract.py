"""What a `Segmenter` must return, checked where it is called, so that a mistake in a class of one's own is one
sentence."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter


def losses_of(segmenter: Segmenter, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
    """The named losses of a batch.

    Raises:
        AmbisegError: no mapping, no ``"loss"`` in it, or a value that is not one number.
    """
    found, name = segmenter.loss(images, annotations), f"{type(segmenter).__name__}.loss"
    if not isinstance(found, Mapping):
        raise AmbisegError(
            f"{name} returned {_kind(found)}: return a dict of tensors with the one to minimise under 'loss',"
            " such as {'loss': value}"
        )
    if "loss" not in found:
        raise AmbisegError(
            f"{name} returned {sorted(map(str, found))}: put the tensor to minimise under 'loss'"
        )
    for key, value in found.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise AmbisegError(f"{name} returned {_kind(value)} under {key!r}: return a tensor of one number")
    if torch.is_grad_enabled() and not found["loss"].requires_grad:
        raise AmbisegError(
            f"{name} returned a 'loss' without a gradient: compute it from the model's parameters"
        )
    return dict(found)


def masks_of(
    segmenter: Segmenter, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
) -> MaskSet:
    """The predicted masks of a batch.

    Raises:
        AmbisegError: no `MaskSet`, or one of another number or size of images.
    """
    found, name = segmenter.predict(images, samples, generator), f"{type(segmenter).__name__}.predict"
    if not isinstance(found, MaskSet):
        raise AmbisegError(
            f"{name} returned {_kind(found)}: return an ambiseg.MaskSet, such as MaskSet.uniform(...)"
        )
    shape = tuple(found.masks.shape)
    wanted = (len(images), *images.shape[2:])
    if (shape[0], *shape[2:]) != wanted:
        raise AmbisegError(
            f"{name} returned masks of shape {shape} for images of shape {tuple(images.shape)}:"
            f" return (B, K, H, W) with B, H, W = {', '.join(map(str, wanted))}"
        )
    return found


def _kind(value: object) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return f"{type(value).__name__}{shape}"
