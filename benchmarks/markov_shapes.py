"""MarkovShapes: bits per dimension of SSNs of several ranks and of Flow-SSN against the exact entropy
(figures 4 and 5).

    python benchmarks/markov_shapes.py --results docs/results/markov-shapes.json --pictures docs/results [--models NAME...]

De Sousa Ribeiro et al. (2025), "Flow stochastic segmentation networks", section 6.1: 20,000 steps of Adam
with learning rate 1e-3, batches of 32 images, 512 Monte-Carlo samples, which the images of a batch share.
There is no input, so as in the toy problem of Monteiro et al. (2020) the parameters of the law are free, in
place of a network; losses and samples are those of `SSN` and `FlowSSN`. The paper's Flow-SSN is one linear
layer with MADE masks ("linear flow"). What goes beyond the paper is named: "exact" takes the expectation over
all 256 images in place of batches, a learning rate that falls from 3e-2 (3e-3 for the transformer) to 0, 2048
samples, and weights of the linear layer that start ten times as large; with "rate 0.1" the rate falls from
there, with 1024 samples.

Bits per dimension is ``-1/D sum_y p(y) log2 q(y)``, the sum exact over the 256 possible images, q(y) a
Monte-Carlo mean over S samples of the logits, S stated. Its floor is the entropy of the chain over the D =
100 pixels. A sampling error is a sample that is none of the 256, total variation is between the law of
samples, errors included, and the true one. One core, seed 0.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

from ambiseg.data.simulators.markov_shapes import (
    markov_shapes_covariance,
    markov_shapes_entropy,
    markov_shapes_masks,
    markov_shapes_probabilities,
    possible,
)
from ambiseg.distributions.low_rank import effective_rank
from ambiseg.distributions.monte_carlo import pairwise_cross_entropy
from ambiseg.engine.run_folder import write_json
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.flow_ssn import FlowSSNSettings
from ambiseg.methods.flow_ssn.model import FlowSSN
from ambiseg.methods.ssn import SSNSettings
from ambiseg.methods.ssn.model import SSN
from ambiseg.networks.autoregressive import MaskedLinear
from ambiseg.networks.settings import UNetSettings

SIZE = 10
PIXELS = SIZE**2
LABELS = LabelSpace.binary("shape")
MASKS = torch.from_numpy(markov_shapes_masks(SIZE))
WEIGHTS = torch.from_numpy(markov_shapes_probabilities())
FLOOR = markov_shapes_entropy() / PIXELS
IMAGE = torch.zeros(1, 1, SIZE, SIZE)
BATCH, RATE, DRAWS = 32, 1e-3, 512
CURVE, LAST, AT_ONCE = 2**16, 2**20, 2**14
"""Samples of the logits for a point of the curve, for the last figure, and how many are taken together."""


class Table(nn.Module):
    """Fields of free parameters, the same for every image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fields = nn.Parameter(torch.zeros(channels, SIZE, SIZE))
        self.out_channels = channels

    def forward(self, images: Tensor) -> Tensor:
        return self.fields.expand(len(images), -1, -1, -1)


class Slice(nn.Module):
    """Some channels of a table."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, fields: Tensor) -> Tensor:
        return fields[:, self.start : self.stop]


@dataclass(frozen=True)
class Recipe:
    """A model and how it is trained."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    exact: bool = False
    draws: int = DRAWS
    rate: float = RATE
    falling: bool = False
    start: float | None = None
    """Standard deviation of the weights of the masked linear layer at the start; its own if None."""


LINEAR = {"body": "linear", "image_height": SIZE, "image_width": SIZE}
TRANSFORMER = {"body": "transformer", "strip_height": 1, "strip_width": 5, "within_strip": True}
EXACT: dict[str, Any] = {"exact": True, "draws": 2048, "rate": 3e-2, "falling": True}
RECIPES = {
    "SSN rank 2": Recipe("ssn", {"rank": 2}),
    "SSN rank 6": Recipe("ssn", {"rank": 6}),
    "SSN rank 12": Recipe("ssn", {"rank": 12}),
    "SSN full rank": Recipe("ssn", {"rank": PIXELS}),
    "linear flow": Recipe("flow-ssn", LINEAR),
    "linear flow, dual": Recipe("flow-ssn", {**LINEAR, "kind": "dual", "entropy_weight": 0.01}),
    "linear flow, dual with MAF": Recipe("flow-ssn", {**LINEAR, "kind": "dual", "second": "maf"}),
    "linear flow, mean of logarithms": Recipe("flow-ssn", {**LINEAR, "estimator": "mean-log"}),
    "SSN full rank, exact": Recipe("ssn", {"rank": PIXELS}, **EXACT),
    "linear flow, exact": Recipe("flow-ssn", LINEAR, **EXACT, start=0.1),
    "linear flow, exact, rate 0.1": Recipe(
        "flow-ssn", LINEAR, **{**EXACT, "rate": 0.1, "draws": 1024}, start=0.1
    ),
    "transformer flow, exact": Recipe("flow-ssn", TRANSFORMER, **{**EXACT, "draws": DRAWS, "rate": 3e-3}),
}
"""The paper's, then what goes beyond it."""


def build(recipe: Recipe) -> SSN | FlowSSN:
    """A model whose law has free parameters."""
    small = UNetSettings(width=8, depth=1)
    if recipe.method == "ssn":
        ssn = SSN(1, LABELS, small, SSNSettings(draws=recipe.draws, **recipe.settings))
        rank = ssn.settings.rank
        table = Table(2 + rank)
        assert ssn.d.bias is not None
        with torch.no_grad():
            table.fields[1] = ssn.d.bias
            table.fields[2:].normal_(std=rank**-0.5)
        ssn.g, ssn.mu, ssn.d, ssn.p = table, Slice(0, 1), Slice(1, 2), Slice(2, 2 + rank)  # type: ignore[assignment]
        return ssn
    flow = FlowSSN(
        1, LABELS, small, FlowSSNSettings(**{"kind": "iaf", "draws": recipe.draws, **recipe.settings})
    )
    if recipe.start is not None:
        for layer in flow.modules():
            if isinstance(layer, MaskedLinear):
                nn.init.normal_(layer.weight[0], std=recipe.start)
    for base in (flow.base, flow.second):
        if base is not None:
            base.g, base.mu, base.log_sigma = Table(2), Slice(0, 1), Slice(1, 2)  # type: ignore[assignment]
    return flow


def logits(model: SSN | FlowSSN, count: int) -> Tensor:
    """Samples ``(1, count, 1, H, W)``."""
    if isinstance(model, FlowSSN):
        return model.draw_logits(IMAGE, count)[0]
    return model.distribution(IMAGE).sample(count).view(1, count, 1, SIZE, SIZE)


@torch.no_grad()
def bits_per_dimension(model: SSN | FlowSSN, count: int) -> float:
    """From ``count`` samples of the logits."""
    parts = []
    for start in range(0, count, AT_ONCE):
        nats = pairwise_cross_entropy(logits(model, min(AT_ONCE, count - start)), MASKS[None], LABELS)
        parts.append((-nats[0].double()).logsumexp(0))
    log_q = torch.stack(parts).logsumexp(0) - math.log(count)
    return float(-(WEIGHTS * log_q).sum() / math.log(2) / PIXELS)


@torch.no_grad()
def sampled(model: SSN | FlowSSN, count: int) -> dict[str, Any]:
    """What samples are: shares of errors, total variation, covariance and its rank."""
    hits, errors = np.zeros(256), 0
    first, second = torch.zeros(PIXELS, dtype=torch.float64), torch.zeros(PIXELS, PIXELS, dtype=torch.float64)
    for _ in range(count // AT_ONCE):
        masks = (logits(model, AT_ONCE)[0, :, 0] > 0).to(torch.uint8)
        index = possible(masks.numpy())
        errors += int((index < 0).sum())
        hits += np.bincount(index[index >= 0], minlength=256)
        y = masks.flatten(1).double()
        first, second = first + y.sum(0), second + y.T @ y
    mean = first / count
    covariance = second / count - mean[:, None] * mean
    truth = torch.from_numpy(markov_shapes_covariance(SIZE))
    return {
        "samples": count,
        "errors": errors / count,
        "total_variation": 0.5 * (float(np.abs(hits / count - WEIGHTS.numpy()).sum()) + errors / count),
        "covariance_error": float((covariance - truth).norm() / truth.norm()),
        "effective_rank": float(effective_rank(covariance)),
        "covariance": covariance,
    }


def train(name: str, steps: int, seed: int) -> tuple[SSN | FlowSSN, dict[str, Any]]:
    """A trained model and its record."""
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    model = build(recipe).train()
    optimiser = torch.optim.Adam(model.parameters(), recipe.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps) if recipe.falling else None
    everything = MaskSet(MASKS[None], WEIGHTS.float()[None], LABELS)
    curve, seconds = [], 0.0
    for step in range(1, steps + 1):
        start = time.perf_counter()
        annotations = everything
        if not recipe.exact:
            drawn = torch.multinomial(WEIGHTS, BATCH, replacement=True)
            annotations = MaskSet.uniform(MASKS[drawn][None], LABELS)
        optimiser.zero_grad()
        torch.autograd.backward(model.loss(IMAGE, annotations)["loss"])
        optimiser.step()
        if schedule is not None:
            schedule.step()
        seconds += time.perf_counter() - start
        if step % max(1, steps // 20) == 0:
            curve.append([step, round(bits_per_dimension(model, CURVE), 5)])
            print(f"{name}  step {step}  {curve[-1][1]:.4f} bits per dimension", flush=True)
    model.eval()
    convergence = {str(2**k): round(bits_per_dimension(model, 2**k), 5) for k in range(10, 21, 2)}
    found = sampled(model, LAST // 4)
    record = {
        "bits_per_dimension": convergence[str(LAST)],
        "gap": round(convergence[str(LAST)] / FLOOR - 1, 4),
        "convergence": convergence,
        **{k: v if isinstance(v, int) else round(v, 5) for k, v in found.items() if k != "covariance"},
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds, 1),
        "steps": steps,
        "seed": seed,
        "recipe": {"method": recipe.method, "settings": recipe.settings, "exact": recipe.exact}
        | {"draws": recipe.draws, "rate": recipe.rate, "falling": recipe.falling, "start": recipe.start},
        "curve": curve,
    }
    return model, {"record": record, "covariance": found["covariance"]}


@torch.no_grad()
def draw_covariances(models: dict[str, tuple[SSN | FlowSSN, Tensor]], path: Path) -> None:
    """Figure 5: covariance of the pixels and random samples of each model; errors have a red frame."""
    shown, truth = 12, torch.from_numpy(markov_shapes_covariance(SIZE))
    rows = [("true", None, truth)] + [(name, m, c) for name, (m, c) in models.items()]
    figure = plt.figure(figsize=(10, 1.75 * len(rows)), layout="constrained")
    grid = figure.add_gridspec(len(rows), 8, width_ratios=[2] + [1] * 7)
    torch.manual_seed(1)
    for r, (name, model, covariance) in enumerate(rows):
        axis = figure.add_subplot(grid[r, 0])
        axis.imshow(covariance, vmin=-0.25, vmax=0.25, cmap="RdBu_r", interpolation="nearest")
        axis.set(title=name, xticks=[], yticks=[])
        if model is None:
            masks = MASKS[torch.multinomial(WEIGHTS, shown, replacement=True)]
        else:
            masks = (logits(model, shown)[0, :, 0] > 0).to(torch.uint8)
        wrong = possible(masks.numpy()) < 0
        inner = grid[r, 1:].subgridspec(2, shown // 2)
        for k in range(shown):
            cell = figure.add_subplot(inner[k // (shown // 2), k % (shown // 2)])
            cell.imshow(masks[k], cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            for spine in cell.spines.values():
                spine.set(color="red" if wrong[k] else "0.7", linewidth=2 if wrong[k] else 0.5)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_curves(results: dict[str, Any], path: Path) -> None:
    """Figure 4: bits per dimension in the course of training."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, record in results.items():
        steps, bits = zip(*record["curve"], strict=True)
        axis.plot(steps, bits, label=f"{name}: {record['bits_per_dimension']:.4f}")
    axis.axhline(FLOOR, color="k", linestyle=":", label=f"entropy of the chain: {FLOOR:.4f}")
    axis.set(xlabel="step", ylabel="bits per dimension", yscale="log", ylim=(0.95 * FLOOR, 0.4))
    axis.set_yticks([0.08, 0.1, 0.15, 0.2, 0.3, 0.4], ["0.08", "0.10", "0.15", "0.20", "0.30", "0.40"])
    axis.minorticks_off()
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train what is asked for; results already there are replaced."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add the results to")
    parser.add_argument("--pictures", type=Path, help="folder for the two pictures")
    parser.add_argument("--models", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = {}
    for name in arguments.models:
        model, found = train(name, arguments.steps, arguments.seed)
        models[name] = (model, found["covariance"])
        known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
        write_json(arguments.results, {**known, name: found["record"]})
        print(json.dumps({name: {k: v for k, v in found["record"].items() if k != "curve"}}), flush=True)
    if arguments.pictures is not None:
        draw_curves(json.loads(arguments.results.read_text()), arguments.pictures / "markov-shapes-bits.png")
        draw_covariances(models, arguments.pictures / "markov-shapes-covariances.png")


if __name__ == "__main__":
    main()
