"""Which images train and which test: splits by group (patient, scene, volume), never through one.

A split is a pure function of the names of the groups and a seed: neither the order in which they are read nor the
machine has a say in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ambiseg.errors import AmbisegError

FRACTIONS: Mapping[str, float] = {"train": 0.6, "val": 0.2, "test": 0.2}
"""Shares of the splits unless asked for others."""


def split_groups(
    groups: Iterable[str], fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> dict[str, str]:
    """Draw a split for every group.

    The sorted names are shuffled by ``numpy.random.Generator(PCG64(seed))`` and cut at the rounded cumulative fractions.

    Args:
        groups: names, such as patients; repetitions count once.
        fractions: share of each split, in this order; their sum is 1.
        seed: the same one gives the same splits.

    Returns:
        Group to split.

    Raises:
        AmbisegError: fractions that are negative or do not sum to 1.

    Example:
        >>> split_groups(["p3", "p1", "p2", "p1", "p4", "p5"], seed=1)
        {'p5': 'train', 'p1': 'train', 'p2': 'train', 'p3': 'val', 'p4': 'test'}
    """
    shares = list(fractions.values())
    if any(share < 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise AmbisegError(f"fractions of splits are 0 or more and sum to 1, received {dict(fractions)}")
    names = sorted(set(groups))
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(names))
    ends = np.rint(np.cumsum(shares) * len(names)).astype(int)
    numbers = np.searchsorted(ends, np.arange(len(names)), side="right")
    splits = list(fractions)
    return {names[i]: splits[number] for i, number in zip(order, numbers, strict=True)}
