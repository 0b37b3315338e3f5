"""Annotators of a training: which styles a method that is conditioned on them learns, and which masks have them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from typing import Any

from ambiseg.data.annotators import Styles, shares_of_styles
from ambiseg.data.statistics import SplitStatistics
from ambiseg.engine.run_folder import RunConfig
from ambiseg.errors import AmbisegError
from ambiseg.methods import MethodSpec, method_info

SHOWN = 20
"""At most so many names stand in a message."""
_NUMBER = re.compile(r"(reader-)?\d+")
"""Names that masks get where nobody says who drew them."""


def styles_of(config: RunConfig) -> Styles | None:
    """The styles whose masks a training must tell apart; None for a method that asks for none."""
    if not method_info(config.method).by_annotator:
        return None
    return Styles(config.settings.annotators, config.settings.name_part)


def with_annotators(spec: MethodSpec, settings: Any, found: SplitStatistics, where: str) -> Any:
    """Settings with the annotators of the training images and their shares, for a method that is conditioned on them.

    Args:
        spec: the method.
        settings: its settings; annotators that they name must be those of the images.
        found: in the training images.
        where: what to call the data in messages.

    Raises:
        AmbisegError: one annotator alone, other ones than the settings name, or names that are mere numbers of masks.
    """
    if not spec.by_annotator:
        return settings
    shares = shares_of_styles(found.annotators, settings.name_part)
    names, given = tuple(shares), settings.annotators
    if given and set(given) != set(names):
        raise AmbisegError(
            f"annotators={_shown(given)} are not those of {where}, which are {_shown(names)}: leave --set annotators out"
        )
    if len(names) < 2:
        raise AmbisegError(
            f"{spec.name} learns how annotators differ, and all masks of {where} are those of {_shown(names)}: give masks of"
            " two annotators or more, or choose ssn or probabilistic-unet"
        )
    if not given and all(map(_NUMBER.fullmatch, names)):
        raise AmbisegError(
            f"the masks of {where} have numbers in place of names ({_shown(names)}): name each mask after its annotator, or"
            f" say --set {shlex.quote(f'annotators={json.dumps(names)}')} if a number is the same person in all images"
        )
    return replace(settings, annotators=names, shares=tuple(round(shares[name], 6) for name in names))


def _shown(names: tuple[str, ...]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
