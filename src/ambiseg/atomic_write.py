"""Writes that either happen in full or leave nothing behind.

Each function hands out a name in a hidden folder beside the target. When the block ends well, what was written there
reaches the disk and takes the name of the target in one rename; when it ends badly (an error, Ctrl-C, a full disk) it
is removed and the target stays as it was. What a killed process left is removed by the next write to the same target.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ambiseg import owned_files
from ambiseg.errors import AmbisegError
from ambiseg.owned_files import LOCK, PARTIAL

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota on this disk is used up",
    errno.EFBIG: "the file would become larger than this system or your limit (ulimit -f) allows",
}


class DiskFullError(AmbisegError):
    """There is no room for a file; the next one would not fit either."""


_PATIENCE = 3.0
"""Seconds for the workers of a killed process to notice that it is gone."""


@contextmanager
def replacing_file(
    target: Path,
    overwrite: bool = True,
    ours: Callable[[Path], bool] = lambda path: True,
    alone: bool = False,
) -> Iterator[Path]:
    """Hand out a temporary file name; afterwards it replaces ``target``.

    Args:
        target: file to write.
        overwrite: whether an existing ``target`` may be replaced.
        ours: tells whether an existing file is one that ambiseg wrote; any other is never replaced, unless a list of
            ours (`ambiseg.owned_files`) names it.
        alone: refuse if another process is writing the same file; else the last one counts.

    Raises:
        AmbisegError: ``target`` exists and must stay, or the system refuses the write.
    """
    _refuse_existing(target, overwrite)
    refuse_foreign(target, ours)
    with _partial(target, alone) as partial:
        ordinary = partial.with_name("ordinary")
        ordinary.touch()
        yield partial
        partial.chmod(ordinary.stat().st_mode)  # some libraries write files that nobody else may read
        _to_disk(partial)
        owned_files.add_path(target)
        os.replace(partial, target)
        _to_disk(target.parent)


@contextmanager
def replacing_folder(
    target: Path, overwrite: bool, verb: str, inputs: Iterable[Path] = (), durable: bool = True
) -> Iterator[Path]:
    """Hand out a new temporary folder; afterwards it takes the place of ``target``, with a list of its files.

    Args:
        target: folder to create.
        overwrite: whether an existing ``target`` may be replaced.
        verb: the verb that makes it, for the list.
        inputs: what is read meanwhile; never replaced.
        durable: wait until all is on the disk, so that not even a power cut leaves half of it.

    Raises:
        AmbisegError: ``target`` exists and must stay, holds files of somebody else, or the system refuses the write.
    """
    check_folder(target, overwrite, verb, inputs)
    with _partial(target, alone=True) as partial:
        partial.mkdir()
        yield partial
        owned_files.begin(partial, verb)
        owned_files.add_tree(partial)
        if durable and hasattr(os, "sync"):
            os.sync()
        old = partial.with_name("replaced")
        if target.exists():
            owned_files.check_replaceable(target, [verb], inputs)
            os.replace(target, old)
        try:
            os.replace(partial, target)
        except BaseException:
            if old.exists():
                os.replace(old, target)
            raise
        if durable:
            _to_disk(target.parent)
        if old.exists():
            owned_files.remove(old)
            if old.exists():
                kept = target.with_name(f"{target.name}-kept-{secrets.token_hex(4)}")
                os.replace(old, kept)
                raise AmbisegError(
                    f"files that ambiseg did not write were in {target}: they are in {kept} now"
                )


def check_folder(target: Path, overwrite: bool, verb: str, inputs: Iterable[Path] = ()) -> None:
    """Check that `replacing_folder` may make ``target``, before the work for it is done.

    Raises:
        AmbisegError: ``target`` holds files of somebody else or an input, or it exists and must stay.
    """
    owned_files.check_replaceable(target, [verb], inputs)
    _refuse_existing(target, overwrite)


def refuse_foreign(target: Path, ours: Callable[[Path], bool]) -> None:
    """Check that a file may be written at ``target``.

    Args:
        target: file to write.
        ours: tells whether an existing file is one that ambiseg wrote.

    Raises:
        AmbisegError: a folder, a link, or a file of somebody else is there.
    """
    if target.is_symlink():
        raise AmbisegError(f"{target} is a link: name the file that it points to")
    if target.is_dir():
        raise AmbisegError(f"{target} is a folder: name a file to write")
    if target.exists() and not (owned_files.is_listed(target) or ours(target)):
        raise AmbisegError(f"{target} was not written by ambiseg, so it is not replaced: choose another name")


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file whole or not at all."""
    with replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=errors, newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def working_in(folder: Path, what: str, wait: float = 0) -> Iterator[None]:
    """Be the only process that works in ``folder``, for the time of the block; what killed ones left in it is removed.

    Args:
        folder: exists.
        what: what it is called in the error.
        wait: seconds to wait for another process to end.

    Raises:
        AmbisegError: another process works in it.
    """
    lock = FileLock(folder / LOCK, timeout=wait)
    try:
        lock.acquire()
    except Timeout:
        raise AmbisegError(
            f"another process works in {what} {folder}: wait until it has ended, or stop it"
        ) from None
    except OSError as error:
        raise AmbisegError(
            f"{folder} cannot be written to ({error.strerror}): choose another --out"
        ) from error
    try:
        owned_files.remove_left(folder)
        yield
    finally:
        lock.release()


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse a long write for which there is not enough room.

    Args:
        folder: where it goes, or what will hold it.
        needed: bytes, an estimate.
        what: what needs them.

    Raises:
        AmbisegError: fewer bytes are free.
    """
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise AmbisegError(
            f"{what} needs about {readable(needed)}, and {readable(free)} are free at {place}: free"
            f" {readable(needed - free)}, or use another disk"
        )


def readable(count: float) -> str:
    """Bytes in a unit that people read.

    Example:
        >>> readable(900), readable(2.5 * 2**20)
        ('900 bytes', '2.5 MiB')
    """
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(len(units) - 1, int(math.log(max(count, 1), 1024)))
    return f"{count / 1024**power:.{1 if power else 0}f} {units[power]}"


@contextmanager
def _partial(target: Path, alone: bool) -> Iterator[Path]:
    """A name in a new hidden folder beside ``target``, which is removed at the end with whatever is left in it."""
    stem = f"{PARTIAL}{hashlib.sha256(target.name.encode(errors='surrogateescape')).hexdigest()[:12]}-"
    folder = target.parent / f"{stem}{secrets.token_hex(4)}"
    try:
        with _in_words(target, folder):
            for missing in [parent for parent in target.parents if not parent.exists()]:
                owned_files.add_path(missing, is_folder=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            for left in target.parent.glob(f"{stem}*"):
                if not _finish_or_remove(left, target, _PATIENCE if alone else 0) and alone:
                    raise AmbisegError(
                        f"another process is writing {target}: wait until it has ended, or stop it"
                    )
            folder.mkdir()
            with FileLock(folder / LOCK, timeout=0):
                yield folder / target.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finish_or_remove(folder: Path, target: Path, wait: float) -> bool:
    """Deal with what a killed process left beside ``target``; False if the process is at work.

    A folder that was complete, and for which the old one had been moved aside, takes its place.
    """
    try:
        with FileLock(folder / LOCK, timeout=wait):
            old = folder / "replaced"
            if old.is_dir():
                if not target.exists():
                    os.replace(folder / target.name, target)
                owned_files.remove(old)
                if old.exists():
                    return True
    except Timeout:
        return False
    except OSError:
        return not folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return True


@contextmanager
def _in_words(target: Path, folder: Path) -> Iterator[None]:
    """Say in a user's words what the system refused; ``folder`` holds what has been written so far."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if number is None and "No space left on device" in str(error):
            number = errno.ENOSPC
        if number in _FULL:
            written = readable(tree_size(folder))
            with suppress(OSError):
                written += f", {readable(shutil.disk_usage(target.parent).free)} are free there"
            raise DiskFullError(
                f"{target} is not written, nothing was changed: {_FULL[number]} (after {written}); free space, or use"
                " another disk"
            ) from error
        if isinstance(error, OSError):
            raise AmbisegError(f"{target} cannot be written ({error}): write to another place") from error
        raise


def tree_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is nothing."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(file.stat().st_size for file in files)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    with suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(handle)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_symlink():
        raise AmbisegError(f"{target} is a link: name the file or folder that it points to")
    if not overwrite and os.path.lexists(target):
        raise AmbisegError(f"{target} exists already: choose another name or pass overwrite (--overwrite)")
