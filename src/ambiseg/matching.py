"""One-to-one matching of the rows and columns of a table: predictions and modes in metrics, proposals and
modes in losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

AVOIDED = 1e9
"""Cost of a pair that must not be matched, or whose cost is not a number: above any sum of other costs."""


@dataclass(frozen=True, eq=False)
class Matching:
    """Pairs of rows and columns, see `match`.

    Attributes:
        columns: ``(B, K)`` int64, the column of each row, -1 for a row without one.
        rows: ``(B, L)`` int64, the row of each column, -1 for a column without one.
    """

    columns: Tensor
    rows: Tensor

    def total(self, table: Tensor) -> Tensor:
        """Sum of ``table (B, K, L)`` over the matched pairs, ``(B,)``."""
        chosen = table.gather(2, self.columns.clamp(min=0)[..., None])[..., 0]
        return torch.where(self.columns >= 0, chosen, 0.0).sum(1)


def match(cost: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> Matching:
    """The one-to-one matching of least total cost for each image (Hungarian method; Kuhn 1955).

    ``a = argmin sum_i cost(i, a(i))`` over injective maps of the smaller side into the larger one. Pass
    ``-iou`` for the matching of greatest total IoU.

    Args:
        cost: ``(B, K, L)``. Pairs of infinite cost are never matched; pairs whose cost is not a number are
            matched only where nothing else is left.
        rows: which rows are there, ``(B, K)`` bool; all if None.
        columns: which columns are there, ``(B, L)`` bool; all if None.

    Returns:
        `Matching`, on the device of the costs. Where several matchings are equally good, which one is
        returned depends on the order of the entries.

    Example:
        >>> match(torch.tensor([[[0.9, 0.1], [0.2, 0.3], [0.5, 0.5]]])).columns
        tensor([[ 1,  0, -1]])
    """
    rows = cost.new_ones(cost.shape[:2], dtype=torch.bool) if rows is None else rows
    columns = cost.new_ones(cost.shape[::2], dtype=torch.bool) if columns is None else columns
    column_of = np.full(tuple(rows.shape), -1, dtype=np.int64)
    row_of = np.full(tuple(columns.shape), -1, dtype=np.int64)
    for b, (table, i, j) in enumerate(present_entries(cost, rows, columns)):
        finite = np.nan_to_num(table, nan=AVOIDED, posinf=AVOIDED, neginf=-AVOIDED)
        row, column = linear_sum_assignment(finite)
        allowed = ~np.isposinf(table[row, column])
        row, column = i[row[allowed]], j[column[allowed]]
        column_of[b, row], row_of[b, column] = column, row
    return Matching(torch.from_numpy(column_of).to(cost.device), torch.from_numpy(row_of).to(cost.device))


def present_entries(
    table: Tensor, rows: Tensor, columns: Tensor
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]]:
    """For each image the entries of ``table (B, K, L)`` that are there, in double precision, and the indices
    of their rows and columns."""
    tables = table.detach().cpu().double().numpy()
    for value, row, column in zip(tables, rows.cpu().numpy(), columns.cpu().numpy(), strict=True):
        i, j = np.flatnonzero(row), np.flatnonzero(column)
        yield value[np.ix_(i, j)], i, j
