"""Packages that a format needs and that are not always installed."""

from __future__ import annotations

import importlib
from typing import Any

from ambiseg.errors import AmbisegError


def package(module: str, extra: str, what: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: such as ``rasterio.features``.
        extra: of ambiseg, that installs it.
        what: the beginning of the message, such as "GeoTIFF needs".

    Raises:
        AmbisegError: it is not installed.

    Example:
        >>> package("no_such_name", "formats", "This needs")
        Traceback (most recent call last):
        ambiseg.errors.AmbisegError: This needs the package no_such_name: pip install 'ambiseg[formats]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise AmbisegError(f"{what} the package {name}: pip install 'ambiseg[{extra}]'") from error
