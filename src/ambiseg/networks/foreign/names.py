"""What ``backbone.kind`` and ``backbone.encoder`` may say of networks of other packages. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.networks.settings import EncoderSettings, UNetSettings

ENCODERS = ("transformers", "timm", "smp")
"""Packages whose encoders get the decoder of the library."""
PACKAGES = (*ENCODERS, "monai")
"""Packages whose networks ``backbone.kind`` names."""

LONGEST = 64
"""Most entries of a list among the options of a network, and most letters of a text."""
MOST = 1_000_000
"""Greatest whole number among the options of a network."""
MOST_PARTS = 256
"""Greatest one that repeats a part of it."""
_REPEATS = re.compile(r"layer|depth|stage|block|repeat|branch")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_BARRED = re.compile(
    r"_.*|.*pretrained.*|.*checkpoint.*|.*attn_impl.*|.*cache.*|.*auto_map.*|.*quantization.*|.*dtype.*|.*backbone.*"
)
"""Options that could make a package read files, load code or change the numbers."""


@dataclass(frozen=True)
class ForeignName:
    """A network of another package.

    Attributes:
        package: one of `PACKAGES`.
        name: of the network in it.
    """

    package: str
    name: str

    def __str__(self) -> str:
        return f"{self.package}:{self.name}"

    @property
    def is_checkpoint(self) -> bool:
        """Whether it names weights, by a folder or by a repository, and no type of network."""
        return self.package == "transformers" and _WORD.fullmatch(self.name) is None


def foreign_name(kind: str) -> ForeignName | None:
    """The network of another package that ``backbone.kind`` names; None for any other network.

    Raises:
        UnknownNameError: no such package.
        AmbisegError: no name, or one with characters that names do not have.

    Example:
        >>> foreign_name("transformers:convnext"), foreign_name("unet")
        (ForeignName(package='transformers', name='convnext'), None)
    """
    package, colon, name = kind.partition(":")
    if not colon:
        return None
    if package not in PACKAGES:
        raise UnknownNameError("package of networks", package, PACKAGES)
    found = ForeignName(package, name)
    if not name or (package != "transformers" and _WORD.fullmatch(name) is None):
        raise AmbisegError(
            f"backbone.kind of another package is PACKAGE:NAME, such as transformers:convnext, received {kind!r}"
        )
    return found


def is_encoder(kind: str) -> bool:
    """Whether a kind names an encoder of another package, behind which the library's decoder takes a time."""
    return kind.partition(":")[0] in ENCODERS and ":" in kind


def stored(settings: UNetSettings) -> UNetSettings:
    """Settings of a run as its model is built from them: nothing is read but the run folder.

    Raises:
        AmbisegError: the kind names a folder or a repository, which no run of ours does.
    """
    name = foreign_name(settings.kind) if ":" in settings.kind else None
    if name is None:
        return settings
    if name.is_checkpoint:
        raise AmbisegError(
            f"backbone.kind {settings.kind!r} of a run names a checkpoint: a run names the type of its encoder, such as"
            " transformers:dinov2, and holds its weights"
        )
    return replace(settings, encoder=replace(settings.encoder, weights=""))


def check_options(name: ForeignName, options: Mapping[str, Any], ours: Collection[str] = ()) -> None:
    """Refuse options that are no plain bounded values, or that could make a package read files or load code.

    Args:
        name: the network that they are of.
        options: values by their names.
        ours: names of those that the library gives itself.

    Raises:
        AmbisegError: with the first of them.

    Example:
        >>> check_options(ForeignName("timm", "resnet18"), {"checkpoint_path": "x.pth"})
        Traceback (most recent call last):
        ambiseg.errors.AmbisegError: backbone.encoder.options: checkpoint_path is not allowed for timm:resnet18: leave it out
    """
    for key, value in options.items():
        where = f"backbone.encoder.options: {key}"
        if key in ours:
            raise AmbisegError(f"{where} is chosen by the library for {name}: leave it out")
        if not isinstance(key, str) or _BARRED.fullmatch(key):
            raise AmbisegError(f"{where} is not allowed for {name}: leave it out")
        most = MOST_PARTS if _REPEATS.search(key) else MOST
        entries = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if len(entries) > LONGEST or not all(_is_plain(entry, most) for entry in entries):
            raise AmbisegError(
                f"{where} is a number of at most {most}, a word, yes or no, or a list of up to {LONGEST} of these,"
                f" received {value!r:.80}"
            )


def _is_plain(value: object, most: int) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return len(value) <= LONGEST
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= most


def check_unused(settings: UNetSettings) -> None:
    """Refuse settings of an encoder for a network that has none of another package.

    Raises:
        AmbisegError: with what to do.
    """
    if settings.encoder != EncoderSettings():
        raise AmbisegError(
            f"backbone.encoder belongs to networks of other packages, received it for {settings.kind}: leave it out, or"
            " choose one, such as --set backbone.kind=transformers:convnext"
        )
