"""Flow matching: spec and settings; the equations are in `model`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from ambiseg.data.layouts import CITYSCAPES, LIDC, MMFIRE, Layout
from ambiseg.methods.spec import PAPER, MethodSpec, Preset, TestCase


@dataclass(frozen=True)
class UniformTimes:
    """Training times are uniform."""

    kind: Literal["uniform"] = "uniform"
    """Uniform in [0, 1)."""


@dataclass(frozen=True)
class LogitNormalTimes:
    """Training times are the sigmoid of a normal variable (Esser et al. 2024)."""

    kind: Literal["logit-normal"] = "logit-normal"
    """The sigmoid of a normal variable: the middle is preferred."""
    mean: float = 0.0
    """Mean of the normal variable; below 0 there are more early times."""
    std: float = 1.0
    """Its standard deviation."""


@dataclass(frozen=True)
class NoiseLevelTimes:
    """Training draws noise levels ``sigma/alpha``, whose logarithm is normal (Karras et al. 2022)."""

    kind: Literal["edm"] = "edm"
    """Times of noise levels whose logarithm is normal."""
    log_mean: float = -1.2
    """Mean of the logarithm, P_mean of Karras et al."""
    log_std: float = 1.2
    """Its standard deviation, P_std."""


@dataclass(frozen=True)
class EqualGrid:
    """Steps of the sampler are equal in time."""

    kind: Literal["equal"] = "equal"
    """Equal steps of time from 0 to 1."""


@dataclass(frozen=True)
class KarrasGrid:
    """Steps of the sampler are those of Karras et al. (2022) between noise levels; guidance acts at their
    start."""

    kind: Literal["karras"] = "karras"
    """Steps between noise levels, the last one of Euler. Guidance acts at the start of a step alone."""
    rho: float = 7.0
    """1: equal steps; the greater, the smaller the steps at little noise."""
    sigma_min: float = 0.002
    """Least noise level; a last step leads from it to the mask."""
    sigma_max: float = 80.0
    """Greatest noise level, at which sampling starts."""


@dataclass(frozen=True)
class ParticleGuidanceSettings:
    """Particle guidance (Corso et al. 2024)."""

    kind: Literal["particle"] = "particle"
    """Particle guidance (Corso et al. 2024)."""
    strength: float = 1.0
    """Factor of the guidance."""
    form: Literal["published", "mean-masks"] = "published"
    """`published`: noisy masks push each other apart. `mean-masks`: predicted masks do, through the network,
    as in the public code of Gerard and Sullivan; it takes as much memory as training."""
    least_noise: float = 0.0
    """Noise level sigma/alpha below which nothing is pushed."""


@dataclass(frozen=True)
class SpellSettings:
    """SPELL (Kirchhof et al. 2025)."""

    kind: Literal["spell"] = "spell"
    """SPELL (Kirchhof et al. 2025)."""
    strength: float = 1.0
    """Factor of the guidance."""
    radius: float = 20.0
    """Distance (L2 norm of masks in [-1, 1]) below which two samples are pushed apart."""
    times_noise: bool = False
    """Multiply the strength by the noise level sigma/alpha (not in the paper)."""
    least_noise: float = 0.0
    """Noise level sigma/alpha below which nothing is pushed."""


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
    times: UniformTimes | LogitNormalTimes | NoiseLevelTimes = UniformTimes()
    """Distribution of training times; `edm` needs parameterisation=edm and grid=karras."""
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
    grid: EqualGrid | KarrasGrid = EqualGrid()
    """Where these steps are."""
    guidance: ParticleGuidanceSettings | SpellSettings | None = None
    """What pushes samples of one image apart; none: nothing."""

    @property
    def most_noise(self) -> float:
        """The noise level that stands for pure noise: that at which sampling starts, where training draws
        noise levels and never sees time 0; else infinity.

        Example:
            >>> FlowMatchingSettings(times=NoiseLevelTimes(), grid=KarrasGrid()).most_noise
            80.0
        """
        if isinstance(self.times, NoiseLevelTimes) and isinstance(self.grid, KarrasGrid):
            return self.grid.sigma_max
        return math.inf


EDM = {"kind": "edm", "depth": 3, "blocks": 4, "attention": True, "dropout": 0.1}
"""NCSN++ of the public code that Gerard and Sullivan build on, but for its width."""


def _diffusion(
    data: Layout, width: int, sigma_data: float, epochs: int, log_mean: float, strength: float, radius: float
) -> dict[str, Preset]:
    """The diffusion model of a data set, without guidance and with either kind.

    Args:
        strength: of particle guidance.
        radius: of SPELL, L2 norm of masks in [0, 1].
    """
    settings: dict[str, Any] = {
        "parameterisation": "edm",
        "sigma_data": sigma_data,
        "times": {"kind": "edm", "log_mean": log_mean, "log_std": 1.2},
        "sampler": "heun",
        "steps": 10,
        "grid": {"kind": "karras", "rho": 7.0, "sigma_min": 0.002, "sigma_max": 80.0},
    }
    plain = Preset(
        source=(
            "the diffusion model that Gerard and Sullivan start from: network, noise levels, Heun sampler and"
            " length of training of its public code"
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
        settings=settings,
        data=data,
    )
    particle = {"kind": "particle", "strength": strength, "form": "mean-masks", "least_noise": 70.0}
    spell = {"kind": "spell", "radius": 2 * radius, "times_noise": True, "least_noise": 40.0}
    return {
        data.name: plain,
        f"{data.name}-particle": replace(
            plain,
            source=f"preset {data.name} with particle guidance as in the same code",
            differs="all samples of an image push each other, not those of a batch of 4 to 16",
            settings={**settings, "guidance": particle},
        ),
        f"{data.name}-spell": replace(
            plain,
            source=f"preset {data.name} with SPELL as in the same code: its radius doubled, for masks in [-1, 1]",
            differs="all samples of an image push each other, not those of a batch of 4 to 16",
            settings={**settings, "guidance": spell},
        ),
    }


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
    search={"times": "uniform|logit-normal", "steps": "5|10|20"},
    presets={
        PAPER: Preset(
            source="Gerard and Sullivan, section 3.2 (equations 13, 16, 17), after Lipman et al.",
            differs=(
                "they take a diffusion model (presets mmfire, cityscapes and lidc); network and "
                "optimiser are the library's"
            ),
        ),
        **_diffusion(MMFIRE, 64, 0.1502, 1000, 0.5, strength=25.0, radius=9.6),
        **_diffusion(CITYSCAPES, 128, 0.0463, 400, 1.5, strength=25.0, radius=9.525),
        **_diffusion(LIDC, 64, 0.1, 200, 1.0, strength=10.0, radius=6.0),
    },
    validation="loss",
    test=TestCase({"samples": 24, "steps": 4}, deterministic=False, steps=400, rate=4e-3),
)
