"""The bridge between a `Segmenter` and Lightning's Trainer: one training step, one validation, one
optimiser."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from ambiseg.data.batches import Batch
from ambiseg.engine.hardware import Hardware
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods.base import Segmenter
from ambiseg.methods.contract import losses_of, masks_of
from ambiseg.metrics import MeanOverImages

LOSS = "loss"
"""Validation by the method's own loss, with the same random numbers every time."""


EARLY = 100
"""Steps within which a loss that is no longer finite speaks of the learning rate."""
HIGH = 0.1
"""Learning rate above which it does so at any time."""
WARMUP_SHARE = 0.2
"""The warm-up takes at most this share of the training."""


LARGEST_WEIGHT = 1e10
"""No network of use has weights of this size."""


class TrainingModule(pl.LightningModule):
    """Trains any `Segmenter` as `TrainSettings` say.

    The learning rate follows `Budget`'s progress f: a linear rise times ``(1 + cos(pi f)) / 2``. It rises over the
    first ``warmup`` steps, or over a fifth of the training where that is shorter. Random numbers inside a step
    (dropout, latent samples) are seeded by (seed, step, process): a resumed run draws the same ones.
    """

    def __init__(
        self, segmenter: Segmenter, settings: TrainSettings, hardware: Hardware, metric: str
    ) -> None:
        super().__init__()
        self.segmenter, self.train_settings, self.hardware, self.metric_name = (
            segmenter,
            settings,
            hardware,
            metric,
        )
        self.metric: Metric = MeanMetric() if metric == LOSS else MeanOverImages(metric)
        self.fraction = 0.0
        self.first_fraction = 0.0
        """Share of the budget that was used before the first step."""

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        moved = batch.to(device)
        if self.hardware.channels_last:
            return Batch(
                moved.images.contiguous(memory_format=torch.channels_last), moved.annotations, moved.ids
            )
        return moved

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        torch.manual_seed(_step_seed(self.train_settings.seed, self.global_step, self.global_rank))
        self.segmenter.progress = self.fraction
        losses = losses_of(self.segmenter, batch.images, batch.annotations)
        loss = losses["loss"]
        if not bool(torch.isfinite(loss)):
            self._explain(losses, batch)
        self._set_learning_rate()
        return losses

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log what this step computed.

        Lightning's own `log` repeats the last value of a part that a later stage of a method has no longer.
        """
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not self.trainer.should_stop and self.global_step % every:
            return
        reduce = self.trainer.strategy.reduce
        row = {f"train_{name}": float(reduce(value.detach())) for name, value in outputs.items()}
        row["lr"] = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        for logger in self.loggers:
            logger.log_metrics(row, step=self.global_step - 1)
            logger.save()

    def on_validation_start(self) -> None:
        """Weights that the last steps made useless are explained here, not by what they predict."""
        if not all(bool((p.abs() < LARGEST_WEIGHT).all()) for p in self.segmenter.parameters()):
            raise AmbisegError(
                f"weights are no longer finite, or above {LARGEST_WEIGHT:g}, after step {self.global_step}:"
                f" {self._cause(self.global_step)}"
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if self.metric_name == LOSS:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_step_seed(self.train_settings.seed, batch_idx, self.global_rank))
                losses = losses_of(self.segmenter, batch.images, batch.annotations)
                self.metric.update(losses["loss"], len(batch.ids))
        else:
            self.metric.update(masks_of(self.segmenter, batch.images), batch.annotations)
        self.log(
            f"val_{self.metric_name}", self.metric, on_step=False, on_epoch=True, batch_size=len(batch.ids)
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; weight decay on weights of two or more axes only (no biases, no norms)."""
        parameters = [p for p in self.segmenter.parameters() if p.requires_grad]
        groups = [
            {
                "params": [p for p in parameters if p.dim() > 1],
                "weight_decay": self.train_settings.weight_decay,
            },
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.train_settings.lr)

    def _set_learning_rate(self) -> None:
        trained = (self.fraction - self.first_fraction) / max(1e-9, 1 - self.first_fraction)
        steps = (self.global_step + 1) / max(1, self.train_settings.warmup)
        rise = min(1.0, max(steps, trained / WARMUP_SHARE))
        rate = self.train_settings.lr * rise * (1 + math.cos(math.pi * self.fraction)) / 2
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate

    def _explain(self, losses: dict[str, Tensor], batch: Batch) -> None:
        parts = ", ".join(name for name, value in losses.items() if not bool(torch.isfinite(value)))
        raise AmbisegError(
            f"the loss became {losses['loss'].item()} at step {self.global_step} (in: {parts}; images"
            f" {', '.join(batch.ids[:3])}, ...): {self._cause(self.global_step)}"
        )

    def _cause(self, steps: int) -> str:
        """What probably made a number that is not finite after so many steps, and what to do."""
        rate = f"--lr {self.train_settings.lr:g}"
        if steps == 0:
            return (
                "no step was made yet, so look at the data with 'ambiseg data check', or try"
                f" --set train.precision=32 and a lower --lr (it is {self.train_settings.lr:g})"
            )
        if steps <= EARLY or self.train_settings.lr > HIGH:
            return f"the learning rate {rate} is probably too high: lower --lr ({TrainSettings().lr:g} suits most data)"
        return (
            f"try a lower --lr (it is {self.train_settings.lr:g}) or --set train.precision=32, and look at the data"
            " with 'ambiseg data check'"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ambiseg"] = {"method": type(self.segmenter).__name__}


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A well-mixed 63-bit seed of three small numbers."""
    return (
        int.from_bytes(hashlib.blake2b(f"{seed},{step},{rank}".encode(), digest_size=8).digest(), "big") >> 1
    )
