"""Exact flows of known distributions give their probabilities back; where t = 0 leaves a choice, it is the even one
and t > 0 ends it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from ambiseg.errors import AmbisegError
from ambiseg.flows.paths import Cosine, Linear
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.mode_probabilities.posterior_decomposition import posterior_decomposition
from ambiseg.mode_probabilities.velocity_decomposition import (
    Denoiser,
    assignment_counts,
    decompose_mean,
    encode,
    estimate_mean,
    velocity_decomposition,
    with_probabilities,
)

BINARY = LabelSpace.binary()
Q = torch.tensor([0.05, 0.25, 0.75, 0.95])


class Exact:
    """The best denoiser of the distribution ``modes`` with its weights, by Bayes' rule; ``noise`` spoils what it
    answers."""

    start = 0.0

    def __init__(self, modes: MaskSet, path=None, noise=0.0):
        self.y, self.log = encode(modes.masks, modes.labels).double(), modes.weights.double().log()
        self.path, self.noise, self.calls, self.times = path or Linear(), noise, 0, []
        self.g = torch.Generator().manual_seed(99)

    def posterior_mean(self, images, z, t):
        self.calls += 1
        self.times.append(t)
        a, s = (
            v.double().view(-1, *[1] * (self.y.dim() - 1)) for v in (self.path.alpha(t), self.path.sigma(t))
        )
        far = ((z.double()[:, None] - a * self.y) / s).square().flatten(2).sum(2)
        w = (self.log - far / 2).softmax(1)
        mean = torch.einsum("bm,bm...->b...", w, self.y)
        return (mean + self.noise * torch.randn(mean.shape, generator=self.g, dtype=mean.dtype)).float()


def typed(flow: Exact) -> Denoiser:
    return flow


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def random_modes(seed=0, batch=2, modes=5, labels=BINARY, size=6):
    """Random masks with random probabilities."""
    g = gen(seed)
    masks = torch.randint(labels.classes, (batch, modes, size, size), generator=g).to(torch.uint8)
    p = torch.rand(batch, modes, generator=g) + 0.05
    return MaskSet(masks, p / p.sum(1, keepdim=True), labels)


def flips(q=Q, size=8):
    """All on and off of the four quadrants, with product probabilities: (1, 16, size, size)."""
    half = size // 2
    masks = torch.zeros(1, 16, size, size, dtype=torch.uint8)
    states = torch.tensor(list(product((0, 1), repeat=4)))
    for j, state in enumerate(states):
        for c, on in enumerate(state):
            rows, columns = divmod(c, 2)
            masks[0, j, rows * half : (rows + 1) * half, columns * half : (columns + 1) * half] = on
    p = torch.where(states == 1, q, 1 - q).prod(1)
    return MaskSet(masks, p[None], BINARY), states


def images_of(modes):
    return torch.zeros(len(modes), 3, *modes.masks.shape[2:])


def variation(p, modes):
    """Largest total variation distance from the true probabilities over the images."""
    return float((p - modes.weights.double()).abs().sum(1).max() / 2)


@pytest.mark.parametrize("labels", [BINARY, LabelSpace.of_classes(4, ignore_value=255)])
@pytest.mark.parametrize("path", [Linear(), Cosine()])
def test_exact_flows_give_their_law_back(labels, path):
    modes = random_modes(labels=labels)
    if not labels.is_binary:
        modes.masks[:, 1, :2] = labels.void
    flow = typed(Exact(modes, path))
    found = velocity_decomposition(flow, images_of(modes), modes, draws=3, generator=gen())
    assert variation(found.probabilities, modes) < 1e-6
    assert (
        float(found.residual.max()) < 1e-6 and bool(found.unique.all()) and float(found.misfit.max()) < 1e-3
    )
    assert flow.calls == 3 and all(t.shape == (2,) and bool((t == 0).all()) for t in flow.times)
    later = posterior_decomposition(flow, images_of(modes), modes, draws=8, generator=gen())
    assert variation(later.probabilities, modes) < 1e-3 and bool(later.unique.all())


@pytest.mark.parametrize("robust", [False, True])
def test_a_flow_of_two_channels_gives_its_law_back(robust):
    """With the noise of each channel; the times are those of its own distances, root two times as large."""
    modes, flows = random_modes(), []
    for channels in (1, 2):
        flow = Exact(modes)
        if channels == 2:
            flow.y, flow.labels = torch.cat([-flow.y, flow.y], 2), LabelSpace(softmax=True)
        flows.append(flow)
        found = velocity_decomposition(typed(flow), images_of(modes), modes, 3, gen(), robust=robust)
        assert variation(found.probabilities, modes) < 1e-6 and float(found.misfit.max()) < 1e-3
        later = posterior_decomposition(typed(flow), images_of(modes), modes, None, 8, gen(), robust=robust)
        assert variation(later.probabilities, modes) < 1e-3 and bool(later.unique.all())
    one, two = ([t for t in flow.times if bool((t > 0).all())] for flow in flows)
    assert torch.allclose(two[0] / (1 - two[0]), one[0] / (1 - one[0]) / 2**0.5)


def test_mean_is_over_draws_and_repeats_with_the_generator():
    class Echo:
        path, start = Linear(), 0.0

        def posterior_mean(self, images, z, t):
            return z

    images = torch.zeros(2, 3, 4, 5)
    g = gen(5)
    expected = sum(torch.randn(2, 7, 4, 5, generator=g) for _ in range(6)) / 6
    found = estimate_mean(Echo(), images, draws=6, generator=gen(5), channels=7)
    assert torch.allclose(found, expected.double(), atol=1e-6) and found.dtype == torch.float64


def test_pixelwise_means_of_any_model_in_any_number_of_axes():
    for shape in ((9,), (4, 4, 4)):
        masks = torch.randint(3, (2, 4, *shape), generator=gen(1)).to(torch.uint8)
        p = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 0.5, 0.0]])
        modes = MaskSet(masks, p, LabelSpace.of_classes(3))
        found = decompose_mean(modes, 2 * modes.mean() - 1)
        assert torch.allclose(found.probabilities, p.double(), atol=1e-6)


def test_a_mean_outside_the_hull_goes_to_its_nearest_mixture():
    modes = MaskSet.uniform(torch.tensor([[[1, 0], [0, 0]]]), BINARY)
    found = decompose_mean(modes, torch.tensor([[[3.0, 0.0]]]))
    assert found.probabilities.tolist() == [[1, 0]]
    assert float(found.misfit[0]) == pytest.approx(np.sqrt((2**2 + 1) / 2))


def test_flips_leave_a_choice_at_the_start_and_none_later():
    modes, states = flips()
    flow = Exact(modes)
    start = velocity_decomposition(flow, images_of(modes), modes, draws=2, generator=gen())
    p = start.probabilities[0].numpy()
    assert not bool(start.unique[0]) and variation(start.probabilities, modes) > 0.1
    # The least norm by another road: p >= 0 with sum 1 and the four marginals, projected by Dykstra's
    # alternation.
    rows = np.vstack([states.numpy().T, np.ones(16)])
    right = np.append(Q.double().numpy(), 1.0)
    pinv, x, kept = np.linalg.pinv(rows), np.zeros(16), np.zeros(16)
    for _ in range(20000):
        plane = x + pinv @ (right - rows @ x)
        x = np.maximum(plane + kept, 0)
        kept = plane + kept - x
    assert np.abs(p - x).max() < 1e-4
    assert np.abs(rows @ p - right).max() < 1e-6
    for centres in ("modes", "estimate"):
        found = posterior_decomposition(
            flow, images_of(modes), modes, draws=32, generator=gen(), centres=centres
        )
        assert variation(found.probabilities, modes) < 0.02, centres
        assert bool(found.unique[0]) and float(found.residual[0]) < 1e-5


def test_noise_in_the_denoiser_costs_little():
    modes, _ = flips(size=16)
    errors = []
    for noise in (0.0, 0.1, 0.3):
        flow = Exact(modes, noise=noise)
        found = posterior_decomposition(flow, images_of(modes), modes, draws=64, generator=gen(1))
        errors.append(variation(found.probabilities, modes))
        assert abs(float(found.misfit[0]) - noise) < 0.02
    assert errors[0] < 0.02 and errors[1] < 0.05 and errors[2] < 0.12, errors


def test_times_resolve_modes_in_part():
    """alpha / sigma = c / d: d = 2 sqrt(8) for the flips of one and 2 sqrt(16) for those of two quadrants of
    4 x 4."""
    modes, _ = flips()
    for path in (Linear(), Cosine()):
        flow = Exact(modes, path)
        posterior_decomposition(flow, images_of(modes), modes, draws=1, resolutions=(1, 3), generator=gen())
        _, zero, *later = flow.times
        y = encode(modes.masks, BINARY)[0].flatten(1)
        typical = torch.pdist(y).median()
        assert float(zero) == 0 and len(later) == 2
        for c, t in zip((1, 3), later, strict=True):
            assert float(path.alpha(t) / path.sigma(t) * typical) == pytest.approx(c, rel=1e-4)
    flow = Exact(modes)
    posterior_decomposition(flow, images_of(modes), modes, times=[0.25], draws=1, generator=gen())
    assert [round(float(t), 6) for t in flow.times] == [0, 0, 0.25]


def test_images_of_a_batch_do_not_touch():
    """Other images and padding change nothing but the noise: with many draws of exact flows the answers
    agree."""
    small = random_modes(seed=3, batch=1, modes=3)
    large = random_modes(seed=4, batch=1, modes=6)
    modes = MaskSet.stack([small, large])
    flow = Exact(modes)
    for found in (
        velocity_decomposition(flow, images_of(modes), modes, draws=2, generator=gen()),
        posterior_decomposition(flow, images_of(modes), modes, draws=16, generator=gen()),
    ):
        assert variation(found.probabilities, modes) < 2e-3
        assert found.probabilities[0, 3:].tolist() == [0, 0, 0]


def test_identical_modes_share_evenly():
    modes = random_modes(batch=1, modes=3)
    twice = modes.gather(torch.tensor([[0, 1, 2, 1]])).normalised()
    expected = modes.weights[0, [0, 1, 2, 1]] * torch.tensor([1, 0.5, 1, 0.5])
    flow = Exact(modes)
    for found in (
        velocity_decomposition(flow, images_of(modes), twice, draws=2, generator=gen()),
        posterior_decomposition(flow, images_of(modes), twice, draws=16, generator=gen()),
    ):
        assert torch.allclose(found.probabilities[0], expected.double(), atol=2e-3)
        assert not bool(found.unique[0])


def test_one_mode_and_empty_masks():
    one = MaskSet.uniform(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), BINARY)
    several = MaskSet.uniform(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), BINARY)
    for modes, expected, unique in ((one, [1.0], True), (several, [1 / 3] * 3, False)):
        for found in (
            velocity_decomposition(Exact(modes), images_of(modes), modes, draws=2),
            posterior_decomposition(Exact(modes), images_of(modes), modes, draws=2),
        ):
            assert found.probabilities[0].tolist() == pytest.approx(expected)
            assert found.unique.tolist() == [unique] and float(found.misfit[0]) < 1e-3


def test_probabilities_become_weights():
    modes = MaskSet.stack([random_modes(batch=1, modes=2), random_modes(batch=1, modes=4, seed=1)])
    p = torch.tensor([[0.0, 1.0, 0, 0], [0.1, 0.2, 0.3, 0.4]]).double()
    back = with_probabilities(modes, p)
    assert torch.equal(back.present, modes.present) and torch.allclose(back.weights.double(), p, atol=1e-5)
    back.validate()
    found = decompose_mean(modes, 2 * modes.mean() - 1)
    assert torch.allclose(with_probabilities(modes, found.probabilities).weights, modes.weights, atol=1e-5)


def test_counting_samples():
    modes = random_modes(batch=2, modes=4, size=12)
    draws = torch.multinomial(modes.weights, 4000, replacement=True, generator=gen())
    samples = modes.gather(draws)
    samples = MaskSet.uniform(samples.masks, BINARY)
    counted = assignment_counts(samples, modes)
    expected = torch.stack([torch.bincount(row, minlength=4) for row in draws]).double() / 4000
    assert torch.allclose(counted, expected, atol=1e-6)
    # ties share, so that identical modes are treated alike; places that are not there get nothing
    same = MaskSet(modes.masks[:, [0, 0, 1, 2]], torch.tensor([[0.0, 0.5, 0.5, 0.0]] * 2), BINARY)
    empty = MaskSet.uniform(torch.zeros(2, 3, 12, 12, dtype=torch.uint8), BINARY)
    assert assignment_counts(empty, same).tolist() == [[0, 0.5, 0.5, 0]] * 2
    twice = MaskSet.uniform(modes.masks[:, [0, 1, 2, 3, 1]], BINARY)
    shared = torch.cat([counted, counted[:, 1:2]], 1) * torch.tensor([1, 0.5, 1, 1, 0.5])
    assert torch.allclose(assignment_counts(samples, twice), shared, atol=1e-6)


def test_the_cost_does_not_grow_with_draws_times_pixels():
    """128 modes at once: the fit sees products only."""
    modes = random_modes(batch=1, modes=128, size=24)
    found = posterior_decomposition(
        Exact(modes), images_of(modes), modes, draws=16, generator=gen(), resolutions=(2.0,)
    )
    assert variation(found.probabilities, modes) < 0.02


def test_mistakes():
    modes = random_modes()
    flow, images = Exact(modes), images_of(modes)
    with pytest.raises(AmbisegError, match="do not belong together"):
        velocity_decomposition(flow, images[:1], modes)
    with pytest.raises(AmbisegError, match="do not belong together"):
        posterior_decomposition(flow, images[..., :5], modes)
    with pytest.raises(AmbisegError, match="draws"):
        velocity_decomposition(flow, images, modes, draws=0)
    with pytest.raises(AmbisegError, match="draws"):
        posterior_decomposition(flow, images, modes, draws=0)
    with pytest.raises(AmbisegError, match="cannot be a mixture"):
        decompose_mean(modes, torch.zeros(2, 3, 6, 6))
    with pytest.raises(AmbisegError, match="finite"):
        decompose_mean(modes, torch.full((2, 1, 6, 6), float("nan")))
    for times in ([0.0], [1.0], []):
        with pytest.raises(AmbisegError, match="times"):
            posterior_decomposition(flow, images, modes, times=times)
    with pytest.raises(AmbisegError, match="resolutions"):
        posterior_decomposition(flow, images, modes, resolutions=[0.0])
    with pytest.raises(AmbisegError, match="centres"):
        posterior_decomposition(flow, images, modes, centres="mean")

    class Late(Exact):
        def posterior_mean(self, images, z, t):
            return super().posterior_mean(images, z, t).masked_fill(t.view(-1, 1, 1, 1) > 0, torch.nan)

    with pytest.raises(AmbisegError, match="holds nan"):
        posterior_decomposition(Late(modes), images, modes)
    flow.noise = float("nan")
    with pytest.raises(AmbisegError, match="finite"):
        posterior_decomposition(flow, images, modes)
