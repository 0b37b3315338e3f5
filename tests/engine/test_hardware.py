"""The choice of device and number format: what is asked for wins, and memory order never changes values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ambiseg.engine.machine import hardware_choice
from ambiseg.engine.machine.calibration import Calibration, Timing
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.run import load
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.train import resume
from ambiseg.errors import AmbisegError


def test_what_is_asked_for_wins():
    assert Hardware.choose("32", "auto", "cpu") == Hardware("cpu", False, False)
    assert Hardware.choose("bf16", "auto", "cpu") == Hardware("cpu", True, True)
    assert Hardware.choose("bf16", "no", "cpu") == Hardware("cpu", True, False)
    assert Hardware.choose("32", "yes", "cpu") == Hardware("cpu", False, True)
    assert Hardware.choose(device="mps") == Hardware("mps", False, False)
    assert Hardware.choose().device in ("cuda", "mps", "cpu")


@pytest.mark.parametrize("probe", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_bf16_only_where_it_is_native(probe, monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not Hardware.choose(device="cpu").bf16
    monkeypatch.setattr(torch.cpu, probe, lambda: True, raising=False)
    assert Hardware.choose(device="cpu").bf16


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_order_changes_no_value(channels_last):
    torch.manual_seed(0)
    hardware, images = Hardware("cpu", False, channels_last), torch.randn(2, 3, 8, 8)
    model = torch.nn.Conv2d(3, 4, 3)
    expected = model(images)
    placed = hardware.images(images)
    assert torch.equal(placed, images)
    assert placed.is_contiguous(memory_format=torch.channels_last) == channels_last
    torch.testing.assert_close(hardware.place(model)(placed), expected)


@pytest.mark.parametrize("bf16", [False, True])
def test_networks_run_in_the_chosen_format(bf16):
    with Hardware("cpu", bf16, False).autocast():
        out = torch.nn.Linear(2, 2)(torch.zeros(1, 2))
    assert out.dtype == (torch.bfloat16 if bf16 else torch.float32)


STORED = Hardware("cpu", False, True, threads=1)


def test_what_a_run_was_trained_in_counts_below_what_is_asked_for(monkeypatch):
    assert Hardware.choose(device="cpu", stored=STORED) == STORED
    assert Hardware.choose("32", device="cpu", stored=STORED) == STORED
    assert Hardware.choose("bf16", device="cpu", stored=STORED) == Hardware("cpu", True, True, threads=1)
    assert Hardware.choose("32", "no", "cpu", 2, STORED) == Hardware("cpu", False, False, threads=2)
    assert Hardware.choose(device="mps", stored=STORED) == Hardware("mps", False, False)
    monkeypatch.setattr("ambiseg.engine.machine.hardware._computes_bf16", lambda device: False)
    half = Hardware("cpu", True, True)
    assert half.obstacle("cpu") == "this machine does not compute in bfloat16"
    assert Hardware.choose(device="cpu", stored=half) == Hardware("cpu", False, False)


@pytest.mark.parametrize("native", [False, True])
def test_candidates_begin_with_the_rule(native, monkeypatch):
    monkeypatch.setattr("ambiseg.engine.machine.hardware._best_device", lambda: "cpu")
    monkeypatch.setattr("ambiseg.engine.machine.hardware._computes_bf16", lambda device: native)
    half = [Hardware("cpu", True, True), Hardware("cpu", True, False)] if native else []
    single = [Hardware("cpu", False, native), Hardware("cpu", False, not native)]
    assert Hardware.candidates() == half + single
    assert Hardware.candidates(counts=[1]) == half + single + [replace(c, threads=1) for c in half + single]
    assert Hardware.candidates("32", "yes", 3, counts=[1]) == [Hardware("cpu", False, True, 3)]


def test_candidates_of_a_gpu(monkeypatch):
    monkeypatch.setattr("ambiseg.engine.machine.hardware._best_device", lambda: "cuda")
    monkeypatch.setattr("ambiseg.engine.machine.hardware._computes_bf16", lambda device: True)
    found = Hardware.candidates(counts=[1])
    assert [(c.precision, c.channels_last, c.threads) for c in found] == [
        (precision, order, None) for precision in ("bf16", "tf32", "32") for order in (True, False)
    ]


def test_tf32_is_for_nvidia():
    with pytest.raises(AmbisegError, match="precision tf32 is for NVIDIA GPUs, and this run computes on cpu"):
        Hardware.choose("tf32", device="cpu")


def test_the_process_is_put_back():
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    with Hardware("cpu", False, False, threads=before[0] + 1, tf32=True).computing():
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (before[0] + 1, "high")
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


def test_a_run_keeps_its_choice(train_tiny, tmp_path, monkeypatch, capsys):
    """Measured once; resumed, loaded and repeated by settings it is the same, to the last bit."""
    found = Calibration(STORED, 4, (16, 16), 100.0, 0.1, (Timing(STORED.name, 10.0, 1.3),))
    calls = []
    monkeypatch.delenv(hardware_choice.SWITCH)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(hardware_choice, "LEAST_UPDATES", 1)
    monkeypatch.setattr(hardware_choice, "calibrate", lambda *given: calls.append(given) or found)
    run = train_tiny(tmp_path / "measured", epochs=None, updates=2, precision="auto").run
    assert len(calls) == 1 and len(calls[0][2]) > 1
    assert load(run).hardware == RunConfig.load(run).hardware.chosen == STORED
    resume(run, updates=1, quiet=True, fit_filter=False)
    assert len(calls) == 1
    monkeypatch.setenv(hardware_choice.SWITCH, "no")
    told = {"precision": "32", "channels_last": "yes", "threads": 1}
    other = train_tiny(tmp_path / "told", epochs=None, updates=2, **told).run
    resume(other, updates=1, quiet=True, fit_filter=False)
    weights = [load_file(folder / "model.safetensors") for folder in (run, other)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    monkeypatch.setattr("ambiseg.engine.machine.hardware.Hardware.obstacle", lambda self, device: "it cannot")
    resume(run, updates=1, fit_filter=False)
    assert "in place of float32, channels last, 1 thread: it cannot" in capsys.readouterr().err
