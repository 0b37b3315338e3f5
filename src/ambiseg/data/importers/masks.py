"""Label values as distributions store them, in the one form of this library.

The same rules hold for every importer that reads arrays: 0 and 255 are 0 and 1; numbers off an integer by
rounding, as a scale factor in a header leaves them, are that integer; trailing axes of length 1 are dropped;
anything else is refused.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.validation import FileProblem, canonical_mask


def label_values(
    values: NDArray[Any], where: str | PathLike[str], rules: MaskRules | None = None
) -> NDArray[np.uint8]:
    """Class numbers of any shape as uint8.

    Args:
        values: as stored.
        where: file, for messages.
        rules: what the numbers mean; those of a file whose classes are not known if None.

    Raises:
        FileProblem: fractions, NaN, numbers that are no classes, or no numbers at all.

    Example:
        >>> label_values(np.array([[0, 255]]), "a.npy").tolist(), label_values(np.array([1.9999]), "b").tolist()
        ([[0, 1]], [2])
    """
    values = np.asarray(values)
    return canonical_mask(values.reshape(1, -1), where, rules or MaskRules()).reshape(values.shape)


def binary_values(values: NDArray[Any], where: str | PathLike[str]) -> NDArray[np.uint8]:
    """The same for masks that hold 0 and 1, or 0 and 255, and nothing else.

    Raises:
        FileProblem: other values.
    """
    labels = label_values(values, where)
    if labels.max(initial=0) > 1:
        raise FileProblem(where, f"a mask holds the value {labels.max()}", "store masks as 0 and 1")
    return labels


def without_trailing(values: NDArray[Any], axes: int) -> NDArray[Any]:
    """An array without the axes of length 1 behind the first ``axes``.

    Example:
        >>> without_trailing(np.zeros((4, 1, 1, 1)), 2).shape
        (4, 1)
    """
    shape = values.shape
    while len(shape) > axes and shape[-1] == 1:
        shape = shape[:-1]
    return values.reshape(shape)
