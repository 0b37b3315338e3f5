"""What is left of memory as Linux and its control groups say it, and predictions that are refused for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ambiseg.data.source import open_split
from ambiseg.engine.machine import memory
from ambiseg.engine.machine.memory import NotEnoughMemoryError, available_memory, refusing_too_much
from ambiseg.engine.predict import predict_files
from ambiseg.engine.run import load
from ambiseg.memory_budget import prediction_bytes

KIB, MIB, GIB = 2**10, 2**20, 2**30


@pytest.fixture
def machine(tmp_path):
    """``machine(file=text)``: a root folder with these files."""

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


SYSTEM = {"proc/meminfo": "MemTotal:       8388608 kB\nMemAvailable:   4194304 kB\nHugePages_Total: 0\n"}


def test_without_groups_the_system_says_what_is_left(machine):
    assert available_memory(root=machine(SYSTEM)) == 4 * GIB


def test_nothing_is_known_of_another_system(tmp_path):
    assert available_memory(root=tmp_path) is None
    assert available_memory("mps") is None


def group(place, limit, used, cache=0):
    base = f"sys/fs/cgroup/{place}"
    return {
        f"{base}/memory.max": f"{limit}\n",
        f"{base}/memory.current": f"{used}\n",
        f"{base}/memory.stat": f"anon 5\ninactive_file {cache}\n",
    }


def test_a_group_may_leave_less_and_its_file_cache_can_be_taken(machine):
    own = {"proc/self/cgroup": "0::/job/step\n", **group("job/step", GIB, 900 * MIB, 100 * MIB)}
    assert available_memory(root=machine({**SYSTEM, **own})) == GIB - 800 * MIB


def test_the_tightest_of_the_groups_around_a_process_counts(machine):
    groups = {**group("job/step", "max", 5), **group("job", 2 * GIB, 3 * MIB), **group("", "max", 7)}
    root = machine({**SYSTEM, "proc/self/cgroup": "0::/job/step\n", **groups})
    assert available_memory(root=root) == 2 * GIB - 3 * MIB


def test_groups_of_the_first_version(machine):
    base = "sys/fs/cgroup/memory/job"
    own = {
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/job\n2:cpuset:/job\n0::/\n",
        f"{base}/memory.limit_in_bytes": f"{3 * GIB}",
        f"{base}/memory.usage_in_bytes": f"{GIB}",
        f"{base}/memory.stat": f"inactive_file 1\ntotal_inactive_file {4 * KIB}\n",
    }
    assert available_memory(root=machine({**SYSTEM, **own})) == 2 * GIB + 4 * KIB


def test_a_full_group_leaves_nothing(machine):
    own = {"proc/self/cgroup": "0::/\n", **group("", GIB, GIB + 5)}
    assert available_memory(root=machine({**SYSTEM, **own})) == 0


@pytest.fixture
def limit(monkeypatch):
    """``limit(bytes)``: what is left from now on."""

    def set_limit(left):
        monkeypatch.setattr(memory, "available_memory", lambda device: left)

    return set_limit


def test_an_image_too_large_is_refused_before_the_attempt(tiny_run, limit, monkeypatch):
    run = load(tiny_run, precision="32")
    image = np.zeros((run.config.in_channels, 24, 16), np.float32)
    needed = prediction_bytes(24 * 16, width=8, channels=6)
    limit(needed)
    assert run.propose([image]).masks.shape == (1, 6, 24, 16)
    limit(needed - 1)
    monkeypatch.setattr(run.model, "predict", pytest.fail)
    with pytest.raises(
        NotEnoughMemoryError,
        match=r"^the prediction of 6 masks for 1 image\(s\) of 24x16 pixels needs about 1\d\d\.\d KiB of memory and"
        r" 1\d\d\.\d KiB are available: ask for fewer masks \(--samples\), or cut the images into smaller ones$",
    ):
        run.propose([image])
    with pytest.raises(NotEnoughMemoryError, match=r"fewer images at a time \(--batch-size\)"):
        run.propose([image, image])


@pytest.mark.parametrize(("height", "width"), [(1, 64), (33, 1)])
def test_a_narrow_image_takes_the_memory_of_what_the_network_makes_of_it(tiny_run, limit, height, width):
    """The network repeats rows and columns until it can halve them."""
    run = load(tiny_run, precision="32")
    multiple = 2 ** (run.config.backbone.depth - 1)
    padded = (height + -height % multiple) * (width + -width % multiple)
    needed = prediction_bytes(padded, width=8, channels=6)
    image = np.zeros((run.config.in_channels, height, width), np.float32)
    assert multiple > 1
    limit(needed)
    assert run.propose([image]).masks.shape == (1, 6, height, width)
    limit(needed - 1)
    with pytest.raises(NotEnoughMemoryError, match=f"of {height}x{width} pixels"):
        run.propose([image])


def test_a_fixed_number_of_masks_needs_no_more_where_more_are_asked_for(tiny_run, limit):
    run = load(tiny_run, precision="32")
    limit(prediction_bytes(256, width=8, channels=6))
    image = np.zeros((run.config.in_channels, 16, 16), np.float32)
    assert run.propose([image], samples=100).masks.shape[1] == 6


def test_a_method_that_runs_the_network_for_each_mask_needs_several_networks(tiny_run, limit, monkeypatch):
    run = load(tiny_run, precision="32")
    image = np.zeros((run.config.in_channels, 16, 16), np.float32)
    limit(prediction_bytes(256, width=8, channels=6, together=6) - 1)
    assert len(run.propose([image]))
    monkeypatch.setattr(run.model, "passes_for_each_mask", True)
    with pytest.raises(NotEnoughMemoryError):
        run.propose([image])


def test_where_the_memory_is_unknown_nothing_is_refused(tiny_run, limit):
    run = load(tiny_run, precision="32")
    limit(None)
    assert len(run.propose([np.zeros((run.config.in_channels, 16, 16), np.float32)])) == 1


def test_one_image_too_large_does_not_end_the_others(tiny_run, fires, limit, tmp_path):
    run, image = load(tiny_run, precision="32"), open_split(fires, "test")[0].image
    for name, times in (("a", 1), ("b", 4), ("c", 1)):
        np.save(tmp_path / f"{name}.npy", np.tile(image, (1, times, times)))
    limit(prediction_bytes(2 * 256, width=8, channels=6))
    paths = sorted(tmp_path.glob("*.npy"))
    found = {result.path.stem: result for result in predict_files(run, paths, tmp_path / "out")}
    assert {name: result.masks > 0 for name, result in found.items()} == {"a": True, "b": False, "c": True}
    assert "b.npy: the prediction of 6 masks for 1 image(s) of 64x64 pixels needs" in found["b"].error
    limit(None)
    again = {result.path.stem: result for result in predict_files(run, paths, tmp_path / "out", resume=True)}
    assert {name: result.kept for name, result in again.items()} == {"a": True, "b": False, "c": True}
    assert again["b"].masks > 0


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_a_refusal_of_the_system_is_the_same_error(limit, error):
    limit(None)
    with (
        pytest.raises(
            NotEnoughMemoryError, match=r"^this does not fit in memory \(2.0 GiB or more\): take less$"
        ),
        refusing_too_much("this", 2 * GIB, "cpu", "take less"),
    ):
        raise error


def test_other_errors_pass(limit):
    limit(None)
    with pytest.raises(RuntimeError, match="shapes"), refusing_too_much("this", 1, "cpu", "take less"):
        raise RuntimeError("shapes do not fit")
