"""Complete settings of training, network and method from a preset and the values that the user gives. Imports
no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods.spec import RECOMMENDED, MethodSpec
from ambiseg.nested_settings import completed, mapping, merged, number_problems, parse_assignments, shown
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


def placed(spec: MethodSpec, words: Collection[str], option: str = "--set") -> dict[str, dict[str, Any]]:
    """Values of train, backbone and settings from words such as ``train.lr=0.1``.

    Raises:
        AmbisegError: a word that is no assignment, contradicts another, or whose name has another beginning.

    Example:
        >>> from ambiseg.methods import METHODS
        >>> placed(METHODS["ssn"], ["train.lr=0.1", "rank=5"])
        {'train': {'lr': 0.1}, 'backbone': {}, 'settings': {'rank': 5}}
    """
    assigned = parse_assignments(words, option)
    parts = {
        part: dict(mapping(assigned.pop(part, None), f"{option} {part}")) for part in ("train", "backbone")
    }
    _check_places(spec, assigned, option)
    return {**parts, "settings": assigned}


def _check_places(spec: MethodSpec, assigned: Mapping[str, Any], option: str) -> None:
    """Say where a setting belongs whose name has another beginning, or is an option."""
    own = {field.name for field in dataclasses.fields(spec.settings)}
    for name, value in assigned.items():
        if name in own:
            continue
        if name == "preset":
            raise AmbisegError(
                f"{option} preset={shown(value)}: a preset is an option, say --preset {shown(value)}"
            )
        if name == "settings":
            first = next(iter(value), "NAME") if isinstance(value, Mapping) else "NAME"
            raise AmbisegError(
                f"{option} settings.{first}: settings of the method have no beginning, say {option} {first}=VALUE"
            )
        for prefix, cls in (("train", TrainSettings), ("backbone", UNetSettings)):
            if name in {field.name for field in dataclasses.fields(cls)}:
                raise AmbisegError(
                    f"{option} {name}: {spec.name} has no such setting of its own, say {option} {prefix}.{name}=VALUE"
                )


def joined(general: Mapping[str, Any], particular: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values of train, backbone and settings; the particular ones win, key by key.

    Example:
        >>> joined({"train": {"lr": 0.1, "epochs": 3}}, {"train": {"updates": 9}})["train"]
        {'lr': 0.1, 'updates': 9}
    """
    join = {"train": merged_training, "backbone": merged, "settings": merged}
    return {part: add(general.get(part, {}), particular.get(part, {})) for part, add in join.items()}


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
