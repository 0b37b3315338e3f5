"""M-heads: the oracle loss in its closed forms, heads that come apart, and one mask from each."""

from __future__ import annotations

import pytest
import torch

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.methods.m_heads import MHeadsSettings
from ambiseg.methods.m_heads.model import MHeads, oracle_loss
from ambiseg.networks.settings import UNetSettings
from model_helpers import train, two_masks_each

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(4)


def make(labels=BINARY, **settings):
    torch.manual_seed(0)
    return MHeads(3, labels, UNetSettings(width=8, depth=2), MHeadsSettings(**settings))


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
@pytest.mark.parametrize("heads", [1, 2, 5])
def test_the_loss_equals_a_plain_loop(labels, heads):
    model, images = make(labels, heads=heads, relaxation=0.3), torch.randn(3, 3, 8, 8)
    masks = torch.randint(0, labels.classes, (3, 1, 8, 8)).to(torch.uint8)
    masks[0, 0, 2:] = 255
    logits, expected = model(images).detach(), []
    for b in range(3):
        counted = 16 if b == 0 else 64
        each = [float(cross_entropy(z[None], masks[b], labels)) / counted for z in logits[b]]
        best = min(each)
        rest = [loss for loss in each if loss != best]
        expected.append(0.7 * best + 0.3 * sum(rest) / len(rest) if rest else best)
    found = model.loss(images, MaskSet.uniform(masks, labels))["loss"]
    assert float(found.detach()) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_the_ends_of_epsilon_are_winner_takes_all_and_the_mean():
    losses = torch.rand(7, 5)
    torch.testing.assert_close(oracle_loss(losses, 0.0), losses.min(1).values)
    torch.testing.assert_close(oracle_loss(losses, 4 / 5), losses.mean(1))


def test_gradient_of_every_head_has_its_weight():
    losses = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0]], requires_grad=True)
    oracle_loss(losses, 0.1).sum().backward()
    assert losses.grad[0].allclose(torch.tensor([0.05, 0.9, 0.05]))
    assert sorted(losses.grad[1].tolist()) == pytest.approx([0.05, 0.05, 0.9])


def test_no_two_heads_start_as_equals():
    heads = make(MULTI, heads=16).h.weight.view(16, -1)
    distance = torch.cdist(heads, heads) + 9 * torch.eye(16)
    assert float(distance.min()) > 0.1 * float(heads.norm(dim=1).mean())


def test_annotations_are_drawn_by_weight():
    """An absent mask is never drawn, one of weight 3/4 about three times of four."""
    model, images = make(heads=1), torch.randn(1, 3, 8, 8)
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8), torch.ones(8, 8)])[None].to(torch.uint8)
    masks[0, 2, :4] = 0
    found = MaskSet(masks, torch.tensor([[0.25, 0.75, 0.0]]), BINARY)
    with torch.no_grad():
        one = [
            float(model.loss(images, MaskSet.uniform(masks[:, k : k + 1], BINARY))["loss"]) for k in range(3)
        ]
        drawn = torch.tensor([float(model.loss(images, found)["loss"]) for _ in range(200)])
    first, second = (drawn.isclose(torch.tensor(one[k])) for k in range(2))
    assert bool((first ^ second).all()) and float(second.float().mean()) == pytest.approx(0.75, abs=0.12)


@pytest.mark.parametrize("asked, given", [(None, 5), (1, 1), (3, 3), (40, 5)])
def test_masks_are_those_of_the_first_heads(asked, given):
    model, images = make(heads=5).eval(), torch.randn(2, 3, 9, 7)
    found = model.predict(images, asked)
    assert found.masks.shape == (2, given, 9, 7) and found.weights.allclose(torch.tensor(1 / given))
    torch.testing.assert_close(found.probabilities, model(images).sigmoid()[:, :given])
    alone = torch.cat([model.predict(image[None], asked).probabilities for image in images])
    torch.testing.assert_close(alone, found.probabilities)


def test_two_masks_of_an_image_are_both_learnt():
    model, (images, annotations) = make(heads=4), two_masks_each()
    found = train(model, images, annotations, 80).predict(images).masks
    for k in range(2):
        assert bool(
            (found == annotations.masks[:, k : k + 1]).flatten(2).float().mean(2).amax(1).ge(0.95).all()
        )


@pytest.mark.parametrize("settings", [{"heads": 0}, {"relaxation": -0.1}, {"relaxation": 1.5}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(AmbisegError, match="received"):
        make(**settings)
