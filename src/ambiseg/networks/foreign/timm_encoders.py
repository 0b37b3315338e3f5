"""Encoders of the package timm (Wightman 2019, "PyTorch image models"), with ``features_only=True``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.networks.foreign.names import ForeignName, check_options

OURS = {"features_only", "in_chans", "num_classes", "scriptable", "exportable"}
"""Arguments that the library gives."""
DOWNLOAD = "download"


class FeatureMaps(nn.Module):
    """A model of timm that returns the list of its feature maps, whichever order of axes they have.

    Args:
        model: with ``feature_info``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels: list[int] = list(model.feature_info.channels())  # type: ignore[union-attr,operator]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [
            found if found.shape[1] == channels else found.permute(0, 3, 1, 2)
            for found, channels in zip(self.model(images), self.channels, strict=True)
        ]


def encoder(
    name: ForeignName, channels: int, options: Mapping[str, Any], pretrained: Mapping[str, Any] | None = None
) -> nn.Module:
    """An encoder, with random weights unless arguments of pretrained ones are given.

    Raises:
        AmbisegError: timm is not installed, knows no such model, or cannot build it with these options.
    """
    timm = _timm()
    for key in options:
        if key in OURS:
            raise AmbisegError(
                f"backbone.encoder.options: {key} is chosen by the library for {name}: leave it out"
            )
    check_options(name, options)
    if not timm.is_model(name.name):
        raise UnknownNameError("model of timm", name.name, timm.list_models())
    fixed = _fixed(timm, name.name)
    try:
        model = timm.create_model(
            name.name, features_only=True, in_chans=channels, **fixed, **options, **(pretrained or {})
        )
    except Exception as error:
        what = "the weights cannot be read" if pretrained else "it cannot be built as an encoder"
        raise AmbisegError(
            f"{name}: {what} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''!s:.300}):"
            " check backbone.encoder, or choose another model"
        ) from error
    return FeatureMaps(model)


def pretrained(name: ForeignName, options: Mapping[str, Any], source: str) -> nn.Module:
    """The encoder for 3 channels with the weights of a file, or those that timm itself loads (`DOWNLOAD`).

    Raises:
        AmbisegError: they cannot be read, or do not fit.
    """
    given: dict[str, Any] = {"pretrained": True}
    if source != DOWNLOAD:
        given["pretrained_cfg_overlay"] = {"file": source}
    return encoder(name, 3, options, given)


def _fixed(timm: Any, name: str) -> dict[str, Any]:
    """Transformers of timm take one image size unless they are asked otherwise."""
    vision = name.startswith(("vit_", "deit", "eva", "beit"))
    return {"dynamic_img_size": True} if vision else {}


def _timm() -> Any:
    try:
        import timm
    except Exception as error:  # torchvision's wheel may be there and not load
        raise AmbisegError(
            f"networks of timm need the package timm, which cannot be imported ({type(error).__name__}): pip install"
            " 'ambiseg[timm]'"
        ) from error
    return timm
