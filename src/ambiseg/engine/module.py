"""The bridge between a `Segmenter` and Lightning's Trainer: one training step, one validation, one
optimiser."""

from __future__ import annotations

import hashlib
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from ambiseg.data.batches import Batch, halved
from ambiseg.engine.encoder_rate import FACTOR, parameter_groups
from ambiseg.engine.learning_rate import LearningRate
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.settings import AUTO, SELECT_LAST, Adam, Plateau, TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods.base import Segmenter
from ambiseg.methods.contract import losses_of, masks_of
from ambiseg.methods.spec import MethodSpec
from ambiseg.metrics import METRICS, metric_collection
from ambiseg.nested_settings import check_name

LOSS = "loss"
"""Validation by the method's own loss, with the same random numbers every time."""
ENERGY_SCORE = "energy_score"
"""Validation by the energy score ``2 d(S, y) - d(S, S)`` of the predicted set S against one mask y."""

EARLY = 100
"""Steps within which a loss that is no longer finite speaks of the learning rate."""
HIGH = 0.1
"""Learning rate above which it does so at any time."""
LARGEST_WEIGHT = 1e10
"""No network of use has weights of this size."""


def validated(spec: MethodSpec, train: TrainSettings) -> str:
    """Name of the figure of each validation: `LOSS`, `ENERGY_SCORE` or a key of `METRICS`.

    The energy score against one mask drawn by weight is on average that against all annotations, and it is
    proper. A metric of coverage against one mask would reward the widest set.

    Raises:
        UnknownNameError: ``select`` is no such name; the message suggests the nearest one.
        AmbisegError: ``select`` is a metric without a better side.
    """
    named = train.select not in (AUTO, SELECT_LAST)
    if named:
        check_name("value of train: select", train.select, (AUTO, LOSS, SELECT_LAST, *METRICS))
    metric = train.select if named else spec.validation
    if metric != LOSS and not named and train.one_mask_validation:
        return ENERGY_SCORE
    if metric == LOSS:
        return LOSS
    check_name(f"metric that validates {spec.name}", metric, METRICS)
    if METRICS[metric].higher_is_better is None:
        raise AmbisegError(
            f"train: select={metric} cannot choose weights, since neither high nor low is better"
        )
    return metric


def higher_is_better(metric: str) -> bool:
    """Direction of a figure of validations."""
    return metric not in (LOSS, ENERGY_SCORE) and bool(METRICS[metric].higher_is_better)


class TrainingModule(pl.LightningModule):
    """Trains any `Segmenter` as `TrainSettings` say.

    The learning rate is that of `LearningRate`. Random numbers inside a step (dropout, latent samples) are
    seeded by (seed, step, process): a resumed run draws the same ones.

    Args:
        segmenter: the model.
        settings: how it is trained.
        hardware: on what.
        metric: figure of the validations (`validated`).
        images: number of training images, whose passes are the epochs of a plateau.
    """

    def __init__(
        self, segmenter: Segmenter, settings: TrainSettings, hardware: Hardware, metric: str, images: int = 1
    ) -> None:
        super().__init__()
        self.segmenter, self.train_settings, self.hardware, self.metric_name = (
            segmenter,
            settings,
            hardware,
            metric,
        )
        name = "ged" if metric == ENERGY_SCORE else metric
        self.metric: Metric = MeanMetric() if metric == LOSS else metric_collection(name)[name]
        self.images = images
        watched = settings.schedule.watch if isinstance(settings.schedule, Plateau) else ""
        self.watches_training, self.watches_validation = watched == "training", watched == "validation"
        self.rate = LearningRate(settings, self.watches_validation and higher_is_better(metric))
        self.epoch_loss, self.epoch_steps = 0.0, 0
        """Sum over the steps of this epoch, of means over processes, for a plateau."""
        self.last_value: float | None = None
        """Figure of the last validation."""
        self.fraction = 0.0
        self.first_fraction = 0.0
        """Share of the budget that was used before the first step."""

    def setup(self, stage: str) -> None:
        """In processes that are spawned too."""
        self.hardware.set_process()

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
        if self.fraction < self.train_settings.coarse_until:
            batch = halved(batch)
        losses = losses_of(self.segmenter, batch.images, batch.annotations)
        loss = losses["loss"]
        if not bool(torch.isfinite(loss)):
            self._explain(losses, batch)
        self._set_learning_rate()
        if self.watches_training:
            self._watch(loss)
        return losses

    def _watch(self, loss: Tensor) -> None:
        """Tell the plateau the mean loss of the epoch that ends with this step, if one does."""
        mean = self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")  # it works in place
        self.epoch_loss += float(mean)
        self.epoch_steps += 1
        size = self.train_settings.batch_size * self.trainer.world_size
        if (self.global_step + 1) * size // self.images > self.global_step * size // self.images:
            self.rate.observe(self.epoch_loss / self.epoch_steps)
            self.epoch_loss, self.epoch_steps = 0.0, 0

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
            masks = masks_of(self.segmenter, batch.images)
            if not masks.is_finite():
                raise AmbisegError(
                    f"the masks that are predicted after step {self.global_step} have no finite probabilities:"
                    f" {self._cause(self.global_step)}"
                )
            self.metric.update(masks, batch.annotations)
        self.log(
            f"val_{self.metric_name}", self.metric, on_step=False, on_epoch=True, batch_size=len(batch.ids)
        )

    def on_validation_epoch_end(self) -> None:
        """Before the checkpoints, which keep what a plateau has seen."""
        self.last_value = float(self.metric.compute())
        if self.watches_validation:
            self.rate.observe(self.last_value)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with L2 on all parameters, or AdamW with weight decay on weights of two or more axes only (no
        biases, no norms); the kernels that update all parameters at once (``benchmarks/speed.py optimiser``)."""
        chosen, lr = self.train_settings.optimiser, self.train_settings.lr
        groups = parameter_groups(self.segmenter, self.train_settings)
        first, second = chosen.betas
        kind = torch.optim.Adam if isinstance(chosen, Adam) else torch.optim.AdamW
        return kind(groups, lr, (first, second), fused=True)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By norm. Lightning's own refuses fused optimisers in bf16, for fear of scaled gradients; bf16 has none."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.segmenter.parameters(), gradient_clip_val)

    def _set_learning_rate(self) -> None:
        rate = self.rate(self.global_step, self.fraction, self.first_fraction)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate * group.get(FACTOR, 1.0)

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
        checkpoint["ambiseg"] = {
            "method": type(self.segmenter).__name__,
            "rate": self.rate.state_dict(),
            "epoch": [self.epoch_loss, self.epoch_steps],
            "last_value": self.last_value,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["ambiseg"]
        self.rate.load_state_dict(state.get("rate", {}))
        self.epoch_loss, self.epoch_steps = state.get("epoch", (0.0, 0))
        self.last_value = state.get("last_value")


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A well-mixed 63-bit seed of three small numbers."""
    return (
        int.from_bytes(hashlib.blake2b(f"{seed},{step},{rank}".encode(), digest_size=8).digest(), "big") >> 1
    )
