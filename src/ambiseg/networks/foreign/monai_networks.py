"""Whole networks of MONAI: their last layer gives the features, so there is one level and no place for a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.networks.foreign.names import ForeignName, check_options
from ambiseg.networks.foreign.saying import in_one_sentence
from ambiseg.networks.phiseg import refuse
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import extend

MULTIPLES = {"SegResNet": 32, "BasicUNet": 32, "SwinUNETR": 64, "HighResNet": 1}
"""Networks that are offered, and what the sides of an image must be multiples of."""
OURS = {"spatial_dims", "in_channels", "out_channels"}
"""Arguments that the library gives."""


class Extended(nn.Module):
    """A network that sees images with repeated borders, and whose output is cut back.

    Args:
        model: maps ``(B, C, h, w)`` to ``(B, F, h, w)``.
        multiple: of the sides that it takes.
    """

    def __init__(self, model: nn.Module, multiple: int) -> None:
        super().__init__()
        self.model, self.multiple = model, multiple

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        found: Tensor = self.model(extend(images, self.multiple))
        return found[..., :height, :width]


def network(name: ForeignName, channels: int, settings: UNetSettings, time: bool) -> nn.Module:
    """The network, from images to ``backbone.width`` features.

    Raises:
        AmbisegError: MONAI is not installed, the network is not offered, or it cannot be built with these options.
    """
    if name.name not in MULTIPLES:
        raise UnknownNameError("network of monai", name.name, MULTIPLES)
    refuse(settings, str(name), time, blocks=1, attention=False, dropout=0.0, factors=())
    if settings.encoder.weights:
        raise AmbisegError(
            f"backbone.encoder.weights are those of an encoder, but {name} is a whole network: leave them out"
        )
    options = settings.encoder.options
    check_options(name, options, OURS)
    made = getattr(_nets(), name.name)
    with in_one_sentence(f"{name} cannot be built", "correct backbone.encoder.options"):
        model = made(spatial_dims=2, in_channels=channels, out_channels=settings.width, **_values(options))
    return Extended(model, MULTIPLES[name.name])


def _values(options: Mapping[str, Any]) -> dict[str, Any]:
    """MONAI checks for tuples where YAML has lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}


def _nets() -> Any:
    try:
        from monai.networks import nets
    except ImportError as error:
        raise AmbisegError(
            "networks of monai need the package monai, which is not installed: pip install 'ambiseg[monai]'"
        ) from error
    return nets
