"""Encoders of segmentation_models_pytorch (Iakubovskii 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.nested_settings import check_name
from ambiseg.networks.foreign.names import ForeignName, check_options
from ambiseg.networks.foreign.saying import in_one_sentence, quiet

OPTIONS = ("depth", "output_stride")
"""Options that the package has."""
DOWNLOAD = "download"


class FeatureMaps(nn.Module):
    """An encoder whose first map, the image itself, is left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        return [one for one in list(self.model(images))[1:] if one.shape[1] > 0]


def encoder(
    name: ForeignName, channels: int, options: Mapping[str, Any], weights: str | None = None
) -> nn.Module:
    """An encoder, with random weights unless the package is asked for its own.

    Raises:
        AmbisegError: the package is not installed, knows no such encoder, or cannot build it with these options.
    """
    encoders = _encoders()
    for key in options:
        check_name(f"option of {name}", key, OPTIONS)
    check_options(name, options)
    known = encoders.get_encoder_names()
    if name.name not in known and not name.name.startswith("tu-"):
        raise UnknownNameError("encoder of smp", name.name, known)
    what = "the weights of {} cannot be read" if weights else "{} cannot be built"
    remedy = "check backbone.encoder, or choose another encoder"
    with in_one_sentence(what.format(name), remedy), quiet("timm", "huggingface_hub"):
        return FeatureMaps(encoders.get_encoder(name.name, in_channels=channels, weights=weights, **options))


def downloaded(name: ForeignName, options: Mapping[str, Any]) -> nn.Module:
    """The encoder for 3 channels with weights of ImageNet, which the package loads.

    Raises:
        AmbisegError: they cannot be read.
    """
    return encoder(name, 3, options, "imagenet")


def _encoders() -> Any:
    try:
        from segmentation_models_pytorch import encoders
    except Exception as error:  # torchvision's wheel may be there and not load
        raise AmbisegError(
            "networks of smp need the package segmentation-models-pytorch, which cannot be imported"
            f" ({type(error).__name__}): pip install 'ambiseg[smp]'"
        ) from error
    return encoders
