"""Each dialect against plain loops that are written from its description, on pairs of six classes that flip, are
absent and leave masks empty; restricted classes; and what does not fit."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, linprog

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import (
    DIALECTS,
    METRICS,
    Comparison,
    Dialect,
    MeanOverImages,
    diversity,
    ece,
    evaluate_all,
    hm_iou_unique,
    metric_collection,
    numbered_mode_ratios,
    pixel_bins,
)
from ambiseg.metrics.dialects import AMBISEG
from ambiseg.overlap import Absence, pairwise_overlap

Masks = NDArray[np.uint8]
NAMES = ("sky", "car", "road", "tree", "car-twin", "road-twin")
SIX = LabelSpace(NAMES)
FLIPS = {1: 4, 2: 5}
SWITCHABLE = [1, 2, 4, 5]
PAIRS, PIXELS = 200, 30
NAN = math.nan
CLOSE = 1e-7


# -- the plain version ---------------------------------------------------------------------------------------


def classes_of(dialect: str) -> list[int]:
    return SWITCHABLE if dialect in ("kohl", "mose") else [1, 2, 3, 4, 5]


def overlap(a: Masks, b: Masks, dialect: str, family: str, dice: bool = False) -> float:
    """IoU or Dice of two masks: class by class, and what the dialect says of absent ones."""
    values = []
    for c in classes_of(dialect):
        both = in_a = in_b = 0
        for p, q in zip(a.tolist(), b.tolist(), strict=True):
            both, in_a, in_b = both + (p == c and q == c), in_a + (p == c), in_b + (q == c)
        if in_a + in_b:
            values.append(2 * both / (in_a + in_b) if dice else both / (in_a + in_b - both))
        elif dialect == "ccdm" or (dialect == "flow-ssn" and family == "consensus"):
            values.append(1.0)
    if values:
        return sum(values) / len(values)
    if dialect in ("kohl", "mose", "flow-ssn") and family != "consensus":
        return NAN
    return 0.0 if dialect == "wildfire" and family == "energy" else 1.0


def expected(
    a: list[Masks], u: list[float], b: list[Masks], v: list[float], dialect: str, dice: bool
) -> float:
    total = 0.0
    for x, p in zip(a, u, strict=True):
        for y, q in zip(b, v, strict=True):
            total += p * q * (1 - overlap(x, y, dialect, "energy", dice))
    return total


def tiled(iou: NDArray[np.float64]) -> float:
    size = math.lcm(*iou.shape)
    wide = np.array([[iou[i % iou.shape[0], j % iou.shape[1]] for j in range(size)] for i in range(size)])
    return float(wide[linear_sum_assignment(-wide)].mean())


def transported(iou: NDArray[np.float64], u: list[float], v: list[float]) -> float:
    rows = [[float(i == k) for i in range(len(u)) for _ in v] for k in range(len(u))]
    columns = [[float(j == k) for _ in u for j in range(len(v))] for k in range(len(v))]
    sums = [w / sum(u) for w in u] + [w / sum(v) for w in v]
    return -float(linprog(-iou.ravel(), A_eq=rows + columns, b_eq=sums, method="highs").fun)


def best(iou: NDArray[np.float64]) -> float:
    """Greatest total of a one-to-one matching, every one tried."""
    wide = iou if iou.shape[0] <= iou.shape[1] else iou.T
    ways = itertools.permutations(range(wide.shape[1]), wide.shape[0])
    return max(sum(wide[i, j] for i, j in enumerate(way)) for way in ways)


def vote(masks: list[Masks], weights: list[float]) -> Masks:
    """The class of most weight at each pixel, a tie to class 0, else to the lowest."""
    chosen = []
    for at in range(PIXELS):
        share = [0.0] * len(NAMES)
        for mask, w in zip(masks, weights, strict=True):
            share[mask[at]] += w
        chosen.append(next(c for c in range(len(NAMES)) if share[c] > max(share) - 1e-6))
    return np.array(chosen, np.uint8)


def matched(iou: NDArray[np.float64], dialect: str, u: list[float], v: list[float]) -> dict[str, float]:
    if np.isnan(iou).any():
        even = 0.0 if dialect == "mose" else NAN
        weighted = even if len(set(u)) == len(set(v)) == 1 else NAN
        return {"hm_iou": NAN, "hm_iou_multi": NAN, "hm_iou_tiled": even, "m_iou": weighted}
    return {
        "hm_iou": best(iou) / min(iou.shape),
        "hm_iou_multi": sum(max(column) for column in iou.T.tolist()) / iou.shape[1],
        "hm_iou_tiled": tiled(iou),
        "m_iou": transported(iou, u, v),
    }


def plain(s: list[Masks], u: list[float], y: list[Masks], v: list[float], dialect: str) -> dict[str, float]:
    """All metrics that a dialect may change but ECE, of one image."""
    iou, dices = (
        np.array([[overlap(a, b, dialect, "matching", dice) for b in y] for a in s]) for dice in (False, True)
    )
    groups: dict[bytes, int] = {}
    for j, mask in enumerate(y):
        seen = np.where(np.isin(mask, classes_of(dialect)), mask, 0) if dialect in ("kohl", "mose") else mask
        groups.setdefault(seen.tobytes(), j)
    modes = iou[:, list(groups.values())]
    count = min(modes.shape) if dialect == "wildfire" else modes.shape[1]
    geds = {}
    for name, dice in (("ged", False), ("ged_dice", True)):
        between, ours, theirs = (
            expected(*sides, dialect, dice) for sides in ((s, u, y, v), (s, u, s, u), (y, v, y, v))
        )
        geds[name] = 2 * between - ours - theirs
    drawn = sum(
        p * q * overlap(a, b, dialect, "consensus", True)
        for a, p in zip(s, u, strict=True)
        for b, q in zip(y, v, strict=True)
    )
    return {
        **matched(iou, dialect, u, v),
        **geds,
        "diversity": expected(s, u, s, u, dialect, False),
        "hm_iou_unique": NAN if np.isnan(modes).any() else best(modes) / count,
        "max_dice_matching": sum(max(c) for c in dices.T.tolist()) / len(y)
        if not np.isnan(dices).any()
        else NAN,
        "dice_of_mean": overlap(vote(s, u), vote(y, v), dialect, "consensus", True),
        "expected_dice": drawn,
    }


def plain_ece(images: list[tuple[list[Masks], list[float], list[Masks], list[float]]], dialect: str) -> float:
    """Top-1 ECE, pixels of all images pooled."""
    confidences, targets, pixels = [[] for _ in range(10)], [[] for _ in range(10)], 0
    for s, u, y, v in images:
        for at in range(PIXELS):
            pixels += 1
            share = [sum(w for m, w in zip(s, u, strict=True) if m[at] == c) for c in range(len(NAMES))]
            top = next(c for c in range(len(NAMES)) if share[c] > max(share) - 1e-6)
            target = sum(w for m, w in zip(y, v, strict=True) if m[at] == top)
            if dialect == "mose":
                if top not in SWITCHABLE:
                    continue
                place = next(b for b in range(10) if share[top] <= (b + 1) / 10 + 1e-6)
            else:
                place = next(b for b in reversed(range(10)) if share[top] >= b / 10 - 1e-6)
            confidences[place].append(share[top])
            targets[place].append(target)
    gaps = zip(confidences, targets, strict=True)
    return sum(abs(sum(p) / len(p) - sum(t) / len(t)) * len(p) / pixels for p, t in gaps if p)


# -- the pairs -----------------------------------------------------------------------------------------------


def drawn_mask(rng: np.random.Generator, base: Masks) -> Masks:
    """A variant of a label map: classes flipped or gone, pixels changed, or nothing but background left."""
    mask = base.copy()
    for c, twin in FLIPS.items():
        if rng.random() < 0.5:
            mask[base == c] = twin
    kind = rng.random()
    if kind < 0.15:
        mask[:] = 0
    elif kind < 0.3:
        mask[mask != 3] = 0
    elif kind < 0.7:
        noise = rng.random(PIXELS) < 0.2
        mask[noise] = rng.choice([0, int(rng.integers(6))], int(noise.sum()))
    return mask


def drawn_pair(rng: np.random.Generator) -> tuple[list[Masks], list[float], list[Masks], list[float]]:
    """Predictions and annotations of one image with weights in float32, some of them equal masks."""
    present = rng.choice([0, 1, 2, 3], int(rng.integers(1, 5)), replace=False)
    base = rng.choice(present, PIXELS).astype(np.uint8)
    sides: list[tuple[list[Masks], list[float]]] = []
    for most in (6, 4):
        masks = [drawn_mask(rng, base) for _ in range(int(rng.integers(1, most + 1)))]
        masks += [masks[0]] if rng.random() < 0.3 else []
        counts = np.ones(len(masks)) if rng.random() < 0.5 else rng.integers(1, 9, len(masks))
        counts = counts * 64 // counts.sum() if counts.min() > 1 else counts
        sides.append((masks, (counts / counts.sum()).astype(np.float32).tolist()))
    return (*sides[0], *sides[1])


@pytest.fixture(scope="module")
def pairs() -> list[tuple[list[Masks], list[float], list[Masks], list[float]]]:
    rng = np.random.default_rng(20)
    return [drawn_pair(rng) for _ in range(PAIRS)]


def as_set(masks: list[Masks], weights: list[float], labels: LabelSpace = SIX) -> MaskSet:
    return MaskSet.from_numpy(np.stack(masks)[:, None], weights, labels)


@pytest.fixture(scope="module")
def sets(pairs) -> tuple[MaskSet, MaskSet]:
    """All pairs as one batch, sets of different size padded."""
    ours = MaskSet.stack([as_set(s, u) for s, u, _, _ in pairs])
    return ours, MaskSet.stack([as_set(y, v) for _, _, y, v in pairs])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_metric_is_that_of_the_plain_loops(dialect, pairs, sets):
    wanted = [plain(*pair, dialect) for pair in pairs]
    found = evaluate_all(*sets, list(wanted[0]), dialect)
    for name, values in found.items():
        expect = np.array([one[name] for one in wanted])
        np.testing.assert_array_equal(np.isnan(values.numpy()), np.isnan(expect), name)
        np.testing.assert_allclose(values.numpy(), expect, rtol=0, atol=CLOSE, err_msg=name)


@pytest.mark.parametrize("dialect", ["ambiseg", "mose"])
def test_pooled_ece_is_that_of_the_plain_loops(dialect, pairs, sets):
    collection = metric_collection("ece", dialect=dialect)
    for some in (slice(0, 70), slice(70, PAIRS)):
        collection.update(sets[0][some], sets[1][some])
    assert float(collection.compute()["ece"]) == pytest.approx(plain_ece(pairs, dialect), abs=CLOSE)


def test_the_pairs_show_what_dialects_differ_in(sets):
    """Every dialect gives other means than this library's, so none is tested for nothing."""
    for name in set(DIALECTS) - {"ambiseg"}:
        for metric in ("ged", "hm_iou_unique"):
            ours, theirs = (evaluate_all(*sets, metric, one)[metric].nanmean() for one in ("ambiseg", name))
            assert float((ours - theirs).abs()) > 0.02, (name, metric, ours, theirs)
    undefined = {name: evaluate_all(*sets, "ged", name)["ged"].isnan().sum() for name in DIALECTS}
    assert all((count > 20) == (name in ("kohl", "flow-ssn", "mose")) for name, count in undefined.items())


def test_all_other_metrics_are_the_same_in_dialects_of_all_classes(sets):
    changed = {"hm_iou", "hm_iou_unique", "hm_iou_tiled", "hm_iou_multi", "m_iou", "max_dice_matching"}
    changed |= {"ged", "ged_dice", "diversity", "dice_of_mean", "expected_dice", "ece"}
    names = [n for n, info in METRICS.items() if n not in changed and set(info.needs) <= {"weights"}]
    assert {"ged_unbiased", "coverage", "total_variation", "brier_skill_score", "soft_dice"} <= set(names)
    for dialect in ("flow-ssn", "ccdm", "wildfire"):
        ours, theirs = (evaluate_all(*sets, names, one) for one in ("ambiseg", dialect))
        for name in names:
            torch.testing.assert_close(theirs[name], ours[name], rtol=0, atol=0, equal_nan=True)


# -- single conventions --------------------------------------------------------------------------------------


def two(first: list[list[int]], second: list[list[int]], labels: LabelSpace) -> tuple[MaskSet, MaskSet]:
    return tuple(MaskSet.uniform(torch.tensor([m], dtype=torch.uint8), labels) for m in (first, second))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("dialect", "iou", "ged"),
    [
        ("ambiseg", 1, 0),
        ("kohl", NAN, NAN),
        ("flow-ssn", 1, 0),
        ("mose", 1, 0),
        ("ccdm", 1, 0),
        ("wildfire", 1, 0),
    ],
)
def test_two_empty_masks_of_one_class(dialect, iou, ged):
    """The codes of Flow-SSN and MoSE count 1 where one class is evaluated; 2 d - d - d of the wildfire code is 0."""
    found = evaluate_all(*two([[0, 0]], [[0, 0]], LabelSpace.binary()), ["hm_iou", "ged"], dialect)
    np.testing.assert_array_equal([found["hm_iou"].item(), found["ged"].item()], [iou, ged])


def test_an_empty_mask_is_far_from_itself_in_the_wildfire_dialect():
    pair = Comparison(*two([[0, 0], [1, 1]], [[0, 0], [1, 1]], LabelSpace.binary()), DIALECTS["wildfire"])
    assert diversity(pair).item() == pytest.approx((1 + 1 + 1 + 0) / 4)


def test_fewer_masks_than_modes():
    sets = two([[1, 1]], [[1, 1], [0, 1]], LabelSpace.binary())
    assert evaluate_all(*sets, "hm_iou_unique")["hm_iou_unique"].item() == 0.5
    assert evaluate_all(*sets, "hm_iou_unique", "wildfire")["hm_iou_unique"].item() == 1.0


def test_edges_and_zeros_of_the_bins_of_mose():
    """Of LIDC: foreground; 0 falls into no bin, an edge into the lower one, and all pixels divide."""
    chance = torch.tensor([0.0, 0.2, 0.25, 1.0]).view(1, 1, 1, 4)
    ours = MaskSet.from_probabilities(chance, LabelSpace.binary())
    theirs = MaskSet.uniform(torch.tensor([[[1, 0, 0, 1]]], dtype=torch.uint8), LabelSpace.binary())
    bins = pixel_bins(Comparison(ours, theirs, DIALECTS["mose"]))
    assert bins.count[0, 0].tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0, 1] and bins.outside.tolist() == [[1]]
    assert ece(Comparison(ours, theirs, DIALECTS["mose"])).item() == pytest.approx((0.2 + 0.25) / 4)
    bins = pixel_bins(ours, theirs)
    assert bins.count[0, 0].tolist() == [1, 0, 2, 0, 0, 0, 0, 0, 0, 1] and bins.outside.tolist() == [[0]]


def test_a_single_class_of_several_is_calibrated_by_its_own_share_in_mose():
    ours, theirs = two([[1, 2], [1, 0]], [[1, 2]], SIX)
    one = SIX.restricted(["road"])
    pair = Comparison(replace(ours, labels=one), replace(theirs, labels=one), DIALECTS["mose"])
    assert ece(pair).item() == pytest.approx(0.5 / 2)


def test_a_dialect_of_ones_own():
    """Conventions compose: absent classes count 0 here."""
    strict = Dialect("strict", "ours", matching=Absence(one=0.0))
    found = evaluate_all(*two([[1, 0]], [[1, 0]], SIX), "hm_iou", strict)
    assert found["hm_iou"].item() == pytest.approx(1 / 5)


# -- classes -------------------------------------------------------------------------------------------------


def test_chosen_classes_are_what_is_left_when_the_others_become_background(pairs, sets):
    """All but what decides among all classes: the majority, the most probable class."""
    table = np.array([0, 0, 2, 0, 0, 5], np.uint8)
    names = [
        n
        for n, info in METRICS.items()
        if set(info.needs) <= {"weights"} and n not in ("ece", "ncc", "dice_of_mean")
    ]
    only = SIX.restricted(["road", 5])
    found = evaluate_all(*(replace(s, labels=only) for s in sets), names)
    others = [replace(s, masks=torch.from_numpy(table)[s.masks.long().clamp(max=5)]) for s in sets]
    others = [
        replace(s, masks=torch.where(g.masks == 255, 255, s.masks)) for s, g in zip(others, sets, strict=True)
    ]
    wanted = evaluate_all(*others, names)
    labels = replace(SIX, only=(2, 5))  # classes that no mask has do not count, so only the space differs
    exact = evaluate_all(*(replace(s, labels=labels) for s in others), names)
    for name in names:
        torch.testing.assert_close(found[name], exact[name], equal_nan=True, msg=name)
        if name != "soft_dice":  # where a class that no mask has counts 1
            torch.testing.assert_close(found[name], wanted[name], equal_nan=True, msg=name)


def test_modes_that_differ_in_other_classes_are_one():
    ours, theirs = two([[1, 3]], [[1, 3], [1, 0], [1, 2]], SIX)
    assert Comparison(ours, theirs).modes.count.item() == 3
    cars = [replace(s, labels=SIX.restricted(["car"])) for s in (ours, theirs)]
    assert Comparison(*cars).modes.weights.tolist() == [[pytest.approx(1.0)]]
    assert hm_iou_unique(*cars).item() == 1
    assert numbered_mode_ratios(*cars).estimated.tolist() == [[pytest.approx(1 / 3)] * 3]


def test_a_restricted_space_is_written_and_read():
    only = SIX.restricted([5, "car"])
    assert only.evaluated == (1, 5) and LabelSpace.from_dict(only.to_dict()) == only
    assert "only" not in SIX.to_dict() and SIX.switchable == (1, 2, 4, 5)


def test_digits_that_are_a_name_mean_the_name():
    assert LabelSpace(("zero", "7", "1")).restricted(["1"]).evaluated == (2,)


# -- what does not fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["raod"], "unknown class 'raod': did you mean 'road'"),
        ([6], r"no class 6: the ids are 0\.\.5"),
        ([-1], "no class -1"),
        ([], "no class to evaluate"),
    ],
)
def test_classes_that_are_not_there(classes, words):
    with pytest.raises(AmbisegError, match=words):
        SIX.restricted(classes)


@pytest.mark.parametrize("dialect", ["kohl", "mose"])
def test_a_dialect_of_flips_needs_classes_that_flip(dialect):
    plain_six = LabelSpace.of_classes(6)
    sets = two([[1, 2]], [[1, 2]], plain_six)
    with pytest.raises(
        AmbisegError, match=f"the dialect {dialect} evaluates classes that flip .* none of the 6"
    ):
        evaluate_all(*sets, "ged", dialect)
    named = [replace(s, labels=plain_six.restricted([1])) for s in sets]
    assert evaluate_all(*named, "ged", dialect)["ged"].item() == 0


def test_an_unknown_dialect_is_named():
    with pytest.raises(AmbisegError, match="unknown dialect 'mosse': did you mean 'mose'"):
        metric_collection("ged", dialect="mosse")


def test_dialects_do_not_mix_in_one_accumulator():
    sets = two([[1, 4]], [[1, 4]], SIX)
    mean = MeanOverImages("ged", dialect="ccdm")
    mean.update(*sets)
    with pytest.raises(AmbisegError, match="is of the dialect ccdm, the comparison of ambiseg"):
        mean.update(Comparison(*sets))


def test_tags():
    assert AMBISEG.tag(SIX) == "" and DIALECTS["ccdm"].tag(SIX) == "ccdm"
    assert DIALECTS["mose"].tag(DIALECTS["mose"].space(SIX)) == "mose, classes 1-2 4-5"


def test_an_absent_class_in_overlaps():
    counts = pairwise_overlap(*(s.masks for s in two([[1, 1]], [[1, 0]], SIX)), SIX)
    assert counts.iou().item() == 0.5 and counts.iou(Absence(one=1.0)).item() == pytest.approx(4.5 / 5)
