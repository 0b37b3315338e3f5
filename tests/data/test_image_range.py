"""New images of another scale than training's are refused, of a somewhat other one warned of."""

from __future__ import annotations

import numpy as np
import pytest

from ambiseg.data.image_range import ImageRange, RangeTally
from ambiseg.errors import AmbisegError

RNG = np.random.default_rng(0)


def range_of(*images):
    tally = RangeTally()
    for i, image in enumerate(images):
        tally.add(str(i), image)
    return tally.range()


def grey(low=0, high=255, dtype=np.uint8, channels=2, size=(30, 40)):
    return RNG.uniform(low, high, (channels, *size)).astype(dtype)


def test_the_range_is_that_of_all_pixels():
    first, second = grey(10, 200), grey(50, 250, np.uint16, size=(20, 60))
    found = range_of(first, second)
    pixels = np.concatenate([first.reshape(2, -1), second.reshape(2, -1)], 1)
    assert found.types == ("uint16", "uint8")
    assert (found.smallest, found.largest) == ((20, 40), (30, 60))
    assert found.least == tuple(pixels.min(1)) and found.most == tuple(pixels.max(1))
    np.testing.assert_allclose(found.low, np.quantile(pixels, 0.01, 1), atol=5)
    np.testing.assert_allclose(found.high, np.quantile(pixels, 0.99, 1), atol=5)
    assert ImageRange.from_dict(found.to_dict()) == found


def test_a_value_far_in_one_image_but_common_in_others_is_no_stray():
    flat = RNG.uniform(100, 101, (1, 20, 20)).astype(np.float32)
    flat[0, :3] = 50
    tally = RangeTally()
    tally.add("a", flat)
    assert tally.strays
    tally.add("b", grey(0, 255, np.float32, 1))
    assert not tally.strays and tally.range().least[0] < 1


@pytest.mark.parametrize(
    ("trained", "new"),
    [
        (grey(), grey(0, 1, np.float32)),
        (grey(), grey(0, 65535, np.uint16)),
        (grey(), grey(0, 4095, np.uint16)),
        (grey(0, 1, np.float32), grey()),
        (grey(0, 65535, np.uint16), grey()),
        (grey(0, 1, np.float32), grey(0, 255, np.float32)),
        (grey(100, 110), grey(0, 1, np.float32)),
        (grey(-1000, 400, np.int16), grey(0, 1, np.float32)),
    ],
)
def test_another_scale_is_refused(trained, new):
    assert range_of(trained).difference(grey_like(trained)) == ""
    with pytest.raises(
        AmbisegError,
        match="its values .*quantile are .*those of the training images from minimum to maximum .*: give images",
    ):
        range_of(trained).difference(new)


def grey_like(image):
    return np.ascontiguousarray(image[..., ::-1, ::2])


@pytest.mark.parametrize(
    ("trained", "new", "warned"),
    [
        (grey(), grey(0, 255, np.float32), False),
        (grey(), grey(20, 60), False),
        (grey(), np.zeros((2, 9, 9), np.uint8), False),
        (grey(0, 10, np.float32), grey(0, 50, np.float32), True),
        (grey(0, 200, np.float32), grey(0, 1, np.float32), True),
        (grey(0, 4095, np.uint16), grey(), True),
        (np.zeros((2, 9, 9), np.uint8), grey(), False),
        (grey(0, 1, channels=3, dtype=np.float32), grey(0, 1, np.float32, 3) + [[[0]], [[90]], [[0]]], True),
    ],
)
def test_a_somewhat_other_range_is_warned_of(trained, new, warned):
    assert bool(range_of(trained).difference(new)) == warned


@pytest.mark.parametrize("size", [(5, 7), (90, 91)])
@pytest.mark.parametrize("value", [-1e6, 1e6])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_stray_is_found_wherever_it_is(size, value, place):
    image = RNG.uniform(0, 255, (1, *size)).astype(np.float32)
    image.ravel()[place] = value
    others = np.delete(image.ravel(), place)
    tally = RangeTally()
    tally.add("a", image)
    (stray,) = tally.strays
    assert (stray.id, stray.value, stray.pixels) == ("a", value, 1)
    assert (stray.low, stray.high) == pytest.approx((others.min(), others.max()))
