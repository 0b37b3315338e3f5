"""Settings of the networks: plain numbers, importable without torch (the command line shows them)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class BatchNormSettings:
    """Batch normalisation."""

    eps: float = 1e-5
    """Added to the variances."""
    momentum: float = 0.1
    """Weight of a new batch in the running statistics, 0 to 1."""


@dataclass(frozen=True)
class ConvolutionSettings:
    """What a 3x3 convolution of the network phiseg consists of, before its ReLU."""

    norm: BatchNormSettings | None = BatchNormSettings()
    """Normalisation; none: none, and a bias (Kohl et al. 2018)."""
    bias: bool = False
    """A bias in front of the normalisation as well, as in the public code of MoSE."""
    count: int = 3
    """How many there are at each level."""


@dataclass(frozen=True)
class EncoderSettings:
    """What a network of another package is made of, beside its name."""

    weights: str = ""
    """Pretrained weights of the encoder, read when a training begins: a file of safetensors or of PyTorch, a folder in
    the layout of the package, or `download` for the loader of timm and smp; empty for random ones."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the network by the names of its package, such as {hidden_sizes: [48, 96], depths: [2, 2]}."""


@dataclass(frozen=True)
class UNetSettings:
    """Kind and size of the U-Net that every method builds on."""

    width: int = 32
    """Channels at full resolution."""
    depth: int = 4
    """Number of resolutions; each halves the image."""
    blocks: int = 1
    """Residual blocks per resolution and side."""
    max_width: int = 128
    """Channels double at every resolution up to this many (unet; ncsnpp has twice its width everywhere)."""
    attention: bool = False
    """Self-attention at the lowest resolution; of ddpm linear attention at the others as well."""
    dropout: float = 0.0
    """Dropout inside the residual blocks, 0 to 1."""
    kind: str = "unet"
    """The network: unet (ours), ncsnpp as in score-based generative models (Song et al. 2021; Karras et al.
    2022), edm (that one as the public code of Karras et al. has it), phiseg with batch normalisation, width x
    (1, 2, 4, 6, 6, 6, 6) (Baumgartner et al. 2019), monai (that of nnU-Net, an extra package), adm and ddpm
    (those of the public code of Flow-SSN and of ATFM), double (that of PixelSeg), hpunet (that of the hierarchical
    probabilistic U-Net), one that was registered, or one of another package: transformers:TYPE, timm:NAME and
    smp:NAME are encoders with the decoder of unet, monai:NAME is a whole network. phiseg, double, hpunet, monai,
    monai:NAME and registered ones accept no time input, which flow methods need."""
    convolutions: ConvolutionSettings = ConvolutionSettings()
    """Convolutions of phiseg."""
    factors: tuple[int, ...] = ()
    """Channels of the resolutions in units of the width, such as [1, 2, 2, 4], instead of doubling; further
    resolutions have the last one (unet, phiseg, monai, adm, ddpm, double, hpunet)."""
    encoder: EncoderSettings = EncoderSettings()
    """Weights and options of a network of another package."""
