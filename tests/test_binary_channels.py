"""Two classes in two channels with a softmax are the same as in one with a sigmoid, wherever the model has no state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ambiseg.distributions.monte_carlo import pairwise_cross_entropy
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.energy_score import DISTANCES
from ambiseg.losses.mask_losses import cross_entropy, cross_entropy_per_pixel, pairwise_mask_loss
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build
from ambiseg.methods.mode_proposals import EnergySettings
from ambiseg.methods.mode_proposals.energy import energy_loss
from ambiseg.methods.mose.model import pairwise_cost
from ambiseg.networks.settings import UNetSettings
from ambiseg.testing import CHANNELS, problem

ONE = LabelSpace.binary(ignore_value=200)
TWO = replace(ONE, softmax=True)
SMALL = UNetSettings(width=8, depth=2)


@pytest.fixture
def single(seed):
    """Logits ``(B, M, 1, H, W)`` of proposals."""
    return 3 * torch.randn(2, 4, 1, 5, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def annotations(seed):
    g = torch.Generator().manual_seed(seed + 1)
    masks = torch.randint(2, (2, 3, 5, 6), generator=g).to(torch.uint8)
    masks[torch.rand(masks.shape, generator=g) < 0.2] = ONE.void
    weights = torch.rand(2, 3, generator=g) + 0.1
    return MaskSet(masks, weights / weights.sum(1, keepdim=True), ONE)


def pairs(single, dim):
    """The same logits as differences of two."""
    common = torch.randn(single.shape, generator=torch.Generator().manual_seed(9))
    return [torch.cat([offset, single + offset], dim) for offset in (torch.zeros_like(single), common)]


def test_two_channels_have_the_probabilities_and_decisions_of_one(single):
    p = ONE.probabilities(single, dim=2)
    for logits in pairs(single, 2):
        both = TWO.probabilities(logits, dim=2)
        torch.testing.assert_close(both, ONE.all_classes(p, dim=2))
        torch.testing.assert_close(TWO.log_probabilities(logits, dim=2).exp(), both)
        assert torch.equal(TWO.all_classes(both, dim=2), both)
        for threshold in (0.3, 0.5, 0.9):
            wanted = ONE.decide(p, dim=2, threshold=threshold)
            assert torch.equal(TWO.decide(both, dim=2, threshold=threshold), wanted)
    torch.testing.assert_close(ONE.log_probabilities(single, dim=2), p.log())


def test_one_hot_form_and_what_is_near_it(annotations):
    masks = annotations.masks
    both = TWO.one_hot(masks, dim=2)
    assert both.shape[2] == TWO.channels == 2 and TWO.is_binary
    valid = ONE.valid(masks)
    assert torch.equal(both[:, :, 1:], ONE.one_hot(masks, dim=2)) and torch.equal(both.sum(2), valid.float())
    near = both + 0.2 * torch.randn(both.shape, generator=torch.Generator().manual_seed(2))
    share = TWO.normalized(near, dim=2)
    torch.testing.assert_close(share.sum(2), torch.ones_like(share[:, :, 0]))
    assert share.min() >= 0


def test_a_label_space_says_how_many_channels_it_has():
    assert LabelSpace.from_dict(TWO.to_dict()) == TWO and TWO.one_channel == ONE
    assert "softmax" not in ONE.to_dict(), "descriptions of before read and write the same"
    assert LabelSpace.of_classes(3).one_channel.channels == 3
    with pytest.raises(AmbisegError, match="softmax=True is for two classes, received 3"):
        replace(LabelSpace.of_classes(3), softmax=True)


def losses_of(logits, annotations, labels):
    """Every loss of logits ``(B, M, C, H, W)``."""
    masks = annotations.masks
    found = {kind: pairwise_mask_loss(kind, logits, masks, labels) for kind in ("mse", "dice", "dice-focal")}
    found |= {f"mose {kind}": pairwise_cost(kind, logits, masks, labels) for kind in ("iou", "cross-entropy")}
    found["pairs"] = pairwise_cross_entropy(logits, masks, labels)
    found["sum"] = cross_entropy(logits[:, 0], masks[:, 0], labels)
    found["mean"] = cross_entropy_per_pixel(logits[:, 0], masks[:, 0], labels)
    found["pixels"] = labels.cross_entropy(logits[:, 0], masks[:, 0])
    weights = torch.tensor([[0.5, 1.0, 0.0, -1.0]]).repeat(2, 1)
    for kernel in DISTANCES:
        settings = EnergySettings(kernel=kernel)
        found[f"energy {kernel}"] = energy_loss(
            labels.probabilities(logits, dim=2), annotations, weights, settings
        )
    return found


def test_losses_and_their_gradients_are_those_of_one_channel(single, annotations):
    single = single.requires_grad_()
    wanted = losses_of(single, annotations, ONE)
    for logits in pairs(single.detach(), 2):
        logits = logits.requires_grad_()
        for name, value in losses_of(logits, annotations, TWO).items():
            torch.testing.assert_close(
                value, wanted[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
            slope = torch.autograd.grad(value.sum(), logits)[0]
            expected = torch.autograd.grad(wanted[name].sum(), single, retain_graph=True)[0]
            expected = torch.cat([-expected, expected], 2)
            torch.testing.assert_close(
                slope, expected, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_the_squared_error_of_values_compares_each_channel(single, annotations):
    """Values in [-1, 1] are no logits: two channels of one mask are ``(-z, z)``."""
    z, masks = single.tanh(), annotations.masks
    masks = masks.masked_fill(~ONE.valid(masks), 1)
    wanted = pairwise_mask_loss("signed-mse", z, masks, ONE)
    torch.testing.assert_close(pairwise_mask_loss("signed-mse", torch.cat([-z, z], 2), masks, TWO), wanted)


def test_a_mask_set_has_one_channel(single):
    """So metrics, filters, pictures and files of predictions know of one form alone."""
    wanted = MaskSet.from_probabilities(ONE.probabilities(single, dim=2), ONE)
    for logits in pairs(single, 2):
        found = MaskSet.from_probabilities(TWO.probabilities(logits, dim=2), TWO)
        assert found.labels == ONE and torch.equal(found.masks, wanted.masks)
        torch.testing.assert_close(found.probabilities, wanted.probabilities)
        assert MaskSet.stack([found, wanted]).labels == ONE
        assert torch.equal(found.rethreshold(0.2).masks, wanted.rethreshold(0.2).masks)


def test_a_network_with_two_channels_can_be_every_network_with_one(annotations):
    images, modes = problem(ONE)
    _, small = torch.manual_seed(0), {"members": 1}
    one, two = (
        build("unet-ensemble", CHANNELS, labels, SMALL, METHODS["unet-ensemble"].settings(**small))
        for labels in (ONE, TWO)
    )
    state = {
        name: torch.cat([torch.zeros_like(value), value]) if ".h." in f".{name}" else value
        for name, value in one.state_dict().items()
    }
    two.load_state_dict(state)
    found, wanted = two.eval().predict(images), one.eval().predict(images)
    torch.testing.assert_close(found.probabilities, wanted.probabilities)
    single = modes.sample_one(torch.Generator().manual_seed(0))
    torch.testing.assert_close(two.loss(images, single)["loss"], one.loss(images, single)["loss"])
