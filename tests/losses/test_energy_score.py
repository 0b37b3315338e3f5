"""The energy score is GED but for a constant, is minimised by the true distribution, and depends on the
distribution, not on the list of masks."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from ambiseg import metrics
from ambiseg.labels import LabelSpace
from ambiseg.losses.energy_score import DISTANCES, energy_score, trained_score
from ambiseg.maskset import MaskSet
from ambiseg.overlap import pairwise_overlap

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(3)
KERNELS = pytest.mark.parametrize("kernel", list(DISTANCES))


def drawn(labels, count, seed, batch=3, size=(5, 7)):
    g = torch.Generator().manual_seed(seed)
    masks = torch.randint(labels.classes, (batch, count, *size), generator=g).to(torch.uint8)
    weights = torch.rand(batch, count, generator=g) + 0.1
    return MaskSet(masks, weights / weights.sum(1, keepdim=True), labels)


def soft(proposals):
    return proposals.labels.one_hot(proposals.masks, dim=2)


@pytest.mark.parametrize("labels", [BINARY, MULTI])
@pytest.mark.parametrize("kernel", ["iou", "dice"])
def test_hard_masks_give_the_distances_of_the_metrics(labels, kernel):
    proposals, truth = drawn(labels, 4, 0), drawn(labels, 3, 1)
    proposals.masks[0, :2] = 0  # two empty masks, and classes absent from both
    truth.masks[0, 0] = 0
    truth.masks[1][truth.masks[1] == 2] = 0
    proposals.masks[1][proposals.masks[1] == 2] = 1

    def distance(a, b):
        return 1 - getattr(pairwise_overlap(a.masks, b.masks, labels), kernel)().float()

    p, v = proposals.weights, truth.weights
    fit = torch.einsum("bm,bn,bmn->b", p, v, distance(proposals, truth))
    spread = torch.einsum("bm,bn,bmn->b", p, p, distance(proposals, proposals))
    found = energy_score(soft(proposals), p, truth, kernel)
    torch.testing.assert_close(found, 2 * fit - spread)


@pytest.mark.parametrize("labels", [BINARY, MULTI])
def test_it_is_ged_but_for_a_constant_of_the_annotations(labels):
    proposals, truth = drawn(labels, 4, 0), drawn(labels, 3, 1)
    within = energy_score(soft(truth), truth.weights, truth)  # 2 D - D of the annotations among themselves
    found = energy_score(soft(proposals), proposals.weights, truth) - within
    torch.testing.assert_close(found, metrics.ged(proposals, truth).float(), rtol=1e-5, atol=1e-6)


def test_the_jensen_shannon_distance_of_hard_masks_is_the_root_of_the_share_that_differs():
    proposals, truth = drawn(BINARY, 4, 0), drawn(BINARY, 3, 1)
    share = (proposals.masks[:, :, None] != truth.masks[:, None]).flatten(3).float().mean(3)
    found = DISTANCES["jensen-shannon"](soft(proposals), soft(truth), BINARY)
    torch.testing.assert_close(found, share.sqrt(), rtol=0, atol=2e-3)


def test_the_jensen_shannon_distance_is_that_of_the_divergences_to_the_mixture():
    a, b = (torch.rand(1, 1, 3, 5, 7).softmax(2) for _ in range(2))
    middle = ((a + b) / 2).log()
    nats = [functional.kl_div(middle, x, reduction="sum") for x in (a, b)]
    found = DISTANCES["jensen-shannon"](a, b, MULTI)
    assert found.item() == pytest.approx((sum(nats).item() / 2 / math.log(2) / 35) ** 0.5, abs=2e-3)


def test_at_every_scale_masks_of_whole_blocks_have_their_iou():
    proposals, truth = drawn(BINARY, 4, 0, size=(3, 2)), drawn(BINARY, 3, 1, size=(3, 2))
    large = [soft(x).repeat_interleave(8, 3).repeat_interleave(8, 4) for x in (proposals, truth)]
    found = DISTANCES["scales"](*large, BINARY)
    torch.testing.assert_close(
        found, 1 - pairwise_overlap(proposals.masks, truth.masks, BINARY).iou().float()
    )


def test_a_near_miss_is_nearer_than_a_far_one_at_coarse_scales_only():
    masks = torch.zeros(1, 3, 1, 32, 32)
    for i, left in enumerate((0, 4, 24)):
        masks[0, i, 0, :4, left : left + 4] = 1
    near, far = DISTANCES["scales"](masks[:, :1], masks[:, 1:], BINARY)[0, 0]
    assert near < far - 0.1
    near, far = DISTANCES["iou"](masks[:, :1], masks[:, 1:], BINARY)[0, 0]
    assert near == far == 1


@KERNELS
@pytest.mark.parametrize("labels", [BINARY, MULTI])
def test_distances_are_symmetric(labels, kernel):
    a, b = (labels.probabilities(torch.randn(2, n, labels.channels, 9, 10), dim=2) for n in (3, 4))
    there, back = DISTANCES[kernel](a, b, labels), DISTANCES[kernel](b, a, labels)
    torch.testing.assert_close(there, back.mT)
    assert (there > 0).all() and (there < 1).all()


def test_one_mask_for_many_gains_by_going_soft():
    """One proposal for many masks: their mean scores better than the same once decided, for it stands for a
    distribution."""
    truth = drawn(BINARY, 12, 1)
    one = torch.ones(3, 1)
    mean = (soft(truth) * truth.weights[:, :, None, None, None]).sum(1, keepdim=True)
    assert (energy_score(mean, one, truth) < energy_score((mean > 0.5).float(), one, truth)).all()


@KERNELS
@pytest.mark.parametrize("labels", [BINARY, MULTI])
def test_the_true_law_has_the_best_score(labels, kernel):
    """Against many other distributions over the same masks, those that move a little of its weight among them."""
    truth = drawn(labels, 4, 1)
    masks = soft(truth)
    best = energy_score(masks, truth.weights, truth, kernel)
    g = torch.Generator().manual_seed(3)
    for _ in range(30):
        other = torch.rand(3, 4, generator=g)
        for share in (1.0, 0.1):
            mixed = (1 - share) * truth.weights + share * other / other.sum(1, keepdim=True)
            assert (energy_score(masks, mixed, truth, kernel) >= best - 1e-6).all()


@pytest.mark.parametrize("labels", [BINARY, MULTI])
def test_void_pixels_count_for_nothing(labels):
    proposals, truth = drawn(labels, 4, 0), drawn(labels, 3, 1)
    masks = soft(proposals)
    void = torch.rand(3, 1, 5, 7, generator=torch.Generator().manual_seed(2)) < 0.3
    marked = replace(truth, masks=truth.masks.masked_fill(void, labels.void))
    changed = masks.masked_fill(void[:, :, None], 0.3)
    for kernel in DISTANCES:
        torch.testing.assert_close(
            energy_score(masks, proposals.weights, marked, kernel),
            energy_score(changed, proposals.weights, marked, kernel),
        )


@KERNELS
def test_a_mask_split_into_two_of_half_the_weight_scores_alike(kernel):
    truth = drawn(BINARY, 3, 1)
    masks, weights = torch.rand(3, 2, 1, 5, 7), torch.tensor([[0.3, 0.7]] * 3)
    split = torch.cat([masks, masks[:, :1]], 1), torch.tensor([[0.1, 0.7, 0.2]] * 3)
    torch.testing.assert_close(
        energy_score(masks, weights, truth, kernel), energy_score(*split, truth, kernel)
    )


@KERNELS
def test_gradients_of_single_draws_average_to_that_of_all_annotations(kernel):
    truth = drawn(BINARY, 3, 1)
    masks = torch.rand(3, 4, 1, 5, 7, requires_grad=True)
    chance = torch.randn(3, 4, requires_grad=True)

    def gradients(annotations, share):
        return torch.autograd.grad(
            (share * energy_score(masks, chance.softmax(1), annotations, kernel)).sum(), [masks, chance]
        )

    whole = gradients(truth, torch.ones(3))
    ones = [
        gradients(replace(truth.gather(torch.full((3, 1), i)), weights=torch.ones(3, 1)), truth.weights[:, i])
        for i in range(3)
    ]
    for all_of_them, *draws in zip(whole, *ones, strict=True):
        rounding = 1e-3 * all_of_them.abs().max().item()
        torch.testing.assert_close(all_of_them, sum(draws), rtol=1e-4, atol=rounding)


def test_draws_of_laws_have_the_score_of_their_mixture_on_average():
    """Two distributions over two masks each: all pairs of draws with their chances, against the exact mixture."""
    truth, pool = drawn(BINARY, 3, 1), soft(drawn(BINARY, 4, 0))
    pi, first, second = torch.tensor([[0.3, 0.7]] * 3), torch.tensor([0.2, 0.8]), torch.tensor([0.6, 0.4])
    mixture = torch.cat([0.3 * first, 0.7 * second]).expand(3, -1)
    expected = torch.zeros(3)
    for i, j, k, n in itertools.product(range(2), repeat=4):
        masks = pool[:, [i, j, 2 + k, 2 + n]]
        chance = first[i] * first[j] * second[k] * second[n]
        expected += chance * energy_score(masks, pi.repeat_interleave(2, 1) / 2, truth, draws=2)
    torch.testing.assert_close(expected, energy_score(pool, mixture, truth))


@KERNELS
def test_descent_finds_the_true_masks_and_weights(kernel):
    """From three starts, which do not see each other."""
    torch.manual_seed(0)
    rows = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 1, 1, 1]])
    truth = MaskSet(
        rows.to(torch.uint8)[None, :, None].repeat(3, 1, 1, 1), torch.tensor([[0.5, 0.3, 0.2]] * 3), BINARY
    )
    logits = torch.randn(3, 8, 1, 1, 8, requires_grad=True)
    chance = torch.zeros(3, 8, requires_grad=True)
    optimiser = torch.optim.Adam([logits, chance], 0.1)
    for _ in range(1500):
        optimiser.zero_grad()
        energy_score(logits.sigmoid(), chance.softmax(1), truth, kernel).sum().backward()
        optimiser.step()
    found = MaskSet.from_probabilities(logits.detach().sigmoid(), BINARY, chance.detach().softmax(1))
    found = found.hard().merge_identical()
    assert metrics.ged(found, truth).max().item() < 1e-3
    for masks, weights in zip(found.masks, found.weights, strict=True):
        kept = {tuple(mask.flatten().tolist()) for mask in masks[weights > 0.01]}
        assert kept == {tuple(row.tolist()) for row in rows}


@KERNELS
@pytest.mark.parametrize("labels", [BINARY, MULTI])
def test_weights_learn_from_decided_masks_and_masks_from_the_soft_score_at_their_shares(labels, kernel):
    truth, masks = drawn(labels, 3, 0), labels.probabilities(torch.randn(3, 4, labels.channels, 5, 7), dim=2)
    masks.requires_grad_()
    logits = torch.randn(3, 4, requires_grad=True)
    shares = torch.rand(3, 4).softmax(1)
    decided = labels.one_hot(labels.decide(masks.detach(), dim=2), dim=2)
    found = trained_score(masks, logits.softmax(1), shares, truth, kernel=kernel)
    weights_only = energy_score(decided, logits.softmax(1), truth, kernel)
    torch.testing.assert_close(found, weights_only)
    of_masks, of_logits = torch.autograd.grad(found.sum(), (masks, logits))
    torch.testing.assert_close(of_logits, torch.autograd.grad(weights_only.sum(), logits)[0])
    soft_score = energy_score(masks, shares, truth, kernel).sum()
    torch.testing.assert_close(of_masks, torch.autograd.grad(soft_score, masks)[0])


def test_a_blurred_mask_that_is_empty_once_decided_loses_probability():
    """Between two annotations it has the better soft score."""
    truth = MaskSet(torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 1]]]), torch.tensor([[0.5, 0.5]]), BINARY)
    masks = torch.tensor([[[[0.45] * 4], [[1.0, 1, 0, 0]]]])
    logits = torch.zeros(1, 2, requires_grad=True)
    weights = logits.softmax(1)
    (gain,) = torch.autograd.grad(
        trained_score(masks, weights, weights, truth).sum(), logits, retain_graph=True
    )
    (of_soft,) = torch.autograd.grad(energy_score(masks, weights, truth).sum(), logits)
    assert gain[0, 1] < 0 < gain[0, 0]
    assert of_soft[0, 0] < 0 < of_soft[0, 1]


@KERNELS
def test_degenerate_sets_have_finite_scores_and_gradients(kernel):
    empty = MaskSet(torch.zeros(1, 2, 4, 4, dtype=torch.uint8), torch.tensor([[0.5, 0.5]]), BINARY)
    for masks, weights in (
        (torch.zeros(1, 1, 1, 4, 4), [[1.0]]),
        (torch.zeros(1, 3, 1, 4, 4), [[1.0, 0.0, 0.0]]),
        (torch.ones(1, 3, 1, 4, 4), [[0.2, 0.3, 0.5]]),
        (torch.full((1, 2, 1, 4, 4), 1e-8), [[0.5, 0.5]]),
    ):
        m, p = masks.requires_grad_(), torch.tensor(weights, requires_grad=True)
        score = energy_score(m, p, empty, kernel)
        score.sum().backward()
        assert torch.isfinite(score).all()
        assert torch.isfinite(m.grad).all() and torch.isfinite(p.grad).all()
    assert energy_score(torch.zeros(1, 1, 1, 4, 4), torch.ones(1, 1), empty, kernel).item() == 0
