"""What tests of several methods and networks share."""

from __future__ import annotations

import itertools

import pytest
import torch

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet


def perturbed(module, size=0.3):
    """The same module with noise on every parameter, so that none is at its start or at zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return module


def two_masks_each():
    """Two images that show their two masks as channels, and these masks as annotations."""
    masks = torch.zeros(2, 2, 8, 8, dtype=torch.uint8)
    masks[:, 0, :, :4], masks[:, 1, 5:] = 1, 1
    images = torch.cat([masks.float(), torch.rand(2, 1, 8, 8)], 1)
    return images, MaskSet.uniform(masks, LabelSpace.binary())


def train(model, images, annotations, steps):
    """Steps of Adam on one batch, then evaluation mode."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        model.loss(images, annotations)["loss"].backward()
        optimiser.step()
    return model.eval()


def check_likelihoods_sum_to_one(model, size):
    """Over all label maps of one image, for the same draws; a void pixel is summed over."""
    labels, pixels = model.labels, size[0] * size[1]
    maps = torch.tensor(list(itertools.product(range(labels.classes), repeat=pixels)), dtype=torch.uint8)
    image, maps = torch.randn(1, 3, *size), maps.view(-1, *size)

    def likelihood(mask):
        torch.manual_seed(1)
        return float(model.log_prob(image, mask[None]).exp())

    assert sum(likelihood(mask) for mask in maps) == pytest.approx(1, abs=1e-5)
    void = maps[0].clone()
    void[0, 0] = labels.void
    same = [m for m in maps if torch.equal(m.flatten()[1:], maps[0].flatten()[1:])]
    assert likelihood(void) == pytest.approx(sum(map(likelihood, same)), abs=1e-5)
