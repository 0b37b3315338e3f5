"""Flow stochastic segmentation networks: a learnt normal distribution of logits that a light flow turns into
one with any covariance.

De Sousa Ribeiro, Todd, Jones, Kori, Mehta and Glocker (2025), "Flow stochastic segmentation networks",
section 5. Notation as there: image x, label map y (one-hot, k classes; a binary space has one channel and a
sigmoid, or k = 2 channels with ``train.binary_channels=2``), base variables u and logits ``eta`` of all pixels
and channels, base parameters lambda, flow parameters theta.

    p(u | x) = N(u; mu(x), diag sigma^2(x))                             the learnt prior, most of the network   (11)

Discrete time, `AutoregressiveFlow`: an inverse autoregressive flow, one step to sample.

    eta_i = m_i(u_<i) + exp(s_i(u_<i)) u_i                                                                     (12)
    L = - log 1/S sum_s p(y | eta_s),    p(y | eta) = prod_pixels Categorical(y; softmax(eta))            (13, 14)

(14) is printed as the mean of ``log p(y | eta)``, which is greatest where all samples are one; the text
speaks of the Monte-Carlo likelihood of SSN, the logarithm of the mean (13), and that is what is taken unless
``estimator="mean-log"``. ``against_collapse`` adds the entropy of the logits, or their divergence from a
second model, a masked autoregressive flow that is trained beside the first:

    L_dual = L - beta H(p_IAF),    H = E[-log p(u | x) + log |det d eta / d u|]                                 (15)
    L_dual = E_IAF[-log p(y | eta)] + KL(p_IAF || p_MAF) >= -log E_MAF[p(y | eta)]

The second line bounds the likelihood of the second model, and only with the mean of ``log p(y | eta)``: the
logarithm of the mean is below it, and with a second model it is refused.

Continuous time, `ContinuousFlow`: a small network without the image says which label map a partly noisy
one becomes.

    y_t = (1 - t) u + t y,    L = - log Categorical(y; softmax(eta(y_t, t))),    t ~ U(0, 1)                (16, 19)
    dy_t/dt = softmax(eta(y_t, t)) - u,    y_0 = u                                                           (17, 18)

Gradients reach the base through u. With a free scale the base would shrink until ``y_t`` gives y away, so
there sigma is 1 unless asked otherwise, as in the authors' code. ``prior="fixed"`` is what the paper compares
with: ``u ~ N(0, I)``, and the large network, which sees the image, is the flow. A loss and its
parts are in nats per pixel that is not void.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ambiseg.distributions.autoregressive_flow import AffineAutoregressive
from ambiseg.distributions.monte_carlo import draw_sizes, expected_nats, marginal, pairwise_cross_entropy
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.flows.solvers import ADAPTIVE, integrate
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy_per_pixel
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.methods.flow_ssn import (
    AutoregressiveFlow,
    ContinuousFlow,
    EntropyBonus,
    FlowSSNSettings,
    LinearLayer,
    SecondModel,
    StripTransformer,
)
from ambiseg.nested_settings import number_problems
from ambiseg.networks.autoregressive import CausalTransformer, MaskedLinear
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels

MOST_LOG_SCALE = 7.0
"""``log sigma`` is cut at plus and minus this, so that no exponential overflows."""
ACTIVATIONS_PER_LOGIT = 16
"""Numbers that a flow network holds for each logit, about: samples are drawn in parts, so that memory does
not grow with them."""
LAST_TIME = 1 - 1e-3
"""Where ``drift="conditional"`` divides by 1 - t it is not taken nearer to 1."""


@dataclass(frozen=True, eq=False)
class Base:
    """``N(mu, diag sigma^2)`` of the base variables of every image (11): two fields ``(B, C, H, W)``."""

    mu: Tensor
    log_sigma: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """``u = mu + sigma e`` for e ``(B, S, C, H, W)``, same shape."""
        return self.mu[:, None] + self.log_sigma.exp()[:, None] * noise

    def log_densities(self, u: Tensor) -> Tensor:
        """Log-densities in nats of the variables of u ``(B, S, C, H, W)``, same shape."""
        e = (u - self.mu[:, None]) * (-self.log_sigma)[:, None].exp()
        return -(0.5 * e.square() + self.log_sigma[:, None] + 0.5 * math.log(2 * math.pi))


class BaseNetwork(nn.Module):
    """The encoder-decoder ``f_lambda`` of (11): images to a `Base`."""

    def __init__(self, in_channels: int, channels: int, backbone: UNetSettings, learn_scale: bool) -> None:
        super().__init__()
        self.g = build_backbone(in_channels, backbone)
        self.mu = self.g.head(channels, 1)
        self.log_sigma = self.g.head(channels, 1) if learn_scale else None
        if self.log_sigma is not None:
            nn.init.zeros_(self.log_sigma.weight)
            nn.init.zeros_(self.log_sigma.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Base:
        features = self.g(images)
        mu = self.mu(features).float()
        if self.log_sigma is None:
            return Base(mu, torch.zeros_like(mu))
        return Base(mu, self.log_sigma(features).float().clamp(-MOST_LOG_SCALE, MOST_LOG_SCALE))


class FlowSSN(Segmenter):
    """Flow stochastic segmentation networks, discrete and continuous (De Sousa Ribeiro et al. 2025).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of the base network, or of the flow where the prior is fixed.
        settings: the flow and its parts.

    Raises:
        AmbisegError: settings that are out of range or do not go together.

    Example:
        >>> small = UNetSettings(width=8, depth=2)
        >>> model = FlowSSN(3, LabelSpace.binary(), small, FlowSSNSettings(AutoregressiveFlow()))
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=5).masks.shape
        torch.Size([2, 5, 17, 23])
        >>> logits, log_prob = model.draw_logits(torch.zeros(1, 3, 4, 4), 2)
        >>> logits.shape, log_prob.shape
        (torch.Size([1, 2, 1, 4, 4]), torch.Size([1, 2]))
    """

    settings: FlowSSNSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: FlowSSNSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        _check(settings)
        channels = labels.channels
        flow = settings.flow
        learn_scale = flow.base_scale == "learned"
        self.base: BaseNetwork | None = None
        self.second: BaseNetwork | None = None
        learnt = isinstance(flow, AutoregressiveFlow) or flow.prior == "learned"
        if learnt:
            self.base = BaseNetwork(in_channels, channels, self.backbone, learn_scale)
        if isinstance(flow, ContinuousFlow):
            if learnt:
                dropout = self.backbone.dropout
                small = UNetSettings(flow.width, flow.depth, 1, flow.width, dropout=dropout)
                self.eta = build_backbone(channels, flow.network or small, time=True)
            else:
                self.eta = build_backbone(in_channels + channels, self.backbone, time=True)
            self.head = self.eta.head(channels, 3)
        else:
            self.flow = self._autoregressive(flow.body)
        if isinstance(flow, AutoregressiveFlow) and isinstance(flow.against_collapse, SecondModel):
            self.second = BaseNetwork(in_channels, channels, self.backbone, learn_scale)
            self.second_flow = self._autoregressive(flow.body)

    def _autoregressive(self, body: StripTransformer | LinearLayer) -> AffineAutoregressive:
        channels = self.labels.channels
        if isinstance(body, LinearLayer):
            return AffineAutoregressive([MaskedLinear(channels, body.height, body.width)])
        strip = (body.strip_height, body.strip_width)
        network = CausalTransformer(
            channels, strip, body.width, body.layers, body.heads, body.within_strip, body.dropout
        )
        return AffineAutoregressive([network])

    @property
    def _continuous(self) -> ContinuousFlow:
        assert isinstance(self.settings.flow, ContinuousFlow)
        return self.settings.flow

    @property
    def export_obstacle(self) -> str:
        flow = self.settings.flow
        if isinstance(flow, AutoregressiveFlow) and isinstance(flow.body, LinearLayer):
            return "its linear layer has one image size (settings: flow.body)"
        if isinstance(flow, ContinuousFlow) and flow.sampler == ADAPTIVE:
            return f"the solver {ADAPTIVE} chooses its steps while it runs (settings: flow.sampler), a graph has fixed ones"
        return ""

    # -- the base --------------------------------------------------------------------------------------------

    def distribution(self, images: Tensor) -> Base:
        """``p(u | x)`` (11) of images ``(B, C, H, W)``."""
        check_channels(images, self.in_channels)
        if self.base is not None:
            base: Base = self.base(images)
            return base
        zeros = images.new_zeros(
            (images.shape[0], self.labels.channels, *images.shape[2:]), dtype=torch.float32
        )
        return Base(zeros, zeros)

    def _noise(self, images: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        shape = (images.shape[0], count, self.labels.channels, *images.shape[2:])
        return standard_normal(shape, images.device, generator)

    def _pushed(self, u: Tensor) -> Tensor:
        """Base variables ``(B, S, C, H, W)`` through the pushforward f (section 5.2, priors)."""
        if self._continuous.pushforward == "identity":
            return u
        return self.labels.log_probabilities(u, dim=2)

    # -- discrete time ---------------------------------------------------------------------------------------

    def draw_logits(
        self, images: Tensor, count: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits from the inverse autoregressive flow with their own log-density, at no further cost (12,
        13).

            log p(eta | x) = log p(u | x) - log |det d eta / d u|

        The flow knows the u that each of its samples came from, so nothing has to be inverted.

        Args:
            images: ``(B, C, H, W)``.
            count: draws S of each image.
            generator: source of randomness; None is the global one.

        Returns:
            Logits ``(B, S, C, H, W)`` and log-densities in nats ``(B, S)``.

        Raises:
            AmbisegError: the model is continuous.
        """
        if isinstance(self.settings.flow, ContinuousFlow):
            raise AmbisegError("a continuous Flow-SSN has no logits of its own to draw: use predict")
        eta, densities = self._through(self.distribution(images), self._noise(images, count, generator))
        return eta, densities.flatten(2).sum(2)

    def _through(self, base: Base, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of noise ``(B, S, C, H, W)`` and the log-density of each given those before, same shape."""
        u = base.draw(noise)
        eta, log_scales = self.flow.with_log_scales(u.flatten(0, 1))
        return eta.view(u.shape), base.log_densities(u) - log_scales.view(u.shape)

    def _second_log_prob(self, images: Tensor, eta: Tensor) -> Tensor:
        """``log p_MAF(eta | x)`` of ``(B, S, C, H, W)``, ``(B, S)``: one pass, for the MAF's input is eta
        itself."""
        assert self.second is not None
        base: Base = self.second(images)
        u, log_scales = self.second_flow.with_log_scales(eta.flatten(0, 1))
        return (base.log_densities(u.view(eta.shape)) + log_scales.view(eta.shape)).flatten(2).sum(2)

    def _discrete_loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        flow = self.settings.flow
        assert isinstance(flow, AutoregressiveFlow)
        eta, densities = self._through(self.distribution(images), self._noise(images, flow.draws))
        pairs = pairwise_cross_entropy(eta, annotations.masks, self.labels)
        nats = marginal(pairs) if flow.estimator == "log-mean" else pairs.mean(1)
        likelihood = expected_nats(nats, annotations).mean()
        if flow.against_collapse is None:
            return {"loss": likelihood}
        valid = self.labels.valid(annotations.masks).flatten(2)
        if isinstance(flow.against_collapse, EntropyBonus):
            # Of valid pixels alone: nothing holds back the entropy of a void one.
            each = -densities.mean(1).sum(1).flatten(1)
            entropy = expected_nats((each[:, None] * valid).sum(2), annotations).mean()
            return {
                "loss": likelihood - flow.against_collapse.weight * entropy,
                "nats": likelihood,
                "entropy": entropy,
            }
        # Of all logits, as the bound asks; an annotation that is all void has no likelihood to bound.
        excess = (densities.flatten(2).sum(2) - self._second_log_prob(images, eta)).mean(1)
        kl = expected_nats(excess[:, None] * valid.any(2), annotations).mean()
        return {"loss": likelihood + kl, "nats": likelihood, "kl": kl}

    # -- continuous time -------------------------------------------------------------------------------------

    def logits(self, images: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """``eta(y_t, t)`` of states ``(N, C, H, W)`` at times ``(N,)``, float32; the image is read where the
        prior is fixed."""
        seen = state if self.base is not None else torch.cat([state, images.to(state.dtype)], 1)
        out: Tensor = self.head(self.eta(seen, time)).float()
        return out

    def _continuous_loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        masks = annotations.sample_one().masks[:, 0]
        u = self._pushed(self.distribution(images).draw(self._noise(images, 1)))[:, 0]
        time = torch.rand(images.shape[0], device=images.device)
        # A void pixel has no label to go to: it stays as it was drawn.
        t = time[:, None, None, None] * self.labels.valid(masks)[:, None]
        state = (1 - t) * u + t * self.labels.one_hot(masks, dim=1)
        nats = cross_entropy_per_pixel(self.logits(images, state, time), masks, self.labels)
        return {"loss": nats.mean()}

    def _integrate(self, images: Tensor, u: Tensor, whole: bool = True) -> Tensor:
        """The state at the end of the flow (17) from u ``(B, K, C, H, W)``, or one step before it, same
        shape."""
        s, count = self._continuous, u.shape[1]
        repeated = images if self.base is not None else images.repeat_interleave(count, 0)

        def velocity(state: Tensor, time: Tensor) -> Tensor:
            eta = self.logits(repeated, state.flatten(0, 1), time.repeat_interleave(count))
            mean = self.labels.probabilities(eta).view(state.shape)
            if s.drift == "initial":
                return mean - u
            return (mean - state) / (1 - time[:, None, None, None, None].clamp(max=LAST_TIME))

        # A posterior mean gives no velocity at t = 1, so the last step ends in the mean itself.
        last = "euler" if whole and s.drift == "conditional" and s.sampler != ADAPTIVE else None
        grid = [n / s.steps for n in range(s.steps + 1)]
        if not whole:
            grid = grid[:-1]
        return integrate(
            velocity, u, method=s.sampler, grid=grid, last=last, rtol=s.tolerance, atol=s.tolerance
        )

    # -- the verbs -------------------------------------------------------------------------------------------

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Discrete: mean over all annotations by their probability. Continuous: one annotation, drawn by its
        probability."""
        if isinstance(self.settings.flow, ContinuousFlow):
            return self._continuous_loss(images, annotations)
        return self._discrete_loss(images, annotations)

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Independent samples of equal weight, ``settings.samples`` unless asked otherwise; the base network
        runs once."""
        count, base = samples or self.settings.samples, self.distribution(images)
        found = [
            self._sample(images, base, self._noise(images, n, generator))
            for n in draw_sizes(count, ACTIVATIONS_PER_LOGIT * base.mu.numel())
        ]
        return MaskSet.from_probabilities(torch.cat(found, 1), self.labels)

    def _sample(self, images: Tensor, base: Base, noise: Tensor) -> Tensor:
        """Probabilities of masks ``(B, K, C, H, W)``."""
        if isinstance(self.settings.flow, AutoregressiveFlow):
            return self.labels.probabilities(self._through(base, noise)[0], dim=2)
        end = self._integrate(images, self._pushed(base.draw(noise)))
        return self.labels.normalized(end, dim=2)

    @torch.no_grad()
    def log_prob(self, images: Tensor, masks: Tensor) -> Tensor:
        """``log 1/S sum_s p(y | eta_s)`` in nats of the whole label map, void left out, S =
        ``likelihood_samples``.

        A Monte-Carlo estimate from the global generator: below the true value on average, and nearer the
        larger S is. Of a continuous model it is the likelihood of the sampler of `predict` that stops one step
        before the end, at ``1 - 1 / steps``, and draws the label map from the categorical distribution there.

        Args:
            images: ``(B, C, H, W)``.
            masks: label maps ``(B, H, W)``.

        Returns:
            ``(B,)`` float32.
        """
        base, nats = self.distribution(images), []
        for n in draw_sizes(self.settings.likelihood_samples, ACTIVATIONS_PER_LOGIT * base.mu.numel()):
            eta = self._likelihood_logits(images, base, self._noise(images, n))
            nats.append(pairwise_cross_entropy(eta, masks[:, None], self.labels))
        return -marginal(torch.cat(nats, 1))[:, 0]

    def _likelihood_logits(self, images: Tensor, base: Base, noise: Tensor) -> Tensor:
        if isinstance(self.settings.flow, AutoregressiveFlow):
            return self._through(base, noise)[0]
        end, count = 1 - 1 / self._continuous.steps, noise.shape[1]
        state = self._pushed(base.draw(noise))
        if end > 0:
            state = self._integrate(images, state, whole=False)
        repeated = images if self.base is not None else images.repeat_interleave(count, 0)
        time = torch.full((state.shape[0] * count,), end, device=state.device)
        return self.logits(repeated, state.flatten(0, 1), time).view(state.shape)


def _check(s: FlowSSNSettings) -> None:
    """Raise `AmbisegError` for settings that are out of range."""
    problems = number_problems(s)
    if problems:
        raise AmbisegError("; ".join(problems))
    if isinstance(s.flow, ContinuousFlow) and s.flow.network is not None:
        default = ContinuousFlow()
        if (s.flow.width, s.flow.depth) != (default.width, default.depth):
            raise AmbisegError(
                "flow.network has a width and a depth of its own: leave flow.width and flow.depth out"
            )
    if isinstance(s.flow, ContinuousFlow) and not s.flow.tolerance > 0:
        raise AmbisegError(
            f"flow.tolerance is above 0, received {s.flow.tolerance}: 1e-6 is exact enough for masks"
        )
    if isinstance(s.flow, ContinuousFlow) and s.flow.prior == "fixed":
        for name in ("network", "width", "depth", "base_scale"):
            value = getattr(s.flow, name)
            if value != getattr(ContinuousFlow(), name):
                shown = getattr(value, "kind", value)
                raise AmbisegError(
                    f"flow.{name}={shown} has no effect with flow.prior=fixed, where the backbone is the flow"
                    f" and its base is N(0, I): leave flow.{name} or flow.prior out"
                )
    if not isinstance(s.flow, AutoregressiveFlow):
        return
    if isinstance(s.flow.against_collapse, SecondModel) and s.flow.estimator != "mean-log":
        raise AmbisegError(
            f"flow.against_collapse=maf needs flow.estimator=mean-log, received {s.flow.estimator}: only then is the"
            " loss a bound of a likelihood"
        )
    if isinstance(s.flow.against_collapse, EntropyBonus):
        weight = s.flow.against_collapse.weight
        if not weight > 0:
            raise AmbisegError(
                f"flow.against_collapse.weight is above 0, received {weight}: without it all samples become one"
            )
