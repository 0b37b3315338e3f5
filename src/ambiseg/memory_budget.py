"""How much is computed together, so that memory does not grow with the number of samples."""

from __future__ import annotations

ELEMENTS = 2**24
"""Values of one layer that are held together: 64 MiB in float32."""
MASKS = 64
"""Masks that pass through a whole network together. It is a number of masks, not of values: dropout patterns
are drawn part by part, so other parts would give other samples, and a CPU is slower with more of small
masks."""


def part_sizes(count: int, size: int, most: int | None = None, multiple: int = 1) -> list[int]:
    """Sizes of the parts of ``count`` items, all equal but the last.

    Args:
        count: items in all.
        size: what each of them takes of the budget.
        most: the budget; `ELEMENTS` if None.
        multiple: items that stay together, such as antithetic pairs; a part is at least one such group.

    Example:
        >>> part_sizes(5, 2**22)
        [4, 1]
        >>> part_sizes(7, 20, most=100, multiple=2)
        [4, 3]
    """
    budget = ELEMENTS if most is None else most
    part = max(multiple, budget // max(1, size) // multiple * multiple)
    return [min(part, count - start) for start in range(0, count, part)]
