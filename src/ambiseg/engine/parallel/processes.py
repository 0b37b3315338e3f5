"""Which process of a training this one is, who started it, and how the processes meet.

Lightning starts the processes of one machine itself. Those of several machines are started by a launcher: torchrun, or
srun in a SLURM job. Then every process runs the whole command. The first one decides (settings, augmentation, run
folder) and tells the others through the store of `torch.distributed` at its address.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

_LONG = timedelta(days=7)
"""How long processes wait for the decisions of the first one, which reads the training images meanwhile. If it ends, they
hear of it at once."""
_meetings = itertools.count()
"""Trainings of this process so far; the others count alike."""


@dataclass(frozen=True)
class Launch:
    """What a launcher says of this process.

    Attributes:
        launcher: which one.
        rank: number of this process, from 0.
        nodes: number of machines.
        devices: processes on each of them.
    """

    launcher: Literal["torchrun", "srun"]
    rank: int
    nodes: int
    devices: int

    @property
    def processes(self) -> int:
        """How many there are in all."""
        return self.nodes * self.devices

    @classmethod
    def found(cls, environ: Mapping[str, str] = os.environ) -> Launch | None:
        """The launcher that started this process; None where there is none.

        The script of a SLURM job has the variables of the job too; those of a step with several tasks have only
        processes that srun started.

        Raises:
            AmbisegError: machines with different numbers of processes.

        Example:
            >>> Launch.found({"TORCHELASTIC_RUN_ID": "a", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"})
            Launch(launcher='torchrun', rank=3, nodes=2, devices=2)
        """
        if "TORCHELASTIC_RUN_ID" in environ:
            count, devices = int(environ.get("WORLD_SIZE", "1")), int(environ.get("LOCAL_WORLD_SIZE", "1"))
            return cls("torchrun", int(environ.get("RANK", "0")), _nodes("torchrun", count, devices), devices)
        count = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
        if count == 1:
            return None
        nodes = int(environ.get("SLURM_STEP_NUM_NODES", "1"))
        _nodes("srun", count, nodes)
        return cls("srun", int(environ["SLURM_PROCID"]), nodes, count // nodes)

    def environment(self) -> ClusterEnvironment:
        """Lightning's view of it."""
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
        from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        if self.launcher == "torchrun":
            return TorchElasticEnvironment()
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "127.0.0.1")
        os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
        step = {"NTASKS": self.processes, "NTASKS_PER_NODE": self.devices, "NNODES": self.nodes}
        os.environ.update({f"SLURM_{name}": str(number) for name, number in step.items()})
        return SLURMEnvironment(auto_requeue=False)


def _nodes(launcher: str, count: int, parts: int) -> int:
    if count % parts:
        raise AmbisegError(
            f"{launcher} started {count} processes, not the same number on each machine: ask for the same number on each"
            f" ({'--nproc-per-node' if launcher == 'torchrun' else '--ntasks-per-node'})"
        )
    return count // parts


def is_child() -> bool:
    """Whether another process of the same training comes first: that one writes and speaks."""
    launch = Launch.found()
    if launch is not None:
        return launch.rank > 0
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 or int(os.environ.get("NODE_RANK", "0")) > 0


def check_said(devices: int | None, nodes: int | None) -> None:
    """Raise `AmbisegError` where options contradict the launcher, or need one."""
    launch = Launch.found()
    if launch is None:
        if nodes is not None and nodes > 1:
            raise AmbisegError(
                f"--nodes {nodes} needs a launcher that starts the command on every machine: 'torchrun --nnodes={nodes} ..."
                " -m ambiseg train ...' on each, or 'srun ambiseg train ...' in a SLURM job"
            )
        return
    for name, said, started in (("devices", devices, launch.devices), ("nodes", nodes, launch.nodes)):
        if said is not None and said != started:
            what = "processes on each machine" if name == "devices" else "machines"
            raise AmbisegError(
                f"--{name} {said} contradicts {launch.launcher}, which started {started} {what}: leave --{name} out, or ask"
                f" {launch.launcher} for {said}"
            )


def settled(train: TrainSettings) -> TrainSettings:
    """The settings with the numbers of processes and machines that a launcher started.

    Raises:
        AmbisegError: settings that ask for other numbers.
    """
    check_said(*(None if number == 1 else number for number in (train.devices, train.nodes)))
    launch = Launch.found()
    return train if launch is None else replace(train, devices=launch.devices, nodes=launch.nodes)


def resettled(train: TrainSettings, devices: int | None = None, nodes: int | None = None) -> TrainSettings:
    """The settings of a run that goes on, maybe in another number of processes, with as many images in a step.

    Raises:
        AmbisegError: processes cannot share these images, or a launcher contradicts or is missing.
    """
    check_said(devices, nodes)
    launch = Launch.found()
    if launch is not None:
        devices, nodes = launch.devices, launch.nodes
    elif devices is None and train.nodes > 1:
        raise AmbisegError(
            f"the run was trained on {train.nodes} machines with {train.devices} processes each: start 'ambiseg train"
            " --resume' by torchrun or srun again, or go on with it on this machine by --devices N"
        )
    devices, nodes = devices or train.devices, nodes or 1
    images, count = train.batch_size * train.processes, devices * nodes
    if images % count:
        fitting = [n for n in range(1, images + 1) if images % n == 0]
        raise AmbisegError(
            f"the run takes {images} images in a step, which {count} processes cannot share equally: go on with"
            f" {', '.join(map(str, fitting))} processes"
        )
    return replace(train, devices=devices, nodes=nodes, batch_size=images // count)


class Meeting:
    """The processes of one training, which may hear what the first one decides.

    Args:
        launch: what the launcher says; None where this process is alone, or Lightning starts the others.
        minutes: how long to wait for all of them.

    Raises:
        AmbisegError: they do not come.
    """

    def __init__(self, launch: Launch | None, minutes: float) -> None:
        self.store = None
        if launch is None or launch.processes == 1:
            return
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        environment = launch.environment()
        host, port, patience = environment.main_address, environment.main_port, timedelta(minutes=minutes)
        hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
        place, attempt = f"{host}:{port}", os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        try:
            store = TCPStore(
                *(host, port, launch.processes, launch.rank == 0 and not hosted, patience),
                wait_for_workers=False,
                multi_tenant=True,  # the same server is that of the process group
            )
        except RuntimeError as error:
            raise AmbisegError(
                f"the first process of the training is not reached at {place} within {minutes:g} minutes (--node-timeout):"
                f" look whether it runs, whether this port is open, and at MASTER_ADDR and MASTER_PORT ({_first_line(error)})"
            ) from error
        self.store = PrefixStore(f"ambiseg/{attempt}/{next(_meetings)}", store)
        came = self.store.add("came", 1)
        try:
            if came == launch.processes:
                self.store.set("all", "yes")
            self.store.wait(["all"], patience)
        except RuntimeError as error:
            with _lost():
                came = self.store.add("came", 0)
            raise AmbisegError(
                f"{came} of {launch.processes} processes came to {place} within {minutes:g} minutes: look at the machines"
                " that are missing, or wait longer (--node-timeout)"
            ) from error

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Let the others end where the block, which is that of the first process, raises."""
        try:
            yield
        except BaseException:
            if self.store is not None and not is_child():
                self.store.set("decided", "")
            raise

    def tell(self, text: str) -> None:
        """Tell the others what was decided."""
        if self.store is not None:
            self.store.set("decided", text)

    def hear(self) -> str | None:
        """What the first process decided; None where it did not tell, since it wrote a run folder on this machine.

        Raises:
            SystemExit: it ended with an error, which it has named.
            AmbisegError: it ended without a word.
        """
        if self.store is None:
            return None
        with _lost():
            self.store.wait(["decided"], _LONG)
            text = self.store.get("decided").decode()
        if not text:
            raise SystemExit(2)
        return text


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise AmbisegError(
            "the first process of the training has ended: look at its output, and start all of them again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]
