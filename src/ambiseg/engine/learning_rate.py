"""The learning rate of each step, as `TrainSettings` say."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ambiseg.engine.settings import Cosine, Plateau, Steps, TrainSettings

WARMUP_SHARE = 0.2
"""The warm-up takes at most this share of the training."""


class LearningRate:
    """A linear rise times the schedule.

    The rate rises over the first ``warmup`` steps, or over a fifth of the training where that is shorter.
    With the share f of the budget that is used, a cosine is ``lr (1 + cos(pi f)) / 2``.

    Args:
        train: the settings.
        higher_is_better: direction of what a plateau watches.

    Example:
        >>> rate = LearningRate(TrainSettings(lr=1.0, warmup=2))
        >>> rate(step=0, used=0.0), rate(step=1, used=0.5)
        (0.5, 0.5)
    """

    def __init__(self, train: TrainSettings, higher_is_better: bool = False) -> None:
        self.peak, self.warmup, self.schedule = train.lr, train.warmup, train.schedule
        self.plateau: ReduceLROnPlateau | None = None
        if isinstance(train.schedule, Plateau):
            # The rate without the rise, which PyTorch's class keeps in an optimiser.
            self._held = torch.optim.SGD([torch.zeros(1)], lr=train.lr)
            self.plateau = ReduceLROnPlateau(
                self._held,
                "max" if higher_is_better else "min",
                train.schedule.factor,
                train.schedule.patience,
                min_lr=train.schedule.least,
            )

    def __call__(self, step: int, used: float, used_before: float = 0.0) -> float:
        """The rate of a step.

        Args:
            step: steps that were made.
            used: share of the budget that is used.
            used_before: share that was used before the first step.
        """
        trained = (used - used_before) / max(1e-9, 1 - used_before)
        rise = min(1.0, max((step + 1) / max(1, self.warmup), trained / WARMUP_SHARE))
        if isinstance(self.schedule, Cosine):
            return self.peak * rise * (1 + math.cos(math.pi * used)) / 2
        if isinstance(self.schedule, Steps):
            shares, updates = self.schedule.shares, self.schedule.updates
            passed = bisect_right(shares, used) if shares else bisect_right(updates, step)
            return self.peak * rise * (1.0, *self.schedule.factors)[passed]
        return rise * (self._held.param_groups[0]["lr"] if self.plateau else self.peak)

    def observe(self, value: float) -> None:
        """Tell a plateau the loss of an epoch or the figure of a validation."""
        if self.plateau is not None:
            self.plateau.step(value)

    def state_dict(self) -> dict[str, Any]:
        """Plain values from which a resumed training goes on; empty without a plateau."""
        if self.plateau is None:
            return {}
        return {"rate": self._held.param_groups[0]["lr"], "plateau": self.plateau.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if self.plateau is not None and state:
            self._held.param_groups[0]["lr"] = state["rate"]
            self.plateau.load_state_dict(state["plateau"])
