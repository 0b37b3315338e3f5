"""Medians over areas leave mixtures alone and see past pixels that a minority gets wrong."""

from __future__ import annotations

import pytest
import torch

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.mode_probabilities.areas import area_medians
from ambiseg.mode_probabilities.velocity_decomposition import decompose_mean, encode

SPACES = [LabelSpace.binary(), LabelSpace.of_classes(3)]


def modes_of(labels, seed=0, count=4):
    """Masks of few large areas, in two images."""
    g = torch.Generator().manual_seed(seed)
    blocks = torch.randint(labels.classes, (2, count, 2, 3), generator=g).to(torch.uint8)
    weights = torch.rand(2, count, generator=g) + 0.1
    return MaskSet(
        blocks.repeat_interleave(7, 2).repeat_interleave(5, 3), weights / weights.sum(1, keepdim=True), labels
    )


def mixture(modes):
    return torch.einsum("bm,bmchw->bchw", modes.weights, encode(modes.masks, modes.labels)).double()


@pytest.mark.parametrize("labels", SPACES)
def test_a_mixture_of_the_modes_is_its_own_median(labels):
    modes = modes_of(labels)
    fields = mixture(modes)[:, None]
    assert torch.equal(area_medians(modes, fields), fields)


@pytest.mark.parametrize("labels", SPACES)
def test_it_is_the_median_of_the_pixels_on_which_no_mode_changes(labels):
    modes = modes_of(labels)
    fields = torch.randn(2, 3, labels.channels, 14, 15, generator=torch.Generator().manual_seed(1))
    found = area_medians(modes, fields)
    for b in range(2):
        kinds = modes.masks[b].flatten(1).T.tolist()
        for kind in {tuple(k) for k in kinds}:
            at = torch.tensor([tuple(k) == kind for k in kinds])
            expected = fields[b].flatten(2)[..., at].quantile(0.5, dim=-1)
            torch.testing.assert_close(
                found[b].flatten(2)[..., at], expected[..., None].expand(-1, -1, int(at.sum()))
            )


def test_masks_that_are_not_there_divide_nothing():
    modes = modes_of(SPACES[0])
    fields = torch.randn(2, 1, 1, 14, 15)
    padded = MaskSet(
        torch.cat([modes.masks, torch.randint(2, (2, 1, 14, 15), dtype=torch.uint8)], 1),
        torch.cat([modes.weights, torch.zeros(2, 1)], 1),
        modes.labels,
    )
    assert torch.equal(area_medians(padded, fields), area_medians(modes, fields))


def test_a_minority_of_wrong_pixels_moves_means_and_not_medians():
    """Four independent areas; the field is wrong on a third of each. Flip probabilities come back exactly."""
    labels, q = SPACES[0], torch.tensor([0.05, 0.25, 0.75, 0.95], dtype=torch.float64)
    masks = torch.eye(4, dtype=torch.uint8).repeat_interleave(9, 1).reshape(1, 4, 4, 9)
    modes = MaskSet.uniform(torch.cat([masks, torch.zeros(1, 1, 4, 9, dtype=torch.uint8)], 1), labels)
    p = q / 4
    mean = (2 * p[:, None] - 1).repeat(1, 9)[None, None]
    wrong = mean.clone()
    wrong[..., :3] = 0.9
    truth = torch.cat([p, 1 - p.sum(0, keepdim=True)])
    assert torch.allclose(decompose_mean(modes, wrong, robust=True).probabilities[0], truth, atol=1e-9)
    assert (decompose_mean(modes, wrong).probabilities[0] - truth).abs().max() > 0.05
    assert torch.allclose(decompose_mean(modes, mean).probabilities[0], truth, atol=1e-9)
