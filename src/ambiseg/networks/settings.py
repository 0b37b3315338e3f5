"""Settings of the networks: plain numbers, importable without torch (the command line shows them)."""

from __future__ import annotations

from dataclasses import dataclass


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
    (those of the public code of Flow-SSN and of ATFM), or one that was registered. phiseg, monai and
    registered ones accept no time input, which flow methods need."""
    convolutions: ConvolutionSettings = ConvolutionSettings()
    """Convolutions of phiseg."""
    factors: tuple[int, ...] = ()
    """Channels of the resolutions in units of the width, such as [1, 2, 2, 4], instead of doubling; further
    resolutions have the last one (unet, monai, adm, ddpm)."""
