"""Which files in a folder ambiseg wrote: only those may ever be replaced or removed.

Every folder that a command makes holds a list, ``.ambiseg-files``, in JSON lines. The first line says who made the
folder, every other line names a file that was written in it (or a folder with a list of its own)::

    {"ambiseg": "0.1.0", "verb": "train"}
    "config.yaml"
    "checkpoints/last.ckpt"

A name is added before its file appears, so an interrupted command leaves no file of ours that is not listed. What is
not on the list belongs to somebody else: it stays, and a command that would have to remove it says so and ends.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from ambiseg.errors import AmbisegError
from ambiseg.json_files import append_json_lines, read_json_lines
from ambiseg.version import __version__

LIST = ".ambiseg-files"
LOCK = ".ambiseg-lock"
"""Held by the process that works in a folder."""
PARTIAL = ".ambiseg-partial-"
"""Beginning of the names of folders in which files are prepared; see `ambiseg.atomic_write`."""
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
"""What file managers leave in folders; nobody misses it."""
_DEEPEST = 6
"""Levels between a file and the folder whose list names it."""


def begin(folder: Path, verb: str) -> None:
    """Say that ``folder`` was made by ``ambiseg VERB``; a list that says who made it stays."""
    if verb_of(folder) is None:
        names = [line for line in read_json_lines(folder / LIST) if isinstance(line, str)]
        lines = [{"ambiseg": __version__, "verb": verb}, *names]
        with open(folder / LIST, "wb") as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in lines).encode())


def verb_of(folder: Path) -> str | None:
    """The verb that made ``folder``, None where it has no list."""
    head = next(iter(read_json_lines(folder / LIST)), None)
    return str(head["verb"]) if isinstance(head, dict) and "verb" in head else None


def listed(folder: Path) -> set[str]:
    """Names on the list of ``folder``, relative to it; those of folders, empty or with a
    list of their own, end with ``/``."""
    return {line for line in read_json_lines(folder / LIST)[1:] if isinstance(line, str) and _is_inside(line)}


def add(folder: Path, names: Iterable[str]) -> None:
    """Add names to the list of ``folder``, which has one."""
    known = listed(folder)
    append_json_lines(folder / LIST, [name for name in dict.fromkeys(names) if name not in known])


def add_path(path: Path, is_folder: bool = False) -> None:
    """Add a file, or a folder with a list of its own, that is about to appear to the list of the folder it lies in, if
    that or a parent has one."""
    name = f"{path.name}/" if is_folder else path.name
    for folder in list(path.parents)[:_DEEPEST]:
        if (folder / LIST).is_file():
            return add(folder, [name])
        name = f"{folder.name}/{name}"


def is_listed(path: Path) -> bool:
    """Whether the nearest list above ``path`` names it."""
    name = path.name
    for folder in list(path.parents)[:_DEEPEST]:
        if (folder / LIST).is_file():
            return name in listed(folder)
        name = f"{folder.name}/{name}"
    return False


def add_tree(folder: Path) -> None:
    """List all files and empty folders that lie in ``folder`` now, which this process has filled alone."""
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
        elif not any(path.iterdir()):
            names.append(f"{path.relative_to(folder).as_posix()}/")
    add(folder, (name for name in names if name not in (LIST, LOCK)))


def foreign(folder: Path) -> list[str]:
    """Files, links and empty folders in ``folder`` that are not on its list, relative to it."""
    ours = listed(folder)
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        here = Path(place).relative_to(folder)
        bare = not folders and not files
        for name in sorted(folders):
            path, inside = folder / here / name, (here / name).as_posix()
            if path.is_symlink():
                found += [inside] * (inside not in ours)
            elif name.startswith(PARTIAL):
                folders.remove(name)
            elif f"{inside}/" in ours and (path / LIST).is_file():
                folders.remove(name)
                found += [f"{inside}/{one}" for one in foreign(path)]
        for name in sorted(files):
            inside = (here / name).as_posix()
            if inside not in ours and name not in (LIST, LOCK, *LITTER):
                found.append(inside)
        if bare and here != Path() and not _holds(here.as_posix(), ours):
            found.append(f"{here.as_posix()}/")
    return found


def remove(folder: Path, keep_folder: bool = False) -> None:
    """Remove what the list of ``folder`` names, then the list, then (unless it is kept) the folder if nothing else is
    in it."""
    parents: set[Path] = set() if keep_folder else {folder}
    for left in remove_left(folder):
        parents.update(parent for parent in left.parents if folder in parent.parents)
    for name in listed(folder):
        path = folder / name
        between = [parent for parent in path.parents if parent != folder and folder in parent.parents]
        if any(parent.is_symlink() for parent in between):
            continue
        parents.update(between)
        if name.endswith("/"):
            if (path / LIST).is_file() and not path.is_symlink():
                remove(path)
            elif path.is_dir() and not path.is_symlink():
                parents.add(path)
        elif path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
    for parent in (folder, *parents):
        for name in LITTER:
            (parent / name).unlink(missing_ok=True)
    for name in (LIST,) if keep_folder else (LOCK, LIST):
        (folder / name).unlink(missing_ok=True)
    for parent in sorted(parents, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):
            parent.rmdir()


def remove_left(folder: Path) -> list[Path]:
    """Remove what killed processes were preparing anywhere in ``folder``; where that was."""
    found = [path for path in folder.rglob(f"{PARTIAL}*") if path.is_dir() and not path.is_symlink()]
    left = [path for path in found if _is_left(path)]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return left


def check_replaceable(target: Path, verbs: Iterable[str], inputs: Iterable[Path] = ()) -> None:
    """Check that the folder ``target`` may be replaced, or filled, by a command.

    Args:
        target: folder that the command makes.
        verbs: verbs whose folders the command may replace, such as ``data simulate``.
        inputs: what the command reads.

    Raises:
        AmbisegError: it is a link, a file, or a folder that somebody else made or put files in; or it holds an input.
    """
    check_inputs(target, inputs)
    check_maker(target, verbs)
    if is_empty(target):
        return
    others = foreign(target)
    if others:
        raise AmbisegError(
            f"{target} holds {several(others)}, which ambiseg did not write, so nothing in it is replaced: move that to"
            " another place, or choose another --out"
        )


def check_maker(folder: Path, verbs: Iterable[str]) -> None:
    """Raise `AmbisegError` if ``folder`` is a file, or holds something and was not made by one of ``verbs``."""
    if folder.exists() and not folder.is_dir():
        raise AmbisegError(f"{folder} is a file: choose another --out")
    if is_empty(folder):
        return
    verb = verb_of(folder)
    if verb is None:
        raise AmbisegError(
            f"{folder} was not made by ambiseg (it has no {LIST}), so nothing in it is replaced: choose another --out"
        )
    if verb not in verbs:
        raise AmbisegError(
            f"{folder} was made by 'ambiseg {verb}', so it is not replaced by another command: choose another --out"
        )


def is_empty(folder: Path) -> bool:
    """Whether nothing is at ``folder``, or nothing but traces of a command that was killed as it began."""
    ours = (LIST, LOCK, *LITTER)
    return not folder.exists() or all(
        path.name in ours or path.name.startswith(PARTIAL) for path in folder.iterdir()
    )


def enter(folder: Path, verb: str) -> None:
    """Make a folder that commands of ``verb`` add to, or use the one that is there.

    Raises:
        AmbisegError: somebody else, or another verb, made it; or the system refuses to make it.
    """
    check_inputs(folder, ())
    check_maker(folder, [verb])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begin(folder, verb)
    except OSError as error:
        raise AmbisegError(f"{folder} cannot be made ({error.strerror}): choose another --out") from error


def check_inputs(target: Path, inputs: Iterable[Path]) -> None:
    """Raise `AmbisegError` if ``target`` is a link, or is or holds something that the command reads."""
    if target.is_symlink():
        raise AmbisegError(f"{target} is a link: name the folder or file that it points to")
    if target.exists():
        place = target.resolve()
        for path in inputs:
            if path.exists() and (path.resolve() == place or place in path.resolve().parents):
                what = "is" if path.resolve() == place else "holds"
                raise AmbisegError(f"--out {target} {what} the input {path}: choose another --out")


def several(names: list[str]) -> str:
    """Up to three names and how many more there are.

    Example:
        >>> several(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def _is_left(partial: Path) -> bool:
    """Whether the process that prepared files there is gone."""
    try:
        with FileLock(partial / LOCK, timeout=0):
            return True
    except (Timeout, OSError):
        return False


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _holds(folder: str, names: Iterable[str]) -> bool:
    return any(name.startswith(f"{folder}/") for name in names)
