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

    With ``encoder_rate`` below 1 the parameters of encoders are in groups of their own, behind the others.

    Raises:
        AmbisegError: there is such a rate, but no encoder.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    decay = train.optimiser.weight_decay
    if train.encoder_rate == 1:
        return _decayed(learning, train, decay)
    slow = {id(p) for p in encoder_parameters(model)}
    groups = _decayed((p for p in learning if id(p) not in slow), train, decay)
    for group in _decayed((p for p in learning if id(p) in slow), train, decay):
        groups.append({**group, FACTOR: train.encoder_rate})
    return groups


def _decayed(parameters: Iterable[nn.Parameter], train: TrainSettings, decay: float) -> list[dict[str, Any]]:
    found = list(parameters)
    if isinstance(train.optimiser, Adam):
        return [{"params": found, "weight_decay": decay}]
    return [
        {"params": [p for p in found if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in found if p.dim() <= 1], "weight_decay": 0.0},
    ]
