"""Checkpointing: the same to the last bit (features, gradients, dropout, running statistics), and less is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ambiseg.networks.backbone import WITH_TIME, build_backbone
from ambiseg.networks.settings import UNetSettings
from model_helpers import perturbed

SIZES = {
    "unet": {"dropout": 0.2},
    "ncsnpp": {"dropout": 0.2},
    "adm": {"dropout": 0.2},
    "ddpm": {},
    "edm": {},
    "phiseg": {},
}


def trained(kind, checkpointing):
    """Features, gradients and buffers of one step, and the numbers that were kept for the backward pass."""
    torch.manual_seed(0)
    settings = UNetSettings(kind=kind, width=8, depth=2, **SIZES[kind])
    network = perturbed(build_backbone(3, settings, kind in WITH_TIME)).train()
    network.checkpointing = checkpointing
    time = [torch.rand(2)] if kind in WITH_TIME else []
    kept = []

    def pack(x):
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        features = network(torch.randn(2, 3, 16, 16), *time)
    features.square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return [features, *gradients, *network.buffers()], sum(kept)


@pytest.mark.parametrize("kind", list(SIZES))
def test_a_step_is_the_same_to_the_last_bit(kind):
    (plain, much), (again, little) = trained(kind, False), trained(kind, True)
    assert len(plain) == len(again)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert little < much / 2


def test_nothing_changes_in_evaluation():
    network = build_backbone(3, UNetSettings(width=8, depth=2)).eval()
    network.checkpointing = True
    block = nn.Identity()
    x = torch.randn(1, 3, 4, 4)
    assert network.run(block, x) is x
