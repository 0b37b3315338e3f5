"""A run as one module of tensors: image and noise in; masks, weights and scores out.

What `Run.predict` does is traced as it is: normalisation, the method's own ``predict``, filters, sorting. Three things
differ, because the shapes of a graph do not depend on values:

- The number K of masks is fixed. A mask that the filter drops stays with weight 0, behind those that are kept.
- Random numbers are inputs (`ambiseg.distributions.noise.GivenNoise`).
- All masks are computed together, so memory grows with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ambiseg.defaults import FOREGROUND_THRESHOLD
from ambiseg.distributions.noise import GivenNoise
from ambiseg.engine.postprocess import PredictSettings, filtered, ranked
from ambiseg.engine.run import Run
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.networks.base import Backbone

BATCH, HEIGHT, WIDTH = "batch", "height", "width"
PROBES = ((2, 43, 53), (3, 47, 59))
"""Batch sizes, heights and widths at which noise is asked for, all prime, so that each axis shows what it is."""

Axis = str | int


@dataclass(frozen=True)
class NoiseInput:
    """One tensor of standard normal numbers that a method draws.

    Attributes:
        name: of the input.
        axes: a number, or ``batch``, ``height`` or ``width``.
    """

    name: str
    axes: tuple[Axis, ...]

    def shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Its shape for images ``(batch, C, height, width)``."""
        sizes = {BATCH: batch, HEIGHT: height, WIDTH: width}
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self.axes)

    def draw(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal numbers for images ``(B, C, H, W)``."""
        return torch.randn(self.shape(image.shape[0], image.shape[2], image.shape[3]), generator=generator)


class DeployedModel(nn.Module):
    """What a run predicts for raw images, filters included, with noise as an input.

    Args:
        run: loaded in float32 on the CPU.
        settings: filters and number of samples; what is "auto" is that of the run.

    Attributes:
        noise: the tensors of noise that it takes after the image.
        outputs: names of what `forward` returns.
        masks: how many it returns for each image.

    Raises:
        AmbisegError: the method cannot be exported, or probabilities of a flow model are asked for.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, run: Run, settings: PredictSettings | None = None) -> None:
        super().__init__()
        networks = [part for part in run.model.modules() if isinstance(part, Backbone)]
        obstacle = run.model.export_obstacle or next(
            (network.export_obstacle for network in networks if network.export_obstacle), ""
        )
        if obstacle:
            raise AmbisegError(
                f"a {run.config.method} run with these settings cannot be exported: {obstacle}"
            )
        given = (settings or PredictSettings()).for_run(run)
        if given.estimate.kind != "head" or given.estimate.flips:
            raise AmbisegError(
                "an exported model gives the probabilities of its method: leave out those of a flow model and flips"
            )
        self.model = run.model if given.annotator is None else run.model.of_annotator(given.annotator)
        self.samples, self.values = given.samples, given.values()
        self.channels = run.config.in_channels
        for name in ("mean", "std"):
            value = torch.tensor(getattr(run.config.normalization, name), dtype=torch.float32)
            self.register_buffer(name, value[:, None, None])
        self.noise = self._noise_inputs()
        image, noise = self.example(*PROBES[0])
        proposals = self._proposals(image, GivenNoise(noise))
        self.outputs = ("masks", "weights") if proposals.scores is None else ("masks", "weights", "scores")
        self.masks = min(proposals.masks.shape[1], self.values.top or proposals.masks.shape[1])

    def example(
        self, batch: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Images like those of training in mean and spread, and noise."""
        drawn = torch.randn(batch, self.channels, height, width, generator=generator)
        image = drawn * self.std + self.mean
        return image, [noise.draw(image, generator) for noise in self.noise]

    def forward(self, image: Tensor, *noise: Tensor) -> tuple[Tensor, ...]:
        """Masks ``(B, K, H, W)`` uint8 and weights ``(B, K)``, sorted; scores ``(B, K)`` where the method has any.

        Before it is exported, K is only as large as the kept masks need.

        Args:
            image: ``(B, C, H, W)`` float32, with the values of training, not normalised.
            noise: standard normal numbers, one tensor for each of `noise`.
        """
        kept = ranked(filtered(self._proposals(image, GivenNoise(noise)), self.values), self.values.top)
        parts = [kept.masks, kept.weights] if kept.scores is None else [kept.masks, kept.weights, kept.scores]
        return tuple(part[:, : self.values.top] for part in parts)

    @torch.no_grad()
    def _proposals(self, image: Tensor, noise: GivenNoise) -> MaskSet:
        found = self.model.predict((image - self.mean) / self.std, self.samples, noise)
        if self.values.foreground_threshold != FOREGROUND_THRESHOLD:
            found = found.rethreshold(self.values.foreground_threshold)
        return found.hard()

    def _noise_inputs(self) -> tuple[NoiseInput, ...]:
        """What the method draws, found by asking it at two sizes."""
        found = []
        for batch, height, width in PROBES:
            noise = GivenNoise()
            self._proposals(torch.zeros(batch, self.channels, height, width), noise)
            found.append(noise.shapes)
        if len(found[0]) != len(found[1]):
            raise AmbisegError(
                "this method draws another number of tensors of noise at another image size: not supported"
            )
        axes = [_axes(one, other) for one, other in zip(*found, strict=True)]
        names = ["noise"] if len(axes) == 1 else [f"noise_{index}" for index in range(len(axes))]
        return tuple(map(NoiseInput, names, axes))


def _axes(one: Sequence[int], other: Sequence[int]) -> tuple[Axis, ...]:
    """What the axes of noise stand for, from its shapes at both `PROBES`.

    An axis of all logits of an image becomes channels, height and width.

    Example:
        >>> _axes((2, 16, 43 * 53), (3, 16, 47 * 59))
        ('batch', 16, 1, 'height', 'width')
    """
    (batch, height, width), (batch_2, height_2, width_2) = PROBES
    names: dict[tuple[int, int], Axis] = {
        (batch, batch_2): BATCH,
        (height, height_2): HEIGHT,
        (width, width_2): WIDTH,
    }
    axes: list[Axis] = []
    for size, size_2 in zip(one, other, strict=True):
        pixels, pixels_2 = height * width, height_2 * width_2
        if size == size_2:
            axes.append(size)
        elif (size, size_2) in names:
            axes.append(names[size, size_2])
        elif size % pixels == 0 and size // pixels * pixels_2 == size_2:
            axes += [size // pixels, HEIGHT, WIDTH]
        else:
            raise AmbisegError(
                f"this method draws noise of shapes {tuple(one)} and {tuple(other)} at images of {PROBES[0][1:]} and"
                f" {PROBES[1][1:]} pixels: axes of noise are numbers, batch, height, width or channels x height x width"
            )
    return tuple(axes)
