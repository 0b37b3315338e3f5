"""Image and masks move alike under every augmentation, masks keep their classes, and the outside is void."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from ambiseg.data.augmentation import DEFAULTS, Augmentation
from ambiseg.data.schema import AUGMENTATIONS

VOID = 255


def pair(seed=0, size=(9, 9), classes=4):
    """An image that shows its one mask, in blobs of 3x3 pixels."""
    rng = np.random.default_rng(seed)
    blobs = (
        rng.integers(0, classes, [-(-n // 3) for n in size]).repeat(3, 0).repeat(3, 1)[: size[0], : size[1]]
    )
    mask = torch.from_numpy(blobs.astype(np.uint8))
    return mask[None].float(), mask[None]


def only(kind):
    return Augmentation(**{name: name == kind for name in AUGMENTATIONS})


@pytest.mark.parametrize("size", [(9, 9), (6, 11), (1, 1)])
@pytest.mark.parametrize("kind", ["flip", "rotate"])
def test_flips_and_turns_are_exact(kind, size):
    image, masks = pair(size=size)
    seen = set()
    for seed in range(40):
        moved, moved_masks = only(kind)(image, masks, VOID, np.random.default_rng(seed))
        assert moved.shape == image.shape and moved_masks.dtype == torch.uint8
        assert torch.equal(moved, moved_masks.float())
        assert torch.equal(moved.flatten().sort()[0], image.flatten().sort()[0])
        seen.add(tuple(moved.flatten().tolist()))
    assert len(seen) == {(9, 9): 2 if kind == "flip" else 4, (6, 11): 2, (1, 1): 1}[size]


@pytest.mark.parametrize("size", [(24, 24), (15, 21)])
def test_scaling_moves_image_and_masks_alike(size):
    """Where the bilinear image shows one class alone, so does the nearest mask; no new class appears."""
    for seed in range(30):
        image, masks = pair(seed, size, classes=2)
        moved, moved_masks = only("scale")(image, masks, VOID, np.random.default_rng(seed))
        assert moved.shape == image.shape and moved_masks.dtype == torch.uint8
        assert set(moved_masks.unique().tolist()) <= {0, 1, VOID}
        pure = ((moved < 1e-4) | (moved > 1 - 1e-4)) & (moved_masks != VOID)
        assert pure.float().mean() > 0.2
        assert torch.equal(moved[pure].round().to(torch.uint8), moved_masks[pure])


@pytest.mark.parametrize("void", [255, 9])
def test_scaled_masks_are_nearest_pixels_and_void_outside(void):
    """Against the map of pixel centres written out: ``source = (target - centre) / factor + centre``."""
    image, masks = pair(3, (12, 17))
    smaller = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        factor = float(np.exp(np.random.default_rng(seed).uniform(-np.log(1.25), np.log(1.25))))
        found = only("scale")(image, masks, void, rng)[1][0].numpy()
        expected = np.full_like(found, void)
        for i in range(12):
            for j in range(17):
                row, column = round((i - 5.5) / factor + 5.5), round((j - 8) / factor + 8)
                if 0 <= row < 12 and 0 <= column < 17:
                    expected[i, j] = masks[0, row, column]
        np.testing.assert_array_equal(found, expected)
        assert (factor < 0.9) <= bool((found == void).any()) <= (factor < 1)
        smaller += factor < 1
    assert 5 < smaller < 25


def test_intensity_is_one_gain_and_offset_per_channel():
    """Equal values stay equal, masks stay as they are, and channels change differently."""
    image, masks = pair()
    image = image.repeat(2, 1, 1)
    moved, moved_masks = only("intensity")(image, masks, VOID, np.random.default_rng(0))
    assert torch.equal(moved_masks, masks) and not torch.equal(moved[0], moved[1])
    for before, after in zip(image, moved, strict=True):
        slope = (after[masks[0] == 3].mean() - after[masks[0] == 0].mean()) / 3
        offset = after[masks[0] == 0].mean()
        torch.testing.assert_close(after, slope * before + offset, atol=1e-5, rtol=1e-5)
        assert 0.9 <= slope <= 1.1 and -0.1 <= offset <= 0.1 and slope != 1


def test_all_masks_of_an_image_move_together():
    image, masks = pair(0)
    stack = torch.cat([masks, 3 - masks, masks.clone()])
    for seed in range(20):
        everything = Augmentation(True, True, True, False)
        moved = everything(image, stack, VOID, np.random.default_rng(seed))[1]
        alone = everything(image, masks, VOID, np.random.default_rng(seed))[1]
        assert torch.equal(moved[0], alone[0]) and torch.equal(moved[2], alone[0])
        seen = moved[0] != VOID
        assert torch.equal(seen, moved[1] != VOID)
        assert torch.equal(moved[1][seen], 3 - moved[0][seen])


def test_what_a_data_set_forbids_is_never_done():
    image, masks = pair()
    nothing = Augmentation.of({"flip": False})
    for seed in range(50):
        for augmentation in (nothing, Augmentation.none()):
            moved, moved_masks = augmentation(image, masks, VOID, np.random.default_rng(seed))
            assert torch.equal(moved, image) and torch.equal(moved_masks, masks)


def test_data_sets_speak_of_the_kinds_there_are():
    assert set(DEFAULTS) == set(AUGMENTATIONS) <= {field.name for field in fields(Augmentation)}
    assert Augmentation.of({}) == Augmentation(**DEFAULTS)
    assert Augmentation.of({"rotate": True, "flip": False}) == Augmentation(flip=False, rotate=True)


def test_the_input_is_not_changed():
    image, masks = pair()
    before = image.clone(), masks.clone()
    Augmentation(True, True, True, True)(image, masks, VOID, np.random.default_rng(1))
    assert torch.equal(image, before[0]) and torch.equal(masks, before[1])
