"""What other packages offer under entry points: methods, networks, metrics and importers of data sets."""

from __future__ import annotations

import warnings
from collections import UserDict
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar

from ambiseg.errors import AmbisegError, PluginWarning

Entry = TypeVar("Entry")


class Registry(UserDict[str, Entry]):
    """Entries by their names; those of other packages join when it is first looked at.

    Not earlier: such a package may be in the middle of its own import when it imports this one.

    Args:
        group: of entry points.
        register: adds what is behind an entry point.

    Attributes:
        own: the entries, without asking for those of other packages first.

    Example:
        >>> numbers = Registry("ambiseg.nothing", print)
        >>> numbers["two"] = 2
        >>> dict(numbers)
        {'two': 2}
    """

    def __init__(self, group: str, register: Callable[[Any], object]) -> None:
        self.group, self.register, self.complete = group, register, False
        super().__init__()

    @property
    def data(self) -> dict[str, Entry]:
        if not self.complete:
            self.complete = True
            load_plugins(self.group, lambda name, entry: self.register(entry))
        return self.own

    @data.setter
    def data(self, value: dict[str, Entry]) -> None:
        self.own = value


def load_plugins(group: str, register: Callable[[str, Any], object]) -> None:
    """Register what other packages offer in a group of entry points; what cannot be loaded is left out with a
    `PluginWarning`.

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
            reason = str(error) if isinstance(error, AmbisegError) else f"{type(error).__name__}: {error}"
            what = f"{group}: {point.name!r} of {point.value} is left out ({reason})"
            warnings.warn(what, PluginWarning, stacklevel=2)
