"""ambiseg: all plausible masks of an ambiguous image, with their probabilities.

>>> import ambiseg
>>> run = ambiseg.load("runs/fires")                                                    # doctest: +SKIP
>>> proposals = run.predict("scene.npy")                                                # doctest: +SKIP

Names are imported when first used, so that ``import ambiseg`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ambiseg.version import __version__

_HOMES = {
    "MaskSet": "ambiseg.maskset",
    "LabelSpace": "ambiseg.labels",
    "AmbisegError": "ambiseg.errors",
    "Segmenter": "ambiseg.methods.base",
    "METHODS": "ambiseg.methods",
    "build": "ambiseg.methods",
    "register": "ambiseg.methods",
    "MethodSpec": "ambiseg.methods.spec",
    "Preset": "ambiseg.methods.spec",
    "register_network": "ambiseg.networks.backbone",
    "register_metric": "ambiseg.metrics.registry",
    "MetricInfo": "ambiseg.metrics.registry",
    "TrainSettings": "ambiseg.engine.settings",
    "UNetSettings": "ambiseg.networks.settings",
    "fit": "ambiseg.engine.train",
    "resume": "ambiseg.engine.train",
    "save_run": "ambiseg.engine.save_run",
    "load": "ambiseg.engine.run",
    "predict_volume": "ambiseg.engine.volumes",
    "read_volume_prediction": "ambiseg.predictions.volumes",
    "evaluate": "ambiseg.engine.evaluate",
    "score": "ambiseg.engine.score",
    "score_files": "ambiseg.engine.score",
    "describe": "ambiseg.engine.describe",
    "read_image": "ambiseg.data.files.reading",
    "read_mask": "ambiseg.data.files.reading",
    "MaskRules": "ambiseg.data.files.mask_rules",
    "dataset": "ambiseg.data.memory.dataset",
    "open_split": "ambiseg.data.source",
    "write_dataset": "ambiseg.data.source",
    "DatasetInfo": "ambiseg.data.info",
    "Sample": "ambiseg.data.sample",
    "SplitStatistics": "ambiseg.data.statistics",
    "annotations_of": "ambiseg.data.batches",
    "collate": "ambiseg.data.collate",
    "simulate": "ambiseg.data.simulators.dataset",
    "PredictSettings": "ambiseg.engine.postprocess",
    "plot": "ambiseg.report.interactive",
    "progress_bar": "ambiseg.progress_log",
    "export": "ambiseg.exporting.files",
}

__all__ = [
    "METHODS",
    "AmbisegError",
    "DatasetInfo",
    "LabelSpace",
    "MaskRules",
    "MaskSet",
    "MethodSpec",
    "MetricInfo",
    "PredictSettings",
    "Preset",
    "Sample",
    "Segmenter",
    "SplitStatistics",
    "TrainSettings",
    "UNetSettings",
    "__version__",
    "annotations_of",
    "build",
    "collate",
    "dataset",
    "describe",
    "evaluate",
    "export",
    "fit",
    "load",
    "open_split",
    "plot",
    "predict_volume",
    "progress_bar",
    "read_image",
    "read_mask",
    "read_volume_prediction",
    "register",
    "register_metric",
    "register_network",
    "resume",
    "save_run",
    "score",
    "score_files",
    "simulate",
    "write_dataset",
]

if TYPE_CHECKING:
    from ambiseg.data.batches import annotations_of
    from ambiseg.data.collate import collate
    from ambiseg.data.files.mask_rules import MaskRules
    from ambiseg.data.files.reading import read_image, read_mask
    from ambiseg.data.info import DatasetInfo
    from ambiseg.data.memory.dataset import dataset
    from ambiseg.data.sample import Sample
    from ambiseg.data.simulators.dataset import simulate
    from ambiseg.data.source import open_split, write_dataset
    from ambiseg.data.statistics import SplitStatistics
    from ambiseg.engine.describe import describe
    from ambiseg.engine.evaluate import evaluate
    from ambiseg.engine.postprocess import PredictSettings
    from ambiseg.engine.run import load
    from ambiseg.engine.save_run import save_run
    from ambiseg.engine.score import score, score_files
    from ambiseg.engine.settings import TrainSettings
    from ambiseg.engine.train import fit, resume
    from ambiseg.engine.volumes import predict_volume
    from ambiseg.errors import AmbisegError
    from ambiseg.exporting.files import export
    from ambiseg.labels import LabelSpace
    from ambiseg.maskset import MaskSet
    from ambiseg.methods import METHODS, build, register
    from ambiseg.methods.base import Segmenter
    from ambiseg.methods.spec import MethodSpec, Preset
    from ambiseg.metrics.registry import MetricInfo, register_metric
    from ambiseg.networks.backbone import register_network
    from ambiseg.networks.settings import UNetSettings
    from ambiseg.predictions.volumes import read_volume_prediction
    from ambiseg.progress_log import progress_bar
    from ambiseg.report.interactive import plot


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ambiseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
