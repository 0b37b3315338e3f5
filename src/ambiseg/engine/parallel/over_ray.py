"""Pieces of work on the machines of a Ray cluster, or in processes of this machine that Ray starts.

Ray is an extra (``pip install 'ambiseg[ray]'``). Its tasks repeat a piece whose process or machine dies. Runs, data and
results lie in folders that all machines share: only paths and results of pieces go through Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable
from functools import partial
from importlib.util import find_spec
from typing import Any

from ambiseg.engine.parallel.pieces import Piece, Result, go_home, nothing
from ambiseg.errors import AmbisegError
from ambiseg.version import __version__

RETRIES = 3
"""How often a piece is repeated whose process died."""
STORE = 2**28
"""Bytes for results of pieces on their way, where Ray starts on this machine; more go to its temporary folder."""
PATIENCE = 30.0
"""Seconds for a cluster to answer."""
_TOKEN = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
"""Of what Ray starts on this machine; Ray reads it once in a process."""
_AHEAD = 4
"""Pieces that are finished before their turn, times the workers."""


class RayEngine:
    """The engine of a Ray cluster. Use it with ``with``: at the end it leaves the cluster, or stops what it started.

    Args:
        address: of the cluster, ``HOST:PORT``; if None Ray starts on this machine.
        workers: pieces at a time; one for each GPU if there are any, else one for each core, if None.

    Raises:
        AmbisegError: Ray is not installed, or the cluster does not answer or has another version.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        if find_spec("ray") is None:
            raise AmbisegError("the engine ray is not installed: pip install 'ambiseg[ray]'")
        self.address, self.wanted = address, workers
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RayEngine:
        try:
            self._set(RAY_USAGE_STATS_ENABLED="0")  # nothing leaves this machine but for the cluster
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self) -> None:
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": "ERROR",
            "configure_logging": False,
        }
        if self.address is None:
            self._set(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_TOKEN)  # else Ray writes a token into the home
            folder = tempfile.mkdtemp(prefix="amb", dir=_short_folder())  # of this user alone
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            options |= {
                "address": "local",
                "num_cpus": max(self.wanted or 1, os.cpu_count() or 1),
                "include_dashboard": False,
                "object_store_memory": STORE,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": f"{folder}/r",  # Ray opens it to everybody
                "_system_config": {
                    "enable_metrics_collection": False,
                    "task_oom_retries": RETRIES,
                    "worker_niceness": 0,  # Ray's 15 would leave workers 3 % of a core that somebody else uses too
                    "health_check_timeout_ms": 60_000,  # a busy machine is not a dead one: Ray ends this process then
                    "health_check_failure_threshold": 30,
                },
            }
            failed = (
                "Ray does not start on this machine ({}): use the local engine, or start Ray by 'ray start'"
            )
        else:
            _check_answers(self.address)
            options["address"] = self.address
            failed = (
                f"the Ray cluster at {self.address} cannot be joined ({{}}): run the command on one of its machines ('ray"
                " start'), with the same versions of Ray and Python"
            )
        import ray

        if self.address is None:
            _read_token()
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._stack.callback(ray.shutdown)
        try:
            ray.init(**options)
        except Exception as error:  # of many kinds; all say why
            raise AmbisegError(failed.format(_line(error))) from error
        found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        self.gpus, cores = found.get("GPU", 0) >= 1, max(1, int(found.get("CPU", 1)))
        self.workers = self.wanted or (int(found["GPU"]) if self.gpus else cores)
        widest = max(int(node["Resources"].get("CPU", 1)) for node in nodes if node["Alive"])
        self.cores = max(1, min(cores // self.workers, widest))

    def _set(self, **values: str) -> None:
        """Set variables of the environment until the end."""
        for name, value in values.items():
            before = os.environ.get(name)
            os.environ[name] = value
            undo = (
                partial(os.environ.pop, name, None)
                if before is None
                else partial(os.environ.update, {name: before})
            )
            self._stack.callback(undo)

    def task(self, function: Callable[..., Any], gpus: int = 1) -> Any:
        """A function as a task of Ray that is repeated when its process dies, with so many GPUs if there are any."""
        import ray

        needs = {"num_cpus": self.cores, "num_gpus": gpus if self.gpus else 0}
        return ray.remote(function).options(max_retries=RETRIES, **needs)

    def map(
        self,
        work: Callable[[Piece], Iterable[Result]],
        pieces: Iterable[Piece],
        unused: Callable[[Result], None] = nothing,
    ) -> Generator[Result, None, None]:
        """The results of all pieces, in their order.

        Raises:
            AmbisegError: that of a piece, or its processes died again and again.
        """
        import ray

        task, home, waiting = self.task(_do), os.getcwd(), enumerate(pieces)
        stored = ray.put(work)  # once for each machine, not for each piece
        running: dict[Any, int] = {}
        done: dict[int, list[Result]] = {}
        turn, more = 0, True
        try:
            while (
                more or running
            ):  # what still runs after an error ends by itself, or with the engine: see `result_of`
                while more and len(running) < self.workers and len(done) < _AHEAD * self.workers:
                    number, piece = next(waiting, (-1, None))
                    more = number >= 0
                    if more:
                        running[task.remote(stored, piece, home, __version__)] = number
                for ref in ray.wait(list(running))[0] if running else ():
                    done[running.pop(ref)] = result_of(ref)
                while turn in done:
                    while done[turn]:
                        yield done[turn].pop(0)
                    del done[turn]
                    turn += 1
        finally:
            for number in sorted(done):
                for result in done[number]:
                    unused(result)


def has_ended(ref: Any, wait: float = 0) -> bool:
    """Whether a task of Ray has ended, or does within so many seconds."""
    import ray

    return bool(ray.wait([ref], timeout=wait)[0])


def result_of(ref: Any) -> Any:
    """What a task of Ray returned. Tasks are never cancelled through Ray: one that ends in that moment makes Ray abort this
    process (ray-project/ray, issue 54260).

    Raises:
        AmbisegError: the task's own, or one that says why there is no result.
    """
    import ray

    try:
        found = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ray.exceptions.OutOfMemoryError, ray.exceptions.WorkerCrashedError) as error:
        raise AmbisegError(
            f"a worker died {RETRIES + 1} times on the same piece of work, probably for want of memory: lower --batch-size or"
            " --ray-workers"
        ) from error
    except ray.exceptions.RayError as error:
        raise AmbisegError(
            f"the Ray cluster lost a piece of work ({_line(error)}): look at its machines, and start the command again"
        ) from error
    if isinstance(found, AmbisegError):
        raise found
    return found


def _do(
    work: Callable[[Any], Iterable[Any]], piece: Any, home: str, version: str
) -> list[Any] | AmbisegError:
    """One piece, in another process; an error of the user is returned, since it is no fault of the process."""
    if version != __version__:
        return AmbisegError(
            f"the machine {socket.gethostname()} has ambiseg {__version__}, the command {version}: install the same version"
        )
    try:
        go_home(home)
        return list(work(piece))
    except AmbisegError as error:
        plain = type(error).__init__ is AmbisegError.__init__  # else it cannot be pickled
        return error if plain else AmbisegError(str(error))


def _read_token() -> None:
    """Let Ray read the variables on tokens again, which it did when it was imported, perhaps before this engine."""
    with contextlib.suppress(ImportError, AttributeError):  # names of Ray's own: other versions may have none
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def _check_answers(address: str) -> None:
    """Raise `AmbisegError` unless Ray answers at an address; its own attempt would take minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise AmbisegError(f"--ray-address is HOST:PORT, such as 10.0.0.1:6379, received {address}")
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE / 3).close()
        answer = subprocess.run(command, capture_output=True, timeout=PATIENCE, text=True)
    except (OSError, OverflowError, subprocess.TimeoutExpired) as error:
        reason = f"within {PATIENCE:g} s" if isinstance(error, subprocess.TimeoutExpired) else f"({error})"
    else:
        if answer.returncode == 0:
            return
        lines = [line for line in answer.stderr.splitlines() if "ersion" in line]
        reason = f"({_line(lines[-1])})" if lines else "as Ray does"
    raise AmbisegError(
        f"no Ray cluster answers at {address} {reason}: start it ('ray start --head'), or leave --ray-address out to use"
        " this machine"
    )


def _short_folder() -> str | None:
    """A folder for Ray's sockets, whose paths may have 107 bytes; None for the usual one."""
    usual = tempfile.gettempdir()
    return None if len(usual) <= 30 or not os.path.isdir("/tmp") else "/tmp"


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
