"""Published methods of ambiguous segmentation, one folder each, behind one interface (`Segmenter`).

`METHODS` is collected from the specs in these folders and from those that other packages offer under the
entry point ``ambiseg.methods``. Nothing here imports torch before a model is built.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.methods.spec import MethodSpec, Preset, TestCase
from ambiseg.nested_settings import completed, number_problems
from ambiseg.networks.settings import UNetSettings
from ambiseg.plugins import Registry

if TYPE_CHECKING:
    from ambiseg.labels import LabelSpace
    from ambiseg.methods.base import Segmenter

__all__ = [
    "ENTRY_POINTS",
    "METHODS",
    "MethodSpec",
    "Preset",
    "TestCase",
    "build",
    "method_info",
    "register",
    "spec_of",
]

ENTRY_POINTS = "ambiseg.methods"
"""Group of entry points under which other packages offer a `MethodSpec`."""


METHODS: Registry[MethodSpec] = Registry(ENTRY_POINTS, lambda spec: register(spec))
"""Every method by its name."""


def register(spec: MethodSpec | type[Segmenter]) -> MethodSpec:
    """Add a method, which the library and its command line then know by its name.

    Args:
        spec: the method, or its class, which is named as by `spec_of`; registering the same object again does
            nothing.

    Returns:
        The spec.

    Raises:
        AmbisegError: neither a spec nor a class of a method, or another method has that name.

    Example:
        >>> register(METHODS["ssn"]).name
        'ssn'
    """
    if isinstance(spec, type):
        return spec_of(spec)
    if not isinstance(spec, MethodSpec):
        raise AmbisegError(
            f"register takes a MethodSpec or a Segmenter class, received {type(spec).__name__}: see"
            " docs/extending/method.md"
        )
    if METHODS.setdefault(spec.name, spec) is not spec:
        raise AmbisegError(f"there is a method {spec.name!r} already: give yours another name")
    return spec


def spec_of(method: str | MethodSpec | type[Segmenter]) -> MethodSpec:
    """The spec of a method that is given by its name, its spec or its class; spec and class are registered.

    A class without a spec is named after itself, and its settings are those that it annotates: ``settings:
    MySettings``.

    Raises:
        UnknownNameError: no method of that name.
        AmbisegError: something else, a class that annotates no settings, or a name that another method has.
    """
    if isinstance(method, str):
        return method_info(method)
    if isinstance(method, MethodSpec):
        return register(method)
    known = next(
        (spec for spec in METHODS.values() if isinstance(method, type) and spec.is_model(method)), None
    )
    if known is not None:
        return known
    spec = MethodSpec.of_class(method)
    former = METHODS.get(spec.name)
    if former is not None and not isinstance(former.model, str) and _place(former.model) == _place(method):
        del METHODS[spec.name]  # the same class, defined again, as in a notebook
    return register(spec)


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def method_info(name: str) -> MethodSpec:
    """The spec of a method.

    Raises:
        UnknownNameError: no such method; the message suggests the nearest name.

    Example:
        >>> method_info("mode-proposals").settings().proposals
        16
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]


def build(
    method: str | MethodSpec | type[Segmenter],
    in_channels: int,
    labels: LabelSpace | None = None,
    backbone: UNetSettings | Mapping[str, Any] | None = None,
    settings: Any = None,
    *,
    preset: str | None = None,
) -> Segmenter:
    """A new model, a plain `torch.nn.Module`.

    Args:
        method: name of a method (`ambiseg.METHODS`), a spec, or a subclass of `ambiseg.Segmenter`.
        in_channels: channels of the images.
        labels: the classes; background and foreground if None.
        backbone, settings: of network and method: values over those of the preset, nested key by key; or complete
            settings, which are taken as they are.
        preset: named choice of settings, such as ``recommended``; the defaults if None.

    An encoder of another package has the weights that ``backbone.encoder.weights`` or a checkpoint's name says.

    Raises:
        UnknownNameError: no such method, preset or setting.
        AmbisegError: a value of the wrong kind or out of its range, a network that cannot be built, or weights that
            cannot be read.

    Example:
        >>> build("ssn", 3, backbone={"width": 8, "depth": 2}, settings={"rank": 4}).settings.rank
        4
    """
    from ambiseg.labels import LabelSpace

    if not isinstance(labels, LabelSpace | None):
        raise AmbisegError(
            f"labels are an ambiseg.LabelSpace, such as LabelSpace.of_classes(3), received {labels!r:.80}"
        )
    if in_channels < 1:
        raise AmbisegError(f"in_channels must be at least 1, received {in_channels}")
    spec = spec_of(method)
    chosen = Preset() if preset is None else spec.preset(preset)
    network = completed(UNetSettings, chosen.backbone, backbone, "backbone")
    own = completed(spec.settings, chosen.settings, settings, "settings")
    problems = number_problems(network, "backbone.") + number_problems(own)
    if problems:
        raise AmbisegError("; ".join(problems))
    space = labels or LabelSpace.binary()
    if ":" not in network.kind:
        return spec.model_class()(in_channels, space, network, own)
    from ambiseg.networks.foreign.build import load_encoder_weights, resolved

    network = resolved(network)
    model = spec.model_class()(in_channels, space, network, own)
    load_encoder_weights(model, network)
    return model


METHODS.own.update(
    (spec.name, spec)
    for spec in (
        importlib.import_module(f"{__name__}.{module.name}").SPEC
        for module in pkgutil.iter_modules(__path__)
        if module.ispkg
    )
)
