"""Masks of the slices of a volume as they are predicted, kept small, and joined to hypotheses through the volume.

Methods that predict a fixed set of masks are filtered slice by slice, as images are; what is left is joined
(`ambiseg.mode_probabilities.across_slices`). Methods that sample draw the same random numbers in every slice, so that
sample k of one slice belongs to sample k of the next; samples are joined first, and the filters look at whole volumes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.engine.postprocess import (
    Image,
    LoadedModel,
    Postprocessed,
    PredictSettings,
    estimate_probabilities,
    filtered,
    postprocess,
    ranked,
)
from ambiseg.engine.run import MIXTURE_METHOD, Run
from ambiseg.maskset import MaskSet
from ambiseg.methods import method_info
from ambiseg.mode_probabilities.across_slices import join_slices

LINKED = 0.2
"""How much the same sample of the next slice is preferred to others, in units of IoU."""
LEAST = 1e-6
"""Hypotheses of a lower probability are left out."""


def draws_at_random(run: LoadedModel) -> bool:
    """Whether the masks of a run are samples. A mixture is taken for a fixed set of masks."""
    return run.config.method != MIXTURE_METHOD and not method_info(run.config.method).test.deterministic


def predict_slices(
    run: Run,
    images: Iterable[Image],
    settings: PredictSettings,
    flow: LoadedModel | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> Iterator[Postprocessed]:
    """Masks of slices of one size, batch by batch, ready for `SliceStore` and `through_volume`.

    Args:
        run: a loaded run.
        images: slices in order.
        settings: as for images, without "auto".
        flow: a run of flow-matching, where ``settings.estimate`` needs one.
        batch_size: slices in one pass; methods that sample take one at a time, each with the same random numbers.
        seed: of these.
    """
    sampled = draws_at_random(run)
    size, of_slices = 1 if sampled else batch_size, replace(settings, top=None)
    threshold = settings.values().foreground_threshold
    held: list[Image] = []

    def predicted() -> Postprocessed:
        generator = torch.Generator(run.hardware.device).manual_seed(_mixed(seed))
        proposals = run.propose(held, settings.samples, generator, threshold, settings.annotator)
        if sampled:
            return estimate_probabilities(proposals, settings.estimate, held, flow, generator)
        return postprocess(proposals, of_slices, held, flow, generator)

    for image in images:
        held.append(image)
        if len(held) == size:
            yield predicted()
            held.clear()
    if held:
        yield predicted()


def _mixed(seed: int) -> int:
    """A seed of other random numbers than those of images."""
    return int.from_bytes(hashlib.sha256(f"volume, {seed}".encode()).digest()[:8]) >> 1


def through_volume(slices: Sequence[MaskSet], settings: PredictSettings, sampled: bool) -> MaskSet:
    """Hypotheses of a volume ``(1, H, D, H', W')``, the most probable first.

    Args:
        slices: the masks of each slice, as `predict_slices` gives them.
        settings: filters, without "auto".
        sampled: whether they are samples that no filter has seen.
    """
    slices = [one.compact() for one in slices]
    joined = join_slices(slices, LINKED if sampled else 0.0)
    masks = torch.stack(
        [one.masks[0, list(taken)] for one, taken in zip(slices, joined.masks, strict=True)], 1
    )
    weights = torch.from_numpy(np.where(joined.weights < LEAST, 0, joined.weights)).float()
    every = MaskSet(masks[None], weights[None], slices[0].labels, _mean_scores(slices, joined.masks))
    del slices, masks  # all masks of a volume take a gigabyte or more
    every = every.normalised().compact()
    values = settings.values()
    if not sampled:
        values = replace(values, score_threshold=None, probability_threshold=None, temperature=1.0)
    return ranked(filtered(every, values, settings.estimate.kind), values.top).compact()


def _mean_scores(slices: Sequence[MaskSet], taken: NDArray[np.int64]) -> torch.Tensor | None:
    """Mean score of each hypothesis over the slices in which it has foreground ``(1, H)``; over all if it has none."""
    total = torch.zeros(2, taken.shape[1], dtype=torch.float64)
    every = total.clone()
    for one, own in zip(slices, taken, strict=True):
        if one.scores is None:
            return None
        scores, there = one.scores[0, list(own)].double(), one.areas()[0, list(own)] > 0
        total += torch.stack([scores * there, there.double()])
        every += torch.stack([scores, torch.ones_like(scores)])
    mean = torch.where(total[1] > 0, total[0] / total[1].clamp(min=1), every[0] / every[1])
    return mean.float()[None]


class SliceStore:
    """The masks of the slices of a volume, each kept within the box outside of which all its masks are background."""

    def __init__(self) -> None:
        self._sets: list[MaskSet] = []
        self._boxes: list[tuple[int, int, int, int]] = []
        self.size = (0, 0)

    def __len__(self) -> int:
        return len(self._sets)

    def add(self, one: MaskSet, compact: bool = True) -> None:
        """Keep the masks of the next slice, ``(1, K, H, W)``; those of weight 0 if it is not made compact."""
        self.size = (one.masks.shape[2], one.masks.shape[3])
        one, background = one.hard(), one.labels.background
        one = one.compact() if compact else one
        some = torch.ones(self.size, dtype=torch.bool)
        if background is not None:
            some = (one.masks[0] != background).any(0)
        rows, columns = torch.nonzero(some.any(1))[:, 0], torch.nonzero(some.any(0))[:, 0]
        box = (0, 0, 0, 0)
        if len(rows):
            box = (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
        self._sets.append(replace(one, masks=one.masks[:, :, box[0] : box[1], box[2] : box[3]].clone()))
        self._boxes.append(box)

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns outside of which all masks of all slices are background; one pixel where all are."""
        there = [box for box in self._boxes if box[1] > box[0]] or [(0, 1, 0, 1)]
        top, bottom, left, right = zip(*there, strict=True)
        return slice(min(top), max(bottom)), slice(min(left), max(right))

    @property
    def most(self) -> int:
        """Masks of the slice that has most."""
        return max(one.masks.shape[1] for one in self._sets)

    def sets(self, box: tuple[slice, slice] | None = None) -> list[MaskSet]:
        """The masks of every slice within `box`, or a larger one."""
        (rows, columns), found = box or self.box, []
        for one, (top, bottom, left, right) in zip(self._sets, self._boxes, strict=True):
            background = one.labels.background or 0
            shape = (1, one.masks.shape[1], rows.stop - rows.start, columns.stop - columns.start)
            masks = torch.full(shape, background, dtype=one.masks.dtype)
            if bottom > top:
                down, across = (
                    slice(top - rows.start, bottom - rows.start),
                    slice(left - columns.start, right - columns.start),
                )
                masks[:, :, down, across] = one.masks
            found.append(replace(one, masks=masks))
        return found


def class_volumes(masks: MaskSet, voxel: float) -> NDArray[np.float64]:
    """Volume of each class in each mask of one image ``(K, classes)``, of voxels of that size."""
    counts = np.zeros((masks.masks.shape[1], 256))
    for k, mask in enumerate(masks.masks[0].numpy()):
        for plane in mask:  # one after the other, for the counting takes eight bytes for each
            counts[k] += np.bincount(plane.ravel(), minlength=256)
    return counts[:, : masks.labels.classes] * voxel
