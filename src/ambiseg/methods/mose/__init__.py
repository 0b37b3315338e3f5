"""Mixture of stochastic experts: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ambiseg.data.layouts import CITYSCAPES_PREDICTION, LIDC
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase
from ambiseg.networks.settings import BatchNormSettings


@dataclass(frozen=True)
class MixtureEnergySettings:
    """The energy score of the mixture of experts (not in the paper)."""

    weight: float = 1.0
    """Its weight."""
    kernel: Literal["iou", "dice", "jensen-shannon", "scales"] = "iou"
    """Distance of masks, soft."""


@dataclass(frozen=True)
class PlainHead:
    """Three 1x1 convolutions with ReLU between them."""

    kind: Literal["plain"] = "plain"
    """Three 1x1 convolutions, ReLU between them (the paper)."""


@dataclass(frozen=True)
class NormalisedHead:
    """Five 1x1 convolutions, the three in the middle with batch normalisation and ReLU."""

    kind: Literal["normalised"] = "normalised"
    """Five 1x1 convolutions, the three in the middle with batch normalisation and ReLU (the authors' code);
    the first one adds as many channels as the latent has dimensions."""
    norm: BatchNormSettings = BatchNormSettings(eps=1e-3, momentum=0.01)
    """The normalisation."""


@dataclass(frozen=True)
class MoSESettings:
    """Mixture of stochastic experts: experts draw masks of one kind each, a gating network says how probable
    each kind is."""

    experts: int = 4
    """Number of experts K; the paper has 4 for lung nodules, 35 for 32 modes of street scenes."""
    latent_size: int = 1
    """Dimensions L of the experts' latents."""
    draws: int = 4
    """Samples S of each expert in training."""
    samples: int = 16
    """Number of masks for an image, of all experts together."""
    representation: Literal["compact", "standard"] = "compact"
    """Samples of every expert, weighted by its probability (equation 3), or of experts drawn by their
    probabilities, of equal weight (2)."""
    cost: Literal["auto", "iou", "cross-entropy"] = "auto"
    """Cost of a sample against an annotation: one minus the soft IoU, or the cross-entropy per pixel; auto is
    the IoU for binary masks and the cross-entropy for others, as in the paper."""
    coupling: Literal["greedy", "exact", "independent"] = "greedy"
    """Which sample learns from which annotation: optimal transport under a cap by the paper's greedy rule, by
    linear programming, or every sample from every annotation (the paper's ablation)."""
    cap: float = 0.5
    """Most mass gamma that one sample may take at the start of the training, 1 / (K S) to 1; it rises to
    1."""
    cap_until: float = 0.5
    """Share of the training over which the cap rises to 1; 0: it is 1 from the start."""
    uniform_until: float = 0.0
    """Share of the training over which the annotations' weights go from uniform to their own; 0: their own
    from the start."""
    beta: float = 1.0
    """Weight of the gating network's loss; the paper has 10 with one annotation per image."""
    gating_loss: Literal["sum", "mean"] = "sum"
    """Divergence of equation 6 over the samples: their sum, as printed, or their mean, as in the authors' code,
    where beta counts 1 / (K S) of what it counts in the sum."""
    gumbel_temperature: float | None = None
    """Temperature at which experts of the K S samples of training are drawn by the Gumbel-softmax trick, in the
    standard representation (appendix A.1); if left out, S samples of each expert are trained, weighted by the
    gating network."""
    merge_threshold: float = 1.0
    """Experts whose mean masks overlap by this IoU share their gradient (algorithm 2); it falls from 1 to
    this over the training. 1 merges none."""
    expert_weights: Literal["gated", "uniform"] = "gated"
    """Experts' probabilities from the gating network, or all the same (the paper's ablation)."""
    stochastic: bool = True
    """Experts draw their latents; otherwise each gives one mask, of its mean (the paper's ablation)."""
    noise_layer: int | None = None
    """Layer of the decoder behind which the latent comes in, counted from 1 at the bottleneck; if left out,
    the last."""
    gating_layer: int | None = None
    """Layer of the encoder that the gating network reads, counted from 1 behind the first halving; if left
    out, the last."""
    gating_width: int = 192
    """Units of its two hidden layers."""
    gating_bias: bool = True
    """Its last layer has a bias; not so in the authors' code."""
    head: PlainHead | NormalisedHead = PlainHead()
    """Layers behind the fusion of features and latent."""
    energy: MixtureEnergySettings | None = None
    """Energy score of the mixture of experts, from the samples of training (not in the paper); none: only the
    paper's losses."""


_BACKBONE = {
    "kind": "phiseg",
    "width": 32,
    "depth": 7,
    "convolutions": {"bias": True, "norm": {"eps": 1e-3, "momentum": 0.01}},
}
"""The authors' network."""
_NETWORK = {"gating_bias": False, "gating_loss": "mean", "head": {"kind": "normalised"}}
_TRAINING = {
    "lr": 1e-3,
    "optimiser": {"kind": "adam", "weight_decay": 1e-5},
    "schedule": {"kind": "plateau", "watch": "training", "factor": 0.5, "patience": 10, "least": 1e-5},
    "warmup": 0,
    "clip": 0.0,
    "ema": 0.0,
    "validation_images": 0,
}
_DIFFERS = (
    "weights are initialised as in PyTorch, and the scale of the fusion at 1; the rate is halved where the loss"
    " of an epoch stops falling, in the code where the mean over all epochs so far does; gamma rises over half"
    " of the training, not there"
)

SPEC = MethodSpec(
    name="mose",
    summary="weighted samples of a few stochastic experts from one U-Net pass (Gao et al.)",
    citation="""@inproceedings{gao_mose_2023,
  title     = {Modeling Multimodal Aleatoric Uncertainty in Segmentation with Mixture of Stochastic Experts},
  author    = {Gao, Zhitong and Chen, Yucong and Zhang, Chuyu and He, Xuming},
  booktitle = {International Conference on Learning Representations},
  year      = {2023}
}""",
    model="ambiseg.methods.mose.model:MoSE",
    settings=MoSESettings,
    search={"beta": "log:0.3..3", "draws": "2|4|8"},
    presets={
        PAPER: Preset(
            source=(
                "Gao et al. 2023, section 4.2 and appendix A.1, LIDC: K = 4, S = 4, gamma from 1/2, "
                "beta = 1 (10 with single labels), in the sum that is printed"
            ),
            differs=(
                "gamma rises over half of the training, not where the loss stops falling; network "
                "and optimiser are the library's"
            ),
            single={"beta": 10.0},
        ),
        "lidc": Preset(
            source=(
                "Gao et al. 2023, table 1, with the network of their public code: 9,321,195 parameters on"
                " one-channel images with two channels of logits (another state of the code has 10,400,686)"
            ),
            differs=_DIFFERS,
            train={
                **_TRAINING,
                "validate_every": 1,
                "epochs": 200,
                "batch_size": 16,
                "binary_channels": 2,
                "augment": ("flip", "flip-vertical", {"kind": "rotate", "degrees": 10.0, "probability": 0.5}),
            },
            backbone=_BACKBONE,
            settings=_NETWORK,
            single={"beta": 10.0},
            data=LIDC,
        ),
        "cityscapes": Preset(
            source=(
                "Gao et al. 2023, table 3, with the network of their public code: 9,329,628 parameters on"
                " four channels, the last one a black-box prediction, with 25 classes"
            ),
            differs=(
                "one standard deviation of the latent for each expert, as printed, not one for each"
                f" dimension, 140 parameters less; void is no class, 33 less; {_DIFFERS}; S stays 1; crops"
                " have any side between the least and greatest of four, and whole images are validated, not"
                " their middles; give the black-box prediction as a channel of the images"
            ),
            train={
                **_TRAINING,
                "validate_every": 2,
                "epochs": 1000,
                "batch_size": 12,
                "augment": (
                    "flip",
                    {"kind": "resized-crop", "height": 128, "width": 128, "low": 0.6, "high": 0.99},
                ),
            },
            backbone=_BACKBONE,
            settings={
                **_NETWORK,
                "experts": 35,
                "latent_size": 5,
                "draws": 1,
                "samples": 35,
                "cap": 1 / 32,
                "merge_threshold": 0.9,
            },
            data=CITYSCAPES_PREDICTION,
        ),
    },
    validation="ged",
    test=TestCase(
        # Untrained experts are all but equal, and which is nearest changes with the precision: beta keeps
        # that small.
        {"latent_size": 2, "cap": 0.125, "cap_until": 0.1, "beta": 0.1, "gating_width": 16, "samples": 24},
        deterministic=False,
        steps=250,
    ),
)
