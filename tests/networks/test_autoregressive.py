"""Every output sees exactly the earlier variables, for any size and number of channels; bodies start where
they should."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.functional import jacobian

from ambiseg.errors import AmbisegError
from ambiseg.networks.autoregressive import CausalTransformer, MaskedLinear
from model_helpers import perturbed

SIZES = [(1, 3, 5), (3, 2, 3), (2, 1, 1), (1, 4, 6)]
STRIPS = [(1, 2), (2, 3), (1, 8)]


def stirred(body, by=0.3):
    """In float64, with no weight at zero, as after some training."""
    torch.manual_seed(0)
    return perturbed(body, by).double()


def jacobians(body, shape):
    """Those of mean and log-scale, ``(D, D)``, rows and columns in the order of the sequence."""
    torch.manual_seed(1)
    u = torch.randn(1, *shape, dtype=torch.float64)
    order, count = body.order(*shape[1:]), u.numel()
    found = jacobian(body, u)
    return [part.reshape(count, count)[order][:, order] for part in found]


def places(shape):
    """Channel, row and column of every variable of ``u.flatten(1)``."""
    return [(c, h, w) for c in range(shape[0]) for h in range(shape[1]) for w in range(shape[2])]


def test_the_sequence_of_the_linear_layer_is_pixels_then_channels():
    seen = [places((2, 3, 4))[i] for i in MaskedLinear(2, 3, 4).order(3, 4)]
    assert seen == sorted(places((2, 3, 4)), key=lambda at: (at[1], at[2], at[0]))


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("strip", STRIPS)
def test_the_sequence_of_the_transformer_is_strips_then_pixels_then_channels(shape, strip):
    seen = [places(shape)[i] for i in CausalTransformer(shape[0], strip, 8).order(*shape[1:])]
    by_strip = sorted(
        places(shape), key=lambda at: (at[1] // strip[0], at[2] // strip[1], at[1], at[2], at[0])
    )
    assert seen == by_strip


@pytest.mark.parametrize("shape", SIZES)
def test_the_linear_layer_sees_every_earlier_variable_and_no_other(shape):
    for found in jacobians(stirred(MaskedLinear(*shape)), shape):
        assert torch.equal(found != 0, torch.ones_like(found).tril(-1).bool())


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("strip", STRIPS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("within", [False, True])
def test_the_transformer_sees_every_earlier_strip_and_no_other(shape, strip, layers, within):
    """With the map inside a strip it sees every earlier variable, as the linear layer does."""
    body = stirred(CausalTransformer(shape[0], strip, 8, layers, heads=2, within_strip=within))
    number = torch.tensor(
        [(h // strip[0]) * 1000 + w // strip[1] for _, h, w in places(shape)], dtype=torch.float64
    )[body.order(*shape[1:])]
    earlier = number[:, None] > number
    if within:
        earlier = torch.ones_like(earlier).tril(-1)
    for found in jacobians(body, shape):
        assert torch.equal(found != 0, earlier)
    count = body.steps(*shape[1:])
    assert count == (len(number) if within else len(number.unique()))


def test_the_linear_layer_is_the_triangular_product():
    body = stirred(MaskedLinear(2, 2, 3))
    u = torch.randn(4, 2, 2, 3, dtype=torch.float64)
    order = body.order(2, 3)
    sequence = u.flatten(1)[:, order]
    for weight, bias, found in zip(body.weight, body.bias, body(u), strict=True):
        expected = torch.stack([bias[i] + (weight[i, :i] * sequence[:, :i]).sum(1) for i in range(12)], 1)
        torch.testing.assert_close(found.flatten(1)[:, order], expected)


def test_what_lies_outside_of_the_image_carries_nothing():
    """A strip that reaches over the border says what it says of the image with zeros there."""
    body = stirred(CausalTransformer(2, (2, 4), 8, within_strip=True))
    u = torch.randn(3, 2, 3, 5, dtype=torch.float64)
    larger = torch.zeros(3, 2, 4, 8, dtype=torch.float64)
    larger[..., :3, :5] = u
    for small, large in zip(body(u), body(larger), strict=True):
        torch.testing.assert_close(small, large[..., :3, :5])


def test_strips_know_their_place():
    """On an image without content, strips differ by their position, in both directions."""
    mean, _ = stirred(CausalTransformer(1, (1, 1), 16))(torch.zeros(1, 1, 3, 3, dtype=torch.float64))
    assert len(mean.flatten().round(decimals=6).unique()) == 9


@pytest.mark.parametrize("size", [(1, 1), (1, 19), (19, 1), (33, 17)])
def test_the_transformer_takes_any_size_and_starts_at_zero(size):
    body = CausalTransformer(3)
    mean, log_scale = body(torch.randn(2, 3, *size))
    assert mean.shape == log_scale.shape == (2, 3, *size)
    assert not mean.any() and not log_scale.any()


def test_the_linear_layer_starts_near_zero():
    torch.manual_seed(0)
    mean, log_scale = MaskedLinear(1, 16, 16)(torch.randn(64, 1, 16, 16))
    assert 0.01 < mean.std() < 0.1 and not log_scale.any()


@pytest.mark.parametrize("make", [lambda: MaskedLinear(2, 3, 5), lambda: CausalTransformer(2, (1, 2))])
def test_outputs_are_float32_under_autocast_and_stay_near(make):
    body = stirred(make(), by=0.1).float()
    u = torch.randn(4, 2, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        fast = body(u)
    for low, full in zip(fast, body(u), strict=True):
        assert low.dtype == torch.float32
        assert (low - full).abs().max() < 0.03 * full.abs().max()


def test_another_size_than_that_of_the_linear_layer_is_an_error():
    with pytest.raises(AmbisegError, match="built for images of 4 x 5 pixels.*received 5 x 4"):
        MaskedLinear(1, 4, 5)(torch.zeros(1, 1, 5, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedLinear(1, 0, 4), "0 x 4"),
        (lambda: CausalTransformer(1, (0, 8)), r"received \(0, 8\)"),
        (lambda: CausalTransformer(1, (1, -8)), r"received \(1, -8\)"),
        (lambda: CausalTransformer(1, layers=0), "at least one layer"),
        (lambda: CausalTransformer(1, width=10, heads=4), "width 10 and 4 heads"),
        (lambda: CausalTransformer(1, heads=0), "0 heads"),
    ],
)
def test_impossible_settings_are_errors(make, message):
    with pytest.raises(AmbisegError, match=message):
        make()


def test_dropout_is_in_training_only():
    u = torch.randn(1, 1, 4, 8)
    plain, dropping = (CausalTransformer(1, (1, 4), 8, heads=2, dropout=p) for p in (0.0, 0.5))
    dropping.load_state_dict(perturbed(plain).state_dict())
    assert torch.equal(dropping.eval()(u)[0], plain.eval()(u)[0])
    dropping.train()
    assert not torch.equal(dropping(u)[0], dropping(u)[0])
    assert torch.equal(plain.train()(u)[0], plain(u)[0])
