"""Every metric against its plain version on thousands of random sets, properties of all metrics, and two processes
as one."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from plain_suite import (
    PARTS,
    Pair,
    Side,
    Space,
    all_values,
    brier_values,
    of_means,
    pooled_values,
    uncertainty,
)
from torch import Tensor

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import METRICS, brier_scores, evaluate_all, metric_collection
from ambiseg.metrics.calibration import ASSIGNMENTS

IMAGES = 40
SPACES = [(3, 5), (3, 5), (1, 3), (5, 7), (2, 3, 2)]
PREDICTIONS, ANNOTATIONS = 8, 6
FEW = settings(
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
"""A batch follows from a seed, which there is no use in shrinking."""
SOFT = ("dice_of_mean", "ece", "soft_dice")
"""Metrics that take per-pixel probabilities where there are some."""
HARD = [name for name, info in METRICS.items() if "probabilities" not in info.needs]


@dataclass(repr=False)
class Batch:
    """The same images twice: as two `MaskSet`s with padding anywhere, and image by image as whole numbers."""

    predictions: MaskSet
    annotations: MaskSet
    pairs: list[Pair]

    def part(self, images: list[int]) -> Batch:
        at = torch.tensor(images)
        return Batch(self.predictions[at], self.annotations[at], [self.pairs[b] for b in images])


def spaces(rng: np.random.Generator, classes: int, ignore: bool) -> LabelSpace:
    """Classes with a void value or none, the background first, or last, or none."""
    value = int(rng.choice([255, classes, 100])) if ignore else None
    background = [0, 0, 0, None, classes - 1][rng.integers(5)]
    return replace(LabelSpace.of_classes(classes, ignore_value=value), background=background)


def random_masks(rng: np.random.Generator, count: int, pixels: int, labels: LabelSpace) -> NDArray[np.uint8]:
    """Masks ``(count, pixels)`` of one image, of one of four kinds, some pixels and some masks void."""
    classes = labels.classes
    kind = rng.integers(4)
    if kind == 0:  # few masks, drawn often
        pool = rng.integers(0, classes, (3, pixels))
        pool = np.concatenate([pool, np.zeros((1, pixels)), np.full((1, pixels), rng.integers(1, classes))])
        masks = pool[rng.integers(0, len(pool), count)]
    elif kind == 1:  # variants of one mask
        masks = np.repeat(rng.integers(0, classes, (1, pixels)), count, 0)
        masks = np.where(rng.random(masks.shape) < 0.3, rng.integers(0, classes, masks.shape), masks)
    elif kind == 2:  # any masks, of few classes each
        masks = rng.integers(0, rng.integers(1, classes + 1, (count, 1)), (count, pixels))
    else:  # empty and full ones only
        masks = np.repeat(rng.choice([0, classes - 1], (count, 1)), pixels, 1)
    if labels.ignore_value is not None and rng.random() < 0.7:
        masks[rng.random(masks.shape) < rng.choice([0.1, 0.4])] = labels.void
        masks[rng.random(count) < 0.1] = labels.void
        masks[:, rng.random(pixels) < 0.1] = labels.void
    return masks.astype(np.uint8)


def random_counts(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Whole weights: equal ones, small ones, or parts of sixteen."""
    kind = rng.integers(3)
    if kind == 0:
        return np.ones(count, np.int64)
    if kind == 1:
        return rng.integers(1, 6, count)
    return 1 + rng.multinomial(16 - count, np.full(count, 1 / count))


def random_soft(rng: np.random.Generator, shape: tuple[int, int], classes: int) -> NDArray[np.int64]:
    """Sixty-fourths ``(K, classes, P)`` of sum sixty-four at each pixel, some of them sure."""
    chance = rng.random((*shape, classes)) ** 3 + 1e-3
    chance[rng.random(shape) < 0.2, rng.integers(classes)] += 1e6
    value: NDArray[np.int64] = rng.multinomial(PARTS, chance / chance.sum(-1, keepdims=True))
    return value.transpose(0, 2, 1)


def make_set(
    rng: np.random.Generator, sides: list[Side], places: int, labels: LabelSpace, space: tuple[int, ...]
) -> MaskSet:
    """The sides as one `MaskSet`, entries in their order between padding that holds anything."""
    pixels = math.prod(space)
    masks = rng.integers(0, labels.classes, (len(sides), places, pixels)).astype(np.uint8)
    scores, weights = rng.random((len(sides), places)), np.zeros((len(sides), places))
    soft = None if sides[0].soft is None else rng.random((len(sides), places, labels.classes, pixels)) * PARTS
    for b, side in enumerate(sides):
        at = np.sort(rng.choice(places, side.size, replace=False))
        masks[b, at], weights[b, at], scores[b, at] = side.masks, side.weights, side.scores
        if soft is not None:
            soft[b, at] = side.soft
    probabilities = None
    if soft is not None:
        kept = torch.from_numpy(soft / PARTS).float().unflatten(-1, space)
        probabilities = kept[:, :, 1:] if labels.is_binary else kept
    return MaskSet(
        torch.from_numpy(masks).unflatten(-1, space),
        torch.from_numpy(weights).float(),
        labels,
        torch.from_numpy(scores).float(),
        probabilities,
    )


def make_batch(seed: int, classes: int, ignore: bool) -> Batch:
    """`IMAGES` images: sets of any size, duplicates, empty and full masks, weights, void, probabilities,
    padding."""
    rng = np.random.default_rng(seed)
    labels, space = spaces(rng, classes, ignore), SPACES[rng.integers(len(SPACES))]
    plain = Space(classes, labels.background, labels.void)
    pixels, soft_truth = math.prod(space), bool(rng.integers(2))
    pairs = []
    for _ in range(IMAGES):
        m, n = int(rng.integers(1, PREDICTIONS + 1)), int(rng.integers(1, ANNOTATIONS + 1))
        pool = random_masks(rng, m + n, pixels, labels)
        sides = []
        for masks, soft in ((pool[:m], True), (pool[m:], soft_truth)):
            k = len(masks)
            scores = rng.integers(0, 9, k) / 8 if rng.random() < 0.4 else rng.random(k)
            kept = random_soft(rng, (k, pixels), classes) if soft else None
            sides.append(Side(masks, random_counts(rng, k), scores.astype(np.float32), kept))
        pairs.append(Pair(plain, sides[0], sides[1]))
    ours, theirs = [pair.predictions for pair in pairs], [pair.annotations for pair in pairs]
    return Batch(
        make_set(rng, ours, PREDICTIONS + 1, labels, space),
        make_set(rng, theirs, ANNOTATIONS + int(rng.integers(2)), labels, space),
        pairs,
    )


batches = st.builds(make_batch, st.integers(0, 2**32 - 1), st.integers(2, 10), st.booleans())


def agrees(found: float, wanted: float) -> bool:
    """To 1e-6, of values beyond one relatively; infinities and nan exactly."""
    if not math.isfinite(wanted):
        return found == wanted or (math.isnan(found) and math.isnan(wanted))
    return abs(found - wanted) <= 1e-6 * (1 + abs(wanted))


def same(a: Tensor, b: Tensor, name: str) -> None:
    """Equal to 2e-6; of Brier skill only values above -20.

    Far below 0 the uniform guess is nearly perfect, and the difference of two float32 weights of which its
    score is made does not fix the quotient to six digits.
    """
    if name.startswith("brier_skill"):
        sure = ~(a < -20)
        a, b = a[sure], b[sure]
    torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-6, equal_nan=True, msg=lambda text: f"{name}: {text}")


def test_every_metric_agrees_with_its_plain_version() -> None:
    compared: Counter[str] = Counter()

    @settings(FEW, max_examples=80)
    @given(batches)
    @example(make_batch(386336, 2, True))  # two modes whose weights are equal but for rounding
    def check(batch: Batch) -> None:
        found = evaluate_all(batch.predictions, batch.annotations, list(METRICS))
        hard = evaluate_all(batch.predictions.hard(), batch.annotations, (*SOFT, "ncc"))
        briers = {way: brier_scores(batch.predictions, batch.annotations, way) for way in ASSIGNMENTS}
        assert all(
            v.shape == (IMAGES,) and v.dtype == torch.float32 for v in (*found.values(), *hard.values())
        )
        for b, pair in enumerate(batch.pairs):
            wanted = all_values(pair)
            assert set(wanted) == set(METRICS)
            for name, allowed in wanted.items():
                value = float(found[name][b])
                assert not allowed or any(agrees(value, v) for v in allowed), (name, b, value, allowed)
                compared[name] += bool(allowed)
            for name, value in of_means(replace(pair, predictions=pair.predictions.hard())).items():
                assert agrees(float(hard[name][b]), value), ("without probabilities", name, b, value)
            wanted_ncc = uncertainty(replace(pair, predictions=pair.predictions.hard()))
            assert wanted_ncc is None or agrees(float(hard["ncc"][b]), wanted_ncc), (b, wanted_ncc)
            for way, scores in brier_values(pair).items():
                both = (float(briers[way].score[b]), float(briers[way].uniform[b]))
                near = [all(map(agrees, both, wanted)) for wanted in scores]
                assert not near or any(near), (way, b, both, scores)
            compared["sets"] += 1

    check()
    assert compared["sets"] >= 3000
    # Skills are compared where weights in float32 determine them to 1e-6, the scores they divide always.
    for name in METRICS:
        assert compared[name] > (0.4 if name.startswith("brier") else 0.85) * compared["sets"], compared


def test_accumulators_agree_with_plain_pooling() -> None:
    compared: Counter[str] = Counter()

    @settings(FEW, max_examples=40)
    @given(batches, st.integers(1, IMAGES))
    def check(batch: Batch, size: int) -> None:
        sure = [b for b, pair in enumerate(batch.pairs) if pair.unambiguous]
        if not sure:
            return
        batch = batch.part(sure)
        collection = metric_collection(METRICS)
        for i in range(0, len(sure), size):
            some = batch.part(list(range(i, min(i + size, len(sure)))))
            collection.update(some.predictions, some.annotations)
        found, pooled = collection.compute(), pooled_values(batch.pairs)
        values = [all_values(pair) for pair in batch.pairs]
        assert set(pooled) == {name for name, info in METRICS.items() if info.pooling}
        for name in METRICS:
            if name in pooled:
                wanted = pooled[name]
            else:
                alone = [v[name][0] for v in values if not math.isnan(v[name][0])]
                wanted = sum(alone) / len(alone) if alone else math.nan
            assert agrees(float(found[name]), wanted), (name, float(found[name]), wanted)
        compared["sets"] += len(sure)

    check()
    assert compared["sets"] >= 300


# -- properties ----------------------------------------------------------------------------------------------------

SPLIT_PREDICTIONS = [
    "hm_iou_multi", "m_iou", "max_dice_matching", "ged", "ged_dice", "diversity", "coverage", "covered_mass", "precision_at",
    "modes_hit", "expected_draws", "brier_skill_nearest", "brier_skill_merged", "total_variation", "mode_kl", "ece",
    "ncc", "bits_per_dimension", "dice_of_mean", "expected_dice", "soft_dice",
]  # fmt: skip
"""Metrics of the distribution of the predictions: one mask twice, its weight divided, changes nothing."""
SPLIT_ANNOTATIONS = [
    "hm_iou_unique", "m_iou", "ged", "ged_dice", "diversity", "coverage", "covered_mass", "precision_at", "modes_hit",
    "expected_draws", "selection_f1", "selection_precision", "selection_recall", "selection_ap", "brier_skill_score",
    "brier_skill_nearest", "brier_skill_merged", "total_variation", "mode_kl", "ece", "ncc", "bits_per_dimension",
    "dice_of_mean", "expected_dice", "soft_dice",
]  # fmt: skip
"""Metrics of the distribution of the annotations."""
ANY_ORDER = [
    "hm_iou", "hm_iou_unique", "hm_iou_tiled", "hm_iou_multi", "m_iou", "max_dice_matching", "ged", "ged_dice",
    "ged_unbiased", "diversity", "coverage", "covered_mass", "precision_at", "ece", "ncc", "bits_per_dimension",
    "dice_of_mean", "expected_dice", "soft_dice",
]  # fmt: skip
"""Metrics without a choice among the equally good, which may depend on the order."""
SYMMETRIC = [
    "hm_iou",
    "hm_iou_tiled",
    "m_iou",
    "ged",
    "ged_dice",
    "ged_unbiased",
    "expected_dice",
    "soft_dice",
    "dice_of_mean",
]
"""Metrics that stay when predictions and annotations change places, neither of them with probabilities."""


def split(given: MaskSet, seed: int) -> MaskSet:
    """One entry of each image twice, the second at the end, its weight divided unevenly between the two."""
    entry = torch.multinomial(given.weights, 1, generator=torch.Generator().manual_seed(seed))
    every = torch.arange(given.masks.shape[1]).repeat(len(given), 1)
    wide = given.gather(torch.cat([every, entry], 1))
    weights = wide.weights.clone()
    weights[:, -1] *= 0.25
    weights.scatter_add_(1, entry, -weights[:, -1:])
    return replace(wide, weights=weights)


def shuffled(given: MaskSet, seed: int) -> MaskSet:
    """The entries of each image in an order of its own."""
    noise = torch.rand(given.weights.shape, generator=torch.Generator().manual_seed(seed))
    return given.gather(noise.argsort(1))


@settings(FEW, max_examples=10)
@given(batches, st.integers(0, 2**31))
def test_dividing_a_mask_changes_no_metric_of_distributions(batch: Batch, seed: int) -> None:
    ours, theirs = batch.predictions, batch.annotations
    wanted = evaluate_all(ours, theirs, METRICS)
    for names, sides in (
        (SPLIT_PREDICTIONS, (split(ours, seed), theirs)),
        (SPLIT_ANNOTATIONS, (ours, split(theirs, seed))),
    ):
        for name, value in evaluate_all(*sides, names).items():
            same(value, wanted[name], name)


@settings(FEW, max_examples=10)
@given(batches, st.integers(0, 2**31))
def test_the_order_of_neither_side_matters(batch: Batch, seed: int) -> None:
    ours, theirs = shuffled(batch.predictions, seed), shuffled(batch.annotations, seed + 1)
    wanted = evaluate_all(batch.predictions, batch.annotations, ANY_ORDER)
    for name, value in evaluate_all(ours, theirs, ANY_ORDER).items():
        same(value, wanted[name], name)


@settings(FEW, max_examples=10)
@given(batches)
def test_changing_places_changes_no_symmetric_metric(batch: Batch) -> None:
    ours, theirs = batch.predictions.hard(), batch.annotations.hard()
    wanted = evaluate_all(ours, theirs, SYMMETRIC)
    for name, value in evaluate_all(theirs, ours, SYMMETRIC).items():
        same(value, wanted[name], name)


@settings(FEW, max_examples=10)
@given(batches, st.integers(0, 2**31))
def test_equal_distributions_have_no_distance(batch: Batch, seed: int) -> None:
    truth = batch.annotations.hard()
    other = shuffled(split(truth, seed), seed)
    perfect = {
        "hm_iou_unique": 1,
        "m_iou": 1,
        "ged": 0,
        "ged_dice": 0,
        "ece": 0,
        "dice_of_mean": 1,
        "soft_dice": 1,
    }
    if (
        truth.labels.ignore_value is None
    ):  # masks that differ in void pixels only are equally near to everything
        perfect |= {"coverage": 1, "covered_mass": 1, "precision_at": 1, "total_variation": 0, "mode_kl": 0}
    for name, value in evaluate_all(other, truth, perfect).items():
        wanted = torch.full_like(value, perfect[name])
        same(value, torch.where(value.isnan(), value, wanted) if name == "ece" else wanted, name)


@settings(FEW, max_examples=10)
@given(batches, st.integers(0, 2**31))
def test_names_of_classes_do_not_matter(batch: Batch, seed: int) -> None:
    labels = batch.predictions.labels
    places = torch.tensor(labels.evaluated)
    table = torch.arange(256, dtype=torch.uint8)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    table[places] = places[order].to(torch.uint8)
    names = [
        name for name in HARD if name not in ("ece", "dice_of_mean")
    ]  # of tied classes these take the lowest
    sets = [batch.predictions.hard(), batch.annotations.hard()]
    renamed = [replace(s, masks=table[s.masks.int()]) for s in sets]
    names = [name for name in names if name in ANY_ORDER]
    wanted = evaluate_all(*sets, names)
    for name, value in evaluate_all(*renamed, names).items():
        same(value, wanted[name], name)


# -- two processes -------------------------------------------------------------------------------------------


def totals(names: list[str], images: list[list[int]]) -> dict[str, float]:
    """Metrics of some images of one batch, in steps."""
    batch = make_batch(7, 4, True)
    collection = metric_collection(names)
    for some in images:
        part = batch.part(some)
        collection.update(part.predictions, part.annotations)
    return {name: float(value) for name, value in collection.compute().items()}


UNEVEN = [[list(range(0, 7)), list(range(7, 25))], [list(range(25, IMAGES))]]
LONE = [[list(range(IMAGES))], []]
"""One process has all images and the other none."""
SUMMED = [name for name in HARD if name != "selection_ap"]
"""Metrics that keep sums; torchmetrics cannot gather a list that is empty in one of the processes."""


def work(rank: int, folder: str) -> None:
    """One of two processes: its share of the images, and what it then holds the totals to be."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    found = [totals(HARD, UNEVEN[rank]), totals(SUMMED, LONE[rank])]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_two_processes_find_the_same_as_one(tmp_path: Path) -> None:
    import test_suite  # by a name that a spawned process can import too

    torch.multiprocessing.spawn(test_suite.work, args=(str(tmp_path),), nprocs=2)
    alone = totals(HARD, [list(range(IMAGES))])
    assert {"selection_ap", "ece"} <= set(alone) and sum(
        math.isfinite(value) for value in alone.values()
    ) > 20
    for rank in (0, 1):
        uneven, lone = json.loads((tmp_path / f"{rank}.json").read_text())
        assert list(uneven) == HARD and list(lone) == SUMMED
        for name, value in alone.items():
            for found in (uneven, {**alone, **lone}):
                assert agrees(found[name], value), (rank, name, found[name], value)
