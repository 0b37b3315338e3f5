"""Dropout U-Net: samples of a U-Net whose innermost levels drop activations, in training and when sampling.

Kendall, Badrinarayanan and Cipolla (2015), "Bayesian SegNet: model uncertainty in deep convolutional
encoder-decoder architectures for scene understanding", as the baseline of Kohl et al. (2018), "A
probabilistic U-Net for segmentation of ambiguous images", section 3.2: dropout with p = 0.5 in the three
innermost blocks of the encoder and of the decoder. Notation: image x, mask y, U-Net f with weights theta,
dropout pattern w.

    w ~ Bernoulli(1 - p)  for every activation of those blocks
    L(y, x) = E_w[ - log P_c(y | f(x; theta, w)) ]               cross-entropy, per pixel
    y_k = argmax_c P_c(. | f(x; theta, w_k)),  k = 1..K          a sample: a full pass with a pattern of its own

Of several annotations of an image one is drawn by its probability each time it is seen. Pixels of one sample
share only what the dropped activations have in common, so samples need not be consistent masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy_per_pixel
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import network_parts
from ambiseg.methods.base import Segmenter
from ambiseg.methods.dropout_unet import DropoutUNetSettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.base import Backbone
from ambiseg.networks.settings import UNetSettings


class DropoutUNet(Segmenter):
    """A U-Net with dropout in its innermost levels, on also when sampling (Kendall et al. 2015; Kohl et al.
    2018, 3.2).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of the U-Net; its own dropout remains in the other levels, and is off when sampling.
        settings: share of dropped activations, levels, number of samples.

    Raises:
        AmbisegError: a share outside [0, 1), no level, or a network without such levels.

    Example:
        >>> small = UNetSettings(width=8, depth=2)
        >>> model = DropoutUNet(3, LabelSpace.binary(), small, DropoutUNetSettings())
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=4).masks.shape
        torch.Size([2, 4, 17, 23])
    """

    settings: DropoutUNetSettings
    passes_for_each_mask = True

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: DropoutUNetSettings
    ) -> None:
        if not 0 <= settings.dropout < 1:
            raise AmbisegError(f"dropout is a share from 0 to below 1, received {settings.dropout}")
        if settings.levels < 1:
            raise AmbisegError(
                f"dropout needs at least one level, received {settings.levels}: --dropout 0 turns it off"
            )
        super().__init__(in_channels, labels, backbone, settings)
        self.g = build_backbone(in_channels, self.backbone)
        self.h = nn.Conv2d(self.g.out_channels, labels.channels, 1)
        self.dropouts = dropout_layers(self.g, settings.levels)
        if settings.dropout > 0 and not self.dropouts:
            raise AmbisegError(
                f"the network {self.backbone.kind} has no layer of dropout, so all masks would be the same: choose"
                " --set backbone.kind=unet"
            )
        for layer in self.dropouts:
            layer.p = settings.dropout

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, C, H, W)`` under one dropout pattern for each image, in training and in evaluation
        mode."""
        with self._dropping():
            logits: Tensor = self.h(self.g(images))
        return logits

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """The layers of `dropouts` drop, whatever the mode of the model."""
        modes = [layer.training for layer in self.dropouts]
        try:
            for layer in self.dropouts:
                layer.train()
            yield
        finally:
            for layer, mode in zip(self.dropouts, modes, strict=True):
                layer.train(mode)

    @property
    def export_obstacle(self) -> str:
        return (
            "its random numbers are the dropout patterns of layers inside the network, which cannot be inputs"
        )

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Cross-entropy in nats per pixel that is not void, each mask drawn by its probability."""
        y = annotations.sample_one().masks[:, 0]
        return {"loss": cross_entropy_per_pixel(self(images), y, self.labels).mean()}

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of equal weight; ``settings.samples`` of them unless asked otherwise.

        Dropout knows only the global random numbers: they are seeded from ``generator``, and put back
        afterwards.
        """
        values, parts = images[:, 0].numel() * self.g.out_channels, []
        with _seeded(images.device, generator):
            for count in network_parts(samples or self.settings.samples, images.shape[0], values):
                logits = self(images.repeat_interleave(count, 0))
                share = self.labels.probabilities(logits)
                parts.append(share.reshape(images.shape[0], count, *logits.shape[1:]))
        return MaskSet.from_probabilities(torch.cat(parts, 1), self.labels)


def dropout_layers(network: Backbone, levels: int) -> list[nn.Dropout]:
    """Dropout layers of `Backbone.innermost_parts`.

    Example:
        >>> len(dropout_layers(build_backbone(3, UNetSettings(width=8, depth=5)), 3))
        7
    """
    parts = network.innermost_parts(levels)
    return [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Dropout)]


@contextmanager
def _seeded(device: torch.device, generator: torch.Generator | None) -> Iterator[None]:
    """Global random numbers of the CPU and of ``device`` follow from ``generator``, and are as before
    afterwards.

    Without a generator the seed is drawn from the global random numbers, which move on by that one draw.
    """
    at = device if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=at))
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        yield
