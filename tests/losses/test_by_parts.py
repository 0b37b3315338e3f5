"""Losses by parts: the gradient of the plain sum, one part in memory, and when there is only the plain sum."""

from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch
from torch import nn

from ambiseg.losses.by_parts import losses_by_parts


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def part(net, x):
    loss = net(x).square().sum()
    return {"loss": loss, "count": torch.tensor(float(len(x)))}


def parts_of(net, x, size):
    return [partial(part, net, one) for one in torch.split(x, size)]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_values_and_gradients_are_those_of_the_plain_sum(size):
    net, x = network(), torch.randn(7, 3, dtype=torch.float64)
    found = losses_by_parts(parts_of(net, x, size), net.parameters())
    (3 * found["loss"]).backward()
    by_parts = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    plain = part(net, x)
    (3 * plain["loss"]).backward()
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(by_parts, [p.grad for p in net.parameters()])


def test_weights_without_a_gradient_get_none():
    net, unused, frozen = network(), nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), False)
    found = losses_by_parts(parts_of(net, torch.randn(4, 3).double(), 2), [*net.parameters(), unused, frozen])
    found["loss"].backward()
    assert unused.grad is None and frozen.grad is None and net[0].weight.grad is not None


def test_inputs_that_want_a_gradient_get_it():
    net, x = network(), torch.randn(4, 3, dtype=torch.float64).requires_grad_()
    losses_by_parts(parts_of(net, x, 2), net.parameters(), x)["loss"].backward()
    other = x.detach().requires_grad_()
    part(net, other)["loss"].backward()
    torch.testing.assert_close(x.grad, other.grad)


def test_without_gradients_there_is_no_graph():
    net = network()
    with torch.no_grad():
        assert not losses_by_parts(parts_of(net, torch.randn(4, 3).double(), 2), net.parameters())[
            "loss"
        ].requires_grad


def test_the_activations_of_one_part_are_gone_before_the_next():
    net, alive, seen = network(), [], []

    def watched(x):
        seen.append(sum(reference() is not None for reference in alive))
        hidden = net[:2](x)
        alive.append(weakref.ref(hidden))
        return {"loss": net[2](hidden).square().sum()}

    x = torch.randn(6, 3, dtype=torch.float64)
    losses_by_parts([partial(watched, one) for one in torch.split(x, 2)], net.parameters())
    assert seen == [0, 0, 0]


def test_weights_that_share_a_gradient_are_counted_once():
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    losses_by_parts([lambda: {"loss": (a + b).sum()}] * 3, [a, b])["loss"].backward()
    assert a.grad.tolist() == b.grad.tolist() == [3.0, 3.0]
