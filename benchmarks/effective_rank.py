"""Rank and effective rank of the masks of a low-rank normal law: lemma 4.1 and theorem 4.4 of Flow-SSN,
measured.

    python benchmarks/effective_rank.py --results docs/results/effective-rank.json --picture docs/results/effective-rank.png

De Sousa Ribeiro et al. (2025), "Flow stochastic segmentation networks". Logits ``eta ~ N(mu, P P^T)`` of rank
r, without a diagonal, and ``y`` the sigmoid, softmax or threshold of ``eta``. How do rank and effective rank
of ``Cov(y)`` grow with r?

Three kinds of factor P, all scaled to a mean variance of the logits of the square of ``std``:

- *even*: columns orthonormal, in random directions. All r directions count alike, so that the effective rank
  of ``P P^T`` is r.
- *even, copies*: the same for a quarter of the pixels, each four times.
- *smooth*: the r leading eigenvectors of a Gaussian kernel on a square grid, times the roots of their
  eigenvalues: what lies near moves together.

One class against the background, closed forms of the covariance of two pixels with logits ``mu + s z`` and
correlation rho:

    sigmoid:    sum_{n >= 1} a_n(mu_i, s_i) a_n(mu_j, s_j) rho^n,  a_n = E[sigmoid(mu + s z) h_n(z)],  h_n Hermite, normalised
    threshold:  arcsin(rho) / (2 pi),  mu = 0                                                     (Sheppard 1899)

The first is Mehler's formula, cut after TERMS terms. Four classes have no closed form: covariance of DRAWS
draws of softmaxes, and of one-hot argmaxes. A rank counts the eigenvalues above ALIVE times the largest.

``slope`` is d log erank / d log r between neighbouring r: below 1 the growth is sublinear there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from ambiseg.atomic_write import replacing_file
from ambiseg.distributions.low_rank import LowRankNormal, effective_rank
from ambiseg.report.canvas import FAINT, INK
from ambiseg.report.files import png_bytes
from ambiseg.report.plots import COLORS

SEED = 0
SIDE = 16
"""Pixels of a row and column: 256 in all for one class."""
SIDE_OF_CLASSES, CLASSES, DRAWS = 8, 4, 20_000
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RANKS_OF_CLASSES = (1, 2, 4, 8, 16, 32, 64, 128, 192)
"""Up to d (k - 1), above which lemma 4.1 does not speak."""
LENGTH = 2.0
"""Width of the Gaussian kernel of smooth factors, in pixels."""
TERMS = 200
ALIVE = 1e-9
DPI = 140

Row = dict[str, float]


def factor(kind: str, rank: int, side: int, channels: int, std: float, generator: torch.Generator) -> Tensor:
    """P ``(D, rank)`` of a kind, D = channels side^2, mean variance ``std^2``."""
    size = channels * side**2
    if kind == "smooth":
        line = torch.arange(side, dtype=torch.float64)
        kernel = (-(line[:, None] - line).square() / (2 * LENGTH**2)).exp()
        values, vectors = torch.linalg.eigh(
            torch.kron(torch.eye(channels, dtype=torch.float64), torch.kron(kernel, kernel))
        )
        columns = vectors.flip(1)[:, :rank] * values.flip(0)[:rank].clamp(min=0).sqrt()
    elif kind == "even, copies":
        few = torch.randn(size // 4, rank, generator=generator, dtype=torch.float64)
        columns = torch.linalg.qr(few).Q.repeat(4, 1)  # no more than size / 4 columns
    else:
        columns = torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64)).Q
    scaled: Tensor = columns * std * (size / columns.square().sum()).sqrt()
    return scaled


def covariance_of_sigmoids(mean: Tensor, covariance: Tensor) -> Tensor:
    """``Cov(sigmoid(eta))`` of a normal eta by Mehler's formula, ``(D, D)``."""
    scale = covariance.diagonal().clamp(min=1e-300).sqrt()
    rho = (covariance / torch.outer(scale, scale)).clamp(-1, 1)
    z = torch.linspace(-10, 10, 1001, dtype=torch.float64)
    weight = torch.exp(-z.square() / 2)
    weight /= weight.sum()
    value = torch.sigmoid(mean[:, None] + scale[:, None] * z)
    total, power = torch.zeros_like(rho), torch.ones_like(rho)
    before, hermite = torch.zeros_like(z), torch.ones_like(z)
    for n in range(1, TERMS + 1):
        before, hermite = hermite, (z * hermite - math.sqrt(n - 1) * before) / math.sqrt(n)
        power = power * rho
        coefficient = (value * hermite) @ weight
        total += torch.outer(coefficient, coefficient) * power
    return total


def covariance_of_thresholds(covariance: Tensor) -> Tensor:
    """``Cov([eta > 0])`` of a normal eta of mean 0, ``(D, D)``."""
    scale = covariance.diagonal().sqrt()
    return (covariance / torch.outer(scale, scale)).clamp(-1, 1).arcsin() / (2 * math.pi)


def covariance_of_classes(law: LowRankNormal, hard: bool, generator: torch.Generator) -> Tensor:
    """``Cov(y)`` of softmaxes over the classes, or of one-hot argmaxes, from draws, ``(D, D)``."""
    logits = law.sample(DRAWS, generator)[0].view(DRAWS, CLASSES, -1)
    y = functional.one_hot(logits.argmax(1), CLASSES).mT.to(logits.dtype) if hard else logits.softmax(1)
    return torch.cov(y.flatten(1).T)


def measured(rank: int, logits: Tensor, masks: Tensor) -> Row:
    """Ranks of the covariances of logits and masks, as a row."""
    values = torch.linalg.eigvalsh(masks).clamp(min=0)
    return {
        "r": rank,
        "erank_logits": round(float(effective_rank(logits)), 3),
        "rank": int((values > ALIVE * values.max()).sum()),
        "erank": round(float(effective_rank(values)), 3),
    }


def with_slopes(rows: list[Row]) -> list[Row]:
    """The local exponent of growth from the row before; none in the first."""
    for before, row in zip(rows, rows[1:], strict=False):
        rise = math.log(row["erank"] / before["erank"]) / math.log(row["r"] / before["r"])
        row["slope"] = round(rise, 3)
    return rows


def one_class(kind: str, std: float | None, mean: float) -> list[Row]:
    """Closed forms on SIDE x SIDE pixels; ``std`` None for thresholds, ``mean`` the spread of the logits'
    means in std."""
    rows = []
    for rank in RANKS:
        if kind == "even, copies" and rank > SIDE**2 // 4:
            break
        g = torch.Generator().manual_seed(SEED)
        p = factor(kind, rank, SIDE, 1, std or 1.0, g)
        mu = mean * (std or 1.0) * torch.randn(SIDE**2, generator=g, dtype=torch.float64)
        if kind == "even, copies":
            mu = mu[: SIDE**2 // 4].repeat(4)
        logits = p @ p.T
        masks = covariance_of_thresholds(logits) if std is None else covariance_of_sigmoids(mu, logits)
        rows.append(measured(rank, logits, masks))
    return with_slopes(rows)


def several_classes(kind: str, std: float, hard: bool) -> list[Row]:
    """From draws, on SIDE_OF_CLASSES x SIDE_OF_CLASSES pixels."""
    rows = []
    for rank in RANKS_OF_CLASSES:
        g = torch.Generator().manual_seed(SEED)
        p = factor(kind, rank, SIDE_OF_CLASSES, CLASSES, std, g)
        mean = torch.zeros(1, len(p), dtype=torch.float64)
        law = LowRankNormal(mean, torch.zeros_like(mean), p[None])
        rows.append(measured(rank, p @ p.T, covariance_of_classes(law, hard, g)))
    return with_slopes(rows)


def measure() -> dict[str, Any]:
    """All curves by name."""
    return {
        "sigmoid, std 1, even": one_class("even", 1.0, 0.0),
        "sigmoid, std 3, even": one_class("even", 3.0, 0.0),
        "sigmoid, std 3, even, means": one_class("even", 3.0, 1.0),
        "sigmoid, std 3, even, copies": one_class("even, copies", 3.0, 0.0),
        "threshold, even": one_class("even", None, 0.0),
        "sigmoid, std 3, smooth": one_class("smooth", 3.0, 0.0),
        "threshold, smooth": one_class("smooth", None, 0.0),
        "softmax of 4, std 3, even": several_classes("even", 3.0, False),
        "argmax of 4, std 3, even": several_classes("even", 3.0, True),
    }


# -- the picture ---------------------------------------------------------------------------------------------


def draw(curves: dict[str, list[Row]]) -> Figure:
    """Rank, effective rank and slope against r."""
    shown = {
        "sigmoid, std 1, even": "sigmoid, std 1",
        "sigmoid, std 3, even": "sigmoid, std 3",
        "threshold, even": "threshold",
        "sigmoid, std 3, smooth": "sigmoid, std 3, smooth P",
        "softmax of 4, std 3, even": "softmax of 4, std 3",
    }
    figure = Figure(figsize=(10.5, 3.7), facecolor="white", layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, key, title in zip(
        panels,
        ("rank", "erank", "slope"),
        ("rank of Cov(y)", "effective rank of Cov(y)", "local exponent of its growth"),
        strict=True,
    ):
        for (name, label), color in zip(shown.items(), COLORS, strict=False):
            rows = [row for row in curves[name] if key in row]
            x = [row["r"] / (1 if key != "slope" else math.sqrt(2)) for row in rows]
            axes.plot(
                x, [row[key] for row in rows], "-o", color=color, label=label, linewidth=1.5, markersize=3.5
            )
        _scales(axes, key)
        axes.set_title(title, fontsize=10, loc="left", color=INK)
    panels[0].legend(fontsize=7.5, frameon=False, loc="lower right")
    return figure


def _scales(axes: Axes, key: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlabel("rank r of the covariance of the logits", fontsize=8, color=INK)
    ends = [1, RANKS[-1]]
    if key == "slope":
        axes.axhline(1, linestyle="--", color="#9ca3af", linewidth=1.0)
        axes.set_ylim(bottom=0)
        axes.text(RANKS[-1], 1.03, "linear", ha="right", fontsize=7.5, color=FAINT)
    else:
        axes.set_yscale("log", base=2)
        axes.plot(ends, ends, "--", color="#9ca3af", linewidth=1.0)
        axes.text(96, 60, "r", fontsize=8, color=FAINT)
        axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_formatter("{x:g}")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, colors=FAINT, length=3, which="both")
    axes.grid(True, color="#e5e7eb", linewidth=0.6)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, help="JSON file to write")
    parser.add_argument("--picture", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    start = time.process_time()
    curves = measure()
    result = {
        "seed": SEED,
        "pixels": SIDE**2,
        "classes": {"pixels": SIDE_OF_CLASSES**2, "classes": CLASSES, "draws": DRAWS},
        "terms": TERMS,
        "kernel_width": LENGTH,
        "least_eigenvalue": ALIVE,
        "cpu_seconds": round(time.process_time() - start, 1),
        "curves": curves,
    }
    for name, rows in curves.items():
        print(name)
        for row in rows:
            print("   ", "  ".join(f"{key} {value}" for key, value in row.items()))
    print(f"{result['cpu_seconds']} seconds of one core")
    if arguments.results:
        with replacing_file(arguments.results) as path:
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.picture:
        with replacing_file(arguments.picture) as path:
            path.write_bytes(png_bytes(draw(curves), dpi=DPI, colors=64))


if __name__ == "__main__":
    main()
