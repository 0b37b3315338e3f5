"""Groups of parameters for the optimiser: those of encoders may learn at a lower rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ambiseg.engine.settings import Adam, TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods.base import Segmenter
from ambiseg.networks.base import Backbone

FACTOR = "rate_factor"
"""Entry of a group: what the learning rate is multiplied with."""


def encoder_parameters(model: Segmenter) -> list[nn.Parameter]:
    """Parameters of the encoders of all networks of a method.

    Raises:
        AmbisegError: it has no network that names its encoder.
    """
    networks = [part for part in model.modules() if isinstance(part, Backbone)]
    try:
        parts = [part for network in networks for part in network.encoder_parts()]
    except AmbisegError:
        parts = []
    if not parts:
        raise AmbisegError(
            f"train.encoder_rate needs a network that names its encoder, which this {type(model).__name__} has not:"
            " leave it out, or choose --set backbone.kind=unet or an encoder of another package"
        )
    return [parameter for part in parts for parameter in part.parameters()]


def parameter_groups(model: Segmenter, train: TrainSettings) -> list[dict[str, Any]]:
    """Groups for the optimiser: Adam decays all parameters, AdamW those of two or more axes (no biases, no norms).

    Parameters with a rate of their own, by ``encoder_rate`` or by `Segmenter.rate_factors`, are in groups of
    their own, behind the others.

    Raises:
        AmbisegError: there is such an ``encoder_rate``, but no encoder.
    """
    slow = {id(p) for p in encoder_parameters(model)} if train.encoder_rate != 1 else set[int]()
    by_factor: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = next((f for start, f in model.rate_factors.items() if name.startswith(start)), 1.0)
            factor *= train.encoder_rate if id(parameter) in slow else 1.0
            by_factor.setdefault(factor, []).append(parameter)
    groups = []
    for factor, parameters in by_factor.items():
        for group in _decayed(parameters, train, train.optimiser.weight_decay):
            groups.append(group if factor == 1 else {**group, FACTOR: factor})
    return groups


def _decayed(parameters: Iterable[nn.Parameter], train: TrainSettings, decay: float) -> list[dict[str, Any]]:
    found = list(parameters)
    if isinstance(train.optimiser, Adam):
        return [{"params": found, "weight_decay": decay}]
    return [
        {"params": [p for p in found if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in found if p.dim() <= 1], "weight_decay": 0.0},
    ]
