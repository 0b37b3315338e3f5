"""Dropout with our random numbers: the laws of `torch.nn.Dropout`."""

import pytest
import torch

from ambiseg.networks.dropout import Dropout

ORDERS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_entries_are_kept_with_their_probability_and_scaled(p: float, order: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.ones(2, 5, 40, 50).contiguous(memory_format=order)
    y = Dropout(p).train()(x)
    assert y.stride() == x.stride()
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    kept = y > 0
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(float(kept.float().mean()) - (1 - p)) < 4 * deviation
    # neighbours in memory, which share a random word, are independent
    flat = kept.permute(0, 2, 3, 1).flatten() if order is torch.channels_last else kept.flatten()
    both = float((flat[0::4] & flat[1::4]).float().mean())
    assert abs(both - (1 - p) ** 2) < 4 * ((1 - p) ** 2 / (x.numel() / 4)) ** 0.5


def test_gradient_is_the_mask_and_the_seed_decides() -> None:
    layer = Dropout(0.3).train()
    x = torch.rand(3, 7, requires_grad=True)
    torch.manual_seed(1)
    y = layer(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y, x * grad)
    torch.manual_seed(1)
    assert torch.equal(layer(x), y)


def test_odd_sizes_strides_and_number_formats() -> None:
    layer = Dropout(0.5).train()
    for x in (torch.ones(3), torch.ones(1, 1, 1, 5), torch.ones(5, 4).T, torch.ones(2, 3).bfloat16()):
        y = layer(x)
        assert y.shape == x.shape and y.dtype == x.dtype and set(y.unique().tolist()) <= {0.0, 2.0}


def test_nothing_is_dropped_outside_training_and_everything_at_one() -> None:
    x = torch.rand(4, 4)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)
    assert not Dropout(1.0).train()(x).any()
