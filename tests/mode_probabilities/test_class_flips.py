"""Flips are those of the masks, q minimises the divergence, products are a distribution, templates are found in
perturbed scenes."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import minimize

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.mode_probabilities.class_flips import (
    find_templates,
    flip_probabilities,
    flip_states,
    product_probabilities,
    structured_decomposition,
)
from ambiseg.mode_probabilities.velocity_decomposition import decompose_mean

BINARY = LabelSpace.binary()
Q = np.array([0.05, 0.25, 0.75, 0.95])
STATES = np.array(list(product((0, 1), repeat=4)))
P = np.where(STATES == 1, Q, 1 - Q).prod(1)
SIZE = (48, 96)


def street(r):
    """Classes of a street scene: 1 road, 2 pavement, 3 vegetation, 4 cars, 0 everything else."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    horizon, centre = r.integers(18, 24), r.uniform(32, 64)
    depth = (y - horizon) / (SIZE[0] - horizon)
    half = 3 + depth * r.uniform(26, 44)
    scene = np.zeros(SIZE, int)
    growth = ndimage.gaussian_filter(r.standard_normal(SIZE), 5)
    scene[(growth > np.quantile(growth, r.uniform(0.6, 0.85))) & (y < horizon + 3)] = 3
    scene[(y >= horizon) & (abs(x - centre) < half + 3 + depth * r.uniform(6, 16))] = 2
    scene[(y >= horizon) & (abs(x - centre) < half)] = 1
    for _ in range(r.integers(2, 5)):
        at, size = r.uniform(horizon + 3, SIZE[0] - 6), r.uniform(3, 6)
        scene[(abs(x - centre - r.uniform(-20, 20)) < 1.6 * size) & (abs(y - at) < size)] = 4
    return scene


def moved(r, mask, amount):
    """The mask with its border moved by a smooth field of about ``amount`` pixels."""
    signed = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    field = ndimage.gaussian_filter(r.standard_normal(SIZE), 3)
    return signed + amount * field / field.std() > 0


def proposals(r, scene, chosen, amount):
    """Masks of the flips ``chosen``, each with borders of its own."""
    masks = []
    for j in chosen:
        seen = np.zeros(SIZE, int)
        for c in (2, 3, 1, 4):
            seen[moved(r, scene == c, amount) if amount else scene == c] = c
        masks.append(np.append(0, STATES[j])[seen])
    return torch.from_numpy(np.stack(masks)).to(torch.uint8)[None]


def true_templates(scene):
    return torch.from_numpy(np.stack([scene == c for c in (1, 2, 3, 4)]))[None]


def matched(found, true):
    """The found templates in the order that fits the true ones best, and the IoUs."""
    f, t = found[0].flatten(1).double(), true[0].flatten(1).double()
    iou = (t @ f.T) / (t.sum(1)[:, None] + f.sum(1) - t @ f.T).clamp(min=1)
    best = max(
        permutations(range(len(f))), key=lambda order: float(sum(iou[i, k] for i, k in enumerate(order)))
    )
    return list(best), torch.stack([iou[i, k] for i, k in enumerate(best)])


def uniform(masks):
    return MaskSet.uniform(masks, BINARY)


@pytest.mark.parametrize("how", ["atoms", "pca"])
def test_exact_modes_give_exact_templates(how):
    for seed in range(3):
        r = np.random.default_rng(seed)
        scene = street(r)
        modes = uniform(proposals(r, scene, range(16), 0))
        _, iou = matched(find_templates(modes, how=how), true_templates(scene))
        assert iou.tolist() == pytest.approx([1] * 4), (how, seed)


def test_perturbed_incomplete_and_doubled_proposals():
    """24 proposals of 13 of 16 modes, borders moved by a pixel: atoms separates the classes, PCA with Otsu
    often not."""
    worst = {"atoms": [], "pca": []}
    for seed in range(8):
        r = np.random.default_rng(seed)
        scene = street(r)
        chosen = np.concatenate([kept := r.permutation(16)[:13], r.choice(kept, 11)])
        modes, truth = uniform(proposals(r, scene, chosen, 1.0)), true_templates(scene)
        for how, values in worst.items():
            templates = find_templates(modes, how=how)
            order, iou = matched(templates, truth)
            values.append(round(float(iou.min()), 2))
            if how == "atoms":
                states = flip_states(modes, templates)[0][:, order].numpy()
                assert np.array_equal(states, STATES[chosen] == 1), seed
    assert min(worst["atoms"]) > 0.95 and np.median(worst["pca"]) < 0.8, worst


def test_structure_finds_what_the_mean_leaves_open():
    r = np.random.default_rng(0)
    scene = street(r)
    modes = uniform(proposals(r, scene, range(16), 0))
    mean = 2 * torch.einsum("m,bmhw->bhw", torch.from_numpy(P), modes.masks.double())[:, None] - 1
    first = decompose_mean(modes, mean)
    assert not bool(first.unique[0]) and np.abs(first.probabilities[0].numpy() - P).sum() > 0.2
    for templates in (true_templates(scene), None):
        p = structured_decomposition(modes, first.probabilities, templates)
        assert np.abs(p[0].numpy() - P).sum() < 1e-6


def test_structure_on_proposals_with_other_borders():
    errors = []
    for seed in range(5):
        r = np.random.default_rng(seed)
        scene = street(r)
        exact = proposals(r, scene, range(16), 0)
        mean = 2 * torch.einsum("m,bmhw->bhw", torch.from_numpy(P), exact.double())[:, None] - 1
        chosen = np.concatenate([np.arange(16), r.integers(0, 16, 8)])
        modes = uniform(proposals(r, scene, chosen, 0.7))
        p = structured_decomposition(modes, decompose_mean(modes, mean).probabilities)[0].numpy()
        pooled = np.bincount(chosen, weights=p, minlength=16)
        errors.append(np.abs(pooled - P).sum() / 2)
    assert np.median(errors) < 0.1, errors


def test_half_of_a_template_is_on():
    masks = torch.tensor([[[1, 0, 0, 0], [1, 1, 0, 0], [2, 0, 0, 1], [255, 1, 0, 0]]])
    space = LabelSpace.of_classes(3, ignore_value=255)
    templates = torch.tensor([[[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]])
    states = flip_states(MaskSet.uniform(masks, space), templates)
    assert states.int().tolist() == [[[0, 1, 0], [1, 1, 0], [1, 1, 0], [0, 1, 0]]]
    assert torch.equal(states, flip_states(MaskSet.uniform(masks, space), templates.bool()))
    for bad in (templates[..., :3], templates[0], torch.cat([templates] * 2)):
        with pytest.raises(AmbisegError, match="templates"):
            flip_states(MaskSet.uniform(masks, space), bad)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), modes=st.integers(2, 8), classes=st.integers(1, 4))
def test_no_other_flips_explain_better(seed, modes, classes):
    r = np.random.default_rng(seed)
    p, b = r.dirichlet(np.ones(modes)), r.integers(0, 2, (modes, classes))

    def divergence(q):
        q = np.clip(q, 1e-12, 1 - 1e-12)
        return float((p * (np.log(p) - (b * np.log(q) + (1 - b) * np.log(1 - q)).sum(1))).sum())

    q = flip_probabilities(torch.from_numpy(p)[None], torch.from_numpy(b)[None] > 0)[0].numpy()
    numeric = minimize(
        divergence, np.full(classes, 0.5), bounds=[(1e-9, 1 - 1e-9)] * classes, method="L-BFGS-B"
    )
    assert divergence(q) <= numeric.fun + 1e-9
    assert np.abs(q - numeric.x).max() < 1e-3


def test_products_are_a_law_and_flips_their_marginals():
    states = torch.from_numpy(STATES)[None] > 0
    p = product_probabilities(torch.from_numpy(Q)[None], states)
    assert torch.allclose(p[0], torch.from_numpy(P), atol=1e-12)
    assert torch.allclose(flip_probabilities(p, states)[0], torch.from_numpy(Q), atol=1e-12)
    # some missing: the same ratios; some doubled: they share; some not there: nothing
    few = product_probabilities(torch.from_numpy(Q)[None], states[:, [3, 7, 3, 0]])[0]
    assert torch.allclose(few[1] / (few[0] + few[2]), torch.tensor(P[7] / P[3])) and float(
        few[0]
    ) == pytest.approx(float(few[2]))
    present = torch.tensor([[True, True, False, True]])
    kept = product_probabilities(torch.from_numpy(Q)[None], states[:, [3, 7, 3, 0]], present)[0]
    assert torch.allclose(kept[[0, 1, 3]], torch.tensor(P[[3, 7, 0]] / P[[3, 7, 0]].sum())) and kept[2] == 0
    # certain classes: modes against them get nothing, and where all are against them they share
    certain = product_probabilities(torch.tensor([[1.0]]), torch.tensor([[[True], [False]]]))
    assert torch.allclose(certain, torch.tensor([[1.0, 0.0]]).double(), atol=1e-9)
    against = product_probabilities(torch.tensor([[1.0]]), torch.tensor([[[False], [False]]]))
    assert torch.allclose(against, torch.full((1, 2), 0.5).double())


def test_images_weights_and_padding():
    r = np.random.default_rng(1)
    scenes = [street(r), street(r)]
    sets = [
        uniform(proposals(r, scenes[0], range(16), 0)),
        uniform(proposals(r, scenes[1], r.permutation(16)[:12], 0)),
    ]
    together = find_templates(MaskSet.stack(sets))
    for b, alone in enumerate(sets):
        assert torch.equal(together[b], find_templates(alone)[0])
    # proposals without weight are as good as absent
    spoiled = MaskSet.uniform(torch.cat([sets[0].masks, torch.randint(2, (1, 3, *SIZE)).byte()], 1), BINARY)
    weights = torch.cat([torch.ones(1, 16), torch.zeros(1, 3)], 1)
    for how in ("atoms", "pca"):
        assert torch.equal(find_templates(spoiled, weights, how=how), find_templates(sets[0], how=how))


@pytest.mark.parametrize("how", ["atoms", "pca"])
def test_a_weight_of_two_is_two_proposals(how):
    r = np.random.default_rng(3)
    modes = uniform(proposals(r, street(r), range(16), 0.7))
    twice = uniform(torch.cat([modes.masks, modes.masks[:, ::3]], 1))
    weights = torch.ones(1, 16)
    weights[:, ::3] = 2
    assert torch.equal(find_templates(modes, weights, how=how), find_templates(twice, how=how))
    assert not torch.equal(find_templates(modes, weights, how=how), find_templates(modes, how=how))


@pytest.mark.parametrize("how", ["atoms", "pca"])
def test_fewer_areas_than_asked_for(how):
    masks = torch.zeros(3, 2, 5, 5, dtype=torch.uint8)
    masks[0, 0, :2], masks[2, :, 3:] = 1, 1
    modes = uniform(masks)
    templates = find_templates(modes, count=3, how=how)
    assert templates.shape == (3, 3, 5, 5) and templates.dtype == torch.bool
    assert templates[0, 0].sum() == 10 and not bool(templates[0, 1:].any()) and not bool(templates[1].any())
    p = structured_decomposition(modes, modes.weights, templates)
    assert torch.allclose(p, torch.full((3, 2), 0.5).double())


@pytest.mark.parametrize("how", ["atoms", "pca"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(3, 40), areas=st.integers(1, 3), modes=st.integers(1, 5))
def test_pixels_that_switch_together_are_in_the_same_templates(how, seed, size, areas, modes):
    """Also where the whole image is one area, whose principal component is the same everywhere."""
    r = np.random.default_rng(seed)
    of, on = r.integers(0, areas, size), r.integers(0, 2, (modes, areas))
    masks = uniform(torch.from_numpy(on[:, of].astype(np.uint8))[None])
    templates = find_templates(masks, count=2, how=how)[0].numpy()
    for area in range(areas):
        alike = (on == on[:, area : area + 1]).all(0)
        inside = templates[:, alike[of]]
        assert (inside.all(1) | ~inside.any(1)).all()
    if areas == 1 and 0 < on.mean() < 1:
        assert templates.sum(1).tolist() == [size, 0]


def test_one_mode_and_mistakes():
    one = uniform(torch.ones(1, 1, 4, 4, dtype=torch.uint8))
    assert structured_decomposition(one, torch.ones(1, 1)).tolist() == [[1.0]]
    with pytest.raises(AmbisegError, match="atoms"):
        find_templates(one, how="atom")
    for count in (0, 17):  # 16 pixels hold at most 16 areas
        with pytest.raises(AmbisegError, match=f"1 to 16 .* received {count}"):
            find_templates(one, count=count)
    for bad in (torch.ones(1, 2), torch.zeros(1, 1), -torch.ones(1, 1)):
        with pytest.raises(AmbisegError, match="weights"):
            find_templates(one, bad)
    states = torch.ones(1, 2, 3, dtype=torch.bool)
    with pytest.raises(AmbisegError, match="fit"):
        flip_probabilities(torch.ones(1, 3), states)
    with pytest.raises(AmbisegError, match="fit"):
        product_probabilities(torch.ones(1, 2), states)
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(AmbisegError, match="lie in"):
            product_probabilities(torch.full((1, 3), wrong), states)
