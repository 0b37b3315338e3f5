"""Probabilities from a flow model: any kept masks, the projection by another solver, flows that do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from ambiseg.data.source import open_split
from ambiseg.engine.predict import PredictSettings, load
from ambiseg.engine.probabilities import FlowProbabilities
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import fit
from ambiseg.errors import AmbisegError
from ambiseg.methods.decomposition import estimate_mean
from ambiseg.methods.settings import FlowMatchingSettings
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
    estimate = FlowProbabilities(flow, kind, draws=8)
    estimate.check(run)

    def predict(**settings):
        chosen = PredictSettings(0.0, None, estimate=estimate, **settings)
        return run.predict(image, chosen, torch.Generator().manual_seed(0)).validate()

    found, own = predict(), run.predict(image, PredictSettings(0.0, None))
    assert found.masks.shape == own.masks.shape
    order = found.weights[0]
    assert bool((order[:-1] >= order[1:]).all()) and float(order.sum()) == pytest.approx(1)
    assert not torch.allclose(found.weights, own.weights, atol=1e-4)
    assert torch.equal(predict().weights, found.weights)
    assert predict(top=2).masks.shape[1] == 2


def test_velocity_decomposition_by_hand(tiny_run, fires, flow):
    """The probabilities are those of the projection of the mean mask, solved here by another solver."""
    run = load(tiny_run, precision="32", device="cpu")
    image = open_split(fires, "test")[0].image
    masks = run.predict(image, PredictSettings(0.0, None)).merge_identical()
    found = FlowProbabilities(flow, "velocity", draws=4)([image], masks, torch.Generator().manual_seed(3))
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
    explained = found.weights[0].double().numpy() @ modes
    assert np.square(mean - explained).sum() <= best.fun + 1e-3


def test_flows_that_do_not_fit_are_refused(tiny_run, flow):
    run = load(tiny_run, precision="32", device="cpu")
    with pytest.raises(AmbisegError, match="a run of mode-proposals has no velocity"):
        FlowProbabilities(run)
    with pytest.raises(AmbisegError, match="did you mean 'velocity'"):
        FlowProbabilities(flow, "velocities")
    with pytest.raises(AmbisegError, match="at least one draw, received 0"):
        FlowProbabilities(flow, draws=0)
    run.config = replace(run.config, in_channels=3)
    with pytest.raises(AmbisegError, match="trained on data of other channels"):
        FlowProbabilities(flow).check(run)
