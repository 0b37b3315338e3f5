"""Results on synthetic data with known answers; each part writes its files into --out.

    python benchmarks/synthetic.py effective-rank --out docs/results    (1 min)
    python benchmarks/synthetic.py markov-shapes --out docs/results     (2 h)

One core, seed 0. ``--quick`` takes tiny numbers, to see that a part runs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ambiseg.atomic_write import write_json
from ambiseg.data.simulators import markov_shapes as shapes
from ambiseg.distributions.low_rank import LowRankNormal, effective_rank
from ambiseg.distributions.monte_carlo import pairwise_cross_entropy
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.flow_ssn import AutoregressiveFlow, EntropyBonus, FlowSSNSettings, LinearLayer
from ambiseg.methods.flow_ssn.model import FlowSSN
from ambiseg.methods.ssn import SSNSettings
from ambiseg.methods.ssn.model import SSN
from ambiseg.networks.autoregressive import MaskedLinear
from ambiseg.networks.settings import UNetSettings
from ambiseg.report.files import save_png

BINARY = LabelSpace.binary()

# -- rank and effective rank of masks (Flow-SSN, lemma 4.1 and theorem 4.4) ----------------------------------
# Logits eta ~ N(mu, P P^T) of rank r, y the sigmoid, softmax or threshold of eta. Factors P are scaled to a mean
# variance std^2; even: orthonormal random columns, of which copies repeats a quarter of the pixels four times;
# smooth: leading eigenvectors of a Gaussian kernel, times the roots of their eigenvalues. Covariance of two
# pixels of correlation rho, of one class; four classes have that of draws:
#   sigmoid     sum_{n >= 1} a_n(mu_i, s_i) a_n(mu_j, s_j) rho^n,  a_n = E[sigmoid(mu + s z) h_n(z)]  (Mehler)
#   threshold   arcsin(rho) / (2 pi),  mu = 0                                                (Sheppard 1899)

SIDE, SIDE_OF_CLASSES, CLASSES, TERMS, WIDTH, ALIVE = 16, 8, 4, 200, 2.0, 1e-9
CURVES = (
    *("sigmoid, std 1, even", "sigmoid, std 3, even", "sigmoid, std 3, even, means"),
    *("sigmoid, std 3, even, copies", "threshold, even", "sigmoid, std 3, smooth", "threshold, smooth"),
    *("softmax of 4, std 3, even", "argmax of 4, std 3, even"),
)
"""What y is, the standard deviation of the logits, the factor; and whether their means differ as much."""
DRAWN = (0, 1, 4, 5, 7)


def factor(name: str, rank: int, size: int, g: torch.Generator) -> Tensor:
    if "smooth" in name:
        line = torch.arange(SIDE, dtype=torch.float64)
        kernel = (-(line[:, None] - line).square() / (2 * WIDTH**2)).exp()
        values, vectors = torch.linalg.eigh(torch.kron(kernel, kernel))
        columns = vectors.flip(1)[:, :rank] * values.flip(0)[:rank].clamp(min=0).sqrt()
    else:
        copies = 4 if "copies" in name else 1
        few = torch.randn(size // copies, rank, generator=g, dtype=torch.float64)
        columns = torch.linalg.qr(few).Q.repeat(copies, 1)
    scaled: Tensor = columns * (3 if "std 3" in name else 1) * (size / columns.square().sum()).sqrt()
    return scaled


def covariance_of_sigmoids(mean: Tensor, scale: Tensor, rho: Tensor) -> Tensor:
    z = torch.linspace(-10, 10, 1001, dtype=torch.float64)
    value, weight = torch.sigmoid(mean[:, None] + scale[:, None] * z), torch.softmax(-z.square() / 2, 0)
    total, power = torch.zeros_like(rho), torch.ones_like(rho)
    before, hermite = torch.zeros_like(z), torch.ones_like(z)
    for n in range(1, TERMS + 1):
        before, hermite = hermite, (z * hermite - math.sqrt(n - 1) * before) / math.sqrt(n)
        power, a = power * rho, (value * hermite) @ weight
        total += torch.outer(a, a) * power
    return total


def covariances(name: str, rank: int, draws: int) -> tuple[Tensor, Tensor]:
    """Those of logits and of masks."""
    g = torch.Generator().manual_seed(0)
    if "of 4" in name:
        p = factor(name, rank, CLASSES * SIDE_OF_CLASSES**2, g)
        zero = torch.zeros(1, len(p), dtype=torch.float64)
        eta = LowRankNormal(zero, zero, p[None]).sample(draws, g)[0].view(draws, CLASSES, -1)
        y = eta.softmax(1) if "softmax" in name else one_hot(eta.argmax(1), CLASSES).mT.to(eta.dtype)
        return p @ p.T, torch.cov(y.flatten(1).T)
    p = factor(name, rank, SIDE**2, g)
    scale = (p @ p.T).diagonal().clamp(min=1e-300).sqrt()
    rho = (p @ p.T / torch.outer(scale, scale)).clamp(-1, 1)
    if "threshold" in name:
        return p @ p.T, rho.arcsin() / (2 * math.pi)
    mean = 3 * ("means" in name) * torch.randn(len(p), generator=g, dtype=torch.float64)
    return p @ p.T, covariance_of_sigmoids(mean, scale, rho)


def ranks_of(name: str, ranks: Sequence[int], draws: int) -> list[dict[str, float]]:
    most = 192 if "of 4" in name else SIDE**2 // (4 if "copies" in name else 1)
    rows: list[dict[str, float]] = []
    for r in sorted({min(r, most) for r in ranks}):
        logits, masks = covariances(name, r, draws)
        values = torch.linalg.eigvalsh(masks).clamp(min=0)
        rank, erank = int((values > ALIVE * values.max()).sum()), round(float(effective_rank(values)), 3)
        row = {"r": r, "erank_logits": round(float(effective_rank(logits)), 3), "rank": rank, "erank": erank}
        if rows:  # d log erank / d log r
            rise = math.log(erank / rows[-1]["erank"]) / math.log(r / rows[-1]["r"])
            row["slope"] = round(rise, 3)
        rows.append(row)
    return rows


def measure_ranks(out: Path, quick: bool) -> None:
    """How rank and effective rank of ``Cov(y)`` grow with r."""
    began, draws = time.process_time(), 300 if quick else 20_000
    ranks = [2**i for i in range(3 if quick else 9)]
    curves = {name: ranks_of(name, ranks, draws) for name in CURVES}
    classes = {"pixels": SIDE_OF_CLASSES**2, "classes": CLASSES, "draws": draws}
    result = {"seed": 0, "pixels": SIDE**2, "classes": classes, "terms": TERMS, "kernel_width": WIDTH}
    seconds = round(time.process_time() - began, 1)
    result |= {"least_eigenvalue": ALIVE, "cpu_seconds": seconds, "curves": curves}
    write_json(out / "effective-rank.json", result)
    figure = Figure(figsize=(10.5, 3.7), layout="constrained")
    titles = ("rank of Cov(y)", "effective rank of Cov(y)", "local exponent of its growth")
    for axes, key, title in zip(figure.subplots(1, 3), ("rank", "erank", "slope"), titles, strict=True):
        for name in [CURVES[i] for i in DRAWN]:
            x, y = zip(*((row["r"], row[key]) for row in curves[name] if key in row), strict=True)
            axes.plot(np.array(x) / (2**0.5 if key == "slope" else 1), y, "o-", markersize=3.5, label=name)
        axes.axline((1, 1), (2, 1 if key == "slope" else 2), linestyle="--", color="0.6")
        axes.set(title=title, xlabel="rank r of the covariance of the logits")
        axes.set_xscale("log", base=2)
        axes.set_yscale("linear" if key == "slope" else "log", **({} if key == "slope" else {"base": 2}))
    figure.axes[0].legend(fontsize=7.5, frameon=False)
    save_png(figure, out / "effective-rank.png", dpi=140)


# -- MarkovShapes (Flow-SSN, section 6.1, figures 4 and 5) ---------------------------------------------------
# 20,000 steps of Adam, 1e-3, batches of 32, 512 Monte-Carlo samples that the images of a batch share. There is no
# input, so the fields of the law are free parameters in place of a network. "exact", not in the paper: the
# expectation over all 256 images, more samples, a falling rate, weights of the flow that start ten times as large.
# Bits per dimension is -1/D sum_y p(y) log2 q(y), q(y) a Monte-Carlo mean over S samples of the logits.

PIXELS, IMAGE = 100, torch.zeros(1, 1, 10, 10)
MASKS, P = (
    torch.from_numpy(shapes.markov_shapes_masks(10)),
    torch.from_numpy(shapes.markov_shapes_probabilities()),
)
FLOOR = shapes.markov_shapes_entropy() / PIXELS


@dataclass(frozen=True)
class Recipe:
    settings: SSNSettings | AutoregressiveFlow
    exact: bool = False
    draws: int = 512
    rate: float = 1e-3


LINEAR = AutoregressiveFlow(body=LinearLayer(10, 10))
RECIPES = {
    **{f"SSN rank {rank}": Recipe(SSNSettings(rank)) for rank in (2, 6, 12)},
    "SSN full rank": Recipe(SSNSettings(PIXELS)),
    "linear flow": Recipe(LINEAR),
    "linear flow, dual": Recipe(replace(LINEAR, against_collapse=EntropyBonus(weight=0.01))),
    "linear flow, exact": Recipe(LINEAR, True, 2048, 3e-2),
    "linear flow, exact, rate 0.1": Recipe(LINEAR, True, 1024, 0.1),
    "SSN full rank, exact": Recipe(SSNSettings(PIXELS), True, 2048, 3e-2),
}


class Fields(nn.Module):
    """Free parameters, the same for every image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fields, self.out_channels = nn.Parameter(torch.zeros(channels, 10, 10)), channels

    def forward(self, images: Tensor) -> Tensor:
        return self.fields.expand(len(images), -1, -1, -1)


def use_fields(module: Any, heads: dict[str, int]) -> Tensor:
    """Free fields in place of a network and its heads, each with so many channels."""
    module.g, start = Fields(sum(heads.values())), 0
    for name, channels in heads.items():
        delattr(module, name)
        setattr(module, name, lambda fields, chosen=slice(start, start + channels): fields[:, chosen])
        start += channels
    fields: Tensor = module.g.fields.data
    return fields


def law(recipe: Recipe) -> SSN | FlowSSN:
    """A model whose law has free parameters."""
    given, small = replace(recipe.settings, draws=recipe.draws), UNetSettings(width=8, depth=1)
    if isinstance(given, SSNSettings):
        ssn = SSN(1, BINARY, small, given)
        diagonal = float(ssn.d.bias.detach()[0])  # type: ignore[union-attr]
        fields = use_fields(ssn, {"mu": 1, "d": 1, "p": given.rank})
        fields[1], fields[2:] = diagonal, torch.randn(given.rank, 10, 10) * given.rank**-0.5
        return ssn
    flow = FlowSSN(1, BINARY, small, FlowSSNSettings(given))
    if recipe.exact:
        linear = next(layer for layer in flow.modules() if isinstance(layer, MaskedLinear))
        nn.init.normal_(linear.weight[0], std=0.1)
    use_fields(flow.base, {"mu": 1, "log_sigma": 1})
    return flow


@torch.no_grad()
def logits(model: Any, count: int) -> Tensor:
    """``(1, count, 1, H, W)``."""
    if isinstance(model, FlowSSN):
        return model.draw_logits(IMAGE, count)[0]
    sampled: Tensor = model.distribution(IMAGE).sample(count).view(1, count, 1, 10, 10)
    return sampled


def bits(model: Any, count: int) -> float:
    sizes = [min(2**14, count - start) for start in range(0, count, 2**14)]
    nats = [pairwise_cross_entropy(logits(model, size), MASKS[None], BINARY)[0].double() for size in sizes]
    log_q = torch.stack([(-part).logsumexp(0) for part in nats]).logsumexp(0) - math.log(count)
    return round(float(-(P * log_q).sum() / math.log(2) / PIXELS), 5)


def sampled(model: Any, count: int) -> tuple[dict[str, float], Tensor]:
    """Share of impossible images, distances from the true law; and the covariance of the pixels."""
    masks = torch.cat([logits(model, min(count, 2**14))[0, :, 0] > 0 for _ in range(max(1, count >> 14))])
    index = shapes.possible(masks.numpy().astype(np.uint8))
    errors, hits = float((index < 0).mean()), np.bincount(index[index >= 0], minlength=256) / len(index)
    covariance = torch.cov(masks.flatten(1).T.double(), correction=0)
    truth = torch.from_numpy(shapes.markov_shapes_covariance(10))
    found = {
        "samples": len(index),
        "errors": errors,
        "total_variation": 0.5 * (float(np.abs(hits - P.numpy()).sum()) + errors),
        "covariance_error": float((covariance - truth).norm() / truth.norm()),
        "effective_rank": float(effective_rank(covariance)),
    }
    return {name: round(value, 5) for name, value in found.items()}, covariance


def measure_shapes(out: Path, quick: bool) -> None:
    """Bits per dimension of SSNs of several ranks and of Flow-SSN against the exact entropy."""
    steps, last = (2, 10) if quick else (20_000, 20)
    results: dict[str, Any] = {}
    shown = [
        ("true", torch.from_numpy(shapes.markov_shapes_covariance(10)), MASKS[torch.multinomial(P, 6, True)])
    ]
    for name, recipe in RECIPES.items():
        torch.manual_seed(0)
        model, curve, seconds = law(recipe).train(), [], 0.0
        optimiser = torch.optim.Adam(model.parameters(), recipe.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        annotations = MaskSet(MASKS[None], P.float()[None], BINARY)
        for step in range(1, steps + 1):
            began = time.perf_counter()
            if not recipe.exact:
                drawn = torch.multinomial(P, 32, replacement=True)
                annotations = MaskSet.uniform(MASKS[drawn][None], BINARY)
            optimiser.zero_grad()
            torch.autograd.backward(model.loss(IMAGE, annotations)["loss"])
            optimiser.step()
            if recipe.exact:
                schedule.step()
            seconds += time.perf_counter() - began
            if step % max(1, steps // 20) == 0:
                curve.append([step, bits(model, 2 ** min(last, 16))])
        model.eval()
        convergence = {str(2**k): bits(model, 2**k) for k in range(10, last + 1, 2)}
        found, covariance = sampled(model, 2 ** (last - 2))
        best, count = convergence[str(2**last)], sum(p.numel() for p in model.parameters())
        results[name] = {"bits_per_dimension": best, "gap": round(best / FLOOR - 1, 4), **found}
        results[name] |= {"convergence": convergence, "parameters": count, "seconds": round(seconds, 1)}
        results[name] |= {"steps": steps, "seed": 0, "recipe": asdict(recipe), "curve": curve}
        shown.append((name, covariance, (logits(model, 6)[0, :, 0] > 0).to(torch.uint8)))
        write_json(out / "markov-shapes.json", results)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, record in results.items():
        axes.plot(*zip(*record["curve"], strict=True), label=f"{name}: {record['bits_per_dimension']:.4f}")
    axes.axhline(FLOOR, color="k", linestyle=":", label=f"entropy of the chain: {FLOOR:.4f}")
    axes.set(xlabel="step", ylabel="bits per dimension", yscale="log")
    axes.legend(fontsize=8)
    save_png(figure, out / "markov-shapes-bits.png", dpi=110)
    figure = Figure(figsize=(9, 1.4 * len(shown)), layout="constrained")
    for row, (name, covariance, masks) in zip(figure.subplots(len(shown), 7), shown, strict=True):
        row[0].imshow(covariance, vmin=-0.25, vmax=0.25, cmap="RdBu_r")
        row[0].set_title(name, fontsize=8)
        for cell, mask, known in zip(row[1:], masks, shapes.possible(masks.numpy()) >= 0, strict=True):
            cell.imshow(mask, cmap="gray_r", vmin=0, vmax=1)
            cell.spines[:].set(color="0.7" if known else "red", linewidth=1 if known else 3)
        for cell in row:
            cell.set(xticks=[], yticks=[])
    save_png(figure, out / "markov-shapes-covariances.png", dpi=110)


PARTS: dict[str, Callable[[Path, bool], None]] = {
    "effective-rank": measure_ranks,
    "markov-shapes": measure_shapes,
}


def main(words: Sequence[str] | None = None) -> None:
    """Measure a part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    PARTS[arguments.part](arguments.out, arguments.quick)


if __name__ == "__main__":
    main()
