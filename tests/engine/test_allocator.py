"""The allocator of a training: pages of freed tensors are used again, and given back at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ambiseg.engine.machine.allocator import keep_freed_memory, return_freed_memory
from ambiseg.engine.machine.hardware import Hardware

PAGE, MIB = 4096, 2**20
SIZE = 96 * MIB
"""Of a tensor: more than glibc keeps by itself."""


def page_faults() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def faults_of_tensors(count=12) -> int:
    """Page faults of tensors of which each is freed before the next."""
    before = page_faults()
    for _ in range(count):
        torch.empty(SIZE, dtype=torch.uint8)[::PAGE].fill_(1)
    return page_faults() - before


@pytest.fixture
def glibc():
    if sys.platform != "linux" or not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    return_freed_memory()


def test_a_training_uses_the_pages_of_freed_tensors_again(glibc):
    default = faults_of_tensors()
    with Hardware("cpu", False, False).computing():
        kept, held = faults_of_tensors(), resident()
    assert kept < default / 2 or default < 1000  # huge pages: hardly any fault
    assert resident() < held - SIZE / 2
    assert faults_of_tensors() > default / 2
