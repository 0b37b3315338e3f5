"""The memory that is left, and the refusal of what does not fit in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import torch

from ambiseg.atomic_write import readable
from ambiseg.errors import AmbisegError


class NotEnoughMemoryError(AmbisegError):
    """What was asked for does not fit in memory."""


def available_memory(device: str = "cpu", root: Path = Path("/")) -> int | None:
    """Bytes that this process can still take on a device; None where that is unknown.

    On a CPU it is the least of what Linux and each control group (v1 and v2) of the process leave.

    Args:
        device: ``cpu``, ``cuda`` or ``mps``.
        root: where ``/proc`` and ``/sys`` lie, for tests.
    """
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if device != "cpu":
        return None
    left = [*_left_in_system(root), *_left_in_groups(root)]
    return max(0, min(left)) if left else None


def _left_in_system(root: Path) -> Iterator[int]:
    found = _entries(root / "proc/meminfo").get("MemAvailable:")
    if found is not None:
        yield 1024 * found


def _left_in_groups(root: Path) -> Iterator[int]:
    """What the memory controllers of the process and of the groups around it leave."""
    for group, second in control_groups(root, "memory"):
        limit, usage, cache = (
            ("memory.max", "memory.current", "inactive_file")
            if second
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        most, used = _text(group / limit).strip(), _text(group / usage).strip()
        if most.isdecimal() and used.isdecimal():
            yield int(most) - int(used) + _entries(group / "memory.stat").get(cache, 0)


def control_groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Folders of the control groups of this process and of the groups around them, and whether they are of version 2.

    Args:
        root: where ``/proc`` and ``/sys`` lie.
        controller: ``memory`` or ``cpu``; in version 2 all are in one place.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        second = controllers == ""
        if not second and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("" if second else controller)
        inside = PurePosixPath(place.lstrip("/"))
        for group in (inside, *inside.parents):
            yield base / group, second


def _entries(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextmanager
def refusing_too_much(what: str, needed: int, device: str, remedy: str) -> Iterator[None]:
    """Refuse a computation that does not fit in memory: before it begins, or when the system says so.

    Args:
        what: the computation, for the message.
        needed: bytes that it takes, about.
        device: where it runs.
        remedy: what a user can do.

    Raises:
        NotEnoughMemoryError: it does not fit.
    """
    left = available_memory(device)
    if left is not None and needed > left:
        raise NotEnoughMemoryError(
            f"{what} needs about {readable(needed)} of memory and {readable(left)} are available: {remedy}"
        )
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise NotEnoughMemoryError(
            f"{what} does not fit in memory ({readable(needed)} or more): {remedy}"
        ) from error
