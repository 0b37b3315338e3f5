"""How many threads this process may use: its affinity and the quotas of its control groups; and how busy the
cores are."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ambiseg.engine.machine.memory import control_groups

SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which a user, or a scheduler, says how many threads there are."""


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, rounded up: the least of its affinity and of the quotas of its control
    groups (v1 and v2).

    Args:
        root: where ``/proc`` and ``/sys`` lie, for tests.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    counts = [float(len(affinity(0)) if affinity else os.cpu_count() or 1)]
    for group, second in control_groups(root, "cpu"):
        names = ("cpu.max",) if second else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [word for name in names for word in _words(group / name)]
        if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
            counts.append(int(words[0]) / int(words[1]))
    return max(1, math.ceil(min(counts)))


def thread_counts() -> list[int]:
    """Numbers of threads that are worth a try beside the present one: what this process may use, and half of it.

    None where the environment names a number; never more than PyTorch takes by itself.
    """
    if any(os.environ.get(name) for name in SAID):
        return []
    present = torch.get_num_threads()
    most = min(present, available_cores())
    return [count for count in dict.fromkeys((most, max(1, most // 2))) if count != present]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def busy_cores(root: Path = Path("/")) -> Callable[[], float]:
    """Start to watch the cores; what is returned gives the share of them that other programs took since then.

    0 where the system does not say it.

    Args:
        root: where ``/proc`` lies, for tests.
    """
    began, own = _busy(root), time.process_time()

    def share() -> float:
        now = _busy(root)
        if began is None or now is None or now[1] <= began[1]:
            return 0.0
        others = now[0] - began[0] - (time.process_time() - own) * _TICKS
        return min(1.0, max(0.0, others / (now[1] - began[1])))

    return share


_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _busy(root: Path) -> tuple[int, int] | None:
    """Ticks in which the cores of this process worked, and all their ticks."""
    affinity = getattr(os, "sched_getaffinity", None)
    mine = {f"cpu{core}" for core in affinity(0)} if affinity else set()
    try:
        rows = [line.split() for line in (root / "proc/stat").read_text().splitlines()]
    except OSError:
        return None
    ticks = [list(map(int, row[1:9])) for row in rows if row and row[0] in mine]
    return sum(sum(row) - row[3] - row[4] for row in ticks), sum(map(sum, ticks))
