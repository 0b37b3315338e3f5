"""Areas in which no mask of a set changes, and medians over them: a robust form of what least squares look
at.

Pixels that have the same class in mask i as each other, for every i, form an area. Any mixture ``sum_i w_i
m_i`` is constant on an area a, so that with ``f_a`` the mean of a field over it

    || f - sum_i w_i m_i ||^2 = sum_a |a| (f_a - sum_i w_i m_ia)^2 + what no w can change:

least squares see of a field its means alone. Where the model behind the field takes some pixels for another
class than the masks do, they pull a mean, but not a median while they are the minority. Beyond the papers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ambiseg.maskset import MaskSet


def area_medians(modes: MaskSet, fields: Tensor) -> Tensor:
    """Every value of a field replaced by the median of its area.

    Args:
        modes: ``(B, M, *S)``; places of weight 0 count for nothing.
        fields: ``(B, F, C, *S)``.

    Returns:
        As ``fields``.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> modes = MaskSet.uniform(torch.tensor([[[1, 1, 1, 0, 0]]]), LabelSpace.binary())
        >>> area_medians(modes, torch.tensor([[[[0.9, 0.1, 0.8, 0.2, 0.4]]]])).flatten()
        tensor([0.8000, 0.8000, 0.8000, 0.3000, 0.3000])
    """
    found = []
    for field, masks, there in zip(fields.cpu(), modes.masks.cpu(), modes.present.cpu(), strict=True):
        columns = masks[there].flatten(1).numpy()
        area = np.unique(columns, axis=1, return_inverse=True)[1].reshape(-1)
        order = np.argsort(area, kind="stable")
        values = field.flatten(2).numpy()[..., order]
        parts = np.split(values, np.flatnonzero(np.diff(area[order])) + 1, axis=-1)
        medians = np.stack([np.median(part, axis=-1) for part in parts], -1)
        found.append(torch.from_numpy(medians[..., area]).reshape(field.shape))
    return torch.stack(found).to(fields)
