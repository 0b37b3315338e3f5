"""Overlaps of all pairs against a plain loop over pairs, classes and pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ambiseg import overlap
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.overlap import pairwise_overlap

BINARY = LabelSpace.binary()
VOID = 255


def loop(a: np.ndarray, b: np.ndarray, labels: LabelSpace) -> tuple[float, float]:
    """IoU and Dice of two masks."""
    ious, dices = [], []
    for c in labels.evaluated:
        both = in_a = in_b = 0
        for p, q in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
            if p != VOID and q != VOID:
                both, in_a, in_b = both + (p == c == q), in_a + (p == c), in_b + (q == c)
        if in_a + in_b:
            ious.append(both / (in_a + in_b - both))
            dices.append(2 * both / (in_a + in_b))
    return (sum(ious) / len(ious), sum(dices) / len(dices)) if ious else (1.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 5),
    void=st.sampled_from([0.0, 0.2, 0.9]),
    background=st.sampled_from([0, 1, None]),
    shape=st.sampled_from([(2, 3), (7,), (2, 2, 2)]),
)
def test_all_pairs_agree_with_the_loop(
    seed: int, classes: int, void: float, background: int | None, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    names = tuple(f"class {c}" for c in range(classes))
    labels = LabelSpace(names, ignore_value=VOID if void else None, background=background)

    def masks(count: int) -> np.ndarray:
        value = rng.integers(0, rng.integers(1, classes + 1), (2, count, *shape)).astype(np.uint8)
        value[rng.random(value.shape) < void] = VOID
        return value

    a, b = masks(3), masks(2)
    found = pairwise_overlap(torch.from_numpy(a), torch.from_numpy(b), labels)
    wanted = np.array([[[loop(p, q, labels) for q in b[i]] for p in a[i]] for i in range(2)])
    np.testing.assert_allclose(found.iou().numpy(), wanted[..., 0], atol=1e-6)
    np.testing.assert_allclose(found.dice().numpy(), wanted[..., 1], atol=1e-6)
    turned = pairwise_overlap(torch.from_numpy(b), torch.from_numpy(a), labels)
    assert torch.equal(turned.iou().mT, found.iou())


def test_empty_masks() -> None:
    empty, full = torch.zeros(1, 1, 4, dtype=torch.uint8), torch.ones(1, 1, 4, dtype=torch.uint8)
    for measure in ("iou", "dice"):
        assert getattr(pairwise_overlap(empty, empty, BINARY), measure)().item() == 1
        assert getattr(pairwise_overlap(empty, full, BINARY), measure)().item() == 0


def test_a_class_absent_from_both_is_left_out() -> None:
    a, b = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 0, 3]]])
    assert pairwise_overlap(a, b, LabelSpace.of_classes(5)).iou().item() == pytest.approx((0.5 + 0) / 2)


def test_nothing_but_void_counts_as_agreement() -> None:
    void = torch.full((1, 1, 4), VOID, dtype=torch.uint8)
    assert (
        pairwise_overlap(void, torch.ones_like(void), LabelSpace.binary(ignore_value=VOID)).iou().item() == 1
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 300)),
    inverted=st.booleans(),
    limit=st.sampled_from([1, 7, 64, 2**15]),
)
def test_bits_and_products_count_alike(
    seed: int, sizes: tuple[int, int, int, int], inverted: bool, limit: int
) -> None:
    """Both ways of counting, held to small blocks so that every path is walked, against a product of
    integers."""
    batch, rows, columns, pixels = sizes
    draw = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(0, 3, (batch, n, pixels), generator=draw) for n in (rows, columns))
    hits = [(m != 1 if inverted else m == 1).long() for m in (a, b)]
    wanted = {"ab": hits[0] @ hits[1].mT, "aa": hits[0] @ hits[0].mT}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "WORDS_AT_ONCE", limit)
        patch.setattr(overlap, "PIXELS_AT_ONCE", limit)
        for kind in (overlap._Bits, overlap._Flags):
            one, two = kind(a, 1, inverted), kind(b, 1, inverted)
            assert torch.equal(one.pairs(two), wanted["ab"]), kind
            assert torch.equal(one.pairs(one), wanted["aa"]), kind
            assert torch.equal(one.areas(), hits[0].sum(-1)), kind
            assert kind.holds(a, 1) == bool((a == 1).any())
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert torch.equal(one.pairs(two), wanted["ab"]), kind


def test_counts_above_those_that_float32_holds() -> None:
    """4096 x 4096 + 1 pixels, of which one is missing: in float32 the two areas would be equal."""
    masks = torch.ones(1, 2, 4096 * 4096 + 1, dtype=torch.uint8)
    masks[0, 1, 0] = 0
    found = pairwise_overlap(masks, masks, BINARY)
    assert found.intersection[0, :, :, 0].tolist() == [[2**24 + 1, 2**24], [2**24, 2**24]]
    assert found.union[0, :, :, 0].tolist() == [[2**24 + 1, 2**24 + 1], [2**24 + 1, 2**24]]


@pytest.mark.parametrize("shape", [(2, 1, 4), (1, 1, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AmbisegError, match="must agree"):
        pairwise_overlap(torch.zeros(1, 1, 4), torch.zeros(shape), BINARY)
