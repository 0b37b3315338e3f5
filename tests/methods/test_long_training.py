"""No method loses its numbers over two thousand steps on masks that are all empty, all full, or one pixel."""

from __future__ import annotations

import pytest
import torch

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS
from ambiseg.testing import CHANNELS, SIZE, trials

STEPS = 2000
SUBJECTS = {
    place: trial
    for spec in METHODS.values()
    for place, trial in trials(spec).items()
    if trial.labels.is_binary
}


def extreme_masks() -> torch.Tensor:
    """Three images with one mask each."""
    masks = torch.zeros(3, 1, SIZE, SIZE, dtype=torch.uint8)
    masks[1] = 1
    masks[2, 0, 3, 5] = 1
    return masks


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("place", SUBJECTS)
def test_extreme_masks_never_give_nan(place, bf16):
    labels = LabelSpace.binary()
    model = SUBJECTS[place].model().train()
    annotations = MaskSet.uniform(extreme_masks(), labels)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    g = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        model.progress = step / STEPS
        images = torch.randn(3, CHANNELS, SIZE, SIZE, generator=g)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model.loss(images, annotations)["loss"]
        assert torch.isfinite(loss), step
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(bool(p.isfinite().all()) for p in model.parameters())
