"""The U-Net takes any size, its blocks start as identities, time and attention matter, every part trains."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import ResidualBlock, SelfAttention, TimeEmbedding, UNet
from model_helpers import perturbed

SMALL = UNetSettings(width=8, depth=3)


def make(settings=SMALL, time=False, seed=0):
    """A network in which no layer is zero, as after some training."""
    torch.manual_seed(seed)
    return perturbed(UNet(2, settings, time), 0.05).eval()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (13, 21), (16, 1), (33, 32)])
@pytest.mark.parametrize(
    "settings", [SMALL, UNetSettings(width=8, depth=1), UNetSettings(8, 2, 2, attention=True)]
)
def test_any_size(size, settings):
    out = UNet(2, settings)(torch.randn(2, 2, *size))
    assert out.shape == (2, settings.width, *size) and torch.isfinite(out).all()


def test_odd_sizes_are_those_of_the_image_with_repeated_borders():
    net, images = make(), torch.randn(1, 2, 13, 10)
    extended = functional.pad(images, (0, 2, 0, 3), mode="replicate")
    torch.testing.assert_close(net(images), net(extended)[..., :13, :10])


def test_blocks_start_as_the_identity():
    torch.manual_seed(0)
    x, time = torch.randn(2, 16, 5, 5), torch.randn(2, 12)
    block = ResidualBlock(16, 16, time=12)
    torch.testing.assert_close(block(x, time), x + block.conv2.bias[:, None, None])
    attention = SelfAttention(16)
    torch.testing.assert_close(attention(x), x + attention.out.bias[:, None, None])


def test_time_changes_the_output():
    net, images = make(time=True), torch.randn(2, 2, 8, 8)
    at = [net(images, torch.full((2,), t)) for t in (0.0, 0.01, 0.5, 1.0)]
    for i, one in enumerate(at):
        for other in at[:i]:
            assert (one - other).abs().max() > 1e-4
    mixed = net(images, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(mixed[0], at[0][0])
    torch.testing.assert_close(mixed[1], at[-1][1])


def test_without_a_time_there_is_no_time_parameter():
    assert not any("time" in name or "modulation" in name for name, _ in make().named_parameters())
    assert TimeEmbedding(9)(torch.rand(3)).shape == (3, 9)


def test_one_pixel_reaches_as_far_as_the_resolutions_say():
    """Without norms the field of view is local; a deeper network sees farther, attention sees everything."""

    def reach(settings):
        net = make(settings)
        for module in list(net.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, torch.nn.GroupNorm):
                    setattr(module, name, torch.nn.Identity())
        images = torch.zeros(1, 2, 64, 64, requires_grad=True)
        net(images + 0.1)[0, :, 32, 32].sum().backward()
        rows = images.grad.abs().sum((0, 1, 3)).nonzero()
        return int(rows.max() - rows.min()) + 1

    flat, deep = reach(UNetSettings(width=8, depth=1)), reach(UNetSettings(width=8, depth=3))
    assert flat == 11  # stem, one block, the middle: five 3x3 convolutions
    assert flat < deep < 64
    assert reach(UNetSettings(width=8, depth=3, attention=True)) == 64


def test_attention_does_not_depend_on_the_order_of_positions():
    torch.manual_seed(0)
    attention = SelfAttention(16)
    torch.nn.init.normal_(attention.out.weight)
    x, order = torch.randn(1, 16, 3, 4), torch.randperm(12)
    mixed = attention(x.flatten(2)[..., order].view_as(x)).flatten(2)
    torch.testing.assert_close(mixed, attention(x).flatten(2)[..., order])
    assert (attention(x) - x).abs().max() > 0.1


@pytest.mark.parametrize(
    "settings", [SMALL, UNetSettings(8, 2, 2, attention=True)], ids=["plain", "attention"]
)
@pytest.mark.parametrize("time", [False, True])
def test_gradient_reaches_every_parameter(settings, time):
    net = make(settings, time)
    net(torch.randn(2, 2, 8, 8), torch.rand(2) if time else None).square().sum().backward()
    assert [
        name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.ne(0).any())
    ] == []


def test_images_of_a_batch_do_not_see_each_other():
    net, images = make(), torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(net(images)[1:2], net(images[1:2]))


def test_memory_order_makes_no_difference():
    net, images = make(), torch.randn(2, 2, 9, 8)
    expected = net(images)
    last = net.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)


def test_another_number_of_channels_is_refused():
    with pytest.raises(AmbisegError, match="3 channel.*takes 2"):
        make()(torch.zeros(1, 3, 8, 8))


def test_a_decoder_behind_a_frozen_encoder_trains_in_channels_last_order():
    net = UNet(2, SMALL).to(memory_format=torch.channels_last).requires_grad_(False)
    net.decoder.requires_grad_(True)
    net(torch.randn(2, 2, 16, 16).to(memory_format=torch.channels_last)).sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == name.startswith("decoder"), name
