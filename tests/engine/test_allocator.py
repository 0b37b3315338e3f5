"""The allocator of a training: pages of freed blocks are used again, and given back at the end."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from ambiseg.engine.machine import allocator
from ambiseg.engine.machine.allocator import keep_freed_memory, return_freed_memory
from ambiseg.engine.machine.hardware import Hardware

PAGE, SIZE = 4096, 96 * 2**20
"""Bytes of a page, and of a block: more than glibc keeps by itself."""


def page_faults() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def faults_of_blocks(count=6) -> int:
    """Page faults of blocks of which each is freed before the next."""
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    before = page_faults()
    for _ in range(count):
        block = library.malloc(SIZE)
        ctypes.memset(block, 1, SIZE)
        library.free(block)
    return page_faults() - before


@pytest.mark.skipif(
    sys.platform != "linux" or allocator._glibc() is None, reason="the C library is not glibc"
)
def test_a_training_uses_the_pages_of_freed_blocks_again():
    default = faults_of_blocks()
    with Hardware("cpu", False, False).computing():
        kept, held = faults_of_blocks(), resident()
    assert kept < default / 2 or default < 1000  # huge pages: hardly any fault
    assert resident() < held - SIZE / 2


def test_nothing_is_asked_of_other_c_libraries(monkeypatch):
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    assert not keep_freed_memory()
    return_freed_memory()
