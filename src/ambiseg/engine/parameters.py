"""Parameters of the networks that a preset stands for, counted without memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ambiseg.data.layouts import LIDC
from ambiseg.engine.limits import outline
from ambiseg.engine.presets import resolve
from ambiseg.labels import LabelSpace
from ambiseg.methods import build
from ambiseg.methods.spec import MethodSpec


def parameters(spec: MethodSpec, preset: str, settings: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Parameters of the parts of a model, by their names in the code, for data of the preset's layout.

    Args:
        spec, preset: the experiment; where its preset has no data, images of one channel and binary masks.
        settings: values over those of the preset.

    Returns:
        Nothing where the code of a method needs values to be built.

    Example:
        >>> from ambiseg.methods import METHODS
        >>> parameters(METHODS["flow-ssn"], "lidc")
        {'base': 13591170, 'eta': 150224, 'head': 290}
    """
    train, backbone, own = resolve(spec, preset, settings=settings)
    layout = spec.preset(preset).data or LIDC
    labels = LabelSpace.of_classes(layout.classes).with_binary_channels(train.binary_channels)
    model = outline(lambda: build(spec.name, layout.channels, labels, backbone, own))
    if model is None:
        return {}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    own_count = sum(p.numel() for p in model.parameters(recurse=False))
    return {name: count for name, count in (counts | {"own": own_count}).items() if count}
