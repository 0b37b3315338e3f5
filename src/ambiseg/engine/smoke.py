"""Smoke runs: the experiment of a preset or a suite from end to end in seconds, whose figures mean nothing.

Every setting that chooses what the code does keeps its value: kind and depth of a network, losses, schedule,
augmentation, sampler, guidance. `LARGEST` bounds the numbers that only make it take longer; places and
patience of a schedule follow. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ambiseg.engine.settings import VALIDATIONS, Plateau, Steps, TrainSettings
from ambiseg.nested_settings import from_values, to_values
from ambiseg.networks.settings import UNetSettings

T = TypeVar("T")

UPDATES = 2
"""Optimiser steps of a smoke run."""
LARGEST = {
    # training
    "batch_size": 2,
    "validations": 1,
    "validation_images": 2,
    "devices": 1,
    "nodes": 1,
    "workers": 0,
    # samples of training and prediction
    "samples": 2,
    "draws": 2,
    "likelihood_samples": 4,
    "steps": 2,
    # parts of methods
    "flow_width": 8,
    "flow_max_width": 16,
    "head_width": 8,
    "gating_width": 16,
    "members": 2,
}
"""Greatest values of a smoke run, by the names of settings, wherever they stand."""
LARGEST_OF_NETWORK = {"width": 8, "max_width": 16, "blocks": 1}
"""Those of `UNetSettings`; a flow has a width as well, which must be left out where it has no effect."""
WIDEST = 2
"""Greatest factor of the width of a network."""
NOTE = "smoke run of a few steps on tiny data: its figures mean nothing"
"""What is said of a smoke run wherever figures are shown."""


def shrunk(
    train: TrainSettings, backbone: UNetSettings, settings: Any
) -> tuple[TrainSettings, UNetSettings, Any]:
    """Settings of training, network and method as `resolve` gives them, for a smoke run.

    Example:
        >>> from ambiseg.engine.presets import resolve
        >>> from ambiseg.methods import METHODS
        >>> train, backbone, settings = shrunk(*resolve(METHODS["flow-ssn"], "lidc"))
        >>> train.updates, train.ema, backbone.kind, backbone.depth, backbone.width, settings.flow.steps
        (2, 0.9999, 'adm', 4, 8, 2)
    """
    short = replace(
        train,
        epochs=None,
        minutes=None,
        updates=UPDATES,
        validations=None if train.validate_every else train.validations or VALIDATIONS,
        validation_images=train.used_validation_images(LARGEST["validation_images"]),
    )
    return _scheduled(_small(short)), _small(backbone), _small(settings)


def _scheduled(train: TrainSettings) -> TrainSettings:
    """Settings whose schedule suits so few updates and validations."""
    schedule = train.schedule
    if isinstance(schedule, Steps) and schedule.updates:
        count = len(schedule.updates)
        shares = tuple((place + 1) / (count + 1) for place in range(count))
        return replace(train, schedule=replace(schedule, updates=(), shares=shares))
    if isinstance(schedule, Plateau) and schedule.watch == "validation":
        fewest = None if train.validate_every else 2
        return replace(train, schedule=replace(schedule, patience=0), validations=fewest)
    return train


def bounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of settings with numbers of at most `LARGEST`.

    Example:
        >>> bounded({"flow": {"kind": "continuous", "steps": 250}, "factors": [1, 2, 4]})
        {'flow': {'kind': 'continuous', 'steps': 2}, 'factors': [1, 2, 2]}
    """
    largest = LARGEST | (LARGEST_OF_NETWORK if "max_width" in values else {})
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found[name] = bounded(value)
        elif name in largest and value is not None:
            found[name] = min(value, largest[name])
        elif name == "factors":
            found[name] = [min(factor, WIDEST) for factor in value]
        else:
            found[name] = value
    return found


def _small(settings: T) -> T:
    return from_values(type(settings), bounded(to_values(settings)), "settings of a smoke run")
