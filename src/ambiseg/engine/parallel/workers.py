"""Trainings in processes of their own: ``python -m MODULE NOTE``, where the note is a JSON file that says what to do and
takes the result or the error.

A worker stops, with a checkpoint, when its standard input closes: that is how a command ends its workers, and what
happens when the command itself is killed.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ambiseg.atomic_write import working_in, write_json
from ambiseg.engine.checkpoints import load_checkpoint
from ambiseg.engine.machine.hardware_choice import SWITCH
from ambiseg.engine.parallel.pieces import go_home
from ambiseg.engine.run_folder import LAST, RunConfig
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping

if TYPE_CHECKING:
    from ambiseg.engine.parallel.over_ray import RayEngine

INTERRUPTED = 130
"""Exit status of a worker that was asked to stop."""
_PATIENCE = 120.0
"""Seconds for the process of a command that was killed to end."""
_POLL = 0.1
"""Seconds between looks at a process."""


def fail(note: Path, error: str) -> None:
    """Add an error to a note, as one line."""
    write_json(note, read_mapping(note) | {"error": " ".join(error.split())})


def is_begun(run: Path) -> bool:
    """Whether a run has a sound checkpoint to go on from; the process of a command that was killed has written its own
    then."""
    try:
        load_checkpoint(run / LAST)
        RunConfig.load(run)
    except AmbisegError:
        return False
    with working_in(run, "the run folder", _PATIENCE):
        return True


class Worker:
    """A process of its own for a note, with its share of the cores; those of one device are spread over the
    accelerators.

    Args:
        module: whose `main` it runs, by `work_alone`.
        note: the file; the log of the process lies beside it.
        place: which of the workers it is, from 0.
        jobs: how many work at a time.
        one_device: whether the training needs one accelerator only.
    """

    def __init__(self, module: str, note: Path, place: int, jobs: int, one_device: bool = True) -> None:
        self.note, self.place, self.log = note, place, note.with_suffix(".log")
        environment = dict(os.environ, OMP_NUM_THREADS=str(max(1, torch.get_num_threads() // jobs)))
        environment[SWITCH] = "no"  # all runs compute in the same, whatever else the machine does
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        visible = visible or [str(i) for i in range(torch.cuda.device_count())]
        if visible and one_device:
            environment["CUDA_VISIBLE_DEVICES"] = visible[place % len(visible)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(note.resolve())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether it has ended; a death without a word becomes the error of its note.

        Raises:
            KeyboardInterrupt: it was asked to stop.
        """
        status = self.process.poll()
        if status is None:
            return False
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if not {"result", "error"} & set(read_mapping(self.note)):
            fail(
                self.note,
                f"its process ended with status {status}, perhaps for want of memory: see {self.log}",
            )
        return True

    def ask_to_stop(self) -> None:
        """Let it write its checkpoint and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> None:
        """Wait for its end."""
        self.process.wait()


class RayWorker:
    """The same on a worker of Ray. Where that dies, its process stops with a checkpoint, and another worker goes on from
    it.

    Args:
        module, note, place: as of `Worker`.
        engine: the cluster, whose machines see the note.
        devices: accelerators that the training needs.
    """

    def __init__(self, module: str, note: Path, place: int, engine: RayEngine, devices: int = 1) -> None:
        self.note, self.place = note, place
        self.stop = note.resolve().with_name(f".{note.stem}-{secrets.token_hex(4)}.stop")
        self.ref = engine.task(_on_ray, gpus=devices).remote(module, note.resolve(), self.stop, os.getcwd())

    def ended(self) -> bool:
        """Whether it has ended; what Ray cannot do becomes the error of its note.

        Raises:
            KeyboardInterrupt: it was asked to stop.
        """
        from ambiseg.engine.parallel.over_ray import has_ended, result_of

        if not has_ended(self.ref):
            return False
        try:
            if result_of(self.ref) == INTERRUPTED:
                raise KeyboardInterrupt
        except AmbisegError as error:
            fail(self.note, str(error))
        return True

    def ask_to_stop(self) -> None:
        """Let it write its checkpoint and end."""
        self.stop.touch()

    def wait(self) -> None:
        """Wait for its end."""
        from ambiseg.engine.parallel.over_ray import has_ended

        if has_ended(self.ref, _PATIENCE):
            self.stop.unlink(missing_ok=True)


def _on_ray(module: str, note: Path, stop: Path, home: str) -> int:
    """What a worker of Ray does with a note until a file says that it shall stop; the exit status."""
    go_home(home)
    if not note.is_file():
        raise AmbisegError(
            f"the machine {socket.gethostname()} does not see {note}: --out must lie in a folder that all machines share"
        )
    if stop.exists():
        return INTERRUPTED
    worker = Worker(module, note, 0, 1, one_device=False)
    try:
        while not worker.ended():
            if stop.exists():
                return INTERRUPTED
            time.sleep(_POLL)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        worker.ask_to_stop()
        worker.wait()
    return 0


def work_alone(work: Callable[[Path], None]) -> int:
    """What a worker does: the work of the note that is its only argument, until its standard input closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(Path(sys.argv[1]))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _end_with_parent() -> None:
    """Ask this process to stop when its standard input closes."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
