"""Training that starts from the weights of an earlier run (``--init``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ambiseg.engine.run_folder import (
    OtherSizeError,
    RunConfig,
    load_weights,
)
from ambiseg.errors import AmbisegError
from ambiseg.methods import MethodSpec
from ambiseg.methods.base import Segmenter
from ambiseg.nested_settings import differences, shown
from ambiseg.networks.foreign.build import load_encoder_weights
from ambiseg.networks.settings import UNetSettings


def suited(
    entry: MethodSpec, backbone: UNetSettings, settings: Any, source: RunConfig
) -> tuple[UNetSettings, Any]:
    """Settings of network and method for a start from the weights of another method.

    Raises:
        AmbisegError: the method cannot start from that one, or a network was asked for that is not that of
            the weights.
    """
    if source.method == entry.name:
        return backbone, settings
    if source.method not in entry.starts_from:
        known = ", ".join([entry.name, *entry.starts_from])
        raise AmbisegError(f"{entry.name} cannot start from a run of {source.method}: give one of {known}")
    if backbone not in (UNetSettings(), source.backbone):
        raise AmbisegError("the network is that of --init: leave those of --set backbone out")
    return source.backbone, entry.starts_from[source.method](settings, source.settings)


def pretrained_model(config: RunConfig) -> tuple[Segmenter, str]:
    """The model whose encoder has the weights of ``backbone.encoder.weights``, and what was done, in one sentence.

    Raises:
        AmbisegError: they cannot be read, or do not fit.
    """
    torch.manual_seed(config.train.seed)  # all other weights are drawn as without them
    model = config.build()
    return model, load_encoder_weights(model, config.backbone)


def starting_model(config: RunConfig) -> Segmenter:
    """The model with the weights of ``--init``.

    Raises:
        AmbisegError: no run folder, other channels or classes, or a method that this one cannot start from.
    """
    torch.manual_seed(config.train.seed)  # weights that --init has no values for are drawn
    init = Path(config.train.init or "")
    source = RunConfig.load(init)
    if source.method == config.method:
        pairs = (("", config.settings, source.settings), ("backbone.", config.backbone, source.backbone))
        try:
            return load_weights(init, config)
        except OtherSizeError as error:
            needed = [
                f"{p}{k}={shown(v)}" for p, ours, old in pairs for k, v in differences(old, ours).items()
            ]
            if config.labels.channels != source.labels.channels:
                needed.append(f"train.binary_channels={source.labels.channels}")
            if not needed:
                raise
            raise AmbisegError(
                f"the weights of {init} do not fit these settings: it has {', '.join(needed)}; set the same, or leave"
                " --init out"
            ) from error
    for what, ours, theirs in (
        ("channels", config.in_channels, source.in_channels),
        ("classes", config.labels.names, source.labels.names),
    ):
        if ours != theirs:
            raise AmbisegError(f"{init} was trained on data with other {what} ({theirs}) than these ({ours})")
    if config.labels.channels != source.labels.channels:
        raise AmbisegError(
            f"{init} has {source.labels.channels} channel(s) for binary masks, these settings {config.labels.channels}:"
            f" set train.binary_channels={source.labels.channels}"
        )
    model = config.build()
    model.start_from(load_weights(init, source))
    return model
