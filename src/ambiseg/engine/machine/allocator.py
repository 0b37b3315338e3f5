"""How a training on a CPU gets memory from Linux.

Each step allocates and frees the same activations. By default glibc returns large freed blocks to the system and asks
for new ones, whose pages Linux fills with zeros one by one: up to 40 % of the processor time of a step
(``benchmarks/step.py``)."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of mallopt, from malloc.h."""
_NEVER = 2**31 - 1
_DEFAULT_TRIM, _DEFAULT_MMAPS = 2**26, 2**16
"""Most that glibc keeps by itself, and how many blocks it may get apart from the heap."""


def keep_freed_memory() -> bool:
    """Keep memory that is freed for the next allocations; whether the C library of this process can."""
    glibc = _glibc()
    if glibc is None:
        return False
    return bool(glibc.mallopt(_MMAP_MAX, 0)) and bool(glibc.mallopt(_TRIM_THRESHOLD, _NEVER))


def return_freed_memory() -> None:
    """Undo `keep_freed_memory`, and give the system what is free."""
    glibc = _glibc()
    if glibc is not None:
        glibc.mallopt(_MMAP_MAX, _DEFAULT_MMAPS)
        glibc.mallopt(_TRIM_THRESHOLD, _DEFAULT_TRIM)
        glibc.malloc_trim(0)


def _glibc() -> Any:
    """The C library, None where it is another one."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
