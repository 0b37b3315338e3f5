"""Image and masks move alike under every augmentation, masks keep their classes, and the outside is void."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from ambiseg.data.augmentation import Augmentation, _smooth_noise
from ambiseg.data.augmentation_kinds import (
    KINDS,
    TESTED,
    Crop,
    Elastic,
    Flip,
    FlipVertical,
    Gamma,
    Intensity,
    QuarterTurns,
    ResizedCrop,
    Rotate,
    Scale,
    Shear,
    allowed,
    problems,
)
from ambiseg.data.info import DatasetInfo

VOID = 255
EXACT = [Flip(), FlipVertical(), QuarterTurns()]
SMOOTH = [
    Rotate(degrees=30),
    Scale(),
    Shear(),
    Elastic(strength=2, smoothness=8),
    Crop(20, 30),
    ResizedCrop(20, 30),
]
VALUES = [Intensity(), Gamma()]
EVERY = [*EXACT, *SMOOTH[:4], ResizedCrop(20, 30), *VALUES]


def name(kind):
    return kind.kind


def pair(seed=0, size=(9, 9), classes=4):
    """An image that shows its one mask, in blobs of 3x3 pixels."""
    rng = np.random.default_rng(seed)
    blobs = (
        rng.integers(0, classes, [-(-n // 3) for n in size]).repeat(3, 0).repeat(3, 1)[: size[0], : size[1]]
    )
    mask = torch.from_numpy(blobs.astype(np.uint8))
    return mask[None].float(), mask[None]


def waves(height=48, width=40):
    """A smooth image without symmetry."""
    y, x = torch.meshgrid(torch.linspace(0, 5, height), torch.linspace(0, 4, width), indexing="ij")
    return (torch.sin(1.3 * x + 0.4 * y) + 0.5 * torch.cos(0.9 * y - 0.3 * x) + 0.1 * x)[None]


def run(kinds, image, masks, seed=0, void=VOID):
    kinds = tuple(kinds) if isinstance(kinds, list | tuple) else (kinds,)
    return Augmentation(kinds)(image, masks, void, np.random.default_rng(seed))


@pytest.mark.parametrize("size", [(9, 9), (6, 11), (1, 1)])
@pytest.mark.parametrize("kind", EXACT, ids=name)
def test_flips_and_turns_are_exact(kind, size):
    image, masks = pair(size=size)
    seen = set()
    for seed in range(40):
        moved, moved_masks = run(kind, image, masks, seed)
        assert moved.shape == image.shape and moved_masks.dtype == torch.uint8
        assert torch.equal(moved, moved_masks.float())
        assert torch.equal(moved.flatten().sort()[0], image.flatten().sort()[0])
        seen.add(tuple(moved.flatten().tolist()))
    assert len(seen) == {(9, 9): 4 if kind == QuarterTurns() else 2, (6, 11): 2, (1, 1): 1}[size]


def test_flips_are_left_right_and_up_down():
    image, masks = pair(2, (6, 11))
    for kind, axis in ((Flip(), -1), (FlipVertical(), -2)):
        found = {tuple(run(kind, image, masks, seed)[0].flatten().tolist()) for seed in range(20)}
        assert found == {tuple(v.flatten().tolist()) for v in (image, image.flip(axis))}


@pytest.mark.parametrize("kind", SMOOTH, ids=name)
def test_image_and_masks_move_alike(kind):
    """A mask made by a threshold of the image is the threshold of the moved image, save at its border."""
    image = waves()
    masks = torch.stack([image[0] > 0, image[0] > 0.4]).to(torch.uint8)
    for seed in range(10):
        moved, moved_masks = run(kind, image, masks, seed)
        assert moved.shape[1:] == moved_masks.shape[1:] and moved_masks.dtype == torch.uint8
        for mask, level in zip(moved_masks, (0, 0.4), strict=True):
            clear = ((moved[0] - level).abs() > 0.15) & (mask != VOID)
            assert clear.float().mean() > 0.3
            assert torch.equal((moved[0] > level)[clear], mask[clear].bool())


@pytest.mark.parametrize("void", [255, 9])
def test_scaled_masks_are_nearest_pixels_and_void_outside(void):
    """Against the map of pixel centres written out: ``source = (target - centre) / factor + centre``."""
    image, masks = pair(3, (12, 17))
    smaller = 0
    for seed in range(30):
        factor = float(np.exp(np.random.default_rng(seed).uniform(np.log(0.8), np.log(1.25))))
        found = run(Scale(), image, masks, seed, void)[1][0].numpy()
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


@pytest.mark.parametrize(
    "kind",
    [
        Rotate(degrees=0),
        Scale(low=1, high=1),
        Shear(degrees=0),
        Elastic(strength=0, smoothness=8),
        Crop(24, 17),
        ResizedCrop(24, 17, low=1, high=1),
        Intensity(range=0),
        Gamma(low=1, high=1),
        *(replace(kind, probability=0) for kind in EVERY if hasattr(kind, "probability")),
    ],
    ids=name,
)
def test_nothing_happens_at_zero_strength(kind):
    image, masks = torch.randn(3, 24, 17), pair(1, (24, 17))[1]
    moved, moved_masks = run(kind, image, masks)
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=1e-5)
    assert torch.equal(moved_masks, masks)


class Turned(np.random.Generator):
    """A generator whose first uniform draw is the greatest possible."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def uniform(self, low=0.0, high=1.0, size=None):
        return high if size is None else np.full(size, high)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2)])
@pytest.mark.parametrize("side", [8, 9])
def test_a_rotation_by_ninety_degrees_is_a_quarter_turn(degrees, turns, side):
    image, masks = torch.randn(2, side, side), pair(4, (side, side))[1]
    moved, moved_masks = Augmentation((Rotate(degrees),))(image, masks, VOID, Turned())
    turned = [k for k in (turns, -turns) if torch.equal(moved_masks, masks.rot90(k, (-2, -1)))]
    assert turned
    torch.testing.assert_close(moved, image.rot90(turned[0], (-2, -1)), atol=1e-5, rtol=0)


def test_all_moves_together_are_one_affine_map():
    """Against scipy: rotation, scaling and shear of the greatest strength, in the order of the formula."""
    image = waves()
    masks = (image > 0).to(torch.uint8)
    kinds = (Rotate(20), Scale(0.8, 1.2), Shear(15))
    moved, moved_masks = Augmentation(kinds)(image, masks, VOID, Turned())
    angle, slope = math.radians(20), math.tan(math.radians(15))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.array([[1, 0], [slope, 1]]) @ rotation / 1.2
    centre = (np.array(image.shape[1:]) - 1) / 2
    options = {"matrix": matrix, "offset": centre - matrix @ centre}
    expected = ndimage.affine_transform(image[0].numpy(), order=1, mode="nearest", **options)
    np.testing.assert_allclose(moved[0], expected, atol=1e-4)
    options |= {"order": 0, "mode": "grid-constant", "cval": VOID}
    np.testing.assert_array_equal(moved_masks[0], ndimage.affine_transform(masks[0].numpy(), **options))


def test_what_lies_outside_is_void_in_all_masks_and_nowhere_else():
    image, masks = torch.randn(1, 30, 30), torch.stack([torch.zeros(30, 30), torch.ones(30, 30)]).byte()
    moved, moved_masks = Augmentation((Rotate(45), Scale(0.5, 0.5)))(image, masks, VOID, Turned())
    outside = moved_masks[0] == VOID
    assert torch.equal(outside, moved_masks[1] == VOID) and bool(moved.isfinite().all())
    assert outside.float().mean() == pytest.approx(
        0.75, abs=0.02
    )  # half of the side is a quarter of the area
    assert outside[0].all() and outside[:, -1].all() and not outside[15, 15]
    assert (moved_masks[1][~outside] == 1).all()


def test_masks_keep_their_classes():
    image, masks = pair(5, (33, 27), classes=5)
    for seed in range(20):
        found = run(EVERY, image, masks, seed, void=9)[1]
        assert set(found.unique().tolist()) <= {0, 1, 2, 3, 4, 9}


def test_all_masks_of_an_image_move_together():
    image, masks = pair(0, (24, 24))
    stack = torch.cat([masks, 3 - masks, masks.clone()])
    for seed in range(20):
        moved, alone = run(EVERY, image, stack, seed)[1], run(EVERY, image, masks, seed)[1]
        assert torch.equal(moved[0], alone[0]) and torch.equal(moved[2], alone[0])
        seen = moved[0] != VOID
        assert torch.equal(seen, moved[1] != VOID)
        assert torch.equal(moved[1][seen], 3 - moved[0][seen])


def test_channels_move_as_if_alone():
    image, masks = torch.randn(3, 24, 20), pair(0, (24, 20))[1]
    for seed in range(5):
        together = run([*EXACT, *SMOOTH[:5]], image, masks, seed)[0]
        for channel in range(3):
            alone = run([*EXACT, *SMOOTH[:5]], image[channel : channel + 1], masks, seed)[0]
            torch.testing.assert_close(together[channel : channel + 1], alone)


def test_a_sample_is_a_function_of_the_generator_alone():
    image, masks = torch.randn(2, 24, 24), pair(0, (24, 24))[1]
    torch.manual_seed(1)
    np.random.seed(1)
    first = run(EVERY, image, masks, 7)
    torch.manual_seed(2)
    np.random.seed(2)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    again, backwards = run(EVERY, image, masks, 7), run(EVERY[::-1], image, masks, 7)
    assert torch.equal(torch.get_rng_state(), state[0]) and (np.random.get_state()[1] == state[1]).all()
    for found in (again, backwards):
        assert torch.equal(first[0], found[0]) and torch.equal(first[1], found[1])
    assert not torch.equal(first[0], run(EVERY, image, masks, 8)[0])


def test_angles_fill_their_range_and_probabilities_are_kept():
    """The angle of a dot far from the centre, against the uniform distribution."""
    image = torch.zeros(1, 61, 61)
    masks = torch.zeros(1, 61, 61, dtype=torch.uint8)
    masks[0, 29:32, 54:57] = 1
    angles, still = [], 0
    for seed in range(400):
        moved = run(Rotate(40, probability=0.5), image, masks, seed)[1]
        if torch.equal(moved, masks):
            still += 1
            continue
        rows, columns = torch.nonzero(moved[0] == 1, as_tuple=True)
        angles.append(math.degrees(math.atan2(rows.double().mean() - 30, columns.double().mean() - 30)))
    assert 160 < still < 240
    assert -41 < min(angles) < -35 and 35 < max(angles) < 41
    assert abs(np.mean(angles)) < 5 and np.std(angles) == pytest.approx(80 / math.sqrt(12), rel=0.1)


def test_elastic_displacements_are_smooth_gaussian_fields():
    """Standard deviation 1 everywhere, and the correlation of white noise smoothed by a Gaussian."""
    rng, smoothness = np.random.default_rng(0), 4.0
    fields = np.stack([_smooth_noise((40, 24), smoothness, rng).numpy() for _ in range(600)])
    assert fields.shape == (600, 2, 40, 24)
    np.testing.assert_allclose(fields.std((0, 1)), 1, atol=0.12)
    assert abs(np.mean(fields[:, 0] * fields[:, 1])) < 0.02
    for distance in (2, 5, 9):
        expected = math.exp(-(distance**2) / (4 * smoothness**2))
        assert np.mean(fields[..., distance:, :] * fields[..., :-distance, :]) == pytest.approx(
            expected, abs=0.04
        )


@pytest.mark.parametrize("size", [(40, 50), (10, 50), (40, 7), (3, 3), (20, 30)])
def test_crops_have_their_size_and_are_exact(size):
    image, masks = torch.arange(size[0] * size[1]).float().view(1, *size), torch.zeros(1, *size).byte()
    corners = set()
    for seed in range(60):
        moved, moved_masks = run(Crop(20, 30), image, masks, seed)
        inside = moved_masks[0] == 0
        assert moved.shape == (1, 20, 30) and moved_masks.shape == (1, 20, 30)
        assert int(inside.sum()) == min(size[0], 20) * min(size[1], 30)
        rows, columns = inside.any(1), inside.any(0)
        region = moved[0][rows][:, columns]
        first = int(region[0, 0])
        top, left = divmod(first, size[1])
        assert torch.equal(region, image[0, top : top + len(region), left : left + region.shape[1]])
        corners.add((top, left, int(rows.int().argmax()), int(columns.int().argmax())))
    assert (len(corners) == 1) == (size == (20, 30))
    for seed in range(20):
        moved, moved_masks = run(ResizedCrop(20, 30, 0.5), image, masks, seed)
        assert moved.shape == (1, 20, 30) and moved_masks.shape == (1, 20, 30) and not moved_masks.any()


def test_resized_crops_read_a_region_of_the_asked_share():
    """The image holds its own coordinates, so the result shows where it was read."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(128.0), indexing="ij")
    masks, sides = torch.zeros(1, 64, 128).byte(), []
    for seed in range(80):
        moved, _ = run(ResizedCrop(16, 16, 0.6, 0.99), torch.stack([rows, columns]), masks, seed)
        steps = moved[0, 1:-1].diff(dim=0)[2, 0], moved[1].diff(dim=1)[0, 2]
        assert steps[0] == pytest.approx(float(steps[1]), abs=1e-3)
        sides.append(16 * float(steps[0]) / 64)
        assert float(moved.amin()) > -1e-3
    assert 0.6 <= min(sides) < 0.65 and 0.94 < max(sides) <= 0.9901


def test_intensity_is_one_gain_and_offset_per_channel():
    """Equal values stay equal, masks stay as they are, and channels change differently."""
    image, masks = pair()
    image = image.repeat(2, 1, 1)
    moved, moved_masks = run(Intensity(), image, masks)
    assert torch.equal(moved_masks, masks) and not torch.equal(moved[0], moved[1])
    for before, after in zip(image, moved, strict=True):
        slope = (after[masks[0] == 3].mean() - after[masks[0] == 0].mean()) / 3
        offset = after[masks[0] == 0].mean()
        torch.testing.assert_close(after, slope * before + offset, atol=1e-5, rtol=1e-5)
        assert 0.9 <= slope <= 1.1 and -0.1 <= offset <= 0.1 and slope != 1


def test_gamma_keeps_order_mean_and_deviation_of_each_channel():
    image, masks = torch.randn(3, 30, 30), pair(0, (30, 30))[1]
    image[2] = 5
    moved, moved_masks = run(Gamma(), image, masks)
    assert torch.equal(moved_masks, masks)
    for before, after in zip(image[:2], moved[:2], strict=True):
        assert torch.equal(before.flatten().argsort(), after.flatten().argsort())
        assert after.mean() == pytest.approx(float(before.mean()), abs=1e-5)
        assert after.std() == pytest.approx(float(before.std()), rel=1e-4)
        assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(moved[2], image[2])
    power = Augmentation((Gamma(1.0, 2.0),))(image[:1], masks, VOID, Turned())[0][0]
    unit = (image[0] - image[0].min()) / (image[0].max() - image[0].min())
    assert np.corrcoef(power.flatten(), (unit**2).flatten())[0, 1] == pytest.approx(1, abs=1e-5)


def test_the_input_is_not_changed():
    image, masks = pair(size=(24, 24))
    before = image.clone(), masks.clone()
    for kinds in (EVERY, [Crop(20, 20)], [Crop(30, 30)]):
        run(kinds, image, masks, 1)
        assert torch.equal(image, before[0]) and torch.equal(masks, before[1])


def test_no_kind_does_nothing():
    image, masks = pair()
    moved, moved_masks = run([], image, masks)
    assert moved is image and moved_masks is masks


def test_kinds_have_the_names_by_which_data_sets_speak_of_them():
    assert {kind.kind for kind in (*EVERY, Crop(1, 1))} == set(KINDS)
    assert [kind.kind for kind in TESTED] == ["flip", "quarter-turns", "scale", "intensity"]
    assert not problems([*EVERY]) and not problems([kind for kind in TESTED])
    DatasetInfo("d", augment=dict.fromkeys(KINDS, True))


def test_what_data_sets_say_of_kinds_that_they_do_not_name():
    """Files of earlier versions speak of `rotate` where they mean quarter turns."""
    earlier = {"flip": True, "rotate": True, "scale": False, "intensity": False}
    assert {name: allowed(earlier, name) for name in KINDS} == {
        **dict.fromkeys(["flip", "flip-vertical", "quarter-turns", "rotate"], True),
        **dict.fromkeys(["scale", "intensity", "gamma"], False),
        **dict.fromkeys(["shear", "elastic", "crop", "resized-crop"]),
    }
    street = {"flip": True, "quarter-turns": False}
    assert allowed(street, "flip-vertical") is None and allowed(street, "rotate") is None
    assert allowed({"flip": False}, "flip-vertical") is False
    assert allowed({"rotate": False, "quarter-turns": True}, "quarter-turns") is True
    assert all(allowed({}, name) is None for name in KINDS)


@pytest.mark.parametrize(
    ("kinds", "problem"),
    [
        ([Rotate(200)], "rotate: degrees is 0 to 180, received 200"),
        ([Rotate(-1)], "rotate: degrees is 0 to 180, received -1"),
        ([Rotate(math.nan)], "rotate: degrees is 0 to 180, received nan"),
        ([Shear(90)], "shear: degrees is 0 to 80, received 90"),
        ([Crop(0, 4)], "crop: height is 1 to 65536, received 0"),
        ([ResizedCrop(4, 4, 0.5, 2)], "resized-crop: high is 0.01 to 1, received 2"),
        ([Scale(1.2, 0.8)], "scale: low must be at most high, received low=1.2 and high=0.8"),
        ([Gamma(probability=2)], "gamma: probability is 0 to 1, received 2"),
        ([Elastic(9, 9)], "elastic: strength must be at most a third of smoothness"),
        ([Flip(), Rotate(5), Flip()], "flip is named twice"),
        ([Rotate(5), Rotate(6)], "rotate is named twice"),
        ([Crop(4, 4), ResizedCrop(4, 4)], "crop and resized-crop exclude each other"),
        (["flip"], "'flip' is no kind: give objects such as Flip()"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_sentence(kinds, problem):
    (found,) = problems(kinds)
    assert found.startswith(problem)
