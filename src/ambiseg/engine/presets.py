"""Complete settings of training, network and method from a preset and the values that the user gives. Imports
no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods.spec import RECOMMENDED, MethodSpec
from ambiseg.nested_settings import completed, merged, number_problems
from ambiseg.networks.settings import UNetSettings

TRAINING_LENGTHS = ("updates", "epochs", "minutes")
"""Settings of the length of a training; the one that is given last counts."""
VALIDATION_INTERVALS = ("validations", "validate_every")
"""Settings of how often a training validates, likewise."""


def merged_training(general: Mapping[str, Any], particular: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `TrainSettings` as one mapping, nested ones key by key; a particular length replaces every
    general one.

    Example:
        >>> merged_training({"updates": 90, "lr": 0.1}, {"epochs": 3})
        {'lr': 0.1, 'epochs': 3}
    """
    replaced: set[str] = set()
    for names in (TRAINING_LENGTHS, VALIDATION_INTERVALS):
        if any(particular.get(name) is not None for name in names):
            replaced |= set(names)
    return merged({k: v for k, v in general.items() if k not in replaced}, particular)


def resolve(
    spec: MethodSpec,
    preset: str = RECOMMENDED,
    train: TrainSettings | Mapping[str, Any] | None = None,
    backbone: UNetSettings | Mapping[str, Any] | None = None,
    settings: Any = None,
    where: str = "",
) -> tuple[TrainSettings, UNetSettings, Any]:
    """Settings of training, network and method.

    Args:
        spec: the method.
        preset: one of its presets.
        train, backbone, settings: values over those of the preset, nested key by key; or complete settings,
            which are taken as they are.
        where: what to call them in messages.

    Raises:
        UnknownNameError: no such preset, or no such setting.
        AmbisegError: a value of the wrong kind or out of its range.

    Example:
        >>> from ambiseg.methods import METHODS
        >>> resolve(METHODS["mode-proposals"], settings={"proposals": 8})[2].matching_score_weight
        0.1
    """
    chosen, prefix = spec.preset(preset), f"{where}: " if where else ""
    found = completed(TrainSettings, chosen.train, train, f"{prefix}train", merged_training)
    network = completed(UNetSettings, chosen.backbone, backbone, f"{prefix}backbone")
    general = merged(chosen.settings, chosen.single) if found.labels == "single" else chosen.settings
    own = completed(spec.settings, general, settings, f"{prefix}settings")
    problems = found.problems() + number_problems(network, "backbone.") + number_problems(own)
    if problems:
        raise AmbisegError(f"{prefix}{'; '.join(problems)}")
    return found, network, own
