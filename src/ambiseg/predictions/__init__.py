"""Predictions in files: what `ambiseg predict` writes, and those of any program, read one image at a time.

Layouts, see ``docs/metrics/your-method.md``::

    FOLDER/predictions.jsonl, FOLDER/<image>/prediction.json    what `ambiseg predict` writes
    FOLDER/<id>/<sample>.png, .npy, .nii.gz, ...                a file for each mask
    FILE.npy, FILE.npz, FILE.h5                                 one array (N, n, H, W) of all images

Whole numbers are label maps. Fractions are per-pixel probabilities of the foreground, where there are two classes.
As for data, no pickle is read, no link is followed out of a folder, and sizes are checked before anything is decoded.
"""

from __future__ import annotations

from ambiseg.predictions.arrays import read_ids
from ambiseg.predictions.folders import labels_of, read_masks
from ambiseg.predictions.layouts import open_predictions
from ambiseg.predictions.samples import Predictions, Samples, UnfitError, understood
from ambiseg.predictions.volumes import (
    VolumeMasks,
    read_slice_masks,
    read_volume_prediction,
    slice_names,
    written_volume,
)
from ambiseg.predictions.written import WrittenMask, WrittenPrediction, read_written

__all__ = [
    "Predictions",
    "Samples",
    "UnfitError",
    "VolumeMasks",
    "WrittenMask",
    "WrittenPrediction",
    "labels_of",
    "open_predictions",
    "read_ids",
    "read_masks",
    "read_slice_masks",
    "read_volume_prediction",
    "read_written",
    "slice_names",
    "understood",
    "written_volume",
]
