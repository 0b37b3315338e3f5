"""Votes equal the plain sum, counted as integers or not."""

from __future__ import annotations

import pytest
import torch

from ambiseg.metrics.votes import weighted_votes


@pytest.mark.parametrize("masks", [1, 3, 255, 256, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_votes_are_the_plain_sum(masks, dtype):
    """Of equal weights, of equal ones with gaps, and of others."""
    random = torch.Generator().manual_seed(masks)
    hit = torch.rand(3, masks, 7, generator=random) < 0.7
    weights = torch.full((3, masks), 1 / masks, dtype=dtype)
    weights[1, ::2] = 0
    weights[2] = torch.rand(masks, generator=random).to(dtype)
    expected = (weights.double()[:, :, None] * hit).sum(1)
    found = weighted_votes(weights, hit)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
