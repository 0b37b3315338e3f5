"""Pairwise mask losses equal per-pair references, vanish for perfect proposals and never look at void."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ambiseg.labels import LabelSpace
from ambiseg.losses import mask_losses as losses
from ambiseg.losses.mask_losses import DICE_SMOOTHING, pairwise_mask_loss

KINDS = ["mse", "signed-mse", "dice", "dice-focal"]
SPACES = [LabelSpace.binary(), LabelSpace.of_classes(4)]


def example(labels, void=0.0, seed=0, shape=(5, 7)):
    """Logits ``(2, 3, C, *S)`` and masks ``(2, 4, *S)`` with a share of void pixels."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 3, labels.channels, *shape, generator=g)
    masks = torch.randint(labels.classes, (2, 4, *shape), generator=g).to(torch.uint8)
    hidden = torch.rand(masks.shape, generator=g) < void
    return logits, masks.masked_fill(hidden, labels.void)


def reference(kind, logits, mask, labels):
    """Loss of one proposal ``(C, *S)`` against one mask ``(*S)``: void pixels cut out, then the textbook."""
    seen = mask != labels.void
    z, y = logits[:, seen].double(), mask[seen].long()
    if labels.is_binary:
        m = z.sigmoid()
        target = y[None].double()
        chosen = torch.where(y == 1, m[0], 1 - m[0])
        log_chosen = torch.where(y == 1, functional.logsigmoid(z[0]), functional.logsigmoid(-z[0]))
    else:
        m = z.softmax(0)
        target = functional.one_hot(y, labels.classes).T.double()
        chosen = m.gather(0, y[None])[0]
        log_chosen = z.log_softmax(0).gather(0, y[None])[0]
    if kind == "mse":
        return functional.mse_loss(m, target)
    if kind == "signed-mse":
        return functional.mse_loss(z, 2 * target - 1)
    s = DICE_SMOOTHING
    dice = sum(
        1 - (2 * (a * b).sum() + s) / (a.sum() + b.sum() + s) for a, b in zip(m, target, strict=True)
    ) / len(m)
    return dice if kind == "dice" else dice + ((1 - chosen) ** 2 * -log_chosen).mean()


@pytest.mark.parametrize("labels", SPACES, ids=["binary", "multi-class"])
@pytest.mark.parametrize("void", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_equals_its_reference(kind, void, labels):
    logits, masks = example(labels, void)
    pairs = pairwise_mask_loss(kind, logits, masks, labels)
    assert pairs.shape == (2, 3, 4) and pairs.dtype == torch.float32
    for b in range(2):
        for k in range(3):
            for i in range(4):
                expected = reference(kind, logits[b, k], masks[b, i], labels)
                assert float(pairs[b, k, i]) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("labels", SPACES, ids=["binary", "multi-class"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_those_of_the_reference(kind, labels):
    logits, masks = example(labels, 0.2)
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    pairwise_mask_loss(kind, one, masks, labels).sum().backward()
    sum(
        reference(kind, other[b, k], masks[b, i], labels) for b in (0, 1) for k in range(3) for i in range(4)
    ).backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("labels", SPACES, ids=["binary", "multi-class"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_images_at_a_time_change_nothing(kind, labels, monkeypatch):
    logits, masks = example(labels, void=0.3)
    found = []
    for in_cache in (1, losses.VALUES_IN_CACHE):
        monkeypatch.setattr(losses, "VALUES_IN_CACHE", in_cache)
        leaf = logits.clone().requires_grad_()
        pairs = pairwise_mask_loss(kind, leaf, masks, labels)
        pairs.square().sum().backward()
        found.append((pairs.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("labels", SPACES, ids=["binary", "multi-class"])
@pytest.mark.parametrize("kind", KINDS)
def test_void_pixels_are_not_seen(kind, labels):
    logits, masks = example(labels)
    masks[..., 2:, :3] = labels.void
    changed = logits.clone()
    changed[..., 2:, :3] = 50 * torch.randn_like(changed[..., 2:, :3])
    logits.requires_grad_()
    loss = pairwise_mask_loss(kind, logits, masks, labels)
    torch.testing.assert_close(pairwise_mask_loss(kind, changed, masks, labels), loss.detach())
    loss.sum().backward()
    assert (logits.grad[..., 2:, :3] == 0).all() and (logits.grad[..., :2, :] != 0).any()


@pytest.mark.parametrize("labels", SPACES, ids=["binary", "multi-class"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_confident_proposal_has_no_loss(kind, labels):
    """Also where mask and proposal are empty; any other mask has a larger one."""
    masks = example(labels)[1]
    masks[:, 0] = 0
    sign = 2 * labels.one_hot(masks, dim=2) - 1
    loss = pairwise_mask_loss(kind, (1 if kind == "signed-mse" else 40) * sign, masks, labels)
    own = loss.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(own, torch.zeros_like(own), atol=1e-5, rtol=0)
    assert (loss + torch.eye(4) > 0.01).all()


@pytest.mark.parametrize("labels", SPACES, ids=["binary", "multi-class"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_void_and_extreme_logits_stay_finite(kind, labels):
    logits, masks = example(labels)
    nothing = torch.full_like(masks, labels.void)
    assert torch.isfinite(pairwise_mask_loss(kind, logits, nothing, labels)).all()
    extreme = (1e4 * logits).requires_grad_()
    loss = pairwise_mask_loss(kind, extreme, masks, labels)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(extreme.grad).all()


def test_any_number_of_spatial_axes():
    labels = LabelSpace.binary()
    logits, masks = example(labels, shape=(3, 4, 5))
    flat = pairwise_mask_loss("dice-focal", logits.flatten(3), masks.flatten(2), labels)
    torch.testing.assert_close(pairwise_mask_loss("dice-focal", logits, masks, labels), flat)
