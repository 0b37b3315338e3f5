"""Probabilities of kept masks, from a flow model or as products of flips: the projection by another solver,
flows that do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from ambiseg.data.source import open_split
from ambiseg.engine.postprocess import (
    EstimateSettings,
    PredictSettings,
    check_estimate,
    estimate_probabilities,
    flow_remark,
)
from ambiseg.engine.run import load
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import fit
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.flow_matching import FlowMatchingSettings
from ambiseg.mode_probabilities.class_flips import structured_decomposition
from ambiseg.mode_probabilities.velocity_decomposition import estimate_mean
from ambiseg.networks.settings import UNetSettings


@pytest.fixture(scope="module")
def flow(fires, tmp_path_factory):
    """A flow model after a few steps."""
    chosen = TrainSettings(epochs=2, batch_size=4, validations=1, precision="32")
    settings = FlowMatchingSettings(steps=2, sampler="euler")
    folder = tmp_path_factory.mktemp("flows") / "flow"
    result = fit(
        "flow-matching",
        fires,
        folder,
        train=chosen,
        backbone=UNetSettings(width=8, depth=2),
        settings=settings,
        quiet=True,
    )
    return load(result.run, precision="32", device="cpu")


@pytest.mark.parametrize("kind", ["velocity", "mean", "posterior", "samples"])
def test_a_flow_model_estimates_the_probabilities_of_kept_masks(kind, tiny_run, fires, flow):
    run = load(tiny_run, precision="32", device="cpu")
    image = open_split(fires, "test")[0].image
    estimate = EstimateSettings(kind, draws=8)
    check_estimate(estimate, run, flow)

    def predict(**settings):
        chosen = PredictSettings(0.0, None, estimate=estimate, **settings)
        return run.predict(image, chosen, torch.Generator().manual_seed(0), flow).validate()

    found, own = predict(), run.predict(image, PredictSettings(0.0, None))
    assert found.masks.shape == own.masks.shape
    order = found.weights[0]
    assert bool((order[:-1] >= order[1:]).all()) and float(order.sum()) == pytest.approx(1)
    assert not torch.allclose(found.weights, own.weights, atol=1e-4)
    assert torch.equal(predict().weights, found.weights)
    assert predict(top=2).masks.shape[1] == 2
    one = run.predict(image, PredictSettings(score_threshold=1.0, estimate=estimate), flow=flow)
    assert (
        one.weights.tolist() == [[1.0]] and one.scores[0, 0] == own.scores.max()
    )  # nothing passes: the best


def weighed(masks, settings, images, flow):
    """The masks with probabilities, by noise of one seed."""
    return estimate_probabilities(masks, settings, images, flow, torch.Generator().manual_seed(0))


def masks_of(images, *rows):
    """For every image the same masks, of the size of the image, covering columns ``[first, last)``."""
    masks = torch.zeros(len(images), len(rows), *images[0].shape[1:], dtype=torch.uint8)
    for k, (first, last) in enumerate(rows):
        masks[:, k, :, first:last] = 1
    return MaskSet.uniform(masks, LabelSpace.binary())


@pytest.mark.parametrize("kind", ["velocity", "mean", "posterior", "samples"])
def test_masks_that_cannot_be_told_apart(kind, fires, flow):
    """Identical masks share evenly and, but for counted samples, are reported; so are empty ones; one mask is
    certain."""
    images = [open_split(fires, "test")[i].image for i in range(2)]

    def probabilities(*rows):
        found = weighed(masks_of(images, *rows), EstimateSettings(kind, draws=8), images, flow)
        return found.masks.weights, found.determined

    same, determined = probabilities((0, 5), (3, 16), (0, 5))
    assert torch.allclose(same[:, 0], same[:, 2], atol=1e-4) and determined == (kind == "samples",) * 2
    empty, determined = probabilities((0, 0), (0, 0))
    assert (
        torch.allclose(empty, torch.full((2, 2), 0.5), atol=1e-6) and determined == (kind == "samples",) * 2
    )
    one, determined = probabilities((0, 0))
    assert one.tolist() == [[1.0], [1.0]] and determined == (True, True)


@pytest.mark.parametrize("kind", ["velocity", "mean", "posterior"])
def test_robust_probabilities_explain_medians(kind, fires, flow):
    images = [open_split(fires, "test")[i].image for i in range(2)]
    masks = masks_of(images, (0, 5), (3, 16), (0, 9))

    def found(robust):
        settings = EstimateSettings(kind, 8, robust=robust)
        assert settings.record(flow)["robust"] == robust
        return weighed(masks, settings, images, flow).masks.weights

    assert not torch.allclose(found(True), found(False), atol=1e-4)
    with pytest.raises(AmbisegError, match="samples are counted"):
        EstimateSettings("samples", robust=True)


def test_flips_of_the_method_s_own_probabilities():
    """Masks 0, T, U and T + U with the right marginals 0.7 and 0.2 become products; the masks stay as they
    are without."""
    images = [np.zeros((3, 16, 16), np.float32)]
    masks = masks_of(images, (0, 0), (0, 8), (8, 16), (0, 16))
    q, first = torch.tensor([0.7, 0.2]), torch.tensor([[0.1, 0.7, 0.2, 0.0]])
    states = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    product = torch.where(states > 0, q, 1 - q).prod(1)
    given = replace(masks, weights=first.clamp(min=1e-9))
    flipped = estimate_probabilities(given, EstimateSettings(flips=2))
    assert torch.allclose(flipped.masks.weights[0], product, atol=1e-5) and flipped.determined == (True,)
    assert estimate_probabilities(given, EstimateSettings()).masks is given


@pytest.mark.parametrize("kind", ["velocity", "posterior", "samples"])
def test_flips_are_fitted_to_the_flow_s_estimate(kind, fires, flow):
    images = [open_split(fires, "test")[0].image]
    masks = masks_of(images, (0, 0), (0, 6), (6, 16), (0, 16))

    def found(flips):
        return weighed(masks, EstimateSettings(kind, 8, flips), images, flow).masks.weights

    expected = structured_decomposition(masks, found(0), count=2)
    assert kind == "samples" or not torch.allclose(found(0).double(), expected, atol=1e-3)
    assert torch.allclose(found(2).double(), expected, atol=1e-5)


@pytest.mark.parametrize("flips", [-1, 513])
def test_numbers_of_flips_that_cannot_be(flips):
    for kind in ("head", "velocity"):
        with pytest.raises(AmbisegError, match=f"flips is 0 to 512, received {flips}"):
            EstimateSettings(kind, flips=flips)


def test_flips_need_masks_of_two_classes(tiny_run):
    run = load(tiny_run, precision="32", device="cpu")
    check_estimate(EstimateSettings(flips=2), run)
    run.config = replace(run.config, labels=LabelSpace.of_classes(3))
    check_estimate(EstimateSettings(), run)
    with pytest.raises(AmbisegError, match="masks with two classes, this run has 3"):
        check_estimate(EstimateSettings(flips=2), run)


def test_runs_of_other_images_are_compared_with_a_remark(tiny_run, flow):
    run = load(tiny_run, precision="32", device="cpu")
    assert flow_remark(run, flow) == "" and flow_remark(run, None) == ""
    ours = run.config
    for other in (
        replace(ours, data_digest="0123456789abcdef"),
        replace(
            ours,
            normalization=replace(ours.normalization, mean=tuple(m + 1 for m in ours.normalization.mean)),
        ),
    ):
        run.config = other
        check_estimate(EstimateSettings("velocity"), run, flow)
        assert "trained on other images" in flow_remark(run, flow)


def test_velocity_decomposition_by_hand(tiny_run, fires, flow):
    """The probabilities are those of the projection of the mean mask, solved here by another solver."""
    run = load(tiny_run, precision="32", device="cpu")
    image = open_split(fires, "test")[0].image
    masks = run.predict(image, PredictSettings(0.0, None)).merge_identical()
    settings, noise = EstimateSettings("velocity", draws=4), torch.Generator().manual_seed(3)
    found = estimate_probabilities(masks, settings, [image], flow, noise)
    batch = flow.config.normalization(image)[None]
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        mean = estimate_mean(flow.model, batch, 4, noise)[0].double().flatten().numpy()
    modes = (2.0 * masks.masks[0].double() - 1).flatten(1).numpy()
    count = len(modes)
    best = minimize(
        lambda p: float(np.square(mean - p @ modes).sum()),
        np.full(count, 1 / count),
        jac=lambda p: -2 * modes @ (mean - p @ modes),
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    explained = found.masks.weights[0].double().numpy() @ modes
    assert np.square(mean - explained).sum() <= best.fun + 1e-3


def test_flows_that_do_not_fit_are_refused(tiny_run, flow):
    run, velocity = load(tiny_run, precision="32", device="cpu"), EstimateSettings("velocity")
    with pytest.raises(AmbisegError, match="a run of mode-proposals has no velocity"):
        check_estimate(velocity, run, run)
    with pytest.raises(AmbisegError, match="'velocity' need a flow model"):
        run.predict(np.zeros((run.config.in_channels, 8, 8)), PredictSettings(estimate=velocity))
    with pytest.raises(AmbisegError, match="did you mean 'velocity'"):
        EstimateSettings("velocities")
    with pytest.raises(AmbisegError, match="at least one draw, received 0"):
        EstimateSettings("velocity", draws=0)
    run.config = replace(run.config, in_channels=3)
    with pytest.raises(AmbisegError, match="trained on data of other channels"):
        check_estimate(velocity, run, flow)
    names = tuple("abcdefghij"[: flow.config.in_channels])
    named = load(flow.folder, precision="32", device="cpu")
    named.config = replace(flow.config, channels=names)
    for what, values in (
        ("channels", {"channels": names[::-1]}),
        ("classes", {"labels": LabelSpace.of_classes(3)}),
    ):
        run.config = replace(flow.config, **values)
        with pytest.raises(AmbisegError, match=f"trained on data of other {what}"):
            check_estimate(velocity, run, named)
    check_estimate(velocity, flow, named)
