"""The head judges maps of any size image by image, sees all channels at once and trains in every layer."""

from __future__ import annotations

import pytest
import torch

from ambiseg.networks.discriminator import Discriminator


def make(seed=0):
    torch.manual_seed(seed)
    return Discriminator(3, 8, 5).eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (15, 16), (16, 16), (17, 23), (64, 33)])
def test_any_size(size):
    out = make()(torch.randn(2, 3, *size))
    assert out.shape == (2, 5) and torch.isfinite(out).all()


def test_small_maps_are_those_with_repeated_borders():
    head, maps = make(), torch.randn(1, 3, 9, 16)
    extended = torch.cat([maps, maps[:, :, -1:].expand(-1, -1, 7, -1)], 2)
    assert torch.equal(head(maps), head(extended))


def test_widths_double_up_to_four_times():
    widths = [m.out_channels for m in make().layers if isinstance(m, torch.nn.Conv2d)]
    assert widths == [8, 16, 32, 32]


def test_images_of_a_batch_do_not_see_each_other():
    head, maps = make(), torch.randn(4, 3, 20, 20)
    torch.testing.assert_close(head(maps)[2:3], head(maps[2:3]))


def test_every_number_depends_on_every_channel():
    head, maps = make(), torch.randn(1, 3, 32, 32)
    for c in range(3):
        other = maps.clone()
        other[:, c] = torch.randn(32, 32)
        assert ((head(other) - head(maps)).abs() > 1e-6).all()


def test_gradient_reaches_every_parameter():
    head = make()
    head(torch.randn(2, 3, 20, 20)).square().sum().backward()
    assert all(bool(p.grad.ne(0).any()) for p in head.parameters())
