"""Settings of a training run: plain values, importable without torch (the command line shows them)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ambiseg.data import augmentation_kinds
from ambiseg.data.augmentation_kinds import Kind

MOST = {
    "batch_size": 1_000_000,
    "devices": 1024,
    "workers": 1024,
    "seed": 2**63 - 1,
    "epochs": 10**9,
    "updates": 10**12,
    "validations": 1_000_000,
}
"""Greatest values that make sense."""


@dataclass(frozen=True)
class TrainSettings:
    """How a method is trained, whichever it is."""

    labels: Literal["full", "single"] = "full"
    """Labels used per training sample: all annotations with their weights (`full`), or one drawn at random by
    weight (`single`)."""
    init: str | None = None
    """Run folder whose weights to start from: of the same method and sizes, or of one that the method can
    use."""
    freeze: Literal["nothing", "encoder", "all-but-last"] = "nothing"
    """Part of the network that keeps its weights."""
    epochs: int | None = None
    """Times that every image is seen; 100 where neither epochs nor updates nor minutes are given."""
    updates: int | None = None
    """Steps of the optimiser, in place of epochs."""
    minutes: float | None = None
    """Wall-clock budget; the learning rate falls to 0 as it runs out."""
    seed: int = 0
    """Seed of initialisation, order, label draws and augmentation."""
    batch_size: int = 16
    """Images per step and process."""
    lr: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    warmup: int = 100
    """Steps over which the learning rate rises linearly; a fifth of the training where that is shorter."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    ema: float = 0.999
    """Decay of the moving average of the weights that is validated and kept; 0 for none."""
    augment: Literal["auto"] | bool | tuple[Kind, ...] = "auto"
    """Kinds of augmentation: a list of names, or of mappings such as {kind: rotate, degrees: 10}; no; yes for
    those of flip, quarter-turns, scale and intensity that dataset.yaml allows, and flips where it is silent;
    auto for those of these four that it allows, and where it is silent those that pass a test on validation
    images."""
    validations: int = 8
    """Validations over the whole run."""
    validation_images: int = 200
    """At most this many images in each of them."""
    early_stop: int = 0
    """Stop after this many validations without improvement; 0 never does."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """bf16 where the hardware computes in it, unless told otherwise."""
    channels_last: Literal["auto", "yes", "no"] = "auto"
    """Memory order of the convolutions; last where bf16 is used."""
    devices: int = 1
    """Processes (CPU) or GPUs."""
    workers: int = 0
    """Processes that prepare batches; 0 does it in the training process."""
    tensorboard: bool = False
    """Also log for TensorBoard (pip install 'ambiseg[tensorboard]')."""

    def problems(self) -> list[str]:
        """Values that make no sense, one sentence each.

        Example:
            >>> TrainSettings(batch_size=0).problems()
            ['batch_size must be at least 1, received 0']
        """
        found = []
        lengths = [name for name in ("epochs", "updates", "minutes") if getattr(self, name) is not None]
        if len(lengths) > 1:
            found.append(f"give {' or '.join(lengths)}, not both")
        for name, least in (("batch_size", 1), ("devices", 1), ("validations", 1), ("validation_images", 1)):
            if getattr(self, name) < least:
                found.append(f"{name} must be at least {least}, received {getattr(self, name)}")
        for name in ("epochs", "updates", "minutes", "lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                found.append(f"{name} must be above 0, received {value}")
        for name in ("weight_decay", "warmup", "clip", "early_stop", "workers", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                found.append(f"{name} must be 0 or more, received {getattr(self, name)}")
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                found.append(f"{name} must be at most {most}, received {value}")
        if isinstance(self.augment, tuple):
            found += [f"augment: {problem}" for problem in augmentation_kinds.problems(self.augment)]
        if not 0 <= self.ema < 1:
            found.append(f"ema must be in [0, 1), received {self.ema}")
        return found
