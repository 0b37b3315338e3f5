"""Trainings whose processes a launcher starts: what the launcher says, how they meet, and what they compute together."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from ambiseg.engine import train as train_module
from ambiseg.engine.checkpoints import load_checkpoint
from ambiseg.engine.curve import training_curve
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.parallel import processes
from ambiseg.engine.parallel.failures import explained
from ambiseg.engine.parallel.processes import Launch, Meeting, check_said, is_child, resettled, settled
from ambiseg.engine.run_folder import LAST, RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import resume
from ambiseg.errors import AmbisegError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SCRIPT = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "0"}
STEP = SCRIPT | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5"}


def test_launchers_are_recognised():
    assert Launch.found(TORCHRUN) == Launch("torchrun", 5, 2, 4)
    assert Launch.found(STEP) == Launch("srun", 5, 2, 4) and Launch.found(STEP).processes == 8
    assert Launch.found({}) is None
    assert Launch.found(SCRIPT) is None, "the script of a job is one process, whatever the job asks for"
    assert Launch.found(SCRIPT | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    with pytest.raises(AmbisegError, match="srun started 7 processes, not the same number on each"):
        Launch.found(STEP | {"SLURM_STEP_NUM_TASKS": "7"})


@pytest.fixture
def launched(monkeypatch):
    """As if this process were one of torchrun's, on two machines with four processes each."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)


def test_the_launcher_says_how_many_processes_there_are(launched):
    assert is_child()
    assert settled(TrainSettings()) == TrainSettings(devices=4, nodes=2)
    assert settled(TrainSettings(devices=4)).nodes == 2
    with pytest.raises(
        AmbisegError, match="--devices 2 contradicts torchrun, which started 4 processes on each"
    ):
        settled(TrainSettings(devices=2))
    with pytest.raises(
        AmbisegError, match="--nodes 1 contradicts torchrun, which started 2 machines: leave --nodes"
    ):
        check_said(4, 1)


def test_machines_need_a_launcher():
    with pytest.raises(AmbisegError, match="--nodes 2 needs a launcher.*torchrun --nnodes=2.*srun"):
        settled(TrainSettings(nodes=2))


def test_a_step_sees_as_many_images_in_another_number_of_processes(launched):
    trained = TrainSettings(batch_size=16)
    assert resettled(trained) == TrainSettings(batch_size=2, devices=4, nodes=2)
    with pytest.raises(
        AmbisegError, match="takes 12 images in a step, which 8 .* go on with 1, 2, 3, 4, 6, 12 proc"
    ):
        resettled(TrainSettings(batch_size=12))


def test_a_run_of_several_machines_goes_on_on_one(monkeypatch):
    trained = TrainSettings(batch_size=2, devices=4, nodes=2)
    assert resettled(trained, devices=2) == TrainSettings(batch_size=8, devices=2)
    with pytest.raises(
        AmbisegError, match="trained on 2 machines with 4 .* by torchrun or srun again, or .* --devices N"
    ):
        resettled(trained)


@pytest.fixture
def place(monkeypatch):
    """A free port of this machine, as torchrun names it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setattr(
        processes, "_meetings", itertools.repeat(0)
    )  # threads would count their meetings together
    return port


def _meet(rank, minutes=0.5):
    return Meeting(Launch("torchrun", rank, 2, 1), minutes)


def test_the_others_hear_what_the_first_decides(place):
    with ThreadPoolExecutor(2) as pool:
        first, other = pool.map(_meet, range(2))
    first.tell("all settings")
    assert other.hear() == "all settings"
    with pytest.raises(ZeroDivisionError), first.leading():
        raise ZeroDivisionError
    with pytest.raises(SystemExit):
        other.hear()


def test_a_machine_that_never_comes(place):
    with pytest.raises(
        AmbisegError, match=rf"1 of 2 processes came to 127.0.0.1:{place} within 0.002 minutes"
    ):
        _meet(0, 0.002)


def test_more_gpus_than_there_are(train_tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(Hardware, "choose", classmethod(lambda *_: Hardware("cuda", False, False)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        AmbisegError, match="--devices 2 on each machine is more than the 1 GPU .* lower it to 1"
    ):
        train_module._check_gpus(TrainSettings(devices=2))
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AmbisegError, match="srun with 4 processes .*ask for --gpus-per-node"):
        train_module._check_gpus(TrainSettings(devices=4, nodes=2))


def test_synchronised_batch_statistics_need_gpus(train_tiny, tmp_path):
    with pytest.raises(AmbisegError, match="sync_batchnorm=yes needs GPUs"):
        train_tiny(tmp_path / "run", devices=2, sync_batchnorm="yes")


def test_want_of_memory_names_the_setting_and_its_value(tmp_path):
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    found = explained(full, tmp_path, TrainSettings(batch_size=12), 32)
    assert (
        str(found) == "the training needs more memory than this machine has: lower --batch-size from 12 to 6"
    )
    assert "backbone.width from 32 to 16" in str(explained(full, tmp_path, TrainSettings(batch_size=1), 32))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / LAST).touch()
    found = explained(full, tmp_path, TrainSettings(batch_size=12, devices=2), 32)
    assert str(found).endswith(f"ambiseg train --resume {tmp_path} --devices 4")
    lost = RuntimeError("Connection closed by peer [127.0.0.1]:4")
    assert "has ended or is not reached" in str(explained(lost, tmp_path, TrainSettings(nodes=2), 32))
    assert explained(RuntimeError("a bug"), tmp_path, TrainSettings(nodes=2), 32) is None


CHOSEN = {"epochs": 4, "clip": 0.0, "lr": 1e-3, "validation_images": 3}
"""Two processes validate on two images and on one."""


@pytest.fixture(scope="module")
def alone(train_tiny, tmp_path_factory):
    """A run of one process, and the words that train it in two with half the batch."""
    run = train_tiny(tmp_path_factory.mktemp("alone") / "one", batch_size=4, **CHOSEN).run
    config = RunConfig.load(run)
    words = ["mode-proposals", "--data", config.data, "--config", run / "config.yaml"]
    return run, [*words, "--set", "train.batch_size=2"]


def _begin(words, environment, module=()):
    return subprocess.Popen(
        [sys.executable, *module, "-m", "ambiseg", "train", *map(str, words)],
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def _srun(words, port):
    """Two processes, as srun starts them on two machines."""
    job = {"JOB_ID": "5", "NTASKS": "2", "STEP_NUM_TASKS": "2", "STEP_NUM_NODES": "2", "LOCALID": "0"}
    job = {f"SLURM_{name}": value for name, value in job.items()}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = ({"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in range(2))
    both = [_begin(words, job | address | rank) for rank in ranks]
    try:
        yield both
    finally:
        for process in both:
            process.kill()


def _same(one, two):
    for row, other in zip(*(training_curve(run) for run in (one, two)), strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-4)
    a, b = (load_checkpoint(run / LAST)["current_model_state"] for run in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-4, msg=name)


def test_two_machines_train_like_one_with_the_doubled_batch(alone, place, tmp_path):
    one, two = shutil.copytree(alone[0], tmp_path / "one"), tmp_path / "two"
    with _srun([*alone[1], "--out", two, "--json"], place) as (first, second):
        said, nothing = (process.communicate()[0] for process in (first, second))
    assert (first.returncode, second.returncode, nothing) == (0, 0, ""), said + nothing
    _same(one, two)
    train = RunConfig.load(two).train
    assert (train.devices, train.nodes, train.batch_size) == (1, 2, 2)
    for run, devices in ((one, None), (two, 1)):
        resume(run, updates=3, devices=devices, quiet=True)
    _same(one, two)
    assert RunConfig.load(two).train.batch_size == 4


def _torchrun(words, port, node):
    options = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", "--master-addr=127.0.0.1"]
    return _begin(words, {}, ("-m", "torch.distributed.run", *options, f"--master-port={port}"))


@pytest.mark.slow
def test_torchrun_starts_two_machines(alone, place, tmp_path):
    two = tmp_path / "two"
    both = [_torchrun([*alone[1], "--out", two], place, node) for node in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(re.findall("run folder: ", "".join(said))) == 1
    _same(alone[0], two)


@pytest.mark.slow
def test_a_machine_that_dies_leaves_a_run_to_go_on_with(alone, place, tmp_path):
    run = tmp_path / "run"
    long = ["--epochs", 5000, "--set", "train.validations=1000"]
    with _srun([*alone[1][:-2], *long, "--set", "train.batch_size=2", "--out", run], place) as (
        first,
        second,
    ):
        deadline = time.monotonic() + 120
        while not (run / LAST).is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        second.send_signal(signal.SIGKILL)
        said = first.communicate()[0]
    assert first.returncode == 2
    assert "another process of the training has ended" in said and f"ambiseg train --resume {run}" in said
    before = load_checkpoint(run / LAST)["global_step"]
    shutil.copytree(run, tmp_path / "copy")
    assert resume(tmp_path / "copy", devices=1, updates=2, quiet=True).steps == before + 2
