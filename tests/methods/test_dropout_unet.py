"""Dropout U-Net: where dropout sits, and that it samples from the generator alone."""

from __future__ import annotations

import pytest
import torch

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.dropout_unet import DropoutUNetSettings
from ambiseg.methods.dropout_unet.model import DropoutUNet
from ambiseg.networks.settings import UNetSettings

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(4)


def make(labels=BINARY, depth=2, kind="unet", blocks=1, backbone_dropout=0.0, **settings):
    """A model whose residual branches are not zero, as they are after training."""
    torch.manual_seed(0)
    backbone = UNetSettings(width=8, depth=depth, kind=kind, blocks=blocks, dropout=backbone_dropout)
    model = DropoutUNet(3, labels, backbone, DropoutUNetSettings(**settings))
    for name, parameter in model.named_parameters():
        if name.endswith("conv2.weight"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def dropping(model):
    """Names of the blocks whose dropout has the method's share, by their place in the network."""
    return {n.removesuffix(".dropout") for n, m in model.g.named_modules() if getattr(m, "p", 0) == 0.5}


def test_dropout_is_in_the_innermost_levels_of_the_unet():
    found = dropping(make(depth=5, blocks=2, backbone_dropout=0.1))
    encoder = {f"encoder.{level}.{i}" for level in (2, 3, 4) for i in (0, 1)}
    decoder = {f"decoder.{level}.{i}" for level in (1, 2, 3) for i in (0, 1)}
    assert found == encoder | decoder | {"middle"}


def test_dropout_is_in_the_innermost_levels_of_ncsnpp():
    """Its decoder counts from the lowest resolution, with one block more; resampling blocks go with the level
    behind them."""
    found = dropping(make(depth=5, kind="ncsnpp"))
    encoder = {f"encoder.{level}.0" for level in (2, 3, 4)} | {f"down.{i}" for i in (1, 2, 3)}
    decoder = {f"decoder.{i}.{j}" for i in (0, 1, 2) for j in (0, 1)} | {"up.0", "up.1"}
    assert found == encoder | decoder | {"middle.0", "middle.1"}


def test_dropout_is_on_what_enters_the_innermost_blocks_of_phiseg():
    """Kohl et al. 2018, section 3.2: three blocks on each side; a block sees its input with half of it at 0."""
    model = make(depth=7, kind="phiseg")
    assert dropping(model) == {f"encoder.{i}" for i in (4, 5, 6)} | {f"decoder.{i}" for i in (3, 4, 5)}
    block, seen = model.g.encoder[5], []
    block[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with model._dropping():
        block(torch.ones(1, block[1].in_channels, 8, 8))
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("kind", ["unet", "ncsnpp", "phiseg"])
def test_a_shallow_network_has_it_everywhere(kind):
    model = make(depth=2, kind=kind, levels=9)
    assert all(m.p == 0.5 for m in model.modules() if isinstance(m, torch.nn.Dropout))


@pytest.mark.parametrize("training", [False, True])
def test_the_generator_decides_and_nothing_else_moves(training):
    model, images = make().train(training), torch.randn(2, 3, 16, 16)
    flags = [m.training for m in model.modules()]

    def sample(seed):
        torch.rand(1)
        before = torch.get_rng_state()
        found = model.predict(images, 5, torch.Generator().manual_seed(seed)).probabilities
        assert torch.equal(before, torch.get_rng_state())
        return found

    one, same, other = sample(1), sample(1), sample(2)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert all(not torch.equal(one[:, 0], one[:, k]) for k in range(1, 5))
    assert [m.training for m in model.modules()] == flags


def test_without_a_generator_the_global_seed_decides():
    model, images = make(), torch.randn(1, 3, 8, 8)
    torch.manual_seed(4)
    one, next_one = (model.predict(images, 3).probabilities for _ in range(2))
    torch.manual_seed(4)
    assert torch.equal(one, model.predict(images, 3).probabilities) and not torch.equal(one, next_one)


def test_an_error_leaves_flags_and_random_numbers_as_they_were():
    model = make()
    state = torch.get_rng_state()
    with pytest.raises(AmbisegError, match="channel"):
        model.predict(torch.zeros(1, 5, 8, 8), 2, torch.Generator())
    assert not any(m.training for m in model.modules()) and torch.equal(state, torch.get_rng_state())


def test_without_dropout_all_samples_are_one():
    """Also with dropout of the backbone itself, which is off when sampling."""
    found = make(depth=3, levels=1, dropout=0.0, backbone_dropout=0.3)
    images = torch.randn(2, 3, 8, 8)
    outer = [m for m in found.modules() if isinstance(m, torch.nn.Dropout) and m.p == 0.3]
    shares = found.predict(images, 4).probabilities
    assert outer and torch.equal(shares, shares[:, :1].expand_as(shares))


def test_more_samples_than_are_computed_at_once():
    found = make().predict(torch.randn(3, 3, 8, 8), 50, torch.Generator().manual_seed(0))
    assert found.masks.shape == (3, 50, 8, 8) and found.probabilities[0].unique(dim=0).shape[0] == 50


def test_a_share_of_one_half_drops_one_half():
    model = make(depth=2)
    layer, seen = model.dropouts[0], []
    layer.register_forward_hook(lambda module, args, out: seen.append((out == 0).float().mean()))
    model.predict(torch.randn(1, 3, 32, 32), 16, torch.Generator().manual_seed(0))
    assert float(seen[0]) == pytest.approx(0.5, abs=0.01)


def test_the_loss_is_the_mean_over_pixels_that_count():
    """Without dropout, one annotation: cross-entropy in nats per pixel by hand, void left out."""
    model, images = make(MULTI, dropout=0.0), torch.randn(2, 3, 8, 8)
    masks = torch.randint(0, 4, (2, 1, 8, 8)).to(torch.uint8)
    masks[0, 0, :3] = 255
    share = model(images).softmax(1).gather(1, masks.long().clamp(max=3)).log()[:, 0]
    expected = -torch.stack([row[m[0] != 255].mean() for row, m in zip(share, masks, strict=True)]).mean()
    torch.testing.assert_close(model.loss(images, MaskSet.uniform(masks, MULTI))["loss"], expected)


@pytest.mark.parametrize("settings", [{"dropout": 1.0}, {"dropout": -0.1}, {"levels": 0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(AmbisegError, match="received"):
        make(**settings)


def test_a_network_without_dropout_is_refused():
    """All its samples would be the same mask."""
    network = UNetSettings(width=8, depth=2, kind="ddpm")
    with pytest.raises(AmbisegError, match="the network ddpm has no layer of dropout"):
        DropoutUNet(1, LabelSpace.binary(), network, DropoutUNetSettings())
