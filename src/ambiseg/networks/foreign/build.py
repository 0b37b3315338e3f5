"""Networks of other packages from ``backbone.kind`` and ``backbone.encoder``, and the weights of their encoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ambiseg.errors import AmbisegError
from ambiseg.networks.base import Backbone
from ambiseg.networks.external import ExternalNetwork
from ambiseg.networks.foreign import hugging_face, monai_networks, smp_encoders, timm_encoders
from ambiseg.networks.foreign.channels import adapt_first_convolution
from ambiseg.networks.foreign.names import ForeignName, foreign_name
from ambiseg.networks.foreign.pyramid import EncoderBackbone
from ambiseg.networks.foreign.weights import read_file, taken_over
from ambiseg.networks.settings import UNetSettings

DOWNLOAD = "download"
"""Value of ``backbone.encoder.weights`` that asks the package itself."""
_MAKERS = {
    "transformers": hugging_face.encoder,
    "timm": timm_encoders.encoder,
    "smp": smp_encoders.encoder,
}


def build_foreign(name: ForeignName, in_channels: int, settings: UNetSettings, time: bool) -> Backbone:
    """A network of another package with random weights.

    Args:
        name: which.
        in_channels: channels of what goes in.
        settings: size of the decoder, options of the encoder.
        time: whether its ``forward`` takes a time.

    Raises:
        UnknownNameError: the package has no such network.
        AmbisegError: the package is not installed, or does not take the options.
    """
    if name.package == "monai":
        whole = monai_networks.network(name, in_channels, settings, time)
        return ExternalNetwork(whole, in_channels, str(name))
    if name.is_checkpoint:
        raise AmbisegError(
            f"{name} names a checkpoint: read its type with ambiseg.networks.foreign.build.resolved, as ambiseg.build"
            " and ambiseg.fit do"
        )
    encoder = _MAKERS[name.package](name, in_channels, settings.encoder.options)
    adapt_first_convolution(encoder, in_channels, str(name))
    return EncoderBackbone(encoder, in_channels, settings, time)


def resolved(settings: UNetSettings) -> UNetSettings:
    """Settings that hold all that a model is made of: the type and options of a checkpoint, the depth of an encoder.

    Raises:
        AmbisegError: the checkpoint cannot be read, or the network cannot be built.

    Example:
        >>> resolved(UNetSettings(kind="unet", depth=3)).depth
        3
    """
    name = foreign_name(settings.kind) if ":" in settings.kind else None
    if name is None:
        return settings
    if name.is_checkpoint:
        source = settings.encoder.weights or name.name
        kind, options = hugging_face.checkpoint(name.name)
        encoder = replace(settings.encoder, weights=source, options={**options, **settings.encoder.options})
        name = ForeignName("transformers", kind)
        settings = replace(settings, kind=str(name), encoder=encoder)
    try:
        with torch.device("meta"):
            network = build_foreign(name, 3, settings, time=False)
    except AmbisegError:
        raise
    except Exception:  # not all packages support an outline
        with torch.random.fork_rng(devices=[]):
            network = build_foreign(name, 3, settings, time=False)
    return replace(settings, depth=network.depth)


def load_encoder_weights(model: nn.Module, settings: UNetSettings) -> str:
    """Give every encoder of another package in a model the weights that ``backbone.encoder.weights`` names.

    The first convolution is fitted to the channels of the images (`ambiseg.networks.foreign.channels`).

    Args:
        model: a method, or a network.
        settings: of its backbone.

    Returns:
        What was done, in one sentence; empty where no weights are named.

    Raises:
        AmbisegError: they cannot be read, or do not fit.
    """
    source, name = settings.encoder.weights, foreign_name(settings.kind)
    backbones = [
        part for part in model.modules() if isinstance(part, EncoderBackbone) and part.kind == settings.kind
    ]
    if not source or name is None or not backbones:
        return ""
    if any(value.is_meta for value in model.parameters()):
        return ""
    state, whole = _state(name, settings, source)
    notes = [taken_over(part.encoder, state, str(name), source, whole) for part in backbones]
    return "; ".join(dict.fromkeys(notes))


def _state(name: ForeignName, settings: UNetSettings, source: str) -> tuple[dict[str, torch.Tensor], bool]:
    """Tensors by their names, and whether they are those of the encoder as the package itself loads it."""
    options, path = settings.encoder.options, Path(source)
    if path.is_file() and name.package != "timm":
        return read_file(path), False
    if name.package == "transformers":
        if source == DOWNLOAD:
            raise AmbisegError(
                f"{name} is a type of network without weights of its own: name a checkpoint, such as"
                " --set backbone.kind=transformers:facebook/dinov2-small"
            )
        return hugging_face.pretrained(name, options, source).state_dict(), True
    if source == DOWNLOAD:
        donor = timm_encoders.pretrained(name, options, source) if name.package == "timm" else None
        return (donor or smp_encoders.downloaded(name, options)).state_dict(), True
    if not path.exists():
        raise AmbisegError(
            f"backbone.encoder.weights: there is no file or folder {source}: correct the path, or leave it out"
        )
    file = path if path.is_file() else _file_in(path)
    if name.package == "timm":
        read_file(file)  # refuses what holds more than tensors
        return timm_encoders.pretrained(name, options, str(file)).state_dict(), True
    return read_file(file), False


def _file_in(folder: Path) -> Path:
    """The file of weights of a folder.

    Raises:
        AmbisegError: there is none, or more than one.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise AmbisegError(
        f"{folder} holds no model.safetensors and no pytorch_model.bin: give the file of the weights itself"
    )
