"""What other packages offer under entry points: methods, networks and importers of data sets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any


def load_plugins(group: str, register: Callable[[str, Any], object]) -> None:
    """Register what other packages offer in a group of entry points; what cannot be loaded is left out with a warning.

    Args:
        group: such as ``ambiseg.methods``.
        register: called with the name of an entry point and the object behind it.

    Example:
        >>> load_plugins("ambiseg.nothing", print)
    """
    for point in entry_points(group=group):
        try:
            register(point.name, point.load())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"{group}: {point.name!r} of {point.value} is left out ({reason})", stacklevel=2)
