"""`build_backbone`: the shared network g of a method, by its settings; and networks of other packages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torch import nn

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.networks.adm import ADM
from ambiseg.networks.base import Backbone
from ambiseg.networks.ddpm import DDPM
from ambiseg.networks.double import DoubleUNet
from ambiseg.networks.edm import EDM
from ambiseg.networks.external import ExternalNetwork
from ambiseg.networks.foreign.build import build_foreign
from ambiseg.networks.foreign.names import check_unused, foreign_name, is_encoder
from ambiseg.networks.foreign.pyramid import EncoderBackbone, returns_maps
from ambiseg.networks.hpunet import HPUNet
from ambiseg.networks.monai_unet import MonaiUNet
from ambiseg.networks.ncsnpp import NCSNpp
from ambiseg.networks.phiseg import PHiSegUNet, refuse
from ambiseg.networks.settings import ConvolutionSettings, UNetSettings
from ambiseg.networks.unet import UNet

NetworkFactory = Callable[[int, UNetSettings], nn.Module]
"""From image channels and settings to a module that maps ``(B, C, H, W)`` to ``(B, F, H, W)``."""

ENTRY_POINTS = "ambiseg.networks"
"""Group of entry points under which other packages offer a `NetworkFactory`."""

NETWORKS: dict[str, type[Backbone]] = {
    "unet": UNet,
    "ncsnpp": NCSNpp,
    "edm": EDM,
    "phiseg": PHiSegUNet,
    "monai": MonaiUNet,
    "adm": ADM,
    "ddpm": DDPM,
    "double": DoubleUNet,
    "hpunet": HPUNet,
}
"""The library's own networks by their kind, all built from channels, settings, and whether they take a
time."""

WITH_TIME = ("unet", "ncsnpp", "edm", "adm", "ddpm")
"""Kinds of networks of the library that accept a time."""

_EXTERNAL: dict[str, NetworkFactory] = {}


def takes_time(kind: str) -> bool:
    """Whether the network of a kind accepts a time, as far as that is known before it is built.

    Example:
        >>> takes_time("unet"), takes_time("transformers:convnext"), takes_time("phiseg")
        (True, True, False)
    """
    return kind in WITH_TIME or is_encoder(kind)


def register_network(kind: str, factory: NetworkFactory | nn.Module, overwrite: bool = False) -> None:
    """Add a network, which ``backbone.kind`` then names.

    Args:
        kind: its name.
        factory: from image channels and `UNetSettings` to a module that maps images ``(B, C, H, W)`` to
            features ``(B, F, H, W)``, or to a list of feature maps, which get the decoder of the library
            (`ambiseg.networks.foreign.pyramid`); or a module, of which every model gets a copy with its weights.

    Raises:
        AmbisegError: another network has that name, no name, or neither a module nor a function.

    Example: see `ambiseg.networks.external`.
    """
    if not isinstance(kind, str) or not kind:
        raise AmbisegError(f"a network is registered under a name, received {kind!r}: give it a word")
    if not callable(factory):
        raise AmbisegError(
            f"the network {kind!r} is a module, or a function of channels and settings that makes one, received"
            f" {type(factory).__name__}"
        )
    if kind in NETWORKS or (kind in _EXTERNAL and not overwrite):
        raise AmbisegError(f"there is a network {kind!r} already: give yours another name")
    _EXTERNAL[kind] = (
        (lambda channels, settings: copy.deepcopy(factory)) if isinstance(factory, nn.Module) else factory
    )


@contextmanager
def trying_network(kind: str, factory: NetworkFactory | nn.Module | None) -> Iterator[None]:
    """Register a network, if there is one, which stays only if the block under it raises nothing.

    Args:
        kind, factory: as of `register_network`; one of that name is replaced.
    """
    before = dict(_EXTERNAL)
    if factory is not None:
        register_network(kind, factory, overwrite=True)
    try:
        yield
    except BaseException:
        _EXTERNAL.clear()
        _EXTERNAL.update(before)
        raise


def _loaded(point: EntryPoint) -> Any:
    """What stands behind an entry point.

    Raises:
        AmbisegError: it cannot be imported.
    """
    try:
        return point.load()
    except Exception as error:
        raise AmbisegError(
            f"the network {point.name!r} of {point.value} cannot be imported ({type(error).__name__}: {error}): mend"
            " or reinstall its package"
        ) from error


def check_network(kind: str) -> dict[str, EntryPoint]:
    """The networks that other packages offer, by name.

    Raises:
        AmbisegError: no network of that kind.
    """
    offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    known = dict.fromkeys([*NETWORKS, *_EXTERNAL, *offered])
    if kind not in known and foreign_name(kind) is None:
        raise UnknownNameError("network", kind, known)
    return offered


def build_backbone(in_channels: int, settings: UNetSettings, time: bool = False) -> Backbone:
    """The network that ``settings.kind`` names: images to features at full resolution, any image size.

    Args:
        in_channels: channels of what goes in.
        settings: kind and size.
        time: whether its ``forward`` takes a time.

    Raises:
        UnknownNameError: no network of that kind.
        AmbisegError: settings that do not go with the kind, or a network of another package that cannot be imported.

    Example:
        >>> build_backbone(3, UNetSettings(kind="ncsnpp", width=8, depth=2)).out_channels
        16
    """
    kind = settings.kind
    name = foreign_name(kind) if ":" in kind and kind not in _EXTERNAL else None
    if name is None:
        check_unused(settings)
    if kind in NETWORKS:
        if kind != "phiseg" and settings.convolutions != ConvolutionSettings():
            raise AmbisegError(
                f"backbone.convolutions belongs to the network phiseg, received it for {kind}:"
                " leave it out, or choose --set backbone.kind=phiseg"
            )
        return NETWORKS[kind](in_channels, settings, time)
    if name is not None:
        return build_foreign(name, in_channels, settings, time)
    offered = check_network(kind)
    if kind not in _EXTERNAL:
        register_network(kind, _loaded(offered[kind]))
    module = _EXTERNAL[kind](in_channels, settings)
    if not isinstance(module, nn.Module):
        raise AmbisegError(
            f"the function of the network {kind} returned {type(module).__name__}: return a torch.nn.Module"
        )
    if returns_maps(module, in_channels):
        return EncoderBackbone(module, in_channels, settings, time)
    refuse(settings, kind, time)
    return ExternalNetwork(module, in_channels, kind)
