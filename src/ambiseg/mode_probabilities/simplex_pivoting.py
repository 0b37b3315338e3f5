"""Least squares over the probability simplex in tensor operations alone, for models that are exported.

`ambiseg.mode_probabilities.simplex_least_squares` solves the same problem with numpy, checks it, and chooses among
several solutions. Here ``1^T p = 1`` turns the objective into one square,

    1/2 p^T G p - b^T p = 1/2 p^T N p + const,    N = G - b 1^T - 1 b^T + c 1 1^T,

and with ``mu = p^T N p > 0`` the conditions of its minimum say that ``x = p / mu`` solves the linear complementarity
problem ``x >= 0, w = N x - 1 >= 0, x^T w = 0``. Lemke's method solves it by exchanging one variable of a basis at a
time (Lemke 1965; Cottle, Pang and Stone 1992, section 4.4). N is positive definite where ``[G b; b^T c]`` is, which
c = 2 ensures for IoUs; a small multiple of the identity makes equal masks share their weight.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops import while_loop

OFFSET = 2.0
"""c: above every ``2 b^T p - p^T G p`` of IoUs."""
RIDGE = 1e-9
"""Added to the diagonal of N."""
LEAST_PIVOT = 1e-12
"""Smaller entries of a column do not limit the step."""


def pivoted(gram: Tensor, moment: Tensor, present: Tensor) -> Tensor:
    """Minimise ``1/2 p^T G p - b^T p`` over ``p >= 0, sum p = 1``, each image by itself.

    Args:
        gram: ``(B, M, M)`` G, IoUs of all pairs.
        moment: ``(B, M)`` b, IoUs with a weighted set.
        present: ``(B, M)`` bool, which entries are there; the others get weight 0.

    Returns:
        ``(B, M)`` float64.

    Example:
        >>> pivoted(torch.eye(3)[None], torch.tensor([[0.9, 0.5, 0.0]]), torch.ones(1, 3) > 0).round(decimals=6)
        tensor([[0.7000, 0.3000, 0.0000]], dtype=torch.float64)
    """
    count = moment.shape[1]
    both = present[:, :, None] & present[:, None]
    b = moment.double()
    eye = torch.eye(count, dtype=torch.float64, device=b.device)
    n = (gram.double() - b[:, :, None] - b[:, None] + OFFSET) * both
    n = n + eye * torch.where(present, RIDGE, 1.0)[:, :, None]
    # Columns: w, x, the artificial z that all rows start with, and the values. Rows: one for each basic variable.
    values = torch.where(present, -1.0, 1.0).double()[:, :, None]
    # Covering numbers that differ, so that rows do not leave at once.
    cover = 1 + torch.arange(count, dtype=torch.float64, device=b.device) / (7 * count)
    cover = cover.expand_as(b)[:, :, None]
    table = torch.cat([eye.expand_as(n), -n, -cover, values], 2)
    basis = torch.arange(count, device=b.device).expand_as(b).clone()
    worst = (values / cover)[:, :, 0].argmin(1)
    entering = torch.full_like(worst, 2 * count)
    table, basis, entering = _exchange(table, basis, entering, worst)
    steps = torch.zeros((), dtype=torch.int64, device=b.device)
    state: tuple[Tensor, ...] = (table, basis, entering, steps)
    if torch.compiler.is_exporting():
        state = while_loop(_unfinished, _step, state)  # type: ignore[no-untyped-call]
    else:
        while bool(_unfinished(*state)):
            state = _step(*state)
    table, basis = state[0], state[1]
    x = ((basis[:, :, None] == count + torch.arange(count, device=b.device)) * table[:, :, -1:]).sum(1)
    x = x.clamp(min=0) * present
    return x / x.sum(1, keepdim=True).clamp(min=1e-30)


def _unfinished(table: Tensor, basis: Tensor, entering: Tensor, steps: Tensor) -> Tensor:
    """Whether the artificial variable is still in a basis, and not too many steps were made."""
    count = basis.shape[1]
    return (basis == 2 * count).any() & (steps < 10 * count + 20)


def _step(table: Tensor, basis: Tensor, entering: Tensor, steps: Tensor) -> tuple[Tensor, ...]:
    """One exchange in every problem that is not finished."""
    count = basis.shape[1]
    open_ = (basis == 2 * count).any(1)
    column = _column(table, entering)
    limits = column > LEAST_PIVOT
    reach = torch.where(limits, table[:, :, -1].clamp(min=0) / torch.where(limits, column, 1.0), torch.inf)
    # Of rows that leave together the artificial variable goes first: that ends the search.
    reach = torch.where((basis == 2 * count) & limits, reach - LEAST_PIVOT, reach)
    moved, changed, then = _exchange(table, basis, entering, reach.argmin(1))
    return (
        torch.where(open_[:, None, None], moved, table),
        torch.where(open_[:, None], changed, basis),
        torch.where(open_, then, entering),
        steps + 1,
    )


def _column(table: Tensor, index: Tensor) -> Tensor:
    """Column ``index (B,)`` of each table, ``(B, M)``."""
    return table.gather(2, index[:, None, None].expand(-1, table.shape[1], 1))[:, :, 0]


def _exchange(table: Tensor, basis: Tensor, entering: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The variable ``entering`` replaces that of ``row``; the complement of the one that left comes next."""
    count = basis.shape[1]
    column = _column(table, entering)
    chosen = torch.arange(count, device=row.device) == row[:, None]
    pivot = (
        table.gather(1, row[:, None, None].expand(-1, 1, table.shape[2]))
        / column.gather(1, row[:, None])[:, :, None]
    )
    moved = torch.where(chosen[:, :, None], pivot, table - column[:, :, None] * pivot)
    left = basis.gather(1, row[:, None])[:, 0]
    then = torch.where(left < count, left + count, left - count)
    return moved, torch.where(chosen, entering[:, None], basis), then
