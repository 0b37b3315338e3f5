"""Who is compared with whom: one-to-one matching of proposals and modes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def match(cost: Tensor, present: Tensor) -> Tensor:
    """The cheapest one-to-one matching of modes to proposals (Hungarian matching; Kuhn 1955).

        a = argmin over injective a of sum_i cost(a(i), i)        (mode proposals, equation 5)

    Args:
        cost: ``(B, M, N)``, proposal by mode; pairs of infinite cost are never matched.
        present: ``(B, N)`` bool, which modes are there.

    Returns:
        ``(B, N)`` int64: the proposal of each mode, -1 for modes that are not there or, where N > M, found none.

    Example:
        >>> match(torch.tensor([[[0.9, 0.1], [0.2, 0.3], [0.5, 0.5]]]), torch.tensor([[True, True]]))
        tensor([[1, 0]])
    """
    costs, there = cost.detach().float().cpu().numpy(), present.cpu().numpy()
    chosen = np.full(there.shape, -1, dtype=np.int64)
    for b, row in enumerate(costs):
        modes = np.flatnonzero(there[b])
        proposal, mode = linear_sum_assignment(np.nan_to_num(row[:, modes], nan=1e9, posinf=1e9))
        mode = modes[mode]
        chosen[b, mode] = np.where(np.isposinf(row[proposal, mode]), -1, proposal)
    return torch.from_numpy(chosen).to(cost.device)
