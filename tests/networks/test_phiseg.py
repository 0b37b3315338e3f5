"""The U-Net of PHiSeg and that of MONAI take any size; every network can be run in two parts and shows its
bottleneck."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.backbone import NETWORKS, build_backbone
from ambiseg.networks.encoder import encoder_like
from ambiseg.networks.phiseg import BatchNorm, PHiSegUNet
from ambiseg.networks.settings import BatchNormSettings, ConvolutionSettings, UNetSettings
from model_helpers import perturbed

KINDS = pytest.mark.parametrize("kind", NETWORKS)


def make(kind, seed=0, **settings):
    """A network in which no layer is zero, as after some training."""
    if kind == "monai":
        pytest.importorskip("monai")
    torch.manual_seed(seed)
    chosen = UNetSettings(**{"width": 4, "depth": 3, "kind": kind, **settings})
    return perturbed(build_backbone(2, chosen), 0.05)


@KINDS
@pytest.mark.parametrize("size", [(1, 1), (13, 21), (16, 1)])
def test_features_and_levels_of_any_size(kind, size):
    net = make(kind).eval()
    features, levels = net.features(torch.randn(2, 2, *size))
    assert features.shape == (2, net.out_channels, *size) and torch.isfinite(features).all()
    assert [level.shape[1] for level in levels] == list(net.widths) and len(levels) == net.depth
    heights = [level.shape[2] for level in levels]
    assert heights == [heights[-1] * 2 ** (net.depth - 1 - i) for i in range(net.depth)]


@KINDS
def test_the_way_up_can_be_cut_at_every_layer(kind):
    net, images = make(kind).eval(), torch.randn(2, 2, 13, 9)
    encoded, whole = net.encode(images), net(images)
    assert torch.equal(net.features(images)[0], whole)
    for layer in range(1, net.depth):
        part = net.decode(encoded, last=layer)
        assert part.shape[1] == net.up_widths[net.depth - 1 - layer]
        torch.testing.assert_close(net.decode(encoded, part, layer), whole)
        many = net.decode(encoded, part.repeat_interleave(3, 0), layer)
        torch.testing.assert_close(many, whole.repeat_interleave(3, 0))


@KINDS
def test_odd_sizes_are_those_of_the_image_with_repeated_borders(kind):
    net, images = make(kind).eval(), torch.randn(1, 2, 13, 10)
    extended = functional.pad(images, (0, 2, 0, 3), mode="replicate")
    torch.testing.assert_close(net(images), net(extended)[..., :13, :10])


@pytest.mark.parametrize("kind", ["phiseg", "monai"])
def test_gradient_reaches_every_parameter(kind):
    net = make(kind)
    net(torch.randn(2, 2, 8, 8)).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.ne(0).any())] == []


def test_the_network_of_the_paper_has_its_size():
    """Three convolutions without bias and three norms of two numbers per channel at seven levels down and six
    up: 9.2 M."""
    net = PHiSegUNet(1, UNetSettings(kind="phiseg", depth=7))
    assert net.widths == (32, 64, 128, 192, 192, 192, 192)
    down = list(zip((1, *net.widths), net.widths, strict=False))
    up = [(a + b, a) for a, b in zip(net.widths, net.widths[1:], strict=False)]
    expected = sum(9 * (i * o + 2 * o * o) + 6 * o for i, o in down + up)
    assert sum(p.numel() for p in net.parameters()) == expected == 9_236_256


def test_the_way_down_averages_and_the_way_up_is_bilinear():
    """With blocks that pass their first channels on, the decoder's input is the mean of 2x2 pixels,
    interpolated."""

    class First(torch.nn.Module):
        def forward(self, x):
            return x[:, :1]

    net, images = make("phiseg", depth=2), torch.randn(1, 2, 4, 6)
    net.encoder[0] = net.encoder[1] = net.decoder[0] = First()
    pooled = images[:, :1].view(1, 1, 2, 2, 3, 2).mean((3, 5))
    expected = functional.interpolate(pooled, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(images), expected)


def test_images_of_a_batch_see_each_other_in_training_only():
    net, images = make("phiseg"), torch.randn(3, 2, 8, 8)
    assert not torch.allclose(net(images)[:1], net(images[:1]))
    net.eval()
    torch.testing.assert_close(net(images)[1:2], net(images[1:2]))


def test_a_channel_of_one_value_is_normalised_by_running_statistics():
    norm = BatchNorm(3)
    norm.running_mean.fill_(1.0)
    norm.running_var.fill_(4.0)
    torch.testing.assert_close(norm(torch.full((1, 3, 1, 1), 5.0)), torch.full((1, 3, 1, 1), 2.0))
    assert torch.equal(norm.running_mean, torch.ones(3))
    net = make("phiseg")
    loss = net(torch.randn(1, 2, 3, 1)).sum()
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("kind", ["phiseg", "monai"])
def test_what_a_network_has_no_use_for_is_refused(kind):
    with pytest.raises(AmbisegError, match="no place for a time"):
        build_backbone(3, UNetSettings(kind=kind), time=True)
    with pytest.raises(AmbisegError, match="no setting attention"):
        build_backbone(3, UNetSettings(kind=kind, attention=True))
    with pytest.raises(AmbisegError, match="no setting blocks, received 2"):
        build_backbone(3, UNetSettings(kind=kind, blocks=2))
    with pytest.raises(AmbisegError, match=r"3 channel\(s\), but the model takes 2"):
        make(kind)(torch.zeros(1, 3, 8, 8))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(AmbisegError, match=r"pip install 'ambiseg\[monai\]'"):
        build_backbone(3, UNetSettings(kind="monai"))


def test_the_network_of_monai_has_three_resolutions_or_more():
    with pytest.raises(AmbisegError, match="depth 2"):
        build_backbone(3, UNetSettings(kind="monai", depth=2))


def test_freezing_asks_for_networks_it_knows():
    from ambiseg.labels import LabelSpace
    from ambiseg.methods import build

    settings = UNetSettings(width=4, depth=3, kind="phiseg")
    model = build("m-heads", 3, LabelSpace.binary(), settings)
    model.freeze("nothing")
    with pytest.raises(AmbisegError, match="PHiSegUNet has no encoder to freeze"):
        model.freeze("encoder")
    model.freeze("all-but-last")
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["h.weight", "h.bias"]


def test_convolutions_without_a_norm_have_a_bias():
    plain = make("phiseg", convolutions=ConvolutionSettings(norm=None))
    assert not any(isinstance(module, BatchNorm) for module in plain.modules())
    assert all(m.bias is not None for m in plain.modules() if isinstance(m, torch.nn.Conv2d))
    images = torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(plain(images)[:1], plain(images[:1]))


def test_batch_normalisation_takes_its_numbers_from_the_settings():
    chosen = ConvolutionSettings(norm=BatchNormSettings(eps=0.5, momentum=0.25), bias=True)
    net = make("phiseg", convolutions=chosen)
    norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.5, 0.25)}
    assert all(m.bias is not None for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    x = torch.full((1, norms[0].num_features, 1, 1), 2.0)
    torch.testing.assert_close(
        norms[0].eval()(x), 2 / 1.5**0.5 * norms[0].weight.view_as(x) + norms[0].bias.view_as(x)
    )


@pytest.mark.parametrize("norm", [None, BatchNormSettings()], ids=["plain", "batch"])
def test_the_encoder_alone_is_the_way_down_with_a_mean(norm):
    settings = UNetSettings(width=4, depth=3, kind="phiseg", convolutions=ConvolutionSettings(norm=norm))
    net, images = PHiSegUNet(2, settings).eval(), torch.randn(2, 2, 13, 9)
    encoder = encoder_like(2, settings).eval()
    encoder.load_state_dict({k: v for k, v in net.state_dict().items() if k.startswith("encoder")})
    torch.testing.assert_close(encoder(images), net.encode(images).levels[-1].mean((2, 3)))
    with pytest.raises(AmbisegError, match=r"3 channel\(s\), but the model takes 2"):
        encoder(torch.zeros(1, 3, 8, 8))
