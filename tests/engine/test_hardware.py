"""The choice of device and number format: what is asked for wins, and memory order never changes values."""

from __future__ import annotations

import pytest
import torch

from ambiseg.engine.hardware import Hardware


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
