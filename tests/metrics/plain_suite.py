"""Every metric of the table once more: plain numpy, image by image, from the definitions alone.

Nothing of the library is imported. Weights are whole numbers (`Side.counts`) and per-pixel probabilities
whole sixty-fourths (`Side.soft`), so that votes, thresholds, edges of bins and ties are decided in integers:
the library has to reach the same decisions in floating point.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, linprog

Array = NDArray[Any]

PARTS = 64
"""Per-pixel probabilities are multiples of one over this."""
ORDERS = 720
"""One-to-one matchings that are tried one by one; above this the Hungarian method takes over."""
OPTIMA = 24
"""Equally good matchings that are followed up; with more, nothing is said of what depends on the choice."""
COPIES = 150
"""Sets repeated to at most this many equal entries are transported by matching, others by linear
programming."""
NEVER: list[float] = []
"""The values allowed to a metric where its definition leaves the value open: it is not compared."""


@dataclass(frozen=True, repr=False)
class Space:
    """Classes ``0..classes - 1``, the one not evaluated, and the void value."""

    classes: int
    background: int | None
    void: int

    @property
    def evaluated(self) -> list[int]:
        return [c for c in range(self.classes) if c != self.background]


@dataclass(frozen=True, repr=False)
class Side:
    """One set of one image: masks ``(K, P)``, whole weights, scores ``(K,)``, sixty-fourths ``(K, classes,
    P)`` or None."""

    masks: Array
    counts: Array
    scores: Array
    soft: Array | None = None

    @property
    def size(self) -> int:
        return len(self.masks)

    @cached_property
    def weights(self) -> Array:
        return self.counts / self.counts.sum()

    def shares(self, space: Space) -> tuple[Array, Array, int]:
        """Weight of each class ``(classes, P)``, of all that are not void ``(P,)``, and in all: whole
        numbers."""
        whole = int(self.counts.sum())
        if self.soft is not None:
            share = np.stack([self.counts @ self.soft[:, c] for c in range(space.classes)])
            return share, np.full(share.shape[1], whole * PARTS), whole * PARTS
        share = np.stack([self.counts @ (self.masks == c) for c in range(space.classes)])
        return share, self.counts @ (self.masks != space.void), whole

    def hard(self) -> Side:
        return replace(self, soft=None)


def overlaps(a: Array, b: Array, space: Space) -> tuple[Array, Array]:
    """IoU and Dice of all pairs, by what is in both masks and what is in either."""
    ids = np.array(space.evaluated)[:, None, None, None]
    seen = (a != space.void)[:, None] & (b != space.void)
    one, two = (a[:, None] == ids) & seen, (b == ids) & seen
    both, either = (one & two).sum(-1), (one | two).sum(-1)
    sizes = one.sum(-1) + two.sum(-1)
    kinds = (either > 0).sum(0)
    with np.errstate(invalid="ignore"):
        iou, dice = np.nansum(both / either, 0), np.nansum(2 * both / sizes, 0)
    return tuple(np.where(kinds > 0, total / np.maximum(kinds, 1), 1.0) for total in (iou, dice))  # type: ignore[return-value]


@dataclass(frozen=True, repr=False)
class Pair:
    """Predictions and annotations of one image."""

    space: Space
    predictions: Side
    annotations: Side

    @cached_property
    def cross(self) -> tuple[Array, Array]:
        return overlaps(self.predictions.masks, self.annotations.masks, self.space)

    @cached_property
    def first(self) -> list[int]:
        """Where each distinct annotation stands first."""
        masks = [tuple(mask) for mask in self.annotations.masks]
        return [j for j, mask in enumerate(masks) if mask not in masks[:j]]

    @cached_property
    def mode_counts(self) -> Array:
        masks = [tuple(mask) for mask in self.annotations.masks]
        votes = [
            [v for v, m in zip(self.annotations.counts, masks, strict=True) if m == masks[j]]
            for j in self.first
        ]
        return np.array([sum(v) for v in votes])

    @cached_property
    def to_modes(self) -> Array:
        return self.cross[0][:, self.first]

    @cached_property
    def decided(self) -> bool:
        """Whether the order of IoUs, and their order with 1/2, is the same in any precision (exact ties
        are)."""
        gaps = [self.to_modes.max(1, keepdims=True) - self.to_modes, np.abs(self.to_modes - 0.5)]
        return not any(bool(((gap > 1e-9) & (gap < 1e-5)).any()) for gap in gaps)

    @cached_property
    def nearest(self) -> list[int]:
        """The first of the most similar modes of each prediction."""
        return [next(j for j, v in enumerate(row) if v > max(row) - 1e-9) for row in self.to_modes.tolist()]

    @cached_property
    def groups(self) -> list[list[int]]:
        """Modes that count as one: a mode, and those less probable ones that are like it and like none before
        it."""
        modes, groups = self.annotations.masks[self.first], []
        iou = overlaps(modes, modes, self.space)[0]
        for j in sorted(range(len(modes)), key=lambda j: (-self.mode_counts[j], j)):
            better = [group for group in groups if iou[group[0], j] > 0.95]
            groups += [] if better else [[j]]
            if better:
                better[0].append(j)
        return groups

    @cached_property
    def partners(self) -> list[list[int]]:
        """`matchings` of the predictions with the modes."""
        return matchings(self.to_modes)

    @property
    def unambiguous(self) -> bool:
        """Whether neither the matching nor the nearest modes leave a choice."""
        return self.decided and len(self.partners) == 1


# -- matching and transport ----------------------------------------------------------------------------------


@cache
def orders(count: int, places: int) -> Array:
    """Every way to give ``count`` things different ones of ``places`` places."""
    return np.array(list(itertools.permutations(range(places), count)))


def assigned(table: Array) -> tuple[Array, float]:
    """The column of each row and the greatest total; no more rows than columns."""
    rows, columns = linear_sum_assignment(-table)
    return columns, float(table[rows, columns].sum())


def best_total(table: Array) -> float:
    """Greatest total of a one-to-one matching."""
    if len(table) > table.shape[1]:
        table = table.T
    if math.perm(table.shape[1], len(table)) > ORDERS:
        return assigned(table)[1]
    return float(table[np.arange(len(table)), orders(*table.shape)].sum(1).max())


def matchings(iou: Array) -> list[list[int]]:
    """The mode of each prediction (-1: none) in each best matching; empty where there are too many to follow
    up."""
    wide = iou if len(iou) <= iou.shape[1] else iou.T
    count = np.arange(len(wide))
    if math.perm(wide.shape[1], len(wide)) <= ORDERS:
        every = orders(*wide.shape)
        total = wide[count, every].sum(1)
        best = list(every[total >= total.max() - 1e-6])
    else:
        columns, total = assigned(wide)
        for i, j in enumerate(columns):
            without = wide.copy()
            without[i, j] = -1e3
            if assigned(without)[1] > total - 1e-5:
                return []
        best = [columns]
    if len(best) > OPTIMA:
        return []
    if wide is iou:
        return [list(map(int, columns)) for columns in best]
    return [[list(rows).index(i) if i in rows else -1 for i in range(len(iou))] for rows in best]


def transport(value: Array, u: Array, v: Array) -> float:
    """Greatest ``<P, value>`` over couplings of whole weights: equal entries matched, or a linear
    programme."""
    u, v = u // np.gcd.reduce(u), v // np.gcd.reduce(v)
    size = math.lcm(int(u.sum()), int(v.sum()))
    if size <= COPIES:
        rows = np.repeat(np.arange(len(u)), u * (size // u.sum()))
        columns = np.repeat(np.arange(len(v)), v * (size // v.sum()))
        return assigned(value[np.ix_(rows, columns)])[1] / size
    sums = np.vstack([np.kron(np.eye(len(u)), np.ones(len(v))), np.kron(np.ones(len(u)), np.eye(len(v)))])
    marginals = np.concatenate([u / u.sum(), v / v.sum()])
    return -float(linprog(-value.ravel(), A_eq=sums, b_eq=marginals, method="highs").fun)


def tiled(value: Array) -> float:
    """Both sides repeated to equal counts, then one to one."""
    size = math.lcm(*value.shape)
    return assigned(np.tile(value, (size // value.shape[0], size // value.shape[1])))[1] / size


# -- distances -----------------------------------------------------------------------------------------------


def energies(pair: Pair) -> dict[str, float]:
    p, a = pair.predictions, pair.annotations
    u, v = p.weights.tolist(), a.weights.tolist()
    ways = (
        (u, v, pair.cross),
        (u, u, overlaps(p.masks, p.masks, pair.space)),
        (v, v, overlaps(a.masks, a.masks, pair.space)),
    )

    def mean(x: list[float], y: list[float], table: Array, apart: bool = False) -> float:
        total = mass = 0.0
        for i, row in enumerate(table.tolist()):
            for j, value in enumerate(row):
                if not (apart and i == j):
                    total, mass = total + x[i] * y[j] * (1 - value), mass + x[i] * y[j]
        return total / mass if mass else 0.0

    between, ours, theirs = (mean(x, y, tables[0]) for x, y, tables in ways)
    dice = [mean(x, y, tables[1]) for x, y, tables in ways]
    apart = [mean(x, y, tables[0], apart=True) for x, y, tables in ways[1:]]
    return {
        "ged": 2 * between - ours - theirs,
        "ged_dice": 2 * dice[0] - dice[1] - dice[2],
        "ged_unbiased": 2 * between - apart[0] - apart[1],
        "diversity": ours,
    }


# -- reaching modes ------------------------------------------------------------------------------------------


def draws(q: list[float]) -> float:
    """Coupon collector by inclusion and exclusion."""
    if min(q) <= 0:
        return math.inf
    inside = (np.arange(1, 2 ** len(q))[:, None] >> np.arange(len(q))) & 1
    return math.fsum(-((-1.0) ** inside.sum(1)) / (inside @ np.array(q)))


def reaching(pair: Pair) -> dict[str, float]:
    near = pair.to_modes >= 0.5 - 1e-9
    v = pair.mode_counts / pair.mode_counts.sum()
    shown = [0.0] * len(pair.first)
    for i, j in enumerate(pair.nearest):
        if near[i, j]:
            shown[j] += pair.predictions.weights[i]
    return {
        "coverage": float(near.any(0).mean()),
        "covered_mass": float(v[near.any(0)].sum()),
        "precision_at": float(pair.predictions.weights[near.any(1)].sum()),
        "modes_hit": float(sum(q > 0 for q in shown)),
        "expected_draws": draws(shown),
    }


# -- selection -----------------------------------------------------------------------------------------------


def confusion(partner: list[int], scores: Array) -> tuple[int, int, int]:
    matched, kept = {k for k, j in enumerate(partner) if j >= 0}, {k for k, s in enumerate(scores) if s > 0.5}
    return len(matched & kept), len(kept - matched), len(matched - kept)


def rates(tp: int, fp: int, fn: int) -> dict[str, float]:
    return {
        "selection_f1": tp / (tp + (fp + fn) / 2),
        "selection_precision": tp / (tp + fp) if tp + fp else 0.0,
        "selection_recall": tp / (tp + fn),
    }


def ranked(scores: Array, matched: Array) -> float:
    """Average precision: thresholds at every distinct score, from the top."""
    area = before = 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        hits = matched[scores >= threshold]
        recall = hits.sum() / matched.sum()
        area += (recall - before) * hits.mean()
        before = recall
    return area


# -- probabilities of modes ----------------------------------------------------------------------------------

NEAREST = ("nearest", "merged")
"""Assignments that give every prediction to a mode."""


def entries(pair: Pair, partner: list[int] | str) -> Array:
    """(estimate, truth, uniform guess) of each entry, by a matching or by the "nearest" or "merged" modes."""
    u, v = pair.predictions.weights.tolist(), (pair.mode_counts / pair.mode_counts.sum()).tolist()
    if isinstance(partner, str):
        groups = pair.groups if partner == "merged" else [[j] for j in range(len(v))]
        hits = [sum(w for w, k in zip(u, pair.nearest, strict=True) if k in group) for group in groups]
        return np.array(
            [(hit, sum(v[j] for j in g), 1 / len(groups)) for hit, g in zip(hits, groups, strict=True)]
        )
    even = 1 / len(v)
    rows = [(w, v[j], even) if j >= 0 else (w, 0.0, 0.0) for w, j in zip(u, partner, strict=True)]
    rows += [(0.0, x, even) for j, x in enumerate(v) if j not in partner]
    assert len(rows) == max(len(u), len(v))
    return np.array(rows)


def briers(pair: Pair, partner: list[int] | str) -> tuple[float, float]:
    """Mean squared error of the estimate and of the uniform guess, which is exactly 0 for equally probable
    modes."""
    estimate, truth, guess = entries(pair, partner).T
    groups = pair.groups if partner == "merged" else [[j] for j in range(len(pair.mode_counts))]
    equal = len({sum(pair.mode_counts[j] for j in group) for group in groups}) == 1
    return float(((estimate - truth) ** 2).mean()), 0.0 if equal else float(((guess - truth) ** 2).mean())


def skill(score: float, uniform: float) -> float:
    return 1 - score / (uniform + 1e-8) if uniform else math.nan


def determined(pair: Pair, partner: list[int] | str) -> bool:
    """Whether weights known to half a unit of float32 determine the skill, a quotient of small numbers, to
    1e-6."""
    estimate, truth, guess = entries(pair, partner).T
    score, uniform = briers(pair, partner)
    if not uniform:
        return True
    doubts = [float((2 * abs(e - truth) * (e + truth)).mean()) * 2.0**-24 for e in (estimate, guess)]
    ratio = score / uniform
    return (doubts[0] + ratio * doubts[1]) / uniform <= 1e-6 * (1 + abs(1 - ratio))


def mode_distances(pair: Pair) -> dict[str, float]:
    v = pair.mode_counts / pair.mode_counts.sum()
    u = np.zeros(len(v))
    for w, j in zip(pair.predictions.weights, pair.nearest, strict=True):
        u[j] += w
    return {
        "total_variation": float(np.abs(u - v).sum() / 2),
        "mode_kl": sum(t * math.log(t / max(e, 1e-6)) for t, e in zip(v, u, strict=True)),
    }


# -- pixels --------------------------------------------------------------------------------------------------


def pixel_sums(pair: Pair) -> Array:
    """Summed confidence, summed target and count of each of ten bins, ``(3, 10)``."""
    ours, our_mass, _ = pair.predictions.shares(pair.space)
    theirs, their_mass, _ = pair.annotations.hard().shares(pair.space)
    sums = np.zeros((3, 10))
    for at in range(ours.shape[1]):
        mass, target = int(our_mass[at]), int(their_mass[at])
        if mass and target:
            shares = ours[:, at].tolist()
            c = 1 if pair.space.classes == 2 else shares.index(max(shares))
            place = min(9, 10 * shares[c] // mass)
            sums[:, place] += (shares[c] / mass, theirs[c, at] / target, 1)
    return sums


def calibration_error(sums: Array) -> float:
    confidence, target, count = sums
    full = count > 0
    gap = np.abs(target[full] / count[full] - confidence[full] / count[full])
    return float((gap * count[full]).sum() / count.sum()) if full.any() else math.nan


def majority(side: Side, space: Space) -> Array:
    """The class of most weight; a tie goes to the background, else to the lowest; void where no mask has a
    class."""
    votes = side.shares(space)[0]
    there = side.hard().shares(space)[1] > 0
    chosen = votes.argmax(0)
    if space.background is not None:
        chosen = np.where(votes[space.background] == votes.max(0), space.background, chosen)
    return np.where(there, chosen, space.void)[None]


def cut_dice(pair: Pair) -> float:
    """Dice of both means cut at each tenth, in whole numbers, of pixels that both sides see."""
    (ours, _, m), (theirs, _, n) = (s.shares(pair.space) for s in (pair.predictions, pair.annotations.hard()))
    seen = [s.hard().shares(pair.space)[1] > 0 for s in (pair.predictions, pair.annotations)]
    ours, theirs = ours * seen[0] * seen[1], theirs * seen[0] * seen[1]
    c = pair.space.evaluated
    tenths = np.arange(1, 10)[:, None, None]
    one, two = 10 * ours[c] > tenths * m, 10 * theirs[c] > tenths * n
    size, both = one.sum(-1) + two.sum(-1), (one & two).sum(-1)
    return float(np.where(size > 0, 2 * both / np.maximum(size, 1), 1.0).mean())


def bits(pair: Pair) -> float:
    """Mean over annotations of ``-log2 sum_i u_i prod p_i(y)`` for each pixel that is not void."""
    soft = pair.predictions.soft
    assert soft is not None
    chance = np.clip(soft / PARTS, 1e-6, 1 - 1e-6)
    if pair.space.classes > 2:
        chance = chance / chance.sum(1, keepdims=True)
    total = mass = 0.0
    for mask, v in zip(pair.annotations.masks, pair.annotations.weights, strict=True):
        at = np.flatnonzero(mask != pair.space.void)
        if len(at):
            each = np.log(chance[:, mask[at], at]).sum(1) + np.log(pair.predictions.weights)
            likelihood = each.max() + math.log(np.exp(each - each.max()).sum())
            total, mass = total - v * likelihood / (len(at) * math.log(2)), mass + v
    return total / mass if mass else math.nan


def uncertainty(pair: Pair) -> float | None:
    """NCC; None where a map varies so little that it may count as constant."""
    p, void = pair.predictions, pair.space.void
    chance = (
        np.stack([p.masks == c for c in range(pair.space.classes)], 1) if p.soft is None else p.soft / PARTS
    )
    seen = (p.masks != void) | (p.soft is not None)
    weight = p.weights[:, None] * seen / np.maximum((p.weights[:, None] * seen).sum(0), 1e-30)
    surprise = -np.log(chance + 1e-8)
    mean = (weight[:, None] * chance).sum(0)
    of_mean = (weight * (mean * surprise).sum(1)).sum(0)
    values = []
    for mask, v in zip(pair.annotations.masks, pair.annotations.weights, strict=True):
        at = np.flatnonzero((mask != void) & seen.any(0))
        ours, theirs = of_mean[at], (weight[:, at] * surprise[:, mask[at], at]).sum(0)
        spreads = [float(np.std(one)) if len(at) else 0.0 for one in (ours, theirs)]
        if any(3e-6 < spread < 3e-5 for spread in spreads):
            return None
        vary = [spread > 1e-5 for spread in spreads]
        if all(vary):
            values.append((v, float(np.corrcoef(ours, theirs)[0, 1])))
        elif any(vary):
            values.append((v, 0.0))
    return sum(v * one for v, one in values) / sum(v for v, _ in values) if values else math.nan


def of_means(pair: Pair) -> dict[str, float]:
    """The metrics that look at per-pixel probabilities where there are some, and at masks where not."""
    ours, theirs = majority(pair.predictions, pair.space), majority(pair.annotations.hard(), pair.space)
    return {
        "dice_of_mean": float(overlaps(ours, theirs, pair.space)[1][0, 0]),
        "ece": calibration_error(pixel_sums(pair)),
        "soft_dice": cut_dice(pair),
    }


# -- all together --------------------------------------------------------------------------------------------


def all_values(pair: Pair) -> dict[str, list[float]]:
    """The values each metric may take: one, several where several matchings are best, none where it is left
    open."""
    iou, dice = pair.cross
    m, n, modes = pair.predictions.size, pair.annotations.size, len(pair.first)
    scores = pair.predictions.scores
    sure = {
        "hm_iou": best_total(iou) / min(m, n),
        "hm_iou_unique": best_total(pair.to_modes) / modes,
        "hm_iou_tiled": tiled(iou),
        "hm_iou_multi": float(iou.max(0).mean()),
        "m_iou": transport(iou, pair.predictions.counts, pair.annotations.counts),
        "max_dice_matching": float(dice.max(0).mean()),
        "expected_dice": float(pair.predictions.weights @ dice @ pair.annotations.weights),
        "bits_per_dimension": bits(pair),
        **energies(pair),
        **of_means(pair),
    }
    skills = {f"brier_skill_{way}": skill(*briers(pair, way)) for way in NEAREST}
    near = {**reaching(pair), **mode_distances(pair), **skills}
    allowed = {name: [value] for name, value in sure.items()}
    allowed["ncc"] = NEVER if (found := uncertainty(pair)) is None else [found]
    allowed |= {name: [value] if pair.decided else NEVER for name, value in near.items()}
    best = pair.partners
    chosen = [
        {
            **rates(*confusion(partner, scores)),
            "selection_ap": ranked(scores, np.array(partner) >= 0),
            "brier_skill_score": skill(*briers(pair, partner)),
        }
        for partner in best
    ]
    for way in NEAREST:
        if not determined(pair, way):
            allowed[f"brier_skill_{way}"] = NEVER
    names = ("selection_f1", "selection_precision", "selection_recall", "selection_ap", "brier_skill_score")
    allowed |= {name: [row[name] for row in chosen] for name in names}
    if not all(determined(pair, partner) for partner in best):
        allowed["brier_skill_score"] = NEVER
    return allowed


def brier_values(pair: Pair) -> dict[str, list[tuple[float, float]]]:
    """Score and uniform score that each assignment may give."""
    return {
        "matched": [briers(pair, partner) for partner in pair.partners],
        **{way: [briers(pair, way)] if pair.decided else [] for way in NEAREST},
    }


def pooled_values(pairs: list[Pair]) -> dict[str, float]:
    """The metrics that pool all images before they divide; of images that are `unambiguous`."""
    partners = [pair.partners[0] for pair in pairs]
    counts = [
        confusion(partner, pair.predictions.scores) for partner, pair in zip(partners, pairs, strict=True)
    ]
    matched = np.concatenate([np.array(partner) >= 0 for partner in partners])
    matched_scores = [briers(pair, partner) for partner, pair in zip(partners, pairs, strict=True)]
    tp, fp, fn = (sum(column) for column in zip(*counts, strict=True))
    return {
        **rates(tp, fp, fn),
        "selection_ap": ranked(np.concatenate([pair.predictions.scores for pair in pairs]), matched),
        "brier_skill_score": skill(*np.mean(matched_scores, 0).tolist()),
        **{
            f"brier_skill_{way}": skill(*np.mean([briers(pair, way) for pair in pairs], 0).tolist())
            for way in NEAREST
        },
        "ece": calibration_error(np.sum([pixel_sums(pair) for pair in pairs], 0)),
    }
