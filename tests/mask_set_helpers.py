"""Random mask sets, and when two are the same distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet


@st.composite
def mask_sets(draw: st.DrawFn) -> MaskSet:
    """Batches of duplicates, padding, unequal weights, tied scores, 2 to 4 classes, 1 to 3 axes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    labels = LabelSpace.of_classes(draw(st.integers(2, 4)))
    batch, count = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    space = draw(st.sampled_from([(5,), (2, 3), (2, 1, 2)]))
    pool = torch.randint(0, labels.classes, (4, *space), generator=generator).to(torch.uint8)
    masks = pool[torch.randint(0, 4, (batch, count), generator=generator)]
    weights = torch.randint(0, 4, (batch, count), generator=generator).float()
    weights[:, int(torch.randint(0, count, (1,), generator=generator))] += 1
    scores = torch.randint(0, 5, (batch, count), generator=generator) / 4 if draw(st.booleans()) else None
    return MaskSet(masks, weights / weights.sum(1, keepdim=True), labels, scores)


def content(given: MaskSet) -> list[dict[bytes, float]]:
    """Probability of each distinct mask, image by image."""
    images = []
    for masks, weights in zip(given.masks, given.weights, strict=True):
        weight_of: dict[bytes, float] = {}
        for mask, weight in zip(masks, weights.tolist(), strict=True):
            if weight > 0:
                key = mask.numpy().tobytes()
                weight_of[key] = weight_of.get(key, 0.0) + weight
        images.append(weight_of)
    return images


def assert_same_distribution(a: MaskSet, b: MaskSet) -> None:
    for one, other in zip(content(a), content(b), strict=True):
        assert one == pytest.approx(other, abs=1e-6)
