"""NCSN++ takes any size, its filter keeps constants, sums keep their variance, time matters, every part
trains."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.ncsnpp import Block, NCSNpp, Smooth
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import UNet
from model_helpers import perturbed

SMALL = UNetSettings(width=8, depth=3, blocks=2, attention=True, kind="ncsnpp")


def make(settings=SMALL, time=False, seed=0):
    """A network in which no layer is zero, as after some training."""
    torch.manual_seed(seed)
    return perturbed(NCSNpp(2, settings, time), 0.05).eval()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (13, 21), (16, 1), (33, 32)])
@pytest.mark.parametrize("settings", [SMALL, UNetSettings(width=8, depth=1, kind="ncsnpp")])
def test_any_size(size, settings):
    out = NCSNpp(2, settings)(torch.randn(2, 2, *size))
    assert out.shape == (2, 16, *size) and torch.isfinite(out).all()


def test_the_settings_choose_the_network():
    assert isinstance(build_backbone(3, SMALL, time=True), NCSNpp)
    assert isinstance(build_backbone(3, UNetSettings(width=8, depth=2)), UNet)


def test_odd_sizes_are_those_of_the_image_with_repeated_borders():
    net, images = make(), torch.randn(1, 2, 13, 10)
    extended = functional.pad(images, (0, 2, 0, 3), mode="replicate")
    torch.testing.assert_close(net(images), net(extended)[..., :13, :10])


def test_the_filter_keeps_constants_and_is_separable():
    flat = torch.full((1, 3, 12, 12), 2.0)
    assert Smooth(up=False)(flat).shape == (1, 3, 6, 6) and Smooth(up=True)(flat).shape == (1, 3, 24, 24)
    torch.testing.assert_close(Smooth(up=False)(flat)[..., 1:-1, 1:-1], flat[..., :4, :4])
    torch.testing.assert_close(Smooth(up=True)(flat)[..., 1:-1, 1:-1], torch.full((1, 3, 22, 22), 2.0))
    spike = torch.zeros(1, 1, 6, 6)
    spike[..., 3, 3] = 1
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    torch.testing.assert_close(Smooth(up=True)(spike)[0, 0, 5:9, 5:9], row[:, None] * row)


def test_blocks_start_as_a_scaled_identity_and_keep_the_resolution_they_are_told():
    x = torch.randn(2, 16, 8, 8)
    block = Block(16, 16, dropout=0.0, time=12)
    torch.testing.assert_close(block(x, torch.randn(2, 12)), (x + block.conv2.bias[:, None, None]) * 0.5**0.5)
    assert Block(16, 8, 0.0, 0, Smooth(up=True))(x, None).shape == (2, 8, 16, 16)
    assert Block(16, 8, 0.0, 0, Smooth(up=False))(x, None).shape == (2, 8, 4, 4)


def test_time_changes_the_output():
    net, images = make(time=True), torch.randn(2, 2, 8, 8)
    one, other = (net(images, torch.full((2,), t)) for t in (0.2, 0.7))
    assert (one - other).abs().max() > 1e-4
    torch.testing.assert_close(net(images, torch.tensor([0.2, 0.7]))[1], other[1])
    assert not any(".time" in name or name.startswith("time") for name, _ in make().named_parameters())


@pytest.mark.parametrize("time", [False, True])
def test_gradient_reaches_every_parameter(time):
    net = make(time=time)
    net(torch.randn(2, 2, 8, 8), torch.rand(2) if time else None).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.ne(0).any())] == []


def test_another_number_of_channels_is_refused():
    with pytest.raises(AmbisegError, match=r"3 channel\(s\), but the model takes 2"):
        make()(torch.zeros(1, 3, 8, 8))
