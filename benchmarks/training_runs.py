"""Training runs of the benchmarks: trained once and left alone from then on, described, and measured.

A run that is finished in the benchmark's folder with the same settings is not trained again, one that was
stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch

import ambiseg
from ambiseg.data.source import SpreadSplit, open_split
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import Run, load
from ambiseg.engine.run_folder import LAST, TRAINING, RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import resume
from ambiseg.networks.settings import UNetSettings

CORES = min(len(os.sched_getaffinity(0)), torch.get_num_threads())
"""Cores that this process uses."""


def common_options(text: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks of trained networks have; `parsed` reads them.

    Args:
        text: the docstring of the benchmark, shown by ``--help``.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder of the .npz files (lidc, camvid)")
    parser.add_argument("--work", type=Path, required=True, help="folder for packed data and runs")
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add the results to")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says; the folders of ``--work`` and ``--results`` are there afterwards."""
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    return arguments


def finished(run: Path, train: TrainSettings, settings: Any) -> bool:
    """Whether a run with these settings has come to its end."""
    note = run / TRAINING
    if not note.is_file() or json.loads(note.read_text())["interrupted"]:
        return False
    config = RunConfig.load(run)
    return config.train == train and config.settings == settings


def train_once(
    method: str,
    data: Path,
    run: Path,
    train: TrainSettings,
    settings: Any,
    backbone: UNetSettings = UNetSettings(width=16),  # noqa: B008
) -> Path:
    """A run with these settings: left alone where it is done, continued where it was stopped, else
    trained."""
    if finished(run, train, settings):
        return run
    config = RunConfig.load(run) if (run / LAST).is_file() else None
    if config is not None and (config.train, config.settings) == (train, settings):
        result = resume(run, data=data)
    else:
        result = ambiseg.fit(
            method,
            data,
            run,
            train=train,
            backbone=backbone,
            settings=settings,
            overwrite=True,
        )
    if result.interrupted:
        raise SystemExit("interrupted; the same command goes on from here")
    return run


def describe(run: Path) -> dict[str, Any]:
    """What a run was made of and came to."""
    config = RunConfig.load(run)
    start = config.train.init and Path(config.train.init).name
    return {
        "method": config.method,
        "train": dataclasses.asdict(config.train) | {"init": start},
        "settings": dataclasses.asdict(config.settings),
        "backbone": dataclasses.asdict(config.backbone),
        "training": json.loads((run / TRAINING).read_text()),
        "cores": CORES,
    }


def loaded(run: Path, **options: Any) -> Run:
    """The model of a run, with other sampling options if asked."""
    found = load(run)
    found.model.settings = dataclasses.replace(found.model.settings, **options)
    return found


def measure(
    run: Path,
    data: Path,
    split: str,
    samples: int,
    metrics: list[str],
    *,
    every: int = 1,
    batch_size: int = 4,
    **options: Any,
) -> dict[str, Any]:
    """How a run was trained, and its figures with all masks on every n-th image, with other sampling options
    if asked."""
    model = loaded(run, **options)
    keep = PredictSettings(None, None, samples=samples)
    images = open_split(data, split)
    chosen = images if every == 1 else SpreadSplit(images, len(images) // every)
    found = ambiseg.evaluate(
        model, chosen, split, keep, batch_size=batch_size, metrics=metrics, oracle_draws=1
    )
    return {
        **describe(run),
        "settings": dataclasses.asdict(model.model.settings),
        "samples": samples,
        "parameters": sum(p.numel() for p in model.model.parameters()),
        **found.to_dict(),
    }
