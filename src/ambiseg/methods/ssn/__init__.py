"""Stochastic segmentation networks: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass

from ambiseg.data.layouts import ISIC, LIDC
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class SSNSettings:
    """Stochastic segmentation networks: a joint normal distribution of all logits with a covariance of low
    rank."""

    rank: int = 10
    """Columns r of the covariance factor; at most the pixels times the channels of an image."""
    draws: int = 20
    """Monte-Carlo samples S of the likelihood in training."""
    antithetic: bool = False
    """Mirror half of the Monte-Carlo samples of a likelihood at the mean, as the authors' public code
    does."""
    mean_pretraining: float = 0.0
    """Share of the training in which only the mean is trained, by its cross-entropy, before the covariance
    joins; 0: none."""
    samples: int = 16
    """Number of masks drawn for an image."""
    temperature: float = 1.0
    """Factor on a sample's deviation from the mean: 0 draws the mean alone, below 1 there is less
    diversity."""
    sample_rank: int | None = None
    """Draw with only this many directions of the factor, those of the largest singular values; if left out,
    all."""
    likelihood_samples: int = 512
    """Monte-Carlo samples for the likelihood of a mask."""


GTR = {"kind": "phiseg", "width": 32, "depth": 4}
"""Network of the prior of ATFM: batch normalisation, no biases in front of it."""
GTR_DIFFERS = (
    "the file of its U-Net is not public, and this one has as many parameters; batch normalisation as by"
    " default in PyTorch"
)
_GTR_TRAINING = {
    "lr": 1e-4,
    "optimiser": {"weight_decay": 1e-4},
    "schedule": {"kind": "constant"},
    "warmup": 0,
    "clip": 0.0,
    "ema": 0.0,
}
"""AdamW, as in the public code; the paper says Adam."""
_GTR_DECAY = "biases and norms have no weight decay, the paper says Adam and the code takes AdamW"

SPEC = MethodSpec(
    name="ssn",
    summary="samples of a joint normal distribution of all logits with a low-rank covariance (Monteiro et al.)",
    citation=r"""@inproceedings{monteiro_ssn_2020,
  title     = {Stochastic Segmentation Networks: Modelling Spatially Correlated Aleatoric Uncertainty},
  author    = {Monteiro, Miguel and Le Folgoc, Lo{\"i}c and Coelho de Castro, Daniel and Pawlowski, Nick and
               Marques, Bernardo and Kamnitsas, Konstantinos and van der Wilk, Mark and Glocker, Ben},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020}
}""",
    model="ambiseg.methods.ssn.model:SSN",
    settings=SSNSettings,
    search={"rank": "5|10|20", "draws": "10|20|40"},
    presets={
        PAPER: Preset(
            source="Monteiro et al. 2020, experiments: rank 10, 20 Monte-Carlo samples",
            differs=(
                "the diagonal begins at 0.1 and its logarithm is cut at 15; network and optimiser "
                "are the library's"
            ),
        ),
        "lidc": Preset(
            source=(
                "De Sousa Ribeiro et al. 2025, table 1, SSN++ of about 20 M parameters: rank 10, 20"
                " Monte-Carlo samples"
            ),
            differs=(
                "neither its network nor its training is public: this is the network of their Flow-SSN with"
                " two blocks per resolution, 19,082,104 parameters (20.0 M with the layers that no input"
                " reaches); the training is that of their Flow-SSN"
            ),
            train={
                "epochs": 1001,
                "batch_size": 32,
                "lr": 1e-4,
                "optimiser": {"weight_decay": 1e-4},
                "schedule": {"kind": "constant"},
                "warmup": 2000,
                "clip": 10.0,
                "ema": 0.9999,
                "augment": ("flip", "quarter-turns"),
                "binary_channels": 2,
            },
            backbone={
                "kind": "adm",
                "width": 32,
                "depth": 4,
                "max_width": 256,
                "blocks": 2,
                "attention": True,
                "dropout": 0.1,
            },
            settings={"samples": 100},
            data=LIDC,
        ),
        "atfm-lidc": Preset(
            source="Li et al. 2026, 'Implementation Details': the prior of ATFM, 2,262,444 parameters",
            differs=f"{GTR_DIFFERS}; {_GTR_DECAY}",
            train={**_GTR_TRAINING, "epochs": 1000, "batch_size": 256},
            backbone=GTR,
            settings={"antithetic": True},
            data=LIDC,
        ),
        "atfm-isic": Preset(
            source="Li et al. 2026, 'Implementation Details': the prior of ATFM on skin lesions",
            differs=f"{GTR_DIFFERS}; {_GTR_DECAY}",
            train={**_GTR_TRAINING, "epochs": 400, "batch_size": 8},
            backbone=GTR,
            settings={"antithetic": True},
            data=ISIC,
        ),
    },
    validation="ged",
    test=TestCase({"rank": 1, "samples": 24}, deterministic=False, steps=300),
)
