"""Evaluation of whole volumes: hypotheses of a run through each volume of a split against those of the annotators.

An annotator's masks of all slices are one mask of the volume. Overlaps are those of images, over all voxels of the
volume; millilitres are compared as `ambiseg.metrics.volumes` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.data.batches import annotations_of
from ambiseg.data.split import Split
from ambiseg.engine.hypotheses import (
    SliceStore,
    class_volumes,
    draws_at_random,
    predict_slices,
    through_volume,
)
from ambiseg.engine.postprocess import Image, LoadedModel, PredictSettings
from ambiseg.engine.run import Run
from ambiseg.engine.tally import LEAST_GROUPS, per_image_csv, plain, plain_ends
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import METRICS, Bootstrap, Comparison, Dialect, Interval
from ambiseg.metrics.volumes import VolumeErrors, dice_of_most_probable, volume_errors

OVERLAPS = ("ged", "max_dice_matching", "dice_of_mean")
"""Metrics of images that are also measured of volumes."""
MOST_PROBABLE = "dice_of_most_probable"
TITLES = {
    "millilitres": "Predicted volume (ml)",
    "annotated": "Annotated volume (ml)",
    "bias": "Volume bias (ml)",
    "relative_bias": "Volume bias (%)",
    "crps": "CRPS of volume (ml)",
    "distance": "Cramér distance of volume (ml)",
    "crps_curvas": "CRPS of CURVAS (ml)",
    MOST_PROBABLE: "Dice of most probable",
}
"""How figures of volumes are printed that are none of images."""
DIRECTIONS = {"crps": False, "distance": False, "crps_curvas": False, MOST_PROBABLE: True}
"""Whether higher is better, of those of which that can be said."""


@dataclass(frozen=True)
class VolumeEvaluation:
    """What a run reached on the volumes of a split.

    Attributes:
        ids: of the volumes.
        hypotheses: how many each has ``(volumes,)``.
        values: of each volume ``(volumes,)``, by the name of a class and of a figure; overlaps, which are means over
            classes, stand under the empty name.
        bootstrap: how intervals over volumes are made; None for none.
    """

    ids: tuple[str, ...]
    hypotheses: NDArray[np.int64]
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    bootstrap: Bootstrap | None

    def means(self) -> dict[str, dict[str, float]]:
        """Mean over volumes of each figure; volumes without a value are left out."""
        return {
            name: {key: round(_mean(value), 6) for key, value in own.items()}
            for name, own in self.values.items()
        }

    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Interval of each mean; empty where none were asked for, or of fewer than `LEAST_GROUPS` volumes."""
        if self.bootstrap is None or len(self.ids) < LEAST_GROUPS:
            return {}
        found: dict[str, dict[str, Interval]] = {}
        for name, own in self.values.items():
            found[name] = {
                key: _rounded(self.bootstrap.mean(torch.from_numpy(value))) for key, value in own.items()
            }
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``metrics.json``."""
        means, intervals = self.means(), self.intervals()

        def entries(name: str) -> dict[str, Any]:
            found: dict[str, Any] = {**plain(means[name])}
            if intervals:
                found["intervals"] = plain_ends(intervals[name])
            return found

        return {
            "volumes": len(self.ids),
            "hypotheses_per_volume": round(float(self.hypotheses.mean()), 3),
            **entries(""),
            "classes": {name: entries(name) for name in self.values if name},
        }

    def csv(self) -> str:
        """A row for each volume."""
        columns = {"hypotheses": self.hypotheses.astype(np.float64)}
        for name, own in self.values.items():
            columns |= {f"{key} [{name}]" if name else key: value for key, value in own.items()}
        return per_image_csv(self.ids, columns)


def why_not_volumes(split: Split) -> str:
    """Why volumes of a split cannot be measured; empty if they can, or if it has none."""
    slices = split.info.slices
    if slices is None:
        return ""
    if slices.keep != "all":
        return (
            f"volumes are not measured, for the data set keeps slices with {slices.keep} only: write 'keep: all' under"
            " 'slices' in dataset.yaml to measure them"
        )
    if any(split.voxel_ml(volume) is None for volume in _members(split)):
        return "volumes are not measured: that needs all slices of volumes in NIfTI, NRRD or DICOM files"
    return ""


def evaluate_volumes(
    run: Run,
    split: Split,
    settings: PredictSettings,
    labels: LabelSpace,
    dialect: Dialect,
    *,
    flow: LoadedModel | None = None,
    batch_size: int = 16,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
    progress: Callable[[int], None] | None = None,
) -> VolumeEvaluation:
    """Compare the hypotheses of a run through whole volumes with those of the annotators.

    Args:
        run: a loaded run.
        split: of volumes (`why_not_volumes`).
        settings: filters, probabilities and number of samples, without "auto".
        labels: the classes, and which of them are evaluated.
        dialect: conventions of the overlaps.
        flow: a run of flow-matching, where ``settings.estimate`` needs one.
        batch_size: slices in one pass.
        seed: of sampling methods.
        bootstrap: how intervals are made; None for none.
        progress: called with the number of slices done.
    """
    members, rows, counts = _members(split), list[dict[str, dict[str, float]]](), list[int]()
    done = 0
    for volume, indices in members.items():
        voxel = split.voxel_ml(volume)
        assert voxel is not None
        predicted, annotated = SliceStore(), SliceStore()

        def images(indices: Sequence[int] = indices, annotated: SliceStore = annotated) -> Iterator[Image]:
            for index in indices:
                sample = split[index]
                annotated.add(annotations_of(sample, labels), compact=False)
                yield sample.image

        for found in predict_slices(run, images(), settings, flow, batch_size, seed):
            for one in found.masks:
                predicted.add(one)
            if progress is not None:
                progress(done + len(predicted))
        done += len(predicted)
        box = _around(predicted.box, annotated.box)
        hypotheses = through_volume(predicted.sets(box), settings, draws_at_random(run))
        ours = replace(hypotheses, labels=labels)
        rows.append(compare_volumes(ours, _stacked(annotated.sets(box)), dialect, voxel))
        counts.append(int(ours.count[0]))
    values = {
        name: {key: np.array([row[name][key] for row in rows]) for key in rows[0][name]} for name in rows[0]
    }
    return VolumeEvaluation(tuple(members), np.array(counts), values, bootstrap)


def compare_volumes(
    predictions: MaskSet, annotations: MaskSet, dialect: Dialect, voxel: float
) -> dict[str, dict[str, float]]:
    """Figures of one volume, by the name of a class and of a figure; overlaps stand under the empty name.

    Args:
        predictions: ``(1, H, D, height, width)``.
        annotations: ``(1, N, D, height, width)``.
        dialect: conventions of the overlaps.
        voxel: millilitres of a voxel.
    """
    pair = Comparison(predictions, annotations, dialect)
    found: dict[str, dict[str, float]] = {
        "": {name: float(METRICS[name].function(pair)) for name in OVERLAPS}
    }
    found[""][MOST_PROBABLE] = float(dice_of_most_probable(pair))
    known = annotations.labelled[:, None]
    masks = predictions.masks.masked_fill(~known, annotations.labels.void)
    ours = class_volumes(replace(predictions, masks=masks), voxel)
    theirs = class_volumes(annotations, voxel)
    u, v = predictions.weights[0].double().numpy(), annotations.weights[0].double().numpy()
    for c in pair.annotations.labels.evaluated:
        errors = volume_errors(ours[:, c], theirs[:, c], u, v)
        found[annotations.labels.names[c]] = _figures(errors)
    return found


def _figures(errors: VolumeErrors) -> dict[str, float]:
    return {
        "millilitres": errors.predicted,
        "annotated": errors.observed,
        "bias": errors.bias,
        "relative_bias": 100 * errors.relative_bias,
        "crps": errors.crps,
        "distance": errors.distance,
        "crps_curvas": errors.crps_curvas,
    }


def _members(split: Split) -> dict[str, list[int]]:
    """Positions of the slices of each volume, in their order."""
    members: dict[str, list[int]] = {}
    groups = split.groups or {}
    for position, name in enumerate(split.ids):
        members.setdefault(groups.get(name, name), []).append(position)
    return members


def _stacked(slices: Sequence[MaskSet]) -> MaskSet:
    """The annotators' masks of slices as masks of the volume; every slice has the same annotators."""
    return replace(slices[0], masks=torch.stack([one.masks for one in slices], 2))


def _around(one: tuple[slice, slice], other: tuple[slice, slice]) -> tuple[slice, slice]:
    (top, left), (above, before) = one, other
    return _joined(top, above), _joined(left, before)


def _joined(one: slice, other: slice) -> slice:
    return slice(min(one.start, other.start), max(one.stop, other.stop))


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _rounded(interval: Interval) -> Interval:
    return Interval(round(interval.low, 6), round(interval.high, 6))
