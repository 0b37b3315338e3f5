"""What this machine computes fastest in: precision, memory order and where."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Hardware:
    """Device and number format of a run.

    Attributes:
        device: ``cuda``, ``mps`` or ``cpu``.
        bf16: whether networks compute in bfloat16 (losses and metrics stay in float32).
        channels_last: memory order of images and convolutions.
    """

    device: str
    bf16: bool
    channels_last: bool

    @classmethod
    def choose(
        cls, precision: str = "auto", channels_last: str = "auto", device: str | None = None
    ) -> Hardware:
        """The fastest safe choice, unless told otherwise."""
        if device is None:
            device = (
                "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
            )
        bf16 = _computes_bf16(device) if precision == "auto" else precision == "bf16"
        return cls(device, bf16, bf16 if channels_last == "auto" else channels_last == "yes")

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


def _computes_bf16(device: str) -> bool:
    """Whether bf16 arithmetic is native, hence faster: NVIDIA from Ampere, CPUs with AVX512-BF16 or AMX."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
