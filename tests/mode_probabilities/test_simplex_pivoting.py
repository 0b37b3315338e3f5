"""The solver of exported models finds the weights of the solver that is proved optimal, on IoUs of random masks."""

from __future__ import annotations

import pytest
import torch

from ambiseg.labels import LabelSpace
from ambiseg.mode_probabilities.simplex_least_squares import least_squares_on_simplex
from ambiseg.mode_probabilities.simplex_pivoting import pivoted
from ambiseg.overlap import pairwise_overlap


def random_problem(masks, classes, seed):
    """IoUs of masks of three images that share a base, those with a weighted subset, and which masks are there."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randint(0, classes, (3, 1, 6, 6), generator=g)
    others = torch.randint(0, classes, (3, masks, 6, 6), generator=g)
    found = torch.where(torch.rand(3, masks, 6, 6, generator=g) < 0.3, others, base).to(torch.uint8)
    found[:, 1] = found[:, 0]  # copies share their weight
    kernel = pairwise_overlap(found, found, LabelSpace.of_classes(classes)).iou().double()
    present = torch.rand(3, masks, generator=g) < 0.6
    present[:, 0] = True
    weights = torch.rand(3, masks, generator=g).double()
    moment = torch.einsum("bij,bj->bi", kernel, weights / weights.sum(1, keepdim=True))
    return kernel, moment, present


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("masks", [2, 7, 24])
def test_it_agrees_with_the_exact_solver(masks, classes):
    for seed in range(5):
        kernel, moment, present = random_problem(masks, classes, seed)
        wanted = least_squares_on_simplex(kernel, moment, present).weights
        assert torch.allclose(pivoted(kernel, moment, present), wanted, atol=1e-6)


def test_one_entry_has_all_the_weight():
    present = torch.tensor([[False, True, False]])
    found = pivoted(torch.eye(3)[None], torch.tensor([[0.9, 0.1, 0.5]]), present)
    assert found.tolist() == [[0.0, 1.0, 0.0]]
