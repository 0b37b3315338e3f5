"""`collate`: samples that hold mask sets become batches in a `torch.utils.data.DataLoader`.

torch joins tensors, arrays, numbers, texts, and tuples, lists and dictionaries of them, and with this library also mask
sets. `collate` adds images of different size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data._utils.collate import collate as collate_with
from torch.utils.data._utils.collate import default_collate_fn_map

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet, collate_sets


def collate(samples: Sequence[Any]) -> Any:
    """Join samples with mask sets into a batch: the ``collate_fn`` of a `torch.utils.data.DataLoader`.

    A sample may be a `MaskSet`, or a tuple, list or dictionary that holds some, such as ``(image, masks)``.
    The batch has the same form. Mask sets are joined by `MaskSet.stack`, all else as by
    `torch.utils.data.default_collate`. Images ``(..., H, W)`` of different size are extended with 0 at their
    lower right, where the masks are void.

    Args:
        samples: of one form, each mask set of one image.

    Raises:
        AmbisegError: tensors that differ in more than height and width, a set of several images, or sets of
            other classes.

    Example:
        >>> small = Tensor(3, 2, 2), MaskSet.from_numpy([[[0, 1], [1, 1]], [[0, 0], [1, 1]]])
        >>> large = Tensor(3, 1, 4), MaskSet.from_numpy([[[0, 1, 1, 1]]])
        >>> images, masks = collate([small, large])
        >>> images.shape, masks.masks.shape, masks.weights
        (torch.Size([2, 3, 2, 4]), torch.Size([2, 2, 2, 4]), tensor([[0.5000, 0.5000],
                [1.0000, 0.0000]]))
    """
    joined: dict[Any, Callable[..., Any]] = {
        **default_collate_fn_map,
        Tensor: _tensors,
        MaskSet: collate_sets,
    }
    return collate_with(samples, collate_fn_map=joined)


def extended(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors ``(..., H, W)`` as one ``(B, ..., H, W)``, the smaller extended with 0 at their lower right.

    Raises:
        AmbisegError: they differ in more than height and width.
    """
    first = tensors[0]
    for i, other in enumerate(tensors):
        if other.dim() != first.dim() or other.shape[:-2] != first.shape[:-2] or other.dim() < 2:
            raise AmbisegError(
                f"tensors of shapes {tuple(first.shape)} and {tuple(other.shape)} (samples 0 and {i}) cannot"
                " share a batch: only height and width, the last two axes, may differ"
            )
    height, width = (max(tensor.shape[axis] for tensor in tensors) for axis in (-2, -1))
    joined = first.new_zeros(len(tensors), *first.shape[:-2], height, width)
    for row, tensor in zip(joined, tensors, strict=True):
        row[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
    return joined


def _tensors(batch: Sequence[Tensor], *, collate_fn_map: Any) -> Tensor:
    if all(tensor.shape == batch[0].shape for tensor in batch):
        same: Tensor = default_collate_fn_map[Tensor](batch, collate_fn_map=collate_fn_map)
        return same
    return extended(batch)
