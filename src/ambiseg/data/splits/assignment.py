"""Which images train and which test: splits by group (patient, scene, volume), never through one.

A split is a pure function of the names of the groups and a seed: neither the order in which they are read nor
the machine has a say in it. Splits of given fractions are made in two steps, *order, then cut*:

1. The sorted names are shuffled by ``numpy.random.Generator(PCG64(seed))``. With strata, the j-th group of a stratum of n
   moves to ``(j + u) / n``, with one u in [0, 1) for each stratum: every stretch of that order holds each stratum in proportion.
2. The order is cut at the group boundaries nearest to the cumulative fractions of the images, so each cut is at most half a group
   away from where it should be.

Folds of equal size take the groups from the largest to the smallest, equal ones in a shuffled order, and put each where
the images of its stratum, and all images, are fewest, as scikit-learn's StratifiedGroupKFold does
(docs/research/libraries.md).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from ambiseg.errors import AmbisegError, counted

FRACTIONS: Mapping[str, float] = {"train": 0.6, "val": 0.2, "test": 0.2}
"""Shares of the splits unless asked for others."""
BINS = 5
"""Strata that numbers are sorted into, about equal in groups."""


def split_groups(
    groups: Iterable[str],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    *,
    sizes: Mapping[str, int] | None = None,
    strata: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Draw a split for every group.

    Args:
        groups: names, such as patients; repetitions count once.
        fractions: share of each split, in this order; their sum is 1.
        seed: the same one gives the same splits.
        sizes: images of each group, of which the fractions are; every group counts alike if None.
        strata: stratum of each group, whose proportions all splits are to have.

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
    random = np.random.Generator(np.random.PCG64(seed))
    names = sorted(set(groups))
    order = [names[i] for i in random.permutation(len(names))]
    if strata is not None:
        order = _interleaved(order, strata, random)
    images = np.cumsum([0, *(1 if sizes is None else sizes[name] for name in order)])
    ends = np.rint(np.interp(np.cumsum(shares) * images[-1], images, np.arange(len(images)))).astype(int)
    numbers = np.searchsorted(ends, np.arange(len(order)), side="right")
    splits = list(fractions)
    return {name: splits[min(number, len(splits) - 1)] for name, number in zip(order, numbers, strict=True)}


def _interleaved(order: list[str], strata: Mapping[str, str], random: np.random.Generator) -> list[str]:
    """The order in which every stratum is spread evenly."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in order:
        members[strata[name]].append(name)
    place: dict[str, float] = {}
    for stratum in sorted(members):
        start = random.random()
        place |= {name: (j + start) / len(members[stratum]) for j, name in enumerate(members[stratum])}
    return sorted(order, key=place.__getitem__)


def split_images(
    groups: Mapping[str, str],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    values: Mapping[str, float | str] | None = None,
) -> dict[str, str]:
    """Draw a split for every image, the same for all of a group.

    Args:
        groups: group of each image; its own id where an image stands alone.
        fractions: share of the images in each split, in this order; their sum is 1.
        seed: the same one gives the same splits.
        values: what to stratify by, a number or a word of each image; see `strata_of`.

    Returns:
        Image to split, sorted by image.

    Raises:
        AmbisegError: fractions that are negative or do not sum to 1.

    Example:
        >>> split_images({"a1": "a", "a2": "a", "b1": "b", "c1": "c"}, {"train": 0.5, "test": 0.5}, seed=1)
        {'a1': 'train', 'a2': 'train', 'b1': 'test', 'c1': 'test'}
    """
    strata = None if values is None else strata_of(values, groups)
    chosen = split_groups(groups.values(), fractions, seed, sizes=Counter(groups.values()), strata=strata)
    return {name: chosen[groups[name]] for name in sorted(groups)}


def fold_images(
    groups: Mapping[str, str],
    folds: int,
    seed: int = 0,
    values: Mapping[str, float | str] | None = None,
) -> dict[str, int]:
    """Draw one of k folds of about equal size for every image, the same for all of a group.

    Args:
        groups: group of each image; its own id where an image stands alone.
        folds: k, 2 or more, at most the number of groups.
        seed: the same one gives the same folds.
        values: what to stratify by, see `strata_of`.

    Returns:
        Image to fold, 0..k-1, sorted by image.

    Raises:
        AmbisegError: too few or too many folds.

    Example:
        >>> sorted(fold_images({name: name for name in "abcde"}, 5).values())
        [0, 1, 2, 3, 4]
    """
    if not 2 <= folds <= len(set(groups.values())):
        raise AmbisegError(
            f"folds are 2 to {len(set(groups.values()))}, the number of groups, received {folds}: ask for others"
        )
    sizes = Counter(groups.values())
    strata = dict.fromkeys(sizes, "") if values is None else strata_of(values, groups)
    names = sorted(sizes)
    shuffled = [names[i] for i in np.random.Generator(np.random.PCG64(seed)).permutation(len(names))]
    whole: Counter[str] = Counter()
    for name, size in sizes.items():
        whole[strata[name]] += size
    chosen: dict[str, int] = {}
    images, own = [0] * folds, [Counter[str]() for _ in range(folds)]
    for name in sorted(shuffled, key=lambda name: -sizes[name]):
        kind = strata[name]
        # The squared shares of stratum and images grow least; times both squared totals, so that numbers stay whole.
        growth = [
            own[fold][kind] * len(groups) ** 2 + images[fold] * whole[kind] ** 2 for fold in range(folds)
        ]
        chosen[name] = growth.index(min(growth))
        images[chosen[name]] += sizes[name]
        own[chosen[name]][kind] += sizes[name]
    return {name: chosen[groups[name]] for name in sorted(groups)}


def splits_of_fold(folds: Mapping[str, int], fold: int) -> dict[str, str]:
    """Fold i tests, the next one (0 after the last) validates, the rest trains; of two folds none validates.

    Raises:
        AmbisegError: there is no such fold.

    Example:
        >>> splits_of_fold({"a": 0, "b": 1, "c": 2}, 2)
        {'a': 'val', 'b': 'train', 'c': 'test'}
    """
    count = max(folds.values(), default=-1) + 1
    if not 0 <= fold < count:
        raise AmbisegError(f"there are folds 0 to {count - 1}, received {fold}: choose one of them")
    names = {fold: "test"} if count < 3 else {(fold + 1) % count: "val", fold: "test"}
    return {name: names.get(number, "train") for name, number in folds.items()}


def strata_of(values: Mapping[str, float | str], groups: Mapping[str, str]) -> dict[str, str]:
    """Stratum of each group: its most frequent word, or the quantile bin of the mean of its numbers.

    Numbers are sorted into at most `BINS` bins of about as many groups; equal numbers share a bin.

    Args:
        values: a number or a word of each image, all of one kind.
        groups: group of each image.

    Example:
        >>> strata_of({"a1": "x", "a2": "x", "b1": "y"}, {"a1": "a", "a2": "a", "b1": "b"})
        {'a': 'x', 'b': 'y'}
        >>> strata_of({"a": 0.1, "b": 0.9}, {"a": "a", "b": "b"})
        {'a': '0', 'b': '4'}
    """
    members: dict[str, list[float | str]] = defaultdict(list)
    for name in sorted(groups):
        members[groups[name]].append(values[name])
    if any(isinstance(value, str) for value in values.values()):
        return {group: Counter(map(str, own)).most_common(1)[0][0] for group, own in members.items()}
    means = np.array([np.mean([float(value) for value in own]) for own in members.values()])
    edges = np.quantile(means, np.arange(1, BINS) / BINS) if len(means) else means
    bins = np.searchsorted(edges, means, side="left")
    return {group: str(number) for group, number in zip(members, bins, strict=True)}


def groups_by_pattern(ids: Iterable[str], pattern: str) -> dict[str, str]:
    """Group of each image: what the regular expression finds at the start of its id (of its first
    parenthesis, if it has one).

    Raises:
        AmbisegError: no regular expression, or one that does not fit an id.

    Example:
        >>> groups_by_pattern(["p1-s1", "p1-s2"], "p[0-9]+")
        {'p1-s1': 'p1', 'p1-s2': 'p1'}
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise AmbisegError(f"prefix {pattern!r} is no regular expression ({error}): correct it") from error
    found = {name: compiled.match(name) for name in ids}
    lost = [name for name, match in found.items() if match is None or (match.groups() and match[1] is None)]
    if lost:
        raise AmbisegError(f"prefix {pattern!r} does not fit {named(lost)}: widen it")
    return {name: match[1] if match.groups() else match[0] for name, match in found.items() if match}


def named(names: Iterable[str]) -> str:
    """Some of the ids for a message.

    Example:
        >>> named(["a", "b"]), named("abcdefg")
        ('2 ids (a, b)', '7 ids (a, b, c, d, e, ...)')
    """
    all_names = sorted(names)
    more = ", ..." if len(all_names) > 5 else ""
    return f"{counted(len(all_names), 'id')} ({', '.join(all_names[:5])}{more})"
