"""Published data sets, read as they are distributed: the list of importers and the one door to them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from ambiseg.data.folder import Progress
from ambiseg.data.imports.base import Imported
from ambiseg.data.laws import FileProblem
from ambiseg.data.source import existing, list_splits, open_split, write_dataset
from ambiseg.errors import UnknownNameError


@dataclass(frozen=True)
class Importer:
    """How one published data set is read.

    Attributes:
        title: one line about the data.
        citation: the paper or page that published them.
        licence: terms of the distribution, as far as they are public.
        source: what to pass as source: which folder or file of the distribution.
        location: ``module:function``, which takes the source and the settings and returns `Imported`.
        settings: ``module:class``, the frozen dataclass of its options.
    """

    title: str
    citation: str
    licence: str
    source: str
    location: str
    settings: str

    def settings_class(self) -> type[Any]:
        """The dataclass of its options."""
        found: type[Any] = _named(self.settings)
        return found

    def read(self, source: Path, settings: Any = None) -> Imported:
        """Open the distribution at ``source``."""
        read: Callable[[Path, Any], Imported] = _named(self.location)
        imported = read(source, self.settings_class()() if settings is None else settings)
        licence = imported.info.licence or self.licence
        return replace(imported, info=replace(imported.info, licence=licence))


@dataclass(frozen=True)
class ImportReport:
    """What an import has written.

    Attributes:
        name: of the importer.
        path: of the data set.
        images: images per split.
        digests: SHA-256 per split over all its samples.
        split_name: how the splits were made.
        problems: what was left out.
        facts: numbers worth knowing.
    """

    name: str
    path: Path
    images: dict[str, int]
    digests: dict[str, str]
    split_name: str
    problems: list[FileProblem] = field(default_factory=list)
    facts: dict[str, int | float | str] = field(default_factory=dict)


IMPORTERS: dict[str, Importer] = {}


def importer(name: str) -> Importer:
    """The importer of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in IMPORTERS:
        raise UnknownNameError("data set to import", name, IMPORTERS)
    return IMPORTERS[name]


def import_dataset(
    name: str,
    source: str | PathLike[str],
    out: str | PathLike[str],
    settings: Any = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> ImportReport:
    """Read a published data set as it is distributed and write it in the house's format, all of it or nothing.

    Args:
        name: of `IMPORTERS`.
        source: folder or file of the distribution.
        out: a folder, or one packed file if the name ends with .h5.
        settings: options, an instance of ``importer(name).settings_class()``; its defaults if None.
        progress: called after every image.
        overwrite: replace ``out`` if it exists.

    Raises:
        AmbisegError: unknown name, nothing at ``source`` or not that distribution, no image in it, ``out`` exists, disk full.
    """
    imported = importer(name).read(existing(source), settings)
    written = {split: samples for split, samples in imported.splits.items()}
    path = write_dataset(out, written, imported.info, progress, overwrite)
    splits = {split: open_split(path, split) for split in list_splits(path)}
    return ImportReport(
        name,
        path,
        {split: len(found) for split, found in splits.items()},
        {split: found.digest() for split, found in splits.items()},
        imported.split_name,
        imported.problems,
        dict(imported.facts),
    )


def _named(location: str) -> Any:
    module, name = location.split(":")
    return getattr(importlib.import_module(module), name)
