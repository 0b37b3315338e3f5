"""Exported ONNX against PyTorch: time on one thread, and the share of pixels that differ, for every method.

    python benchmarks/export_speed.py [METHOD...] [--width W] [--size S] [--images N] [--filter] > RESULT.json

A model of each method in the size of the demo (its backbone, 64x64 images of three channels, two classes, the
method's own settings with 16 masks where it samples) has random weights. Times are of one image, of both in turn, the
median of ``--repeats`` after one warm-up; PyTorch runs eagerly in float32 with the same graph module, so both normalise,
predict and sort, and with ``--filter`` filter as well. The pixels are those of the kept masks of ``--images`` images of
random numbers, with the same noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ambiseg.cli.demo import BACKBONE
from ambiseg.data.batches import Normalization
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import Run
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.exporting.files import differences, export, inference
from ambiseg.labels import LabelSpace
from ambiseg.methods import METHODS
from ambiseg.nested_settings import replaced

MASKS = 16
"""Masks of each image, of methods that sample."""


def model_of(method: str, width: int) -> Run:
    """A run of the demo's size with random weights, which do not leave its heads at their start."""
    torch.manual_seed(0)
    spec = METHODS[method]
    settings = replaced(spec.settings(), {"samples": MASKS} if spec.masks == "samples" else {}, "settings")
    backbone = replace(BACKBONE, width=width)
    config = RunConfig(
        method,
        3,
        LabelSpace.binary(),
        Normalization((0.4,) * 3, (0.2,) * 3),
        backbone,
        settings,
        TrainSettings(),
    )
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return Run(config, model, Hardware("cpu", False, False))


def measured(method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times in seconds, their ratio, and differences of one method; or why it cannot be exported."""
    run = model_of(method, arguments.width)
    settings = (
        PredictSettings() if arguments.filter else PredictSettings(score_threshold=None, duplicate_iou=None)
    )
    size, generator = arguments.size, torch.Generator().manual_seed(1)
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        path = Path(place) / "model.onnx"
        try:
            deployed = export(run, path, "onnx", settings)
        except AmbisegError as error:
            return {"method": method, "error": str(error)}
        exported = inference(path, "onnx", threads=1)
        times: dict[str, list[float]] = {"pytorch": [], "onnx": []}
        for turn in range(arguments.repeats + 1):
            image, noise = deployed.example(1, size, size, generator)
            for name, action in (
                ("pytorch", partial(deployed, image, *noise)),
                ("onnx", partial(exported, image, noise)),
            ):
                began = time.perf_counter()
                action()
                if turn:
                    times[name].append(time.perf_counter() - began)
        found = [
            differences(deployed, exported, *deployed.example(1, size, size, generator))
            for _ in range(arguments.images)
        ]
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return {
        "method": method,
        "masks": deployed.masks,
        **seconds,
        "ratio": seconds["onnx"] / seconds["pytorch"],
        "pixels": sum(share for share, _ in found) / max(1, len(found)),
        "weights": max((weight for _, weight in found), default=0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=sorted(METHODS))
    parser.add_argument("--width", type=int, default=BACKBONE.width)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--filter", action="store_true", help="with the filter of the method's defaults")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for method in arguments.methods:
        row = measured(method, arguments)
        print(row, file=sys.stderr)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
