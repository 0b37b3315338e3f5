"""Given noise is handed out in order and reshaped; it is refused where it is too little."""

from __future__ import annotations

import pytest
import torch

from ambiseg.distributions.noise import GivenNoise, standard_normal
from ambiseg.errors import AmbisegError

CPU = torch.device("cpu")


def test_given_noise_is_handed_out_in_order():
    noise = GivenNoise([torch.arange(6.0).view(2, 1, 3), torch.ones(4)])
    assert torch.equal(standard_normal((2, 3), CPU, noise), torch.arange(6.0).view(2, 3))
    assert standard_normal((2, 2), CPU, noise, torch.float64).dtype == torch.float64
    assert noise.shapes == [(2, 3), (2, 2)]
    with pytest.raises(AmbisegError, match="more than 2 tensors"):
        standard_normal((1,), CPU, noise)


def test_without_numbers_it_remembers_what_was_asked_for():
    noise = GivenNoise()
    assert standard_normal((2, 3), CPU, noise).shape == (2, 3)
    assert noise.shapes == [(2, 3)] and isinstance(noise, torch.Generator)


def test_a_generator_draws_as_torch_does():
    drawn = standard_normal((5,), CPU, torch.Generator().manual_seed(3))
    assert torch.equal(drawn, torch.randn(5, generator=torch.Generator().manual_seed(3)))
