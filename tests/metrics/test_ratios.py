"""Modes and class flips over a data set: pixels counted one by one, closed forms, planted errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from reference import Case, Plain, cases, properties

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics.calibration import mode_ratio
from ambiseg.metrics.ratios import Ratios, TwinPixels, class_flips, flip_ratios, numbered_mode_ratios

BINARY = LabelSpace.binary()
TWINS = LabelSpace(("sky", "road", "car", "road, twin", "car, twin"), ignore_value=255, background=None)
PAIRS = [(1, 3), (2, 4)]
CHANCES = torch.tensor([0.3, 0.8], dtype=torch.float64)


def uniform(masks: list[list[int]]) -> MaskSet:
    return MaskSet.uniform(torch.tensor([masks], dtype=torch.uint8), BINARY)


def counted(plain: Plain, other: Plain, one: int, twin: int) -> tuple[float, float]:
    """Weighted pixels of twin, and of both, where not all masks of either set are void."""
    twins = either = 0.0
    for at in np.ndindex(*plain.masks.shape[1:]):
        if any((s.masks[(slice(None), *at)] == 255).all() for s in (plain, other)):
            continue
        for mask, weight in zip(plain.masks, plain.weights, strict=True):
            twins += weight * (mask[at] == twin)
            either += weight * (mask[at] in (one, twin))
    return twins, either


@properties
@given(cases())
def test_class_flips_agree_with_counting_by_pixel(case: Case) -> None:
    pairs = [(0, 1), (1, 0), *([(1, 2), (case.labels.classes - 1, 0)] if case.labels.classes > 2 else [])]
    flips = class_flips(case.predictions, case.annotations, pairs=pairs)
    estimated, true = flips.ratio()
    assert estimated.shape == true.shape == (len(case.images), len(pairs))
    assert estimated.dtype == true.dtype == torch.float32 and flips.true_twin.dtype == torch.float64
    for b, (p, a) in enumerate(case.images):
        for k, ids in enumerate(pairs):
            ours, theirs = counted(p, a, *ids), counted(a, p, *ids)
            assert flips.estimated_twin[b, k].item() == pytest.approx(ours[0], abs=1e-6)
            assert flips.estimated_either[b, k].item() == pytest.approx(ours[1], abs=1e-6)
            assert flips.true_twin[b, k].item() == pytest.approx(theirs[0], abs=1e-6)
            assert flips.true_either[b, k].item() == pytest.approx(theirs[1], abs=1e-6)
            for value, (twin, either) in ((estimated[b, k], ours), (true[b, k], theirs)):
                wanted = twin / either if either else math.nan
                np.testing.assert_allclose(value.item(), wanted, atol=1e-6)
    torch.testing.assert_close(estimated[:, 0], 1 - estimated[:, 1], equal_nan=True)


@properties
@given(cases())
def test_class_flips_of_parts_add_up(case: Case) -> None:
    whole = class_flips(case.predictions, case.annotations, pairs=[(0, 1)]).pooled()
    total: TwinPixels | None = None
    for b in range(len(case.images)):
        part = class_flips(case.predictions[b], case.annotations[b], pairs=[(0, 1)])
        total = part if total is None else total + part
    assert total is not None
    for ours, theirs in zip(total.ratio(), whole.ratio(), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_class_flips_of_hand_made_masks() -> None:
    labels = LabelSpace(("road", "person", "bicycle", "person 2"), ignore_value=255, background=None)
    masks = torch.tensor([[[0, 1, 1, 255], [0, 3, 3, 255]]], dtype=torch.uint8)
    truth = MaskSet(masks, torch.tensor([[10 / 17, 7 / 17]]), labels)
    drawn = torch.tensor([[[0, 1, 1, 3], [0, 1, 3, 3], [2, 0, 3, 3], [1, 0, 0, 3]]], dtype=torch.uint8)
    flips = class_flips(MaskSet.uniform(drawn, labels), truth, pairs=[(1, 3), (2, 3)])
    np.testing.assert_allclose(flips.estimated_either.numpy(), [[6 / 4, 3 / 4]])
    estimated, true = flips.ratio()
    np.testing.assert_allclose(estimated.numpy(), [[2 / 6, 2 / 3]], rtol=1e-6)
    np.testing.assert_allclose(true.numpy(), [[7 / 17, 1]], rtol=1e-6)
    none = class_flips(truth, truth, pairs=[(2, 0), (0, 2)]).ratio()[0]
    assert none.tolist() == [[1, 0]]
    labels = LabelSpace.of_classes(5)
    alone = MaskSet.uniform(torch.zeros(1, 1, 4, dtype=torch.uint8), labels)
    assert bool(class_flips(alone, alone, pairs=[(3, 4)]).ratio()[1].isnan().all())


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "pairs is empty"),
        ([(0, 1), (1, 1)], r"pairs holds \(1, 1\): each is two different classes of 0\.\.1"),
        ([(0, 2)], r"pairs holds \(0, 2\)"),
        ([(-1, 0)], r"pairs holds \(-1, 0\)"),
        ([(0, 1, 0)], r"pairs holds \(0, 1, 0\)"),
    ],
)
def test_wrong_pairs_are_refused(pairs: Sequence[tuple[int, int]], message: str) -> None:
    one = uniform([[1, 1, 0]])
    with pytest.raises(AmbisegError, match=message):
        class_flips(one, one, pairs=pairs)
    with pytest.raises(AmbisegError, match=message):
        flip_ratios(one, one, pairs=pairs)


def test_wrong_sums_and_templates_are_refused() -> None:
    one, area = uniform([[1, 1, 0]]), torch.ones(1, 1, 3)
    with pytest.raises(AmbisegError, match=r"\(1, 2\) and \(1, 1\) .* cannot be added"):
        _ = class_flips(one, one, pairs=[(0, 1), (1, 0)]) + class_flips(one, one, pairs=[(0, 1)])
    with pytest.raises(AmbisegError, match="pass both"):
        class_flips(one, pairs=[(0, 1)])
    for wrong in (area[0], torch.ones(2, 1, 3), torch.ones(1, 1, 4)):
        with pytest.raises(AmbisegError, match=r"do not fit masks of shape \(1, 1, 3\)"):
            flip_ratios(one, one, templates=wrong)
    for words in ({}, {"templates": area, "pairs": [(0, 1)]}):
        with pytest.raises(AmbisegError, match="pass templates or pairs"):
            flip_ratios(one, one, **words)


# -- events by whole masks -----------------------------------------------------------------------------------


def flipped_scenes(twins: bool, count: int = 3, missing: int | None = 1) -> tuple[MaskSet, torch.Tensor]:
    """Modes 00, 01, 10, 11 of two classes, with the probabilities `CHANCES`, in random scenes, one without
    the second class."""
    scene = torch.randint(0, 3, (count, 6, 7), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    if missing is not None:
        scene[missing][scene[missing] == 2] = 0
    templates = torch.stack([scene == 1, scene == 2], 1)
    on = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    weights = torch.where(on.bool(), CHANCES, 1 - CHANCES).prod(1).float().repeat(count, 1)
    shown = torch.einsum("mp,bphw->bmhw", on, templates.long()).to(torch.uint8)
    if twins:
        return MaskSet(scene[:, None] + 2 * shown, weights, TWINS), templates
    return MaskSet(shown, weights, BINARY), templates


def flips_of(predictions: MaskSet, truth: MaskSet, templates: torch.Tensor, twins: bool) -> Ratios:
    chosen = {"pairs": PAIRS} if twins else {"templates": templates}
    return flip_ratios(predictions, truth, **chosen)


both_kinds = pytest.mark.parametrize("twins", [False, True], ids=["switched", "twins"])


@both_kinds
def test_the_truth_has_the_chances_of_the_classes_and_no_error(twins: bool) -> None:
    truth, templates = flipped_scenes(twins)
    found = flips_of(truth, truth, templates, twins)
    assert bool((found.true.isnan() == torch.tensor([[False, False], [False, True], [False, False]])).all())
    for mean in found.means():
        torch.testing.assert_close(mean, CHANCES, rtol=0, atol=1e-6)
    assert found.error().tolist() == [0, 0]
    modes = numbered_mode_ratios(truth, truth)
    torch.testing.assert_close(modes.estimated, truth.weights.double(), rtol=1e-6, atol=1e-7)


@both_kinds
def test_a_planted_weight_gives_its_error(twins: bool) -> None:
    """0.1 of mode 00 moves to mode 10: the first class is on more often by that, in every image, the second
    as before."""
    truth, templates = flipped_scenes(twins, missing=None)
    moved = truth.weights + 0.1 * torch.tensor([-1.0, 0, 1, 0])
    planted = MaskSet(truth.masks, moved, truth.labels)
    found = flips_of(planted, truth, templates, twins)
    torch.testing.assert_close(found.error(), torch.tensor([0.1, 0], dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.means()[0], CHANCES + torch.tensor([0.1, 0]), rtol=0, atol=1e-6)
    modes = numbered_mode_ratios(planted, truth)
    torch.testing.assert_close(modes.error(), 0.1 * torch.tensor([1.0, 0, 1, 0]).double(), rtol=0, atol=1e-6)


@both_kinds
def test_weights_count_like_copies(twins: bool) -> None:
    """A weighted set is what as many equal samples are, in any order."""
    truth, templates = flipped_scenes(twins)
    drawn = MaskSet.uniform(truth.masks[:, [3, 1, 2, 0, 0, 0, 1, 1]], truth.labels)
    share = torch.tensor([3, 3, 1, 1]) / 8
    compact = MaskSet(truth.masks, share.repeat(3, 1), truth.labels)
    for function in (
        lambda p: flips_of(p, truth, templates, twins),
        lambda p: numbered_mode_ratios(p, truth),
    ):
        torch.testing.assert_close(
            function(drawn).estimated, function(compact).estimated, equal_nan=True, rtol=1e-6, atol=1e-7
        )


def test_only_more_than_half_of_the_area_is_on() -> None:
    area, labels = torch.ones(1, 1, 4), LabelSpace.binary(ignore_value=255)
    for mask, on in (([1, 1, 0, 0], 0), ([1, 1, 1, 0], 1), ([1, 1, 255, 255], 0)):
        one = MaskSet.uniform(torch.tensor([[mask]], dtype=torch.uint8), labels)
        assert flip_ratios(one, one, templates=area).estimated.tolist() == [[on]]


def test_a_mask_of_another_class_is_not_flipped() -> None:
    truth = MaskSet(torch.tensor([[[1, 1, 1], [3, 3, 3]]]), torch.tensor([[0.25, 0.75]]), TWINS)
    drawn = MaskSet(torch.tensor([[[3, 3, 1], [4, 4, 4], [0, 0, 3]]]), torch.tensor([[0.5, 0.3, 0.2]]), TWINS)
    found = flip_ratios(drawn, truth, pairs=PAIRS)
    assert found.true[0, 0].item() == 0.75 and found.estimated[0, 0].item() == 0.5
    assert bool(found.estimated[0, 1].isnan()) and bool(found.error()[1].isnan())


def test_modes_that_look_alike_share_by_their_own_probabilities() -> None:
    """Mode 2 equals mode 0 here: what is nearest to either is shared 1 to 3."""
    truth = MaskSet(
        torch.tensor([[[1, 0, 0], [1, 1, 1], [1, 0, 0]]]), torch.tensor([[0.1, 0.6, 0.3]]), BINARY
    )
    drawn = MaskSet(torch.tensor([[[1, 0, 0], [0, 1, 1]]]), torch.tensor([[0.8, 0.2]]), BINARY)
    found = numbered_mode_ratios(drawn, truth).estimated[0]
    torch.testing.assert_close(found, torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64), rtol=0, atol=1e-6)


@properties
@given(cases())
def test_numbered_modes_add_up_to_those_of_the_image(case: Case) -> None:
    """Against equality mask by mask: the places of one mode hold together what `mode_ratio` gives it."""
    found, merged = (
        function(case.predictions, case.annotations) for function in (numbered_mode_ratios, mode_ratio)
    )
    modes = case.annotations.merge_identical()
    for b, (_, a) in enumerate(case.images):
        assert found.estimated[b].sum().item() == pytest.approx(1, abs=1e-5)
        for j in range(int(modes.count[b])):
            places = [i for i, mask in enumerate(a.masks) if (mask == modes.masks[b, j].numpy()).all()]
            total = found.estimated[b, places].sum().item()
            assert total == pytest.approx(merged.estimated[b, j].item(), abs=1e-6)


def test_batches_join() -> None:
    truth, templates = flipped_scenes(False)
    whole = flip_ratios(truth.top(2), truth, templates=templates)
    parts = [
        flip_ratios(truth[b].top(2), truth[b], templates=templates[b : b + 1]) for b in range(len(truth))
    ]
    joined = Ratios.joined(parts)
    torch.testing.assert_close(joined.estimated, whole.estimated, equal_nan=True)
    torch.testing.assert_close(joined.error(), whole.error())
