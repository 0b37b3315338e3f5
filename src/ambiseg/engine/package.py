"""One file that holds a run: weights, configuration with labels and normalisation, filter, figures, licence.

A package is a ZIP archive without compression, so that what it holds is no larger than itself::

    MODEL.ambiseg
      ambiseg.json         version of the format, licence, SHA-256 of the other entries
      config.yaml          as in the run folder: method, settings, classes, normalisation
      model.safetensors    weights
      filter.json          what is kept of predictions, where it was fitted
      metrics.json         what `evaluate` measured, where it did

Nothing in it is executed. Entries of other names, compressed ones and those that differ from their checksum are refused
before anything is decoded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ambiseg.atomic_write import replacing_file
from ambiseg.engine.fitted_filter import FittedFilter
from ambiseg.engine.mixture import MIXTURE
from ambiseg.engine.postprocess import LoadedModel
from ambiseg.engine.run_folder import CONFIG, FILTER, METRICS, WEIGHTS, save_weights
from ambiseg.errors import AmbisegError
from ambiseg.version import __version__

SUFFIX = ".ambiseg"
MANIFEST, VERSION = "ambiseg.json", 1
LARGEST_TEXT = 2**24
"""Bytes of any entry but the weights."""
CONTENTS = (CONFIG, WEIGHTS, FILTER, METRICS)
"""Entries that a package may have; the first two are always there."""


def write_parts(run: LoadedModel, partial: Path) -> list[str]:
    """Write what a loaded run consists of into a folder, from memory but for its figures; the names.

    Raises:
        AmbisegError: the run is a mixture.
    """
    if run.folder is not None and (run.folder / MIXTURE).exists():
        raise AmbisegError(
            f"{run.folder} is a mixture of runs: export it as onnx or torch, or pack each of its runs"
        )
    run.config.save(partial)
    save_weights(partial, run.model)
    if isinstance(run.fitted, FittedFilter):
        run.fitted.save(partial)
    if run.folder is not None and (run.folder / METRICS).is_file():
        shutil.copyfile(run.folder / METRICS, partial / METRICS)
    return [name for name in CONTENTS if (partial / name).exists()]


def write_package(run: LoadedModel, out: Path, licence: str = "", overwrite: bool = False) -> None:
    """Write a run as one file, which `ambiseg.load` and every command read in place of the run folder.

    Args:
        run: a loaded run.
        out: the file.
        licence: of the weights, in words.
        overwrite: replace an earlier package.

    Raises:
        AmbisegError: a mixture, or a file that must not be replaced.
    """
    with replacing_file(out, overwrite, is_package) as partial, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = write_parts(run, folder)
        manifest = {
            "ambiseg": __version__,
            "format": VERSION,
            "licence": licence,
            "sha256": {name: _digest(folder / name) for name in names},
        }
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
            for name in names:
                archive.write(folder / name, name)


def is_package(path: Path) -> bool:
    """Whether a file is a package, by the name of its first entry."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()[:1] == [MANIFEST]
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The entries of a package as a run folder, which is removed afterwards.

    Raises:
        AmbisegError: not a package, a damaged one, one of a later version, or with entries that do not belong in it.
    """
    with tempfile.TemporaryDirectory() as place:
        partial = Path(place)
        try:
            with zipfile.ZipFile(path) as archive:
                entries = _checked(archive)
                manifest = _manifest(archive)
                for name, entry in entries.items():
                    with archive.open(entry) as source, open(partial / name, "wb") as target:
                        shutil.copyfileobj(source, target)
        except (
            OSError,
            zipfile.BadZipFile,
            ValueError,
            LookupError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise AmbisegError(
                f"{path} is no file that 'ambiseg export --format package' wrote ({error}): write it again"
            ) from error
        for name in entries:
            if manifest.get(name) != _digest(partial / name):
                raise AmbisegError(
                    f"{path} is damaged: {name} does not have the checksum in it; write it again"
                )
        yield partial


def _checked(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries but the manifest, by name.

    Raises:
        ValueError: an entry is foreign, doubled, compressed or too long, or one is missing.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.filename in found or entry.filename not in (MANIFEST, *CONTENTS):
            raise ValueError(f"the entry {entry.filename!r:.80} does not belong in it")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"the entry {entry.filename} is compressed")
        if entry.filename != WEIGHTS and entry.file_size > LARGEST_TEXT:
            raise ValueError(f"the entry {entry.filename} has {entry.file_size} bytes")
        found[entry.filename] = entry
    for name in (MANIFEST, CONFIG, WEIGHTS):
        if name not in found:
            raise ValueError(f"the entry {name} is missing")
    del found[MANIFEST]
    return found


def _manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Checksums by name.

    Raises:
        ValueError: not a manifest, or one of a later version.
    """
    found = json.loads(archive.read(MANIFEST))
    if not isinstance(found, dict) or not isinstance(found.get("sha256"), dict):
        raise ValueError(f"{MANIFEST} holds no checksums")
    if found.get("format") != VERSION:
        raise ValueError(f"format {found.get('format')!r:.20}, this version of ambiseg reads {VERSION}")
    checksums: dict[str, Any] = found["sha256"]
    return checksums


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
