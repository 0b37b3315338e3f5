"""Writes that either happen in full or leave nothing behind.

Each function hands out a hidden sibling of the target. When the block ends well the sibling takes the name of
the target in one rename; when it ends badly (an error, Ctrl-C, a full disk) the sibling is removed and the
target stays as it was.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ambiseg.errors import AmbisegError


def _sibling(target: Path) -> Path:
    """A hidden name beside ``target`` that keeps its suffixes, which some writers look at."""
    return target.with_name(f".partial-{secrets.token_hex(4)}-{target.name}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _mended(target: Path, partial: Path) -> Iterator[None]:
    """Remove ``partial`` whatever ends the block early; say in a user's words what the system refused."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            _remove(partial)
        if isinstance(error, (OSError, RuntimeError)):
            full = getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error)
            if full:
                raise AmbisegError(
                    f"{target}: the disk is full, nothing was written: free space or use another disk"
                ) from error
        if isinstance(error, OSError):
            raise AmbisegError(f"{target}: cannot be written ({error}): write to another place") from error
        raise


@contextmanager
def replacing_file(target: Path, overwrite: bool = True) -> Iterator[Path]:
    """Hand out a temporary file name; afterwards it replaces ``target``.

    Raises:
        AmbisegError: ``target`` exists and ``overwrite`` is False, or the system refuses the write.
    """
    _refuse_existing(target, overwrite)
    if target.is_dir():
        raise AmbisegError(f"{target} is a folder: name a file to write")
    partial = _sibling(target)
    with _mended(target, partial):
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, target)


@contextmanager
def replacing_folder(target: Path, overwrite: bool, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Hand out a new temporary folder; afterwards it takes the place of ``target``.

    Args:
        target: folder to create.
        overwrite: whether an existing ``target`` may be replaced.
        replaceable: tells whether an existing folder is one of ours; any other is never removed.

    Raises:
        AmbisegError: ``target`` exists and must stay, or the system refuses the write.
    """
    _refuse_existing(target, overwrite)
    if target.exists() and not (target.is_dir() and (replaceable(target) or not any(target.iterdir()))):
        raise AmbisegError(f"{target} is not a data set and will not be overwritten: choose another folder")
    partial, old = _sibling(target), _sibling(target)
    with _mended(target, partial):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(partial, target)
        except BaseException:
            if old.exists():
                os.replace(old, target)
            raise
    _remove(old)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(target):
        raise AmbisegError(f"{target} exists already: choose another name or pass overwrite (--overwrite)")
