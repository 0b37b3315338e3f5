"""The pictures of ``docs/metrics.md`` and every number its text quotes from them.

    python benchmarks/metric_pictures.py [--out docs/results/metrics]

Writes six PNGs and ``pictures.json``. All masks are synthetic and drawn from one seed; all values are
computed by ``ambiseg``.

The *raters* of an image threshold one smooth random field after adding a smooth random field of their own, so
the whole distribution they come from is known: it can be sampled without end, and the probability of each
pixel has a closed form.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit, ndtr
from torch import Tensor

from ambiseg.atomic_write import replacing_file
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.matching import match
from ambiseg.metrics import (
    METRICS,
    Comparison,
    brier_skill_score,
    coverage_curve,
    draws_of,
    ece,
    evaluate_all,
    expected_draws,
    ged_parts,
    hm_iou,
    hm_iou_tiled,
    mode_probabilities,
    pixel_bins,
    reachable_table,
    total_variation,
)
from ambiseg.report.canvas import FAINT, INK
from ambiseg.report.files import png_bytes
from ambiseg.report.plots import COLORS

SEED = 0
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "metrics"
BINARY = LabelSpace.binary()
DPI = 140
INCHES = 7.0
"""Width of every picture: 9 points are read at about 12 pixels where the page shows it 700 pixels wide."""
RATERS = 4
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100)
"""Samples n at which the sampler is judged."""
MATCHED = ("max_dice_matching", "hm_iou", "hm_iou_unique", "hm_iou_tiled")
ENERGY = ("ged", "ged_unbiased")
BLUE, ORANGE, GREEN, RED, *_ = COLORS

Masks = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass
class World:
    """Images whose annotators' distribution is known: a mask is ``[common + spread * own > level]``, or
    empty.

    Attributes:
        images: how many.
        size: of an image.
        spread: how far annotators differ.
        empty: largest probability, over images, that an annotator sees nothing at all.
        rng: source of randomness.
    """

    images: int
    size: int
    spread: float
    empty: float
    rng: np.random.Generator
    common: Floats = field(init=False)
    blank: Floats = field(init=False)
    level: float = 0.8

    def __post_init__(self) -> None:
        self.common = self._smooth(self.images, 1, self.size / 8)[:, 0]
        self.blank = self.rng.uniform(0, self.empty, self.images)

    def _smooth(self, images: int, count: int, width: float) -> Floats:
        """Gaussian fields of mean 0 and variance 1 at each pixel, ``(images, count, size, size)``."""
        point = np.zeros((self.size, self.size))
        point[0, 0] = 1
        norm = np.sqrt(np.square(gaussian_filter(point, width, mode="wrap")).sum())
        noise = self.rng.standard_normal((images, count, self.size, self.size))
        return np.asarray(gaussian_filter(noise, (0, 0, width, width), mode="wrap") / norm)

    def draw(self, count: int, spread: float | None = None) -> MaskSet:
        """``count`` masks of each image, drawn independently."""
        own = self._smooth(self.images, count, self.size / 12)
        wide = self.spread if spread is None else spread
        masks = self.common[:, None] + wide * own > self.level
        seen = self.rng.random((self.images, count)) >= self.blank[:, None]
        return uniform((masks & seen[..., None, None]).astype(np.uint8))

    def probability(self) -> Floats:
        """Probability that an annotator who sees anything marks a pixel, ``(images, size, size)``."""
        return np.asarray(ndtr((self.common - self.level) / self.spread))


def uniform(masks: Masks) -> MaskSet:
    """Equal weights for ``(B, K, H, W)``."""
    return MaskSet.uniform(torch.from_numpy(masks), BINARY)


def first(given: MaskSet, count: int) -> MaskSet:
    """The first ``count`` masks of each image."""
    return MaskSet.uniform(given.masks[:, :count], BINARY)


def weighted(masks: Masks, weights: Sequence[float]) -> MaskSet:
    """One image of ``(K, H, W)``."""
    return MaskSet(torch.from_numpy(masks[None]), torch.tensor([list(weights)]), BINARY)


def ellipse(size: int, y: float, x: float, height: float, width: float, turn: float = 0.0) -> Masks:
    """A filled ellipse of half axes ``height`` and ``width``, turned by ``turn`` radians."""
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    dy, dx = rows - y, columns - x
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    return np.asarray((along / width) ** 2 + (across / height) ** 2 <= 1).astype(np.uint8)


def value(tensor: Tensor) -> float:
    """Mean over images."""
    return float(tensor.double().mean())


def rounded(found: Any) -> Any:
    """The same numbers with four decimals."""
    if isinstance(found, dict):
        return {key: rounded(entry) for key, entry in found.items()}
    if isinstance(found, (list, tuple)):
        return [rounded(entry) for entry in found]
    return round(found, 4) if isinstance(found, float) else found


# -- drawing -------------------------------------------------------------------------------------------------


def canvas(height: float) -> Figure:
    """An empty picture of the common width."""
    return Figure(figsize=(INCHES, height), facecolor="white", layout="constrained")


def plain(axes: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Titles, and no frame but the two axes."""
    axes.set_title(title, fontsize=9.5, loc="left", color=INK)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(labelsize=8.5, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def log_counts(axes: Axes, ticks: Sequence[float]) -> None:
    """A logarithmic x-axis with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def show_mask(axes: Axes, mask: Tensor, x: float, y: float, side: float, color: str = INK) -> None:
    """A mask as a little picture whose lower left corner is at (x, y), with a frame."""
    extent = (x, x + side, y, y + side)
    axes.imshow(1 - mask.numpy(), cmap="gray", vmin=-0.6, vmax=1, extent=extent, interpolation="nearest")
    axes.plot(
        [x, x + side, x + side, x, x], [y, y, y + side, y + side, y], color=color, linewidth=1.1, zorder=5
    )


def dialects(rng: np.random.Generator, out: Path) -> dict[str, Any]:
    """One sampler of the true distribution, judged by six dialects at growing n."""
    world = World(images=60, size=48, spread=0.5, empty=0.6, rng=rng)
    raters, samples = world.draw(RATERS), world.draw(COUNTS[-1])
    generator = torch.Generator().manual_seed(SEED)
    fresh: dict[str, list[float]] = {name: [] for name in (*MATCHED, *ENERGY)}
    drawn: dict[str, list[float]] = {name: [] for name in fresh}
    for count in COUNTS:
        for name, found in evaluate_all(first(samples, count), raters, fresh).items():
            fresh[name].append(value(found))
        for name, reached in reachable_table(raters, drawn, count, 10, generator).items():
            drawn[name].append(value(reached.mean))

    figure = canvas(5.6)
    grid = figure.subplots(2, 2, sharex=True)
    rows = (("fresh masks of the raters' kind", fresh), ("draws from the 4 annotations", drawn))
    for row, (what, table) in zip(grid, rows, strict=True):
        for axes, names, better in zip(row, (MATCHED, ENERGY), ("higher", "lower"), strict=True):
            for name in names:
                start = 1 if name == "ged_unbiased" else 0
                color = COLORS[(*MATCHED, *ENERGY).index(name)]
                title = METRICS[name].title
                axes.plot(COUNTS[start:], table[name][start:], ".-", color=color, linewidth=1.6, label=title)
            plain(axes, f"{what} ({better} is better)")
            log_counts(axes, (1, 2, 4, 8, 16, 32, 64, 100))
            axes.legend(fontsize=8.5, frameon=False, loc="lower right" if names is MATCHED else "upper right")
        row[0].set_ylim(0, 1.02)
        row[1].axhline(0, color=FAINT, linewidth=0.8)
    lowest, highest = min(drawn["ged_unbiased"]), max(fresh["ged"])
    for axes in grid[1]:
        axes.set_xlabel("samples n", fontsize=9, color=INK)
    for axes in grid[:, 1]:
        axes.set_ylim(lowest - 0.06, highest + 0.06)
    save(figure, out, "dialects.png")
    return {
        "images": world.images,
        "raters": RATERS,
        "largest_probability_of_an_empty_mask": world.empty,
        "n": list(COUNTS),
        "fresh_samples": fresh,
        "draws_from_annotations": drawn,
        "spread": value(ged_parts(raters, raters).annotations),
        "distinct_annotations": value(Comparison(raters, raters).modes.count),
    }


def matchings(out: Path) -> dict[str, Any]:
    """Rectangular and tiled matching of four predictions with two annotations."""
    size = 24
    truth = np.stack([ellipse(size, 10, 10, 8.4, 8.4), ellipse(size, 14, 14, 4.4, 6.4)])
    guess = np.stack(
        [
            ellipse(size, 10.5, 10.5, 8.2, 7.7),
            ellipse(size, 14, 14, 4.4, 5.4),
            ellipse(size, 5, 17, 3.4, 5.4),
            ellipse(size, 19, 5, 3.4, 3.4),
        ]
    )
    pair = Comparison(uniform(guess[None]), uniform(truth[None]))
    iou = pair.cross.iou()
    tiled = iou.repeat(1, 1, len(guess) // len(truth))
    partners = {
        "hm_iou": match(-iou).columns,
        "hm_iou_tiled": match(-tiled).columns,
    }
    values = {"hm_iou": value(hm_iou(pair)), "hm_iou_tiled": value(hm_iou_tiled(pair))}

    figure = canvas(3.6)
    for axes, (name, partner) in zip(figure.subplots(1, 2), partners.items(), strict=True):
        copies = 1 if name == "hm_iou" else len(guess) // len(truth)
        table = iou if copies == 1 else tiled
        right = [2.35 - 1.3 * i if copies == 1 else 3.0 - i for i in range(len(truth) * copies)]
        matched, total = partner[0].tolist(), 0.0
        for i, j in enumerate(matched):
            y = 3.0 - i
            show_mask(axes, pair.predictions.masks[0, i], 0, y, 0.82, INK if j >= 0 else "#c8c8c8")
            if j < 0:
                axes.text(0.95, y + 0.41, "free", fontsize=8.5, color=FAINT, va="center")
                continue
            total += float(table[0, i, j])
            ends = [y + 0.41, right[j] + 0.41]
            axes.plot([0.86, 2.74], ends, color=BLUE, linewidth=1.6)
            at = 0.3  # near the prediction: there the lines are still apart
            axes.text(
                0.86 + 1.88 * at,
                ends[0] + (ends[1] - ends[0]) * at,
                f"{float(table[0, i, j]):.2f}",
                fontsize=8.5,
                color=INK,
                ha="center",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
                zorder=4,
            )
        for j, y in enumerate(right):
            show_mask(axes, pair.annotations.masks[0, j % len(truth)], 2.78, y, 0.82)
        pairs = sum(j >= 0 for j in matched)
        if abs(total / pairs - values[name]) > 1e-5:
            raise SystemExit(f"the matching drawn for {name} has not its value")
        terms = " + ".join(f"{float(table[0, i, j]):.2f}" for i, j in enumerate(matched) if j >= 0)
        axes.set_title(
            f"{METRICS[name].title} = {values[name]:.2f}\n= ({terms}) / {pairs}",
            fontsize=9,
            color=INK,
            loc="left",
        )
        axes.text(0.41, 4.0, "predictions", fontsize=8.5, ha="center", color=INK)
        word = "annotations" if copies == 1 else "annotations, twice"
        axes.text(3.19, 4.0, word, fontsize=8.5, ha="center", color=INK)
        axes.set_xlim(-0.25, 3.9)
        axes.set_ylim(-0.15, 4.25)
        axes.set_aspect("equal")
        axes.axis("off")
    save(figure, out, "matching.png")
    others = evaluate_all(pair.predictions, pair.annotations, ["hm_iou_multi", "max_dice_matching", "ged"])
    return {**values, **{name: value(found) for name, found in others.items()}, "iou": iou[0].tolist()}


def energy_parts(rng: np.random.Generator, out: Path) -> dict[str, Any]:
    """The parts of GED for a collapsed, a perfect and a too diverse model."""
    samples = 16
    world = World(images=60, size=48, spread=0.5, empty=0.0, rng=rng)
    raters = world.draw(RATERS)
    middle = (world.common > world.level).astype(np.uint8)[:, None].repeat(samples, 1)
    models = {
        "collapsed": uniform(middle),
        "perfect": world.draw(samples),
        "too diverse": world.draw(samples, spread=3 * world.spread),
    }
    parts = {name: ged_parts(given, raters) for name, given in models.items()}
    report: dict[str, Any] = {"images": world.images, "samples": samples}
    for name, found in parts.items():
        pair = Comparison(models[name], raters)
        report[name] = {
            "d(S,Y)": value(found.between),
            "d(S,S)": value(found.predictions),
            "d(Y,Y)": value(found.annotations),
            "ged": value(found.ged()),
            "ged_unbiased": value(found.ged_unbiased()),
            **{n: value(v) for n, v in evaluate_all(*sets(pair), ["hm_iou", "hm_iou_tiled"]).items()},
        }

    area = raters.masks.float().mean((1, 2, 3))
    chosen = int((area - 0.25).abs().argmin())
    figure = canvas(4.6)
    top, bottom = figure.subplots(2, 1, height_ratios=(1, 2.6))
    for block, (name, given) in enumerate({"annotations": raters, **models}.items()):
        for k in range(RATERS):
            x, y = block * 2.6 + (k % 2) * 1.1, 1.1 - (k // 2) * 1.1
            show_mask(top, given.masks[chosen, k], x, y, 1.0)
        top.text(block * 2.6 + 1.05, 2.25, name, fontsize=9, ha="center", color=INK)
    top.set_xlim(-0.2, 10.1)
    top.set_ylim(-0.1, 2.6)
    top.set_aspect("equal")
    top.axis("off")
    labels = ("2 d(S, Y)", "− d(S, S)", "− d(Y, Y)", "= GED²")
    colors = (BLUE, ORANGE, "#9a9a9a", GREEN)
    for block, name in enumerate(models):
        found = report[name]
        start = 2 * found["d(S,Y)"]
        heights = (start, -found["d(S,S)"], -found["d(Y,Y)"], found["ged"])
        bottoms = (0.0, start, start - found["d(S,S)"], 0.0)
        for k, (height, base, color) in enumerate(zip(heights, bottoms, colors, strict=True)):
            x = block * 5 + k
            bottom.bar(x, height, 0.82, base, color=color, label=labels[k] if block == 0 else None)
            number = f"{abs(height):.2f}".replace("0.", ".")
            bottom.text(x, max(base, base + height) + 0.012, number, fontsize=8.5, ha="center", color=INK)
    plain(bottom)
    bottom.grid(axis="x", visible=False)
    bottom.set_xticks([block * 5 + 1.5 for block in range(3)], list(models), fontsize=9.5)
    bottom.set_ylim(0, 1.2 * max(2 * report[name]["d(S,Y)"] for name in models))
    bottom.legend(fontsize=8.5, frameon=False, ncols=4, loc="upper center")
    save(figure, out, "energy.png")
    return report


def sets(pair: Comparison) -> tuple[MaskSet, MaskSet]:
    """The two sets of a comparison."""
    return pair.predictions, pair.annotations


def pixel_calibration(rng: np.random.Generator, out: Path) -> dict[str, Any]:
    """Reliability of pixels: true probabilities, too sharp ones, and a few samples of the truth."""
    world = World(images=60, size=48, spread=0.5, empty=0.0, rng=rng)
    raters = world.draw(RATERS)
    true = world.probability().clip(1e-7, 1 - 1e-7)
    samples = world.draw(100)

    def soft(probability: Floats) -> MaskSet:
        return MaskSet.from_probabilities(
            torch.from_numpy(probability[:, None, None]).float(), BINARY
        )  # (B, 1, 1, H, W)

    models = {
        "calibrated": soft(true),
        "over-confident": soft(expit(3 * logit(true))),
        "true distribution, n = 4": first(samples, 4),
    }
    report: dict[str, Any] = {"images": world.images, "raters": RATERS}
    figure = canvas(3.1)
    for axes, (name, given) in zip(figure.subplots(1, 3, sharey=True), models.items(), strict=True):
        bins = pixel_bins(given, raters).pooled()
        confidence, target = (curve[0, 0].numpy() for curve in bins.curve())
        share = (bins.count[0, 0] / bins.count.sum()).numpy()
        report[name] = {
            "ece": value(bins.error()),
            "ece_mean_over_images": value(ece(given, raters)),
            "dice_of_mean": value(evaluate_all(given, raters, ["dice_of_mean"])["dice_of_mean"]),
            "share_of_pixels_below_0.1": float(share[0]),
        }
        axes.bar(np.arange(10) / 10 + 0.05, share, 0.09, color="#dcdcdc", label="share of the pixels")
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle="--")
        full = np.isfinite(confidence)
        (line,) = axes.plot(confidence[full], target[full], "o-", color=BLUE, markersize=4, linewidth=1.6)
        line.set(label="mean of the raters", clip_on=False)
        plain(axes, name, "predicted probability")
        axes.text(0.03, 0.93, f"ECE {report[name]['ece']:.3f}", fontsize=9, color=INK)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_aspect("equal")
        axes.set_xticks([0, 0.5, 1])
        if name == "calibrated":
            axes.set_ylabel("marked by the raters", fontsize=9, color=INK)
            handles, words = axes.get_legend_handles_labels()
    figure.legend(handles, words, fontsize=8.5, frameon=False, ncols=2, loc="outside lower center")
    report["true_distribution"] = {
        str(n): value(pixel_bins(first(samples, n), raters).pooled().error()) for n in (1, 4, 16, 32, 100)
    }
    save(figure, out, "reliability.png")
    return report


def duplicates(out: Path) -> dict[str, Any]:
    """Mode probabilities where the most probable mode is proposed three times."""
    size = 64
    modes = np.stack(
        [
            ellipse(size, 32, 32, 22, 22),
            ellipse(size, 20, 40, 10, 16),
            ellipse(size, 46, 18, 12, 9),
            ellipse(size, 14, 14, 7, 7),
        ]
    )
    truth = weighted(modes, (0.55, 0.25, 0.15, 0.05))
    copies = np.stack(
        [modes[0], ellipse(size, 32, 32, 21.7, 22), ellipse(size, 32, 32, 22, 21.6), *modes[1:]]
    )
    split = weighted(copies, (0.25, 0.16, 0.14, 0.25, 0.15, 0.05))
    merged = split.drop_near_duplicates()
    among = Comparison(split, truth).among_predictions.iou()[0]
    cases = {
        "matched": (split, "matched", "matched, with near-duplicates"),
        "nearest": (split, "nearest", "nearest"),
        "merged": (merged, "matched", "matched, after merging"),
    }
    report: dict[str, Any] = {"iou_of_copies": [float(among[0, k]) for k in (1, 2)]}

    figure = canvas(2.9)
    panels = figure.subplots(1, 3, sharey=True, width_ratios=(6, 4, 4))
    for axes, (name, (given, assignment, title)) in zip(panels, cases.items(), strict=True):
        pair = Comparison(given, truth)
        entries = mode_probabilities(pair, assignment=assignment)
        there = entries.there[0]
        estimated, true, is_mode = (
            column[0][there].tolist() for column in (entries.estimated, entries.true, entries.is_mode)
        )
        order = np.argsort([-probability for probability in true], kind="stable").tolist()
        names = [f"mode {k + 1}" for k in range(sum(is_mode))]
        names += ["copy"] * (len(true) - len(names))
        report[name] = {
            "brier_skill_score": value(brier_skill_score(pair, assignment=assignment)),
            "total_variation": value(total_variation(pair, assignment=assignment)),
            "estimated": [estimated[e] for e in order],
            "true": [true[e] for e in order],
        }
        at = np.arange(len(order))
        axes.bar(at - 0.2, [true[e] for e in order], 0.38, color="#9a9a9a", label="true")
        axes.bar(at + 0.2, [estimated[e] for e in order], 0.38, color=BLUE, label="estimated")
        plain(axes, title)
        axes.grid(axis="x", visible=False)
        axes.set_xticks(at, [n.replace("mode ", "") if n != "copy" else "copy" for n in names])
        axes.set_xlabel("mode", fontsize=9, color=INK)
        bss, tv = report[name]["brier_skill_score"], report[name]["total_variation"]
        axes.text(0.98, 0.95, f"BSS {bss:.2f}, TV {tv:.2f}", **CORNER, transform=axes.transAxes)
    panels[0].set_ylabel("probability", fontsize=9, color=INK)
    handles, words = panels[0].get_legend_handles_labels()
    figure.legend(handles, words, fontsize=8.5, frameon=False, ncols=2, loc="outside lower center")
    save(figure, out, "duplicates.png")
    return report


CORNER: dict[str, Any] = {"fontsize": 8.5, "color": INK, "ha": "right", "va": "top"}


def rare_modes(out: Path) -> dict[str, Any]:
    """Eight modes of probabilities 2^i / 255: ranked proposals against draws, and how many draws it takes."""
    size, count = 64, 8
    turns = [2 * np.pi * i / count for i in range(count)]
    masks = np.stack([ellipse(size, 31.5 + 12 * np.sin(a), 31.5 + 12 * np.cos(a), 9, 17, a) for a in turns])
    skewed = weighted(masks, [2**i / 255 for i in reversed(range(count))])
    even = uniform(masks[None])
    curve = coverage_curve(skewed, skewed)[0].tolist()
    draws = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    generator = torch.Generator().manual_seed(SEED)
    reach = partial(reachable_table, skewed, ["hm_iou_unique"], repeats=100, generator=generator)
    sampled = [value(reach(samples=n)["hm_iou_unique"].mean) for n in draws]
    needed = {
        name: [float(draws_of(given.weights.double()[:, :k])) for k in range(1, count + 1)]
        for name, given in (("skewed", skewed), ("even", even))
    }
    all_skewed, all_even = value(expected_draws(skewed, skewed)), value(expected_draws(even, even))

    figure = canvas(3.1)
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    left.plot(
        range(1, count + 1), curve, "o-", color=BLUE, markersize=4, linewidth=1.6, label="k best proposals"
    )
    left.plot(draws, sampled, "s-", color=ORANGE, markersize=4, linewidth=1.6, label="n draws")
    left.axvline(all_skewed, color=FAINT, linewidth=0.9, linestyle="--")
    plain(left, "HM IoU* of 8 modes, 2^i / 255", "masks (k or n)")
    log_counts(left, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024))
    left.tick_params(axis="x", labelsize=7.5)
    left.text(
        all_skewed * 0.9,
        0.07,
        f"all seen after {all_skewed:.0f}\ndraws on average",
        fontsize=8.5,
        ha="right",
        color=INK,
    )
    left.set_ylim(0, 1.04)
    left.legend(fontsize=8.5, frameon=False, loc="lower right", bbox_to_anchor=(0.78, 0.22))
    at = np.arange(1, count + 1)
    right.bar(at - 0.2, needed["skewed"], 0.38, color=ORANGE, label="2^i / 255")
    right.bar(at + 0.2, needed["even"], 0.38, color="#9a9a9a", label="1 / 8 each")
    right.set_yscale("log")
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    plain(right, "expected draws to see the k likeliest", "k")
    right.grid(axis="x", visible=False)
    right.set_xticks(at)
    right.legend(fontsize=8.5, frameon=False, loc="upper left")
    save(figure, out, "draws.png")
    return {
        "coverage_curve": curve,
        "n": draws,
        "hm_iou_unique_of_draws": sampled,
        "expected_draws_of_k_likeliest": needed,
        "expected_draws": {"skewed": all_skewed, "even": all_even},
    }


def save(figure: Figure, out: Path, name: str) -> None:
    """Write a picture, whole or not at all."""
    content = png_bytes(figure, DPI, colors=64)
    with replacing_file(out / name) as partial_file:
        partial_file.write_bytes(content)


def main(words: Iterable[str] | None = None) -> None:
    """Draw all pictures and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    out: Path = parser.parse_args(None if words is None else list(words)).out
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    out.mkdir(parents=True, exist_ok=True)
    result = {
        "command": "python benchmarks/metric_pictures.py",
        "seed": SEED,
        "dialects": dialects(np.random.default_rng(SEED), out),
        "matching": matchings(out),
        "energy": energy_parts(np.random.default_rng(SEED + 1), out),
        "reliability": pixel_calibration(np.random.default_rng(SEED + 2), out),
        "duplicates": duplicates(out),
        "draws": rare_modes(out),
    }
    with replacing_file(out / "pictures.json") as partial_file:
        partial_file.write_text(json.dumps(rounded(result), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
