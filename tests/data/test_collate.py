"""`ambiseg.collate` joins samples with mask sets as torch joins all else, in a real DataLoader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import ambiseg
from ambiseg import AmbisegError, LabelSpace, MaskSet, collate

BINARY = LabelSpace.binary()


def sample(height: int, width: int, masks: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 2, (1, masks, height, width), generator=generator).to(torch.uint8)
    return torch.rand(3, height, width, generator=generator), MaskSet.uniform(drawn, BINARY)


SAMPLES = [sample(4, 6, 2, 0), sample(5, 3, 3, 1), sample(4, 6, 1, 2)]


@pytest.mark.parametrize("workers", [0, 2])
def test_pairs_in_a_data_loader(workers):
    first, second = DataLoader(SAMPLES, batch_size=2, collate_fn=collate, num_workers=workers)
    images, masks = first
    assert images.shape == (2, 3, 5, 6) and masks.masks.shape == (2, 3, 5, 6)
    for k, (image, one) in enumerate(SAMPLES[:2]):
        height, width = image.shape[1:]
        assert torch.equal(images[k, :, :height, :width], image) and images[k].sum() == pytest.approx(
            image.sum()
        )
        count = int(one.count)
        assert torch.equal(masks.masks[k, :count, :height, :width], one.masks[0])
        assert masks.count[k] == count and masks.weights[k].sum() == pytest.approx(1)
    assert not masks.labelled[0, 4:].any() and not masks.labelled[1, :, 3:].any(), (
        "void where images were extended"
    )
    assert torch.equal(second[0][0], SAMPLES[2][0]) and torch.equal(second[1].masks, SAMPLES[2][1].masks)


def test_sets_alone_and_in_dictionaries():
    assert torch.equal(collate([SAMPLES[0][1], SAMPLES[2][1]]).masks[1, :1], SAMPLES[2][1].masks[0])
    found = collate(
        [{"image": i.numpy(), "masks": m, "id": f"s{k}", "k": k} for k, (i, m) in enumerate(SAMPLES)]
    )
    assert found["image"].shape == (3, 3, 5, 6) and len(found["masks"]) == 3
    assert found["id"] == ["s0", "s1", "s2"] and found["k"].tolist() == [0, 1, 2]


def test_all_else_is_joined_as_by_torch():
    samples = [{"x": np.arange(3), "y": (1.5, "a"), "z": [torch.ones(2)]} for _ in range(2)]
    ours, theirs = collate(samples), default_collate(samples)
    assert str(ours) == str(theirs)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([torch.ones(1, 4, 4), torch.ones(3, 4, 4)], "only height and width"),
        ([torch.ones(3), torch.ones(4)], "only height and width"),
        ([SAMPLES[0][1], MaskSet.stack([one for _, one in SAMPLES])], "3 images in sample 1"),
        ([SAMPLES[0][1], None], "received NoneType at 1"),
    ],
)
def test_samples_that_do_not_belong_together(samples, message):
    with pytest.raises(AmbisegError, match=message):
        ambiseg.collate(samples)
