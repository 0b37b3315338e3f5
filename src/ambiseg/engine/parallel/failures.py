"""What a user can do where a training ends badly: for want of memory, or with a process that is gone."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from ambiseg.engine.machine.memory import NotEnoughMemoryError
from ambiseg.engine.run_folder import LAST
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError

_WANT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Socket closed",
    "NCCL",
    "Gloo",
)
"""What PyTorch says where another process of a group does not answer."""


def explained(error: Exception, run: Path, train: TrainSettings, width: int) -> AmbisegError | None:
    """The error of a training in a user's words; None for any other one.

    Args:
        error: of Lightning's trainer.
        run: the run folder.
        train: how it was trained.
        width: channels of the network.
    """
    text = str(error)
    last = (
        text.strip().splitlines()[-1] if isinstance(error, ProcessRaisedException) and text.strip() else text
    )
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, (RuntimeError, ProcessRaisedException))
        and any(word in last for word in _WANT_OF_MEMORY)
    ):
        return NotEnoughMemoryError(_want_of_memory(run, train, width))
    if isinstance(error, ProcessExitedException):
        killed = f"by {error.signal_name}" if error.signal_name else f"with status {error.exit_code}"
        return AmbisegError(
            f"process {error.error_index} of the training ended {killed}, perhaps for want of memory: {_fewer(train)}"
            f"{_going_on(run)}"
        )
    if isinstance(error, RuntimeError) and train.processes > 1 and any(word in last for word in _LOST):
        return AmbisegError(
            f"another process of the training has ended or is not reached: look at its output{_going_on(run)}"
        )
    return None


def _want_of_memory(run: Path, train: TrainSettings, width: int) -> str:
    where = "this machine has"
    if torch.cuda.is_available():
        gib = [number / 2**30 for number in (torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1])]
        where = f"the GPU has (it took {gib[0]:.1f} of {gib[1]:.1f} GiB)"
    lower = (
        f"set backbone.width from {width} to {max(1, width // 2)}" if train.batch_size == 1 else _fewer(train)
    )
    kept = ""
    if (run / LAST).is_file() and train.batch_size % 2 == 0:
        kept = f", or go on with the last checkpoint on more devices: {_resume(run)} --devices {2 * train.devices}"
    return f"the training needs more memory than {where}: {lower}{kept}"


def _fewer(train: TrainSettings) -> str:
    if train.batch_size == 1:
        return "lower backbone.width"
    return f"lower --batch-size from {train.batch_size} to {train.batch_size // 2}"


def _going_on(run: Path) -> str:
    return f", and go on with '{_resume(run)}'" if (run / LAST).is_file() else ""


def _resume(run: Path) -> str:
    return shlex.join(["ambiseg", "train", "--resume", str(run)])
