"""Flow matching: spec and settings; the equations are in `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ambiseg.data.layouts import CITYSCAPES, LIDC, MMFIRE, Layout
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class ParticleGuidanceSettings:
    """Particle guidance (Corso et al. 2024)."""

    kind: Literal["particle"] = "particle"
    """Particle guidance (Corso et al. 2024)."""
    strength: float = 1.0
    """Factor of the guidance."""


@dataclass(frozen=True)
class SpellSettings:
    """SPELL (Kirchhof et al. 2025)."""

    kind: Literal["spell"] = "spell"
    """SPELL (Kirchhof et al. 2025)."""
    strength: float = 1.0
    """Factor of the guidance."""
    radius: float = 20.0
    """Distance (L2 norm of masks in [-1, 1]) below which two samples are pushed apart."""


@dataclass(frozen=True)
class FlowMatchingSettings:
    """Flow matching: samples of the distribution of masks by integrating a learnt velocity field."""

    path: Literal["linear", "cosine", "variance-preserving"] = "linear"
    """How noise turns into a mask (equation 16)."""
    parameterisation: Literal["velocity", "edm"] = "velocity"
    """What the network predicts: the velocity, or the mean mask as a preconditioned denoiser (Karras et al.
    2022)."""
    sigma_data: float = 1.0
    """Standard deviation of mask values that the preconditioning of `edm` assumes."""
    target: Literal["sample", "posterior"] = "sample"
    """What the network learns from: the mask that was drawn, or (not in the paper) its mean given the noisy
    one, exact where all masks of an image and their probabilities are annotated: the same minimum from
    targets without chance."""
    times: Literal["uniform", "logit-normal"] = "uniform"
    """Distribution of training times; logit-normal prefers the middle."""
    time_shift: float = 1.0
    """Factor s of times ``t / (t + s (1 - t))``, in training and sampling (Esser et al. 2024): above 1 there
    are more of the early times, where it is decided which mask a noise becomes; the larger the masks, the
    earlier."""
    samples: int = 16
    """Number of masks drawn for an image."""
    sampler: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] = "heun"
    """Solver of the differential equation (13)."""
    steps: int = 10
    """Its steps from noise to mask; dopri5 chooses its own."""
    guidance: ParticleGuidanceSettings | SpellSettings | None = None
    """What pushes samples of one image apart; none: nothing."""


EDM = {"kind": "edm", "depth": 3, "blocks": 4, "attention": True, "dropout": 0.1}
"""NCSN++ of the public code that Gerard and Sullivan build on, but for its width."""


def _diffusion(data: Layout, width: int, sigma_data: float, epochs: int, log_mean: float) -> Preset:
    """The diffusion model of a data set."""
    return Preset(
        source=(
            "the diffusion model that Gerard and Sullivan start from: network, Heun sampler, sigma_data and"
            " length of training of its public code"
        ),
        differs=(
            f"times are uniform on a straight path, not log sigma from N({log_mean:g}, 1.2^2); steps are of"
            " equal time, not of rho = 7; weights are initialised as in PyTorch, the last"
            " convolution of a block at 0"
        ),
        train={
            "epochs": epochs,
            "batch_size": 32,
            "lr": 1e-4,
            "optimiser": {"kind": "adam", "betas": (0.9, 0.99)},
            "schedule": {"kind": "constant"},
            "warmup": 0,
            "clip": 0.0,
            "ema": 0.0,
            "validate_every": 1,
            "validation_images": 0,
        },
        backbone={**EDM, "width": width},
        settings={"parameterisation": "edm", "sigma_data": sigma_data, "sampler": "heun", "steps": 10},
        data=data,
    )


SPEC = MethodSpec(
    name="flow-matching",
    summary="samples of the distribution of masks by integrating a learnt velocity field (Lipman et al.)",
    citation="""@inproceedings{lipman_flow_matching_2023,
  title     = {Flow Matching for Generative Modeling},
  author    = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and Le, Matt},
  booktitle = {International Conference on Learning Representations},
  year      = {2023}
}""",
    model="ambiseg.methods.flow_matching.model:FlowMatching",
    settings=FlowMatchingSettings,
    presets={
        PAPER: Preset(
            source="Gerard and Sullivan, section 3.2 (equations 13, 16, 17), after Lipman et al.",
            differs=(
                "they take a diffusion model (parameterisation=edm, 10 Heun steps); network and "
                "optimiser are the library's"
            ),
        ),
        "mmfire": _diffusion(MMFIRE, 64, 0.1502, 1000, 0.5),
        "cityscapes": _diffusion(CITYSCAPES, 128, 0.0463, 400, 1.5),
        "lidc": _diffusion(LIDC, 64, 0.1, 200, 0.75),
    },
    validation="loss",
    test=TestCase({"samples": 24, "steps": 4}, deterministic=False, steps=400, rate=4e-3),
)
