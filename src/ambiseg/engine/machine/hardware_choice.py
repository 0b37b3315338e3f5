"""What a training computes in, who decided it, and the figures; before a training the choice is measured.

Settings decide where they say something. The rest is measured (`ambiseg.engine.machine.calibration`) unless the training
is short, has several processes, or `SWITCH` is ``no`` in the environment; then a rule decides (`Hardware.choose`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ambiseg.data.batches import Batch
from ambiseg.engine.machine import calibration_cache
from ambiseg.engine.machine.calibration import Timing, calibrate
from ambiseg.engine.machine.cores import SAID, available_cores, busy_cores, thread_counts
from ambiseg.engine.machine.hardware import Hardware, machine_name
from ambiseg.engine.settings import MOST, TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods.base import Segmenter
from ambiseg.nested_settings import from_values, to_values

SWITCH = "AMBISEG_CALIBRATE"
"""``no`` in this environment variable forbids measuring."""
TASKS = ("WORLD_SIZE", "SLURM_NTASKS")
"""Environment variables that count the processes of a training, which must all choose the same."""
LEAST_UPDATES, LEAST_MINUTES = 500, 1.0
"""A shorter training is not worth a measurement."""
SECONDS, SHARE = 3.0, 0.05
"""Most seconds of the measurement, and its largest share of a budget in minutes."""
BUSY = 0.2
"""Where other programs take a larger share of the cores meanwhile, what was measured counts for this training
alone."""


@dataclass(frozen=True)
class HardwareChoice:
    """What a training computes in and the reason.

    Attributes:
        chosen: device, number format, memory order, threads.
        reason: who decided.
        machine: model of GPU or CPU.
        images, size: images of each step that was timed, and their height and width; 0 where none was timed.
        seconds: that the measurement took.
        images_per_second: forward and backward pass, of the choice; 0 where it was not measured.
        timings: of all candidates.
    """

    chosen: Hardware
    reason: str
    machine: str = ""
    images: int = 0
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    images_per_second: float = 0.0
    timings: tuple[Timing, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HardwareChoice:
        """The inverse of `to_dict`; `AmbisegError` for other values."""
        found = from_values(cls, values, "hardware")
        threads = found.chosen.threads
        if threads is not None and not 1 <= threads <= MOST["threads"]:
            raise AmbisegError(f"hardware: threads are 1 to {MOST['threads']}, received {threads}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the run folder; what is empty is left out."""
        empty = HardwareChoice(self.chosen, self.reason)
        kept = {
            name
            for name in vars(self)
            if name in ("chosen", "reason") or vars(self)[name] != vars(empty)[name]
        }
        return {name: value for name, value in to_values(self).items() if name in kept}

    def __str__(self) -> str:
        """One line: the choice, who decided, and the figures.

        Example:
            >>> print(HardwareChoice(Hardware("cpu", False, True), "measured", timings=(
            ...     Timing("float32, channels first", 100, 1), Timing("float32, channels last", 80, 1.25))))
            float32, channels last on cpu (measured; speeds: float32, channels first 1.00, float32, channels last 1.25)
        """
        speeds = ", ".join(f"{one.name} {one.speed:.2f}" for one in self.timings if one.speed)
        return (
            f"{self.chosen.name} on {self.chosen.device} ({self.reason}{'; speeds: ' * bool(speeds)}{speeds})"
        )


def told(choice: HardwareChoice) -> str:
    """What training says about what it computes in, and how to decide it.

    Example:
        >>> print(told(HardwareChoice(Hardware("cpu", False, False), "not measured")))
        hardware: float32, channels first on cpu (not measured); --precision, --channels-last and --threads decide it
    """
    return f"hardware: {choice}; --precision, --channels-last and --threads decide it"


def choose_hardware(
    train: TrainSettings,
    model: Segmenter,
    batch: Callable[[int], Batch],
    facts: Mapping[str, Any],
    steps: int | None,
) -> HardwareChoice:
    """What a training computes in: as the settings say, else what is fastest in this training on this machine.

    Args:
        train: settings; ``precision``, ``channels_last`` and ``threads`` decide where they say something.
        model: what is trained; it stays as it is.
        batch: so many training images with annotations.
        facts: all else that the speed depends on, for the memory of earlier measurements.
        steps: length of the training, None where it is a time.

    Raises:
        AmbisegError: what the settings ask for is not for this machine.
    """
    default = Hardware.choose(train.precision, train.channels_last, threads=train.threads)
    machine = machine_name(default.device)
    lacking = _lacking(train, steps, default)
    if lacking:
        return HardwareChoice(default, f"not measured: {lacking}", machine)
    asked = (train.precision, train.channels_last, train.threads)
    candidates = Hardware.candidates(*asked, counts=thread_counts() if default.device == "cpu" else ())
    key = calibration_cache.key_of({**facts, "asked": asked, **_machine_facts(default.device)})
    earlier = _earlier(key)
    if earlier is not None:
        return earlier
    limit = SECONDS if train.minutes is None else min(SECONDS, SHARE * 60 * train.minutes)
    busy = busy_cores()
    try:
        found = calibrate(model, batch(train.batch_size), candidates, limit)
    except Exception as error:  # the training will meet it and say more
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return HardwareChoice(default, f"not measured: {why}", machine)
    share = busy()
    reason = "measured" if len(candidates) > 1 else "settings"
    if not found.images:
        reason = f"a step takes too long to compare settings in {limit:g} seconds"
    choice = HardwareChoice(
        found.best,
        reason,
        machine,
        found.images,
        found.size,
        found.seconds,
        found.images_per_second,
        found.timings,
    )
    if share > BUSY:
        return replace(choice, reason=f"{reason} while other programs took {100 * share:.0f} % of the cores")
    calibration_cache.remember(key, choice.to_dict())
    return choice


def _lacking(train: TrainSettings, steps: int | None, default: Hardware) -> str:
    """Why nothing is measured; empty if nothing speaks against it."""
    if os.environ.get(SWITCH, "").lower() == "no":
        return f"{SWITCH}=no"
    if train.devices > 1 or any(os.environ.get(name, "1") != "1" for name in TASKS):
        return "several processes"
    if default.device == "mps":
        return "only CPUs and NVIDIA GPUs are"
    short = train.minutes < LEAST_MINUTES if train.minutes is not None else (steps or 0) < LEAST_UPDATES
    return f"that takes {LEAST_UPDATES} updates or {LEAST_MINUTES:g} minute of training" if short else ""


def _machine_facts(device: str) -> dict[str, Any]:
    """What the speed depends on besides model and images."""
    return {
        "machine": machine_name(device),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": available_cores(),
        "environment": [os.environ.get(name) for name in (*SAID, "ONEDNN_MAX_CPU_ISA", "OMP_WAIT_POLICY")],
    }


def _earlier(key: str) -> HardwareChoice | None:
    """What was measured before."""
    found = calibration_cache.recall(key)
    if found is None:
        return None
    when, values = found
    try:
        choice = HardwareChoice.from_dict(values)
    except AmbisegError:
        return None
    day = time.strftime("%Y-%m-%d", time.localtime(when))
    return replace(choice, reason=f"{choice.reason} on {day}")
