"""What happens around the steps of a training run: its budget, its moving average, its checkpoints, its
progress line."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ambiseg.engine.module import TrainingModule
from ambiseg.progress_log import LOG_EVERY, new_bar


class TrainingInterrupted(Exception):
    """The user (Ctrl-C) or the system (SIGTERM) asked to stop; the state is saved."""


LOGGERS = ("lightning.pytorch", "lightning.fabric")
"""Where Lightning says what it does."""


def silence_lightning() -> None:
    """No banners and advice from Lightning: our own progress line and errors say what a user needs."""
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings(
        "ignore", category=UserWarning, message=".*(dataloader|DataLoader|checkpoint|workers).*"
    )
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def _quiet_process() -> QuietProcesses:
    silence_lightning()
    return QuietProcesses()


class QuietProcesses(pl.Callback):
    """Silences Lightning in spawned processes too: they unpickle their callbacks before it says anything."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _quiet_process, ()


class Budget(pl.Callback):
    """Ends the run after a number of steps or minutes, and spreads the validations over it.

    Minutes are those of the whole command: what was done before the first step counts, and time is left for the last
    validation, as long as the latest one took, and for what follows.

    Args:
        steps: total steps, or None.
        minutes: wall-clock budget, or None; exactly one of the two is given.
        validations: how many to do; the last one is at the end.
        before: seconds used before the training.
        every: steps from one validation to the next, in place of their number.
        after: seconds that are needed after the training.
    """

    CALIBRATION = 0.03
    """Share of a time budget after which the speed is known well enough to space the validations."""

    def __init__(
        self,
        steps: int | None,
        minutes: float | None,
        validations: int,
        before: float = 0.0,
        every: int | None = None,
        after: float = 0.0,
    ) -> None:
        self.steps, self.validations = steps, validations
        self.total = None if minutes is None else 60 * minutes
        self.every, self.after, self.validation = every, after, 0.0
        self.before = self.preparation = before
        self.started = time.monotonic()
        self.first_step = 0

    @property
    def interval(self) -> int:
        """Steps between validations to start with."""
        if self.every is not None:
            return self.every
        return 2**62 if self.steps is None else max(1, round(self.steps / self.validations))

    @property
    def seconds(self) -> float | None:
        """Seconds after which the steps end; they have at least half of the budget. None where steps are counted."""
        if self.total is None:
            return None
        return max(self.preparation + self.total / 2, self.total - self.after - self.validation)

    @property
    def elapsed(self) -> float:
        """Seconds of training, earlier sessions counted in."""
        return self.before + time.monotonic() - self.started

    def fraction(self, step: int) -> float:
        """Share of the budget that is used, 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.seconds is not None
        return min(1.0, self.elapsed / self.seconds)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started, self.first_step = time.monotonic(), trainer.global_step
        fraction = self.fraction(trainer.global_step)
        first = 0.0 if self.seconds is None else min(1.0, self.preparation / self.seconds)
        if trainer.world_size > 1:
            fraction, first = trainer.strategy.broadcast((fraction, first))
        _module(pl_module).fraction, _module(pl_module).first_fraction = fraction, first
        trainer.should_stop = fraction >= 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        fraction, interval = self.fraction(trainer.global_step), None
        if self.seconds is not None:
            spaced = self.every is not None or trainer.val_check_batch != self.interval
            if not spaced and fraction > self.CALIBRATION:
                rate = (trainer.global_step - self.first_step) / (time.monotonic() - self.started)
                interval = max(1, round(rate * self.seconds / self.validations))
            if trainer.world_size > 1:
                fraction, interval = trainer.strategy.broadcast((fraction, interval))
            if interval is not None:
                trainer.val_check_batch = interval
        _module(pl_module).fraction = fraction
        if fraction >= 1:
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validation = time.monotonic() - self._validation_began

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": self.elapsed, "preparation": self.preparation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Earlier sessions count, and so does what this one did before its first step."""
        self.before += float(state_dict["elapsed"])
        self.preparation = float(state_dict.get("preparation", 0.0))


class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights, validated and kept in place of the last weights.

    ``a <- a + (1 - d)(w - a)`` with ``d = min(decay, (1 + n) / (10 + n))`` at update n, so that the start is
    forgotten.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=partial(_average, decay))


def _average(decay: float, averaged: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
    """One update of all tensors of one type at once; counts, which are integers, are averaged and cut."""
    n = float(updates)
    now = min(decay, (1 + n) / (10 + n))
    if averaged[0].is_floating_point():
        get_ema_multi_avg_fn(now)(averaged, current, updates)  # type: ignore[no-untyped-call]
    else:
        for one, other in zip(averaged, current, strict=True):
            one.copy_(one + (other - one) * (1 - now))


class KeepLast(Checkpoint):
    """Writes the resumable checkpoint at every validation, at the end, and when a signal asks to stop.

    A `Checkpoint`, since those run after all other callbacks, whose state it has to see up to date.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = False
        self._previous: dict[int, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remember the handlers before Lightning puts in its own, which it takes out before `teardown`."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number in self._previous:
            signal.signal(number, self._ask)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        validates = trainer.should_stop or (batch_idx + 1) % (trainer.val_check_batch or 1) == 0
        if not validates and trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            trainer.save_checkpoint(self.path)
            raise TrainingInterrupted

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path)
        if not trainer.should_stop and trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            raise TrainingInterrupted

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


class _TimeLeft(ProgressColumn):
    def render(self, task: Any) -> Text:
        left = task.fields.get("left")
        return Text("" if left is None else f"{clock(left)} left", style="cyan")


_PARTS = 1000  # of a training, in the bar of a notebook


class ProgressLine(pl.Callback):
    """One line on the terminal, or a bar in a notebook: loss, validation metric, images per second and time
    left; now and then a line in a log."""

    def __init__(self, budget: Budget, batch_size: int, metric: str, console: Console | None = None) -> None:
        self.budget, self.batch_size, self.metric = budget, batch_size, metric
        self.console = console
        self.progress: Progress | None = None
        self.bar: Any = None
        self.mean: float | None = None
        self.logged = 0.0
        self.first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_step, self.began, self.logged = trainer.global_step, time.monotonic(), time.monotonic()
        self.paused = 0.0
        self.console = self.console or Console(file=sys.stderr)  # here: it cannot be sent to another process
        if trainer.is_global_zero and self.console.is_terminal:
            self.progress = Progress(
                TextColumn("training"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[text]}"),
                _TimeLeft(),
                console=self.console,
            )
            self.task = self.progress.add_task("train", total=1.0, text="", left=None)
            self.progress.start()
        elif trainer.is_global_zero and self.console.is_jupyter:
            form = "training: {percentage:3.0f}%|{bar}| {desc}"
            self.bar = new_bar(total=_PARTS, bar_format=form)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        loss = float(outputs["loss"] if isinstance(outputs, dict) else outputs)
        self.mean = loss if self.mean is None else 0.98 * self.mean + 0.02 * loss
        now = time.monotonic()
        watched = self.progress is not None or self.bar is not None
        due = watched or now - self.logged > LOG_EVERY
        if due:
            self._show(trainer, pl_module, now)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validation_began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self.paused += time.monotonic() - self.validation_began
            self._show(trainer, pl_module, time.monotonic())

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule, now: float) -> None:
        assert isinstance(pl_module, TrainingModule) and self.console is not None
        steps = trainer.global_step - self.first_step
        rate = steps * self.batch_size * trainer.world_size / max(now - self.began - self.paused, 1e-9)
        fraction = pl_module.fraction
        left = None
        if self.budget.seconds is not None:
            left = max(0.0, self.budget.seconds - self.budget.elapsed)
        elif steps and self.budget.steps is not None:
            left = (now - self.began) / steps * (self.budget.steps - trainer.global_step)
        text = f"loss {self.mean:.4f}  {rate:.0f} images/s"
        value = trainer.callback_metrics.get(f"val_{self.metric}")
        if value is not None:
            text += f"  {self.metric} {float(value):.4f}"
        if self.progress is not None:
            self.progress.update(self.task, completed=fraction, text=text, left=left)
            return
        text += "" if left is None else f"  {clock(left)} left"
        if self.bar is not None:
            self.bar.set_description_str(text, refresh=False)
            self.bar.update(round(_PARTS * fraction) - self.bar.n)
        else:
            self.logged = now
            line = f"training {100 * fraction:3.0f} %  step {trainer.global_step}  {text}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _module(module: pl.LightningModule) -> TrainingModule:
    assert isinstance(module, TrainingModule)
    return module


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``.

    Example:
        >>> clock(75), clock(3675)
        ('1:15', '1:01:15')
    """
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
