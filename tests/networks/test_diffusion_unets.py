"""The U-Nets of published flows: their sizes, their layers against plain formulas, time and attention."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.adm import ADM
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.ddpm import DDPM, LinearAttention, StandardisedConv
from ambiseg.networks.edm import EDM, ConvThenSmooth, ScaledAttention
from ambiseg.networks.ncsnpp import Smooth
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import ResidualBlock
from model_helpers import perturbed

KINDS = pytest.mark.parametrize("kind", ["adm", "ddpm", "edm"])


def make(kind, time=False, seed=0, **settings):
    """A network in which no layer is zero, as after some training."""
    torch.manual_seed(seed)
    chosen = UNetSettings(
        **{"width": 8, "depth": 3, "blocks": 2, "attention": True, "kind": kind, **settings}
    )
    return perturbed(build_backbone(2, chosen, time), 0.05).eval()


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def outline(kind, channels, outputs, **settings):
    """A network with a time and its last convolution, without memory."""
    with torch.device("meta"):
        net = build_backbone(channels, UNetSettings(kind=kind, attention=True, **settings), time=True)
        return net, net.head(outputs, 3)


@pytest.mark.parametrize(
    ("channels", "outputs", "settings", "published"),
    [
        (1, 4, {"width": 32, "depth": 4, "max_width": 256}, 14_290_660),
        (2, 2, {"width": 16, "depth": 3, "max_width": 16}, 150_850),
        (3, 4, {"width": 32, "depth": 5, "factors": (1, 2, 2, 4, 6), "blocks": 2}, 14_626_180),
        (2, 2, {"width": 32, "depth": 4, "max_width": 32}, 787_010),
    ],
    ids=["base of LIDC", "flow of LIDC", "base of REFUGE", "flow of REFUGE"],
)
def test_networks_of_flow_ssn(channels, outputs, settings, published):
    """The count of the public code, which holds two 1x1 convolutions and a norm for an image that is not given."""
    net, head = outline("adm", channels, outputs, **settings)
    w = settings["width"]
    of_an_image = (w + w) + 2 * w + (w * w + w)
    assert parameters(net, head) + of_an_image == published


@pytest.mark.parametrize(("width", "published"), [(128, 38_547_585), (256, 152_133_889)])
def test_network_of_atfm(width, published):
    """A state and a grey image go in, a velocity comes out."""
    net, head = outline("ddpm", 2, 1, width=width, depth=3, max_width=4 * width, blocks=2)
    assert parameters(net, head) == published


def test_network_of_karras():
    """Blocks, projections, attention and embedding of the public code, counted apart."""
    width, blocks = 64, 4
    net, head = outline("edm", 8, 1, width=width, depth=3, blocks=blocks)
    w, time = 2 * width, 4 * width

    def block(inputs, attention=False, resampled=False):
        own = 2 * inputs + 9 * inputs * w + w + time * w + w + 2 * w + 9 * w * w + w
        skip = inputs * w + w if inputs != w or resampled else 0
        return own + skip + attention * (2 * w + 3 * w * w + 3 * w + w * w + w)

    encoder = 9 * 8 * width + width + block(width) + (blocks - 1) * block(w)
    encoder += 2 * block(w, resampled=True) + blocks * block(w) + blocks * block(w, attention=True)
    encoder += 9 * 8 * w + w + 9 * w * w + w
    decoder = block(w, attention=True) + block(w) + blocks * block(2 * w) + block(2 * w, attention=True)
    decoder += 2 * block(w, resampled=True) + (2 * blocks + 1) * block(2 * w) + block(w + width)
    embedding = 2 * width * time + time + time * time + time
    assert parameters(net, head) == encoder + decoder + embedding + 2 * w + 9 * w + 1


@KINDS
@pytest.mark.parametrize("settings", [{}, {"depth": 1, "blocks": 1}, {"attention": False}])
@pytest.mark.parametrize("time", [False, True])
def test_gradient_reaches_every_parameter(kind, settings, time):
    net = make(kind, time, **settings)
    images = torch.randn(2, 2, 13, 10)
    out = net(images, torch.rand(2) if time else None)
    assert out.shape == (2, net.out_channels, 13, 10)
    out.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.ne(0).any())] == []


@KINDS
def test_time_changes_the_output(kind):
    net, images = make(kind, time=True), torch.randn(2, 2, 8, 8)
    at = [net(images, torch.full((2,), t)) for t in (0.0, 0.01, 0.5, 1.0)]
    for i, one in enumerate(at):
        assert all((one - other).abs().max() > 1e-4 for other in at[:i])
    mixed = net(images, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(mixed[0], at[0][0])
    torch.testing.assert_close(mixed[1], at[-1][1])
    assert not any("time" in name or "modulation" in name for name, _ in make(kind).named_parameters())


@KINDS
def test_images_of_a_batch_do_not_see_each_other(kind):
    net, images = make(kind), torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(net(images)[1:2], net(images[1:2]))


@KINDS
def test_layers_of_the_middle_are_named(kind):
    net = make(kind)
    inner, outer = net.innermost_parts(1), net.innermost_parts(3)
    assert parameters(*inner) < parameters(*outer) <= parameters(net)
    assert not set(map(id, net.encoder_parts())) & set(map(id, net.decoder))


def test_an_adm_starts_as_its_skip_connections():
    net = ADM(2, UNetSettings(kind="adm", width=16, depth=2, attention=True), time=True)
    for block in net.modules():
        if isinstance(block, ResidualBlock):
            x = torch.randn(1, block.conv1.in_channels, 4, 4)
            torch.testing.assert_close(block(x, torch.randn(1, 64)), block.skip(block.resample(x)))
    assert not any(bool(p.ne(0).any()) for p in net.head(3, 1).parameters())
    assert net.head(3, 1).kernel_size == (3, 3)


def test_factors_give_the_channels_of_the_resolutions():
    for kind in ("unet", "adm", "ddpm"):
        net = build_backbone(2, UNetSettings(width=8, depth=3, factors=(1, 3, 2, 9), kind=kind))
        assert net.up_widths == (8, 24, 16)
    assert build_backbone(2, UNetSettings(width=8, depth=3, factors=(1, 3))).widths == (8, 24, 24)
    with pytest.raises(AmbisegError, match=r"backbone.factors are 1 or more, received \[1, 0\]"):
        build_backbone(2, UNetSettings(depth=2, factors=(1, 0)))
    assert build_backbone(2, UNetSettings(width=8, depth=3, factors=(1, 3), kind="phiseg")).widths == (
        8,
        24,
        24,
    )
    for kind in ("ncsnpp", "edm"):
        with pytest.raises(AmbisegError, match=f"the network {kind} has no setting factors"):
            build_backbone(2, UNetSettings(depth=2, factors=(1, 2), kind=kind))


def test_a_ddpm_has_no_dropout():
    with pytest.raises(AmbisegError, match="the network ddpm has no setting dropout"):
        DDPM(2, UNetSettings(kind="ddpm", dropout=0.1))


def test_standardised_weights_have_mean_0_and_variance_1():
    torch.manual_seed(0)
    conv, x = StandardisedConv(3, 4, 3, padding=1), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        conv.weight.mul_(7.0).add_(2.0)
    w = conv.weight.flatten(1)
    plain = ((w - w.mean(1, keepdim=True)) / w.std(1, correction=0, keepdim=True)).view_as(conv.weight)
    expected = functional.conv2d(x, plain, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)


def test_linear_attention_is_its_sum():
    """Every position gets the values of all, weighted by a softmax over positions, by one over channels."""
    torch.manual_seed(0)
    attention, (q, k, v) = LinearAttention(8), torch.randn(3, 1, 4, 32, 5)
    found = attention.mix(q, k, v)
    for head in range(4):
        a, b = q[0, head].softmax(0) / math.sqrt(32), k[0, head].softmax(1)
        expected = sum(v[0, head, :, n, None] * (b[:, n, None] * a).sum(0) for n in range(5))
        torch.testing.assert_close(found[0, head], expected)


def test_scaled_attention_keeps_the_variance_of_two_sums():
    attention, x = ScaledAttention(16), torch.randn(1, 16, 4, 4)
    torch.testing.assert_close(attention(x), (x + attention.out.bias[:, None, None]) * 0.5**0.5)
    assert attention.heads == 1


def test_the_input_is_convolved_before_it_is_halved():
    """Away from the border: the filter at every second position of the convolved image."""
    torch.manual_seed(0)
    step, x = ConvThenSmooth(2, 3), torch.randn(1, 2, 12, 12)
    convolved = functional.conv2d(x, step.weight, step.bias, padding=1)
    found, expected = step(x), Smooth(up=False)(convolved)
    assert found.shape == expected.shape
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_attention_is_where_the_public_code_has_it():
    """All blocks of the lowest level, the first in the middle, and the last of the decoder's lowest level."""
    net = EDM(2, UNetSettings(kind="edm", width=8, depth=3, blocks=2, attention=True))
    attended = [n for n, m in net.named_modules() if isinstance(m, ScaledAttention)]
    assert attended == [
        f"{place}.attention" for place in ("encoder.2.0", "encoder.2.1", "decoder.0.2", "middle.0")
    ]


def test_weights_start_as_in_the_public_code():
    """Uniform with variance ``2 gain^2/(inputs + outputs)``, counted with the size of the kernel; biases 0."""
    torch.manual_seed(0)
    net = EDM(2, UNetSettings(kind="edm", width=32, depth=2, blocks=1, attention=True), time=True)
    gains = {"conv2": 1e-5, "attention.out": 1e-5, "attention.qkv": 0.2**0.5}
    for name, layer in net.named_modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            gain = next((g for end, g in gains.items() if name.endswith(end)), 1.0)
            outputs, inputs, *kernel = layer.weight.shape
            bound = gain * (6 / ((inputs + outputs) * math.prod(kernel))) ** 0.5
            assert 0.99 * bound < float(layer.weight.detach().abs().max()) <= bound, name
            assert not layer.bias.any()
