"""PixelSeg: its likelihood is a distribution, samples follow it, what is cached while drawing is what a whole pass
says, and small masks are the most frequent classes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from ambiseg import memory_budget
from ambiseg.engine.presets import resolve
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build
from ambiseg.methods.pixelseg import PixelSegSettings
from ambiseg.methods.pixelseg.model import PixelSeg
from ambiseg.methods.pixelseg.resolution import reduced, smoothed
from ambiseg.networks.pixelcnn import GatedPixelCNN, PlainPixelCNN
from ambiseg.networks.settings import UNetSettings
from model_helpers import perturbed

BINARY, MULTI, TWO = LabelSpace.binary(), LabelSpace.of_classes(3), LabelSpace(softmax=True)
SMALL = UNetSettings(width=8, depth=2)
TINY = {"width": 4, "layers": 2, "kernel": 3, "samples": 3}
NETWORKS = {"gated": GatedPixelCNN, "plain": PlainPixelCNN}
EACH_NETWORK = pytest.mark.parametrize("network", NETWORKS)


def make(labels=BINARY, **settings):
    torch.manual_seed(0)
    return perturbed(PixelSeg(3, labels, SMALL, PixelSegSettings(**{**TINY, **settings}))).eval()


def pixelcnn(network, inputs=2, outputs=3, layers=3):
    torch.manual_seed(0)
    net = perturbed(NETWORKS[network](inputs, 2, outputs, 4, layers, 5), 0.2)
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.add_(torch.rand_like(buffer))
    return net.eval()


def all_maps(labels, height, width):
    maps = itertools.product(range(labels.classes), repeat=height * width)
    return torch.tensor(list(maps), dtype=torch.uint8).view(-1, height, width)


# -- the network ---------------------------------------------------------------------------------------------


@EACH_NETWORK
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (4, 6)])
def test_what_is_cached_while_drawing_is_what_a_whole_pass_says(network, size):
    net, features = pixelcnn(network), torch.randn(3, 2, *size)
    values = torch.randn(3, 2, *size)
    drawn, logits = net.sample(features, lambda logits, row, column: values[:, :, row, column])
    assert torch.equal(drawn, values)
    torch.testing.assert_close(logits, net(values, features))


@EACH_NETWORK
def test_a_pixel_depends_on_earlier_pixels_only(network):
    net, features = pixelcnn(network), torch.randn(1, 2, 5, 6)
    seen = torch.randn(1, 2, 5, 6)
    order = torch.arange(30).view(5, 6)
    before = net(seen, features)
    for i, j in ((0, 0), (2, 3), (4, 5)):
        other = seen.clone()
        other[:, :, i, j] += 1
        changed = (net(other, features) != before).any(1)[0]
        assert not bool(changed[order <= order[i, j]].any())
        assert bool(changed.any()) == ((i, j) != (4, 5))


def test_only_plain_layers_have_a_blind_spot():
    features, seen = torch.randn(1, 2, 3, 12), torch.randn(1, 2, 3, 12)
    other = seen.clone()
    other[:, :, 1, 8] += 1  # above (2, 3), further right than the kernel's two columns
    for network, blind in (("plain", True), ("gated", False)):
        net = pixelcnn(network)
        same = torch.equal(net(other, features)[:, :, 2, 3], net(seen, features)[:, :, 2, 3])
        assert same == blind, network


def test_plain_layers_are_masked_convolutions_with_normalisation():
    """Against a convolution with a masked kernel, written out."""
    net, features = pixelcnn("plain"), torch.randn(2, 2, 4, 5)
    seen = h = torch.randn(2, 2, 4, 5)
    for layer in net.layers:
        kernel = torch.zeros(4, h.shape[1], 5, 5)
        kernel[:, :, :2] = layer.upper.weight
        kernel[:, :, 2, : layer.left.weight.shape[3]] = layer.left.weight[:, :, 0]
        h = layer.norm(functional.conv2d(h, kernel, padding=2)).relu()
    assert not bool(kernel[:, :, 2, 3:].any() or kernel[:, :, 3:].any())
    expected = functional.conv2d(torch.cat([h, features], 1), net.out.weight, net.out.bias)
    torch.testing.assert_close(net(seen, features), expected)


def test_a_pixelcnn_with_an_even_kernel_is_refused():
    for wrong in ({"kernel": 4}, {"kernel": 1}, {"layers": 0}, {"width": 0}):
        with pytest.raises(AmbisegError, match="PixelCNN"):
            make(**wrong)


# -- the likelihood ------------------------------------------------------------------------------------------


@EACH_NETWORK
@pytest.mark.parametrize("labels", [BINARY, MULTI, TWO], ids=["binary", "multi-class", "two-channel"])
def test_likelihoods_of_all_small_masks_sum_to_one(network, labels):
    model, image, maps = make(labels, network=network), torch.randn(1, 3, 7, 8), all_maps(labels, 2, 2)
    found = model.log_prob_of_small(image.expand(len(maps), -1, -1, -1), maps).exp()
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert float(found.std()) > 0.1 / len(maps)


def test_at_full_resolution_the_likelihood_of_label_maps_is_exact():
    model, image, maps = make(reduction=1), torch.randn(1, 3, 2, 2), all_maps(BINARY, 2, 2)
    images = image.expand(len(maps), -1, -1, -1)
    found = model.log_prob(images, maps)
    assert torch.equal(found, model.log_prob_of_small(images, maps))
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("refinement", ["features", "logits"])
def test_below_full_resolution_it_is_a_lower_bound(refinement):
    """Of the sum over all small masks, written out."""
    model, image = make(reduction=2, refinement=refinement), torch.randn(1, 3, 2, 3)
    maps, small = all_maps(BINARY, 2, 3), all_maps(BINARY, 1, 2)
    bound = model.log_prob(image.expand(len(maps), -1, -1, -1), maps).exp()
    chances = model.log_prob_of_small(image.expand(len(small), -1, -1, -1), small).exp()
    _, full = model.features(image)
    seen = model.seen.one_hot(small, dim=1)
    logits = model._small_logits(small, model.features(image)[0].expand(len(small), -1, -1, -1))
    fine = model.refine(full, torch.zeros(len(small), dtype=torch.long), seen, logits)[:, 0].sigmoid()
    each = torch.where(maps[:, None] == 1, fine, 1 - fine).detach().flatten(2).prod(2)
    exact = (each * chances).sum(1)
    assert float(exact.sum()) == pytest.approx(1, abs=1e-5)
    assert bool((bound < exact).all()) and bool((bound > 0).all())


def test_the_loss_is_minus_the_likelihood_per_pixel():
    """All annotations count by their weights; in training one is drawn by its weight."""
    model, images = make(reduction=1), torch.randn(2, 3, 4, 5)
    masks = torch.randint(2, (2, 2, 4, 5)).to(torch.uint8)
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    found = model.loss(images, MaskSet(masks, weights, BINARY))["loss"]
    nats = torch.stack([model.log_prob(images, masks[:, k]) for k in range(2)], 1)
    torch.testing.assert_close(found, -(nats * weights).sum() / (2 * 20))
    model.train()
    drawn = [model.loss(images, MaskSet(masks, weights, BINARY))["loss"].detach() for _ in range(40)]
    away = (torch.stack(drawn)[:, None] + (nats[0] + nats[1, 0]) / (2 * 20)).abs()
    assert float(away.amin(1).max()) < 1e-5 and set(away.argmin(1).tolist()) == {0, 1}


def test_weights_of_the_foreground_are_those_of_pytorch():
    masks, images = torch.randint(2, (2, 1, 4, 4)).to(torch.uint8), torch.randn(2, 3, 4, 4)
    model = make(TWO, reduction=1, foreground_weight=3.0)
    found = model.loss(images, MaskSet.uniform(masks, BINARY))["loss"]
    logits = model._small_logits(masks[:, 0], model.features(images)[0])
    torch.testing.assert_close(
        found, functional.cross_entropy(logits, masks[:, 0].long(), torch.tensor([1.0, 3.0]))
    )


# -- samples -------------------------------------------------------------------------------------------------


@EACH_NETWORK
def test_samples_of_each_image_come_as_often_as_its_likelihood_says(network):
    model, images, maps = make(network=network), torch.randn(2, 3, 5, 8), all_maps(BINARY, 2, 2)
    count = 10_000
    low, _ = model.features(images)
    small, _ = model._drawn(low, count, torch.Generator().manual_seed(0))
    codes = (small.flatten(2).long() * torch.tensor([8, 4, 2, 1])).sum(2)
    for image, code in zip(images, codes, strict=True):
        expected = model.log_prob_of_small(image.expand(16, -1, -1, -1), maps).exp()
        share = torch.bincount(code, minlength=16) / count
        assert float((share - expected).abs().max()) < 5 * 0.5 / count**0.5


def test_samples_do_not_depend_on_the_parts_of_the_refinement(monkeypatch):
    model, images = make(MULTI), torch.randn(2, 3, 9, 10)

    def predicted():
        return model.predict(images, 5, torch.Generator().manual_seed(3)).probabilities

    whole = predicted()
    with monkeypatch.context() as patch:
        patch.setattr(
            "ambiseg.methods.pixelseg.model.part_sizes",
            lambda count, size: [count] if size < 2 * 2 * 8 * 90 else memory_budget.part_sizes(count, 1, 2),
        )
        torch.testing.assert_close(predicted(), whole)


# -- resolutions ---------------------------------------------------------------------------------------------


def test_small_masks_have_the_most_frequent_class():
    """Against loops, with void and borders that do not divide."""
    masks = torch.randint(4, (3, 7, 10), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    masks[masks == 3] = 255
    masks[0, :4, :4] = 255
    found = reduced(masks, 4, MULTI)
    assert found.shape == (3, 2, 3) and int(found[0, 0, 0]) == 255
    for n, i, j in itertools.product(range(3), range(2), range(3)):
        cell = masks[n, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten().tolist()
        counts = [cell.count(c) for c in range(3)]
        assert int(found[n, i, j]) == (counts.index(max(counts)) if max(counts) else 255)


def test_smoothing_closes_holes_and_takes_medians():
    """Against loops: dilation, erosion, median of 3x3 pixels."""
    masks = (torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0)) > 0.6).to(torch.uint8)

    def over(maps, pad, choose):
        padded = functional.pad(maps, (1, 1, 1, 1), value=pad)
        shifted = [padded[..., i : i + 6, j : j + 7] for i in range(3) for j in range(3)]
        return choose(torch.stack(shifted))

    closed = over(over(masks, 0, lambda x: x.amax(0)), 1, lambda x: x.amin(0))
    expected = over(closed, 0, lambda x: x.median(0).values)
    assert torch.equal(smoothed(masks, BINARY), expected)


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_the_public_code_as_a_whole_draws_masks(labels):
    _, _, settings = resolve(METHODS["pixelseg"], "paper", settings={**TINY, "network": "plain"})
    model = build("pixelseg", 3, labels, SMALL, settings)
    images, masks = torch.randn(2, 3, 7, 9), torch.randint(2, (2, 1, 7, 9)).to(torch.uint8)
    losses = model.loss(images, MaskSet.uniform(masks, labels))
    losses["loss"].backward()
    assert model.pixelcnn.out.weight.grad is not None and set(losses) == {"loss", "small", "refined"}
    found = model.eval().predict(images, generator=torch.Generator().manual_seed(0)).validate()
    assert found.masks.shape == (2, 3, 7, 9) and found.probabilities is None


def test_the_networks_are_those_of_the_public_code():
    """Two convolutions per resolution; eight causal ones of 7x7; three of 1x1."""

    def double(inputs, middle, outputs):
        return 9 * (inputs * middle + middle * outputs) + 3 * (middle + outputs)

    train_, backbone, settings = resolve(METHODS["pixelseg"], "lidc")
    with torch.device("meta"):
        labels = BINARY.with_binary_channels(train_.binary_channels)
        model = build("pixelseg", 1, labels, backbone, settings)
    found = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    down = [(1, 32, 32), (32, 64, 64), (64, 128, 128), (128, 192, 192), (192, 96, 96)]
    up = [(192 + 96, 144, 96), (128 + 96, 112, 64), (64 + 64, 64, 32), (32 + 32, 32, 32)]
    kernels, masked = 49 * (64 + 7 * 64 * 64), 25 * 64 + 24 * 7 * 64 * 64
    expected = {
        "g": sum(double(*sizes) for sizes in (*down, *up)),
        "pixelcnn": kernels - masked + 8 * 2 * 64 + (64 + 32) * 2 + 2,
        "refine": 32 * 2 + 2 + 4 * 2 + 2,
    }
    assert found == expected and sum(found.values()) + masked == 3_409_710


def test_settings_out_of_their_range_are_refused():
    for wrong in (
        {"reduction": 3},
        {"reduction": 0},
        {"reduction": 128},
        {"samples": 0},
        {"foreground_weight": 0.0},
    ):
        with pytest.raises(AmbisegError, match=next(iter(wrong))):
            make(**wrong)
