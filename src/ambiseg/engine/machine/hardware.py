"""What a run computes in: device, number format, memory order and threads; and which of these a machine can."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ambiseg.engine.machine.allocator import keep_freed_memory, return_freed_memory
from ambiseg.errors import AmbisegError

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Hardware:
    """Device and number format of a run.

    Attributes:
        device: ``cuda``, ``mps`` or ``cpu``.
        bf16: whether networks compute in bfloat16 (losses and metrics stay in float32).
        channels_last: memory order of images and convolutions.
        threads: of the CPU, in training; as many as PyTorch takes if None.
        tf32: whether float32 products are rounded to TensorFloat-32 (NVIDIA).
    """

    device: str
    bf16: bool
    channels_last: bool
    threads: int | None = None
    tf32: bool = False

    @classmethod
    def choose(
        cls,
        precision: str = "auto",
        channels_last: str = "auto",
        device: str | None = None,
        threads: int | None = None,
        stored: Hardware | None = None,
    ) -> Hardware:
        """What is asked for; else what is stored, where this machine can; else the rule: bf16 with channels last
        where the hardware computes in bf16, else float32.

        Args:
            precision: ``auto``, ``32``, ``tf32`` or ``bf16``.
            channels_last: ``auto``, ``yes`` or ``no``.
            device: the best one there is if None.
            threads: of the CPU.
            stored: what a run was trained in.

        Raises:
            AmbisegError: tf32 without an NVIDIA GPU.

        Example:
            >>> Hardware.choose(device="cpu", stored=Hardware("cpu", False, True)).name
            'float32, channels last'
        """
        device = device or _best_device()
        if precision == "tf32" and device != "cuda":
            raise AmbisegError(
                f"precision tf32 is for NVIDIA GPUs, and this run computes on {device}: take 32 or bf16"
            )
        bf16 = _computes_bf16(device)
        known = cls(device, bf16, bf16)
        if stored is not None and not stored.obstacle(device):
            known = stored
        if precision != "auto" and precision != known.precision:
            bf16 = precision == "bf16"
            known = replace(known, bf16=bf16, tf32=precision == "tf32", channels_last=bf16)
        if channels_last != "auto":
            known = replace(known, channels_last=channels_last == "yes")
        return replace(known, threads=threads or known.threads)

    @classmethod
    def candidates(
        cls,
        precision: str = "auto",
        channels_last: str = "auto",
        threads: int | None = None,
        counts: Sequence[int] = (),
    ) -> list[Hardware]:
        """What may be the fastest on this machine, within what is asked for.

        Args:
            precision, channels_last, threads: as of `choose`.
            counts: other numbers of threads to try, where none is asked for.

        Returns:
            The choice by rule first, then what has its number format, then other formats; with other numbers of
            threads last.
        """
        first = cls.choose(precision, channels_last, threads=threads)
        if first.device == "mps":
            return [first]
        formats = {first.precision: None}
        if precision == "auto":
            formats |= {"tf32": None} if first.device == "cuda" else {}
            formats["32"] = None
        orders = [first.channels_last]
        if channels_last == "auto":
            orders.append(not first.channels_last)
        numbers = [threads] if threads or first.device != "cpu" else [None, *counts]
        return [
            replace(first, bf16=name == "bf16", tf32=name == "tf32", channels_last=order, threads=number)
            for number in numbers
            for name in formats
            for order in orders
        ]

    @property
    def precision(self) -> str:
        """``bf16``, ``tf32`` or ``32``."""
        return "bf16" if self.bf16 else "tf32" if self.tf32 else "32"

    @property
    def name(self) -> str:
        """In words.

        Example:
            >>> Hardware("cpu", True, False, 2).name
            'bfloat16, channels first, 2 threads'
        """
        words = [_FORMATS[self.precision], f"channels {'last' if self.channels_last else 'first'}"]
        if self.threads is not None:
            words.append(f"{self.threads} thread{'s' * (self.threads != 1)}")
        return ", ".join(words)

    def obstacle(self, device: str) -> str:
        """Why this machine cannot compute in it on a device; empty where it can."""
        if self.device != device:
            return f"it was trained on {self.device}, and this is {device}"
        return "this machine does not compute in bfloat16" if self.bf16 and not _computes_bf16(device) else ""

    def place(self, model: Model) -> Model:
        """Move a model to the device, in this memory order."""
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model  # type: ignore[call-overload]

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """Move images to the device, in this memory order."""
        images = images.to(self.device)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which networks run."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The context of a training: threads, TensorFloat-32 and allocator of the process, put back at the end."""
        threads, products = torch.get_num_threads(), torch.get_float32_matmul_precision()
        self.set_process()
        try:
            yield
        finally:
            if self.threads is not None:
                torch.set_num_threads(threads)
            if self.tf32:
                torch.set_float32_matmul_precision(products)
            if self.device == "cpu":
                return_freed_memory()

    def set_process(self) -> None:
        """Set threads, TensorFloat-32 and allocator of this process."""
        if self.device == "cpu":
            keep_freed_memory()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.tf32:
            torch.set_float32_matmul_precision("high")


_FORMATS = {"bf16": "bfloat16", "tf32": "TensorFloat-32", "32": "float32"}


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _computes_bf16(device: str) -> bool:
    """Whether bf16 arithmetic is native, hence faster: NVIDIA from Ampere, CPUs with AVX512-BF16 or AMX."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def machine_name(device: str, cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """The model of GPU or CPU, as its maker calls it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = cpu_info.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
