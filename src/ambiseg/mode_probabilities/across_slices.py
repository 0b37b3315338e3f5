"""Hypotheses through a volume: masks of neighbouring slices are joined, so that one hypothesis is one surface.

A network of slices gives every slice d its own masks ``m_dk`` with weights ``w_dk``, in any order and number. A
hypothesis h takes one mask of each slice, ``a(d, h)``. Between H hypotheses and the K masks of a slice the assignment of
least total cost is the Hungarian one (Kuhn 1955), as in tracking (Bewley et al., "Simple Online and Realtime Tracking",
ICIP 2016). The cost of giving mask k to hypothesis h is

    c(h, k) = 1 - mean over near slices e of IoU(m_dk, m_e,a(e,h))            overlap
              + |f(m_dk) - line_h(d)| / size                                  motion
              + WEIGHT |w_dk - mean over near slices of w_e,a(e,h)|.          probability

f is centre and radius of a mask, and line_h the straight line through those of the hypothesis in the slices around: where
two surfaces cross, overlap alone would let them bounce. Slices without any mask that has foreground tell nothing, so they
are passed over, and the slices before them stay the near ones.

The first assignment begins at the slice that has most masks and goes outwards; sweeps then compare each slice with both
sides, until nothing changes. Where a slice has fewer masks than there are hypotheses, several share one (they merge, and
split again behind it); every mask of every slice belongs to some hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.matching import match
from ambiseg.overlap import pairwise_overlap

REACH = 4
"""Slices on each side that a slice is compared with."""
DECAY = 0.6
"""How much less the overlap with a slice counts than that with the slice before it."""
LINE = 15
"""Slices on each side through which the line of a hypothesis is drawn."""
SHARED = 0.05
"""How much a slice counts for a hypothesis that shares its mask there with others: it does not tell them apart."""
WEIGHT = 0.5
"""What a difference of probabilities costs."""
MOTION = 1.0
"""What a distance of one radius from the line of a hypothesis costs."""
GAIN = 0.05
"""How much less an exchange of hypotheses has to cost."""
SWEEPS = 5
"""Sweeps at most; two or three are enough."""
EM_STEPS = 200
"""Steps of the estimate of probabilities."""

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Joined:
    """Hypotheses through a volume.

    Attributes:
        masks: ``(D, H)`` int64, which mask of each slice a hypothesis takes.
        weights: ``(H,)`` float64, probabilities of the hypotheses, sum 1.
    """

    masks: _Ints
    weights: _Floats


def join_slices(slices: Sequence[MaskSet], linked: float = 0.0) -> Joined:
    """Join the masks of the slices of a volume to hypotheses, as many as the fullest slice has masks.

    Args:
        slices: of each slice the masks of one image, ``(1, K, H, W)``, with weights; K may differ.
        linked: how much masks of the same place in their sets are preferred to be one hypothesis, in units of IoU; for
            samples that were drawn with the same random numbers in every slice.

    Raises:
        AmbisegError: no slice, a batch of several images, or slices of other size or classes.

    Example:
        >>> thick, thin = torch.tensor([[0, 1, 1, 1, 1, 0]]), torch.tensor([[0, 0, 1, 1, 0, 0]])
        >>> one = MaskSet(torch.stack([thick, thin])[None], torch.tensor([[0.7, 0.3]]), LabelSpace.binary())
        >>> other = MaskSet(torch.stack([thin, thick])[None], torch.tensor([[0.5, 0.5]]), LabelSpace.binary())
        >>> found = join_slices([one, other])
        >>> found.masks.tolist(), found.weights.round(2).tolist()
        ([[0, 1], [1, 0]], [0.6, 0.4])
    """
    _check(slices)
    slices = [one.hard().compact() for one in slices]
    told = [d for d, one in enumerate(slices) if bool((one.areas() > 0).any())]
    count = max(int(one.count[0]) for one in slices)
    masks = np.stack([np.minimum(np.arange(count), int(one.count[0]) - 1) for one in slices])
    if told and count > 1:
        masks[told] = _Joining([slices[d] for d in told], np.array(told), count, linked).run()
    return Joined(masks, joined_weights(slices, masks))


def joined_weights(slices: Sequence[MaskSet], masks: _Ints) -> _Floats:
    """Probabilities ``(H,)`` of hypotheses that take the masks ``(D, H)`` of slices.

    The hypotheses that share mask k of slice d have together the probability ``q_dk = sum of p_h over a(d, h) = k``. Slices
    estimate one and the same p with errors, so p is that of least

        sum_d c_d KL(w_d || q_d)

    with c_d the number of pixels on which the masks of the slice differ: a slice tells hypotheses apart by these, and a
    slice of equal masks tells nothing. Where no hypotheses share a mask, p is the mean of the weights, weighted by c; an
    EM iteration finds it in general.
    """
    count = masks.shape[1]
    differing = np.array([_differing(one) for one in slices], np.float64)
    told = np.flatnonzero(differing)
    p: _Floats = np.full(count, 1 / count)
    if not len(told):
        return p
    rows, c = masks[told], differing[told] / differing.sum()
    width = rows.max() + 1
    w = np.zeros((len(told), width))
    for row, d in enumerate(told.tolist()):
        given = slices[d].weights[0].double().numpy()
        w[row, : len(given)] = given[:width]
    target = np.take_along_axis(w, rows, 1)
    flat = rows + width * np.arange(len(told))[:, None]
    for _ in range(EM_STEPS):
        together = np.bincount(flat.ravel(), np.tile(p, len(told)), width * len(told))[flat]
        new: _Floats = c @ (target * p / np.maximum(together, 1e-300))
        new /= new.sum()
        if np.abs(new - p).max() < 1e-9:
            return new
        p = new
    return p


def _check(slices: Sequence[MaskSet]) -> None:
    if not slices:
        raise AmbisegError("a volume has at least one slice, received none")
    first = slices[0]
    for d, one in enumerate(slices):
        if len(one) != 1 or one.masks.shape[2:] != first.masks.shape[2:] or one.labels != first.labels:
            raise AmbisegError(
                f"slice {d} has masks of shape {tuple(one.masks.shape)} and the classes {list(one.labels.names)}, the first"
                f" slice {tuple(first.masks.shape)} and {list(first.labels.names)}: give one set per slice, of one volume"
            )


def _differing(one: MaskSet) -> int:
    """Pixels on which not all masks of a slice agree."""
    masks = one.masks[0]
    return int((masks != masks[:1]).any(0).sum())


class _Joining:
    """The assignment of the masks of slices that have foreground, see the head of this file."""

    def __init__(self, slices: list[MaskSet], places: _Ints, count: int, linked: float) -> None:
        self.places, self.count, self.linked = places, count, linked
        self.sizes = [int(one.count[0]) for one in slices]
        self.weights = [one.weights[0].double().numpy() for one in slices]
        self.features = [_features(one) for one in slices]
        self.empty = [one.areas()[0].numpy() == 0 for one in slices]
        cut = _cropped(slices)
        labels = slices[0].labels
        self.overlaps = {
            (d, e): pairwise_overlap(cut[d], cut[e], labels).iou()[0].double().numpy()
            for d in range(len(slices))
            for e in range(d + 1, min(d + REACH + 1, len(slices)))
        }
        self.masks = np.zeros((len(slices), count), np.int64)
        self.taken = np.zeros((len(slices), count, 3))
        self.weight, self.own, self.seen = (np.zeros((len(slices), count)) for _ in range(3))

    def run(self) -> _Ints:
        """The masks of each hypothesis ``(D, H)``."""
        size = len(self.sizes)
        start = max(range(size), key=lambda d: (self.sizes[d], float(np.ptp(self.features[d], axis=0).sum())))
        self._take(start, np.arange(self.count))
        known = np.array([start])
        for d in [*range(start + 1, size), *range(start - 1, -1, -1)]:
            self._take(d, self._assigned(d, known))
            known = np.sort(np.append(known, d))
        for _ in range(SWEEPS):
            before = self.masks.copy()
            for d in range(size):
                self._take(d, self._assigned(d, np.delete(np.arange(size), d)))
            if not self.linked:
                self._cross()
            if np.array_equal(before, self.masks):
                break
        return self.masks

    def _take(self, d: int, masks: _Ints) -> None:
        """Give each hypothesis its mask in a slice."""
        self.masks[d] = masks
        shared = np.bincount(masks, minlength=self.sizes[d])[masks] > 1
        self.taken[d], self.weight[d] = self.features[d][masks], self.weights[d][masks]
        self.own[d] = np.where(shared, SHARED, 1.0)
        self.seen[d] = np.where(self.empty[d][masks], 0, self.own[d])

    def _assigned(self, d: int, known: _Ints) -> _Ints:
        """Which mask each hypothesis takes in a slice, by those it has in the ``known`` slices."""
        cost = self._cost(d, known)
        columns = match(torch.from_numpy(cost)[None]).columns[0].numpy()
        return np.where(columns >= 0, columns, cost.argmin(1))

    def _cost(self, d: int, known: _Ints) -> _Floats:
        near = known[np.abs(known - d) <= REACH]
        factor = self.own[near] * DECAY ** (np.abs(near - d) - 1.0)[:, None]
        overlap = np.zeros((self.count, self.sizes[d]))
        for own, e in zip(factor, near.tolist(), strict=True):
            overlap += own[:, None] * self._overlap(d, e)[:, self.masks[e]].T
        around = known[np.abs(known - d) <= LINE]
        mean = (self.own[around] * self.weight[around]).sum(0) / self.own[around].sum(0)
        cost: _Floats = 1 - overlap / factor.sum(0)[:, None]
        cost += WEIGHT * np.abs(self.weights[d] - mean[:, None])
        level, _, fits = self._line(around, self.places[d])
        distance = np.linalg.norm(self.features[d] - level[:, None], axis=2)
        distance /= np.maximum(1, self.features[d][:, 0])
        cost += MOTION * np.where(fits[:, None] & ~self.empty[d], np.minimum(1, distance), 0)
        if self.linked:
            cost -= self.linked * np.eye(self.count, self.sizes[d])
        return cost

    def _overlap(self, d: int, e: int) -> _Floats:
        return self.overlaps[d, e] if d < e else self.overlaps[e, d].T

    def _line(self, slices: _Ints, place: int) -> tuple[_Floats, _Floats, NDArray[np.bool_]]:
        """Value at a place ``(H, 3)`` and slope of the line of least squares through the radii and centres of each
        hypothesis, and whether there are two points. Slopes are drawn towards 0, so that few points do not go far astray."""
        x = (self.places[slices] - place).astype(np.float64)
        weights = (self.seen[slices] * np.exp(-np.abs(x) / LINE)[:, None])[..., None]
        total = np.maximum(weights.sum(0), 1e-9)
        values, x = self.taken[slices], x[:, None, None]
        centre, mean = (weights * x).sum(0) / total, (weights * values).sum(0) / total
        about = weights * (x - centre)
        slope = (about * (values - mean)).sum(0) / ((about * (x - centre)).sum(0) + LINE)
        return mean - centre * slope, slope, (self.seen[slices] > 0).sum(0) > 1

    def _cross(self) -> None:
        """Exchange what lies behind a slice between hypotheses, where the lines and probabilities of both sides then fit
        better: the best exchange first, until none is left."""
        for _ in range(2 * self.count):
            gains = [self._exchange(d) for d in range(2, len(self.sizes) - 1)]
            if not gains:
                return
            best = max(range(len(gains)), key=lambda i: gains[i][0])
            gain, order = gains[best]
            if gain < GAIN:
                return
            for d in range(best + 2, len(self.sizes)):
                self._take(d, self.masks[d][order])

    def _exchange(self, d: int) -> tuple[float, _Ints]:
        """How much less it costs to go on at slice d with other hypotheses, and with which."""
        sides = np.arange(max(0, d - LINE), d), np.arange(d, min(len(self.sizes), d + LINE))
        place = (self.places[d - 1] + self.places[d]) / 2
        (before, slope, there), (after, onward, here) = (self._line(side, place) for side in sides)
        radius = np.maximum(1, (before[:, None, 0] + after[None, :, 0]) / 2)
        apart = _between(_relative(before, there), _relative(after, here))
        apart += LINE / 2 * _between(_relative(slope, there), _relative(onward, here))
        cost = MOTION * np.where(there[:, None] & here[None], np.minimum(2, apart / radius), 0)
        own = [(self.own[side] * self.weight[side]).sum(0) / self.own[side].sum(0) for side in sides]
        cost += WEIGHT * np.abs(own[0][:, None] - own[1][None])
        cost -= self._overlap(d - 1, d)[np.ix_(self.masks[d - 1], self.masks[d])] / 2
        columns = match(torch.from_numpy(cost)[None]).columns[0].numpy()
        return float(np.trace(cost) - cost[np.arange(self.count), columns].sum()), columns


def _relative(values: _Floats, there: NDArray[np.bool_]) -> _Floats:
    """Values ``(H, F)`` less what the hypotheses that are there have in common."""
    return values - values[there].mean(0) if there.any() else values


def _between(one: _Floats, other: _Floats) -> _Floats:
    """Distances ``(H, H)`` of all pairs."""
    found: _Floats = np.linalg.norm(one[:, None] - other[None], axis=2)
    return found


def _features(one: MaskSet) -> _Floats:
    """Radius of a disc of that area, and centre, of each mask ``(K, 3)`` in pixels; 0 for empty ones."""
    masks = one.masks[0].numpy()
    background = 0 if one.labels.background is None else one.labels.background
    found = np.zeros((len(masks), 3))
    for k, mask in enumerate(masks):
        rows, columns = np.nonzero(mask != background)
        if len(rows):
            found[k] = np.sqrt(len(rows) / np.pi), rows.mean(), columns.mean()
    return found


def _cropped(slices: list[MaskSet]) -> list[Tensor]:
    """The masks within the box outside of which all are background."""
    labels: LabelSpace = slices[0].labels
    if labels.background is None:
        return [one.masks for one in slices]
    some = torch.stack([(one.masks[0] != labels.background).any(0) for one in slices]).any(0)
    rows, columns = torch.nonzero(some.any(1))[:, 0], torch.nonzero(some.any(0))[:, 0]
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    return [one.masks[:, :, box[0], box[1]].contiguous() for one in slices]
