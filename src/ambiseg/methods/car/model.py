"""Calibrated adversarial refinement: samples of a generative adversarial network, whose mean is that of a
calibration network.

Kassapis, Dikov, Gupta and Nugteren (2021), "Calibrated adversarial refinement for stochastic semantic
segmentation". Notation: image x, annotation y, noise e ~ N(0, I) of L dimensions; calibration network F with
parameters theta, refinement network G with phi, discriminator D with psi, S samples of an image.

    L_ce(theta)  = E - log F(x)_y                                               the calibration network, per pixel
    L_adv(phi)   = E - log D(x, G(x, F(x), e))                                   non-saturating
    L_cal(phi)   = E KL( 1/S sum_s G(x, F(x), e_s) || F(x) )                     per pixel, summed over classes
    L_G(phi)     = lambda_adv L_adv + lambda_cal L_cal
    L_D(psi)     = E - log D(x, y) - log(1 - D(x, G(x, F(x), e_1))) + gamma |grad D(x, y)|^2

F(x) and G(x, F(x), e) are probabilities of classes at every pixel, D is the probability that a mask is an
annotation. Its gradient in the penalty (R1; Mescheder, Geiger and Nowozin 2018) is that of the logit, with
respect to image and mask.

Three networks learn from one backward pass. F enters G and L_cal detached; the sample enters L_D detached; in
L_adv the parameters of D are detached. So each parameter has the gradient of its own loss alone, and as Adam
treats each parameter by itself, one Adam does the step of three. Rates differ by `CAR.rate_factors`. The value
of ``"loss"`` is ``L_ce + lambda_cal L_cal``: adversarial losses enter it with their gradient and the value 0,
since they do not fall where the networks get better.

Of several annotations L_ce takes the mean by their probabilities, and D sees one, drawn by probability. What
is void there is hidden in sample and annotation alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import part_sizes
from ambiseg.methods.base import Segmenter
from ambiseg.methods.car import CARSettings
from ambiseg.methods.car.losses import LEAST, divergence, expected, log_all_classes, squared_gradient
from ambiseg.methods.car.published import (
    FiveConvolutions,
    PublishedDiscriminator,
    PublishedRefinement,
    SegNet,
)
from ambiseg.methods.car.refinement import Refinement
from ambiseg.methods.unet_ensemble.model import UNetEnsemble
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.base import Backbone
from ambiseg.networks.discriminator import Discriminator
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels


class Calibration(nn.Module):
    """F on a network of the library: the same layers as a member of `unet-ensemble`.

    Args:
        in_channels: of the images.
        outputs: channels C of the logits.
        backbone: the network.
    """

    def __init__(self, in_channels: int, outputs: int, backbone: UNetSettings) -> None:
        super().__init__()
        self.g = build_backbone(in_channels, backbone)
        self.h = nn.Conv2d(self.g.out_channels, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, C, H, W)``."""
        logits: Tensor = self.h(self.g(images))
        return logits


class CAR(Segmenter):
    """Calibrated adversarial refinement (Kassapis et al. 2021).

    Args:
        in_channels: channels of the images, those of a black box among them.
        labels: binary or multi-class.
        backbone: calibration and refinement network, unless the settings name others.
        settings: losses, networks, noise, number of samples.

    Raises:
        AmbisegError: settings out of their range.

    Example:
        >>> small = UNetSettings(width=8, depth=2)
        >>> model = CAR(3, LabelSpace.binary(), small, CARSettings())
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=4).masks.shape
        torch.Size([2, 4, 17, 23])
    """

    settings: CARSettings
    steps: Tensor

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: CARSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        s, outputs = settings, labels.channels
        _check(s, in_channels)
        seen = in_channels - s.black_box_channels
        self.f: nn.Module
        if s.calibration == "backbone":
            self.f = Calibration(in_channels, outputs, self.backbone)
        else:
            self.f = {"segnet": SegNet, "small": FiveConvolutions}[s.calibration](in_channels, outputs)
        self.g: Refinement | PublishedRefinement
        if s.refinement == "backbone":
            self.g = Refinement(seen + outputs, outputs, s.latent_size, s.noise_layers, self.backbone)
        else:
            self.g = PublishedRefinement(seen + outputs, outputs, s.latent_size)
        self.d: nn.Module
        if s.discriminator == "pooled":
            self.d = Discriminator(seen + outputs, s.discriminator_width, 1)
        else:
            self.d = PublishedDiscriminator(seen + outputs, s.discriminator_width)
        self.f.requires_grad_(s.train_calibration)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    # -- the networks ----------------------------------------------------------------------------------------

    def calibration(self, images: Tensor) -> Tensor:
        """Logits ``(B, C, H, W)`` float32 of F."""
        check_channels(images, self.in_channels)
        logits: Tensor = self.f(images)
        return logits.float()

    def refined(self, images: Tensor, calibration: Tensor, z: Tensor) -> Tensor:
        """Probabilities ``(B, N, C, H, W)`` of G for latents ``(B, N, L)`` and logits of F, which get no
        gradient."""
        shared = self.g.encode(self._condition(images, calibration))
        return self.labels.probabilities(self.g.decode(shared, z), dim=2)

    def _seen(self, images: Tensor) -> Tensor:
        return images[:, : self.in_channels - self.settings.black_box_channels]

    def _condition(self, images: Tensor, calibration: Tensor) -> Tensor:
        shares = self.labels.probabilities(calibration.detach()).to(images.dtype)
        return torch.cat([self._seen(images), shares], 1)

    @torch.no_grad()
    def pixel_probabilities(self, images: Tensor) -> Tensor:
        """F(x), the probabilities of the classes at every pixel, ``(B, C, H, W)``.

        Example:
            >>> model = CAR(3, LabelSpace.binary(), UNetSettings(width=8, depth=2), CARSettings())
            >>> model.pixel_probabilities(torch.zeros(2, 3, 6, 6)).shape
            torch.Size([2, 1, 6, 6])
        """
        return self.labels.probabilities(self.calibration(images))

    # -- training --------------------------------------------------------------------------------------------

    @property
    def rate_factors(self) -> Mapping[str, float]:
        return {"f.": self.settings.calibration_rate, "d.": self.settings.discriminator_rate}

    @property
    def needs_init(self) -> str:
        if self.settings.train_calibration:
            return ""
        return "train_calibration=no does not train the calibration network"

    def train(self, mode: bool = True) -> Self:
        """A calibration network that does not learn stays in evaluation mode."""
        super().train(mode)
        if not self.settings.train_calibration:
            self.f.eval()
        return self

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """``L_ce + lambda_cal L_cal``, with the gradients of all losses; means over the images that have a
        pixel that is not void."""
        s, labels = self.settings, self.labels
        y = annotations.sample_one().masks[:, 0]
        logits = self.calibration(images)
        z = torch.randn(images.shape[0], s.train_samples, s.latent_size, device=images.device)
        fake = self.refined(images, logits, z)
        with torch.autocast(images.device.type, enabled=False):
            target, mass = expected(annotations)
            log_f = log_all_classes(logits, labels)
            pixels = (mass > 0).float()
            entropy = -(target * log_f).sum(1)
            mean = labels.all_classes(fake.mean(1), dim=1)
            parts = {
                "cross_entropy": _mean(entropy, mass),
                "calibration": _mean(divergence(mean, log_f.detach()) * pixels, pixels),
            }
            total = parts["cross_entropy"] + s.calibration_weight * parts["calibration"]
            game, more = self._game(self._seen(images).float(), fake, y)
            total = total + (game - game.detach())
        return {"loss": total, **{name: value.detach() for name, value in {**parts, **more}.items()}}

    def _game(self, x: Tensor, fake: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``lambda_adv L_adv + L_D``, each with the gradient of its own network alone."""
        s = self.settings
        valid = self.labels.valid(y)
        counted = valid.flatten(1).any(1).float()
        valid = valid[:, None].float()
        real = torch.cat([x, (self.labels.one_hot(y, dim=1) - 0.5) * valid], 1)
        made = [torch.cat([x, (sample - 0.5) * valid], 1) for sample in fake.unbind(1)]
        weights = {name: value.detach() for name, value in self.d.named_parameters()}
        scores = functional_call(self.d, weights, torch.cat(made)).view(len(made), -1)
        adversarial = _mean(functional.softplus(-scores).mean(0), counted)
        learns = self._discriminator_learns()
        real.requires_grad_(learns and s.gradient_penalty > 0)
        of_real, of_fake = self.d(real)[:, 0], self.d(made[0].detach())[:, 0]
        plain = functional.softplus(-of_real) + functional.softplus(of_fake)
        parts = {"adversarial": adversarial, "discriminator": _mean(plain, counted)}
        game = s.adversarial_weight * adversarial
        if s.accuracy_cap < 1 and learns:
            right = torch.cat([of_real > 0, of_fake <= 0]).float().mean()
            learns = float(right) <= s.accuracy_cap
        if learns:
            game = game + parts["discriminator"]
            if s.gradient_penalty > 0:
                parts["penalty"] = _mean(squared_gradient(of_real, real), counted)
                game = game + s.gradient_penalty * parts["penalty"]
        return game, parts

    def _discriminator_learns(self) -> bool:
        """Whether D learns in this step; counts the step."""
        s = self.settings
        if not torch.is_grad_enabled():
            return False
        if not self.training or s.discriminator_pause == 0:
            return True
        step = int(self.steps) % (s.discriminator_updates + s.discriminator_pause)
        self.steps += 1
        return step < s.discriminator_updates

    def start_from(self, other: Segmenter) -> None:
        """Another model of this method, or a U-Net (`unet-ensemble`), whose first member becomes F.

        Raises:
            AmbisegError: a U-Net of other channels, classes or network, or no place for it here.
        """
        if not isinstance(other, UNetEnsemble):
            super().start_from(other)
            return
        ours = (self.in_channels, self.labels.names, self.labels.channels, self.backbone)
        theirs = (other.in_channels, other.labels.names, other.labels.channels, other.backbone)
        if self.settings.calibration != "backbone" or ours != theirs:
            raise AmbisegError(
                "a U-Net becomes the calibration network where channels, classes and backbone are the same and"
                f" calibration is backbone: received {theirs} for {ours}"
            )
        self.f.load_state_dict(other.members[0].state_dict())

    def freeze(self, part: str) -> None:
        """As every method, in calibration and refinement network alike."""
        if part == "nothing":
            return
        networks = [m for whole in (self.f, self.g) for m in whole.modules() if isinstance(m, Backbone)]
        if not networks:
            super().freeze(part)
        for network in networks:
            for module in network.encoder_parts() if part == "encoder" else [network]:
                module.requires_grad_(False)
        self.train(self.training)

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of equal weight; ``settings.samples`` of them unless asked otherwise."""
        shape = (images.shape[0], samples or self.settings.samples, self.settings.latent_size)
        z = standard_normal(shape, images.device, generator)
        shared = self.g.encode(self._condition(images, self.calibration(images)))
        sizes = part_sizes(shape[1], images[:, 0].numel() * self.g.values_of_a_pixel)
        parts = [self.labels.probabilities(self.g.decode(shared, p), dim=2) for p in torch.split(z, sizes, 1)]
        return MaskSet.from_probabilities(torch.cat(parts, 1), self.labels)


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    """Mean over images of the mean over pixels; of values ``(B, H, W)`` a sum over the pixels' weights, of
    ``(B,)`` over images of weight 1 or 0."""
    if value.dim() > 1:
        size = weight.flatten(1).sum(1)
        return _mean(value.flatten(1).sum(1) / size.clamp(min=LEAST), (size > 0).float())
    return (value * weight).sum() / weight.sum().clamp(min=1)


def _check(s: CARSettings, in_channels: int) -> None:
    """Raise `AmbisegError` where a setting is out of its range."""
    for name in (
        *("latent_size", "train_samples", "samples", "noise_layers", "discriminator_width"),
        "discriminator_updates",
    ):
        if getattr(s, name) < 1:
            raise AmbisegError(f"{name} is 1 or more, received {getattr(s, name)}")
    for name in ("adversarial_weight", "calibration_weight", "gradient_penalty", "discriminator_pause"):
        if not getattr(s, name) >= 0:
            raise AmbisegError(f"{name} is 0 or more, received {getattr(s, name)}")
    for name in ("discriminator_rate", "calibration_rate"):
        if not getattr(s, name) > 0:
            raise AmbisegError(f"{name} is above 0, received {getattr(s, name)}")
    if not 0.5 <= s.accuracy_cap <= 1:
        raise AmbisegError(f"accuracy_cap is from 0.5 to 1, received {s.accuracy_cap}")
    if not 0 <= s.black_box_channels < in_channels:
        raise AmbisegError(
            f"black_box_channels is from 0 to {in_channels - 1}, one less than the images have, received"
            f" {s.black_box_channels}"
        )
