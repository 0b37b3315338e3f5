"""The pictures of docs/metrics and docs/evaluate.md, and every number that these pages quote from them.

    python examples/metric_pictures.py --out docs/results/metrics

All masks are synthetic and drawn from fixed seeds. ``--quick`` takes few of them, to see that all parts run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit, ndtr
from torch import nn

from ambiseg import metrics as m
from ambiseg.atomic_write import write_json
from ambiseg.engine.postprocess import PredictSettings, postprocess
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.matching import match
from ambiseg.report.files import save_png

BINARY = LabelSpace.binary()
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100)
DIALECTS = ("max_dice_matching", "hm_iou", "hm_iou_unique", "hm_iou_tiled", "ged", "ged_unbiased")
Masks = NDArray[np.bool_]


class World:
    """Annotators who mark ``[common + spread own > 0.8]`` of smooth fields, or, with a probability of up to
    ``empty``, nothing: masks can be drawn without end, and the probability of each pixel is known."""

    def __init__(self, images: int, empty: float, seed: int) -> None:
        self.images, self.random = images, np.random.default_rng(seed)
        self.common = self.smooth(1, 6.0)
        self.blank = self.random.uniform(0, empty, (images, 1, 1, 1))

    def smooth(self, count: int, width: float) -> NDArray[np.float64]:
        """Gaussian fields of mean 0 and variance 1, ``(images, count, 48, 48)``."""
        point = np.zeros((48, 48))
        point[0, 0] = 1
        noise = self.random.standard_normal((self.images, count, 48, 48))
        field = gaussian_filter(noise, (0, 0, width, width), mode="wrap")
        return np.asarray(field / np.linalg.norm(gaussian_filter(point, width, mode="wrap")))

    def draw(self, count: int, spread: float = 0.5) -> MaskSet:
        masks = self.common + spread * self.smooth(count, 4.0) > 0.8
        return weighted(masks & (self.random.random((self.images, count, 1, 1)) >= self.blank))


def weighted(masks: Masks, weights: Sequence[float] = ()) -> MaskSet:
    """``(B, K, H, W)`` with the weights of the first image, or equal ones."""
    given = MaskSet.uniform(torch.from_numpy(masks.astype(np.uint8)), BINARY)
    return replace(given, weights=torch.tensor([list(weights)])) if weights else given


def first(given: MaskSet, count: int) -> MaskSet:
    return MaskSet.uniform(given.masks[:, :count], BINARY)


def ellipse(size: int, y: float, x: float, height: float, width: float, turn: float = 0.0) -> Masks:
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    dy, dx = rows - y, columns - x
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    return np.asarray((along / width) ** 2 + (across / height) ** 2 <= 1)


def means(given: MaskSet, truth: MaskSet, *names: str) -> dict[str, float]:
    return {name: float(v.double().mean()) for name, v in m.evaluate_all(given, truth, names).items()}


def dialects(figure: Figure, images: int, counts: Sequence[int]) -> dict[str, Any]:
    """One sampler of the true distribution, judged by six dialects at growing n."""
    world, g = World(images, 0.6, 0), torch.Generator().manual_seed(0)
    raters, samples = world.draw(4), world.draw(counts[-1])
    fresh = [means(first(samples, n), raters, *DIALECTS) for n in counts]
    reached = [m.reachable_table(raters, DIALECTS, n, 10, g) for n in counts]
    drawn = [{name: float(r.mean.double().mean()) for name, r in row.items()} for row in reached]
    titles = ("fresh masks of the raters' kind", "draws from the 4 annotations")
    for panels, table, title in zip(figure.subplots(2, 2, sharex=True), (fresh, drawn), titles, strict=True):
        for axes, names in zip(panels, (DIALECTS[:4], DIALECTS[4:]), strict=True):
            for name in names:
                axes.plot(counts, [row[name] for row in table], ".-", label=m.METRICS[name].title)
            axes.set(title=title, xlabel="samples n", xscale="log")
            axes.legend(fontsize=8, frameon=False)
    tables = {"fresh_samples": fresh, "draws_from_annotations": drawn}
    columns = {key: {name: [row[name] for row in rows] for name in DIALECTS} for key, rows in tables.items()}
    spread = float(m.ged_parts(raters, raters).annotations.double().mean())
    distinct = float(m.Comparison(raters, raters).modes.count.double().mean())
    facts = {"images": images, "raters": 4, "largest_probability_of_an_empty_mask": 0.6, "n": list(counts)}
    return {**facts, **columns, "spread": spread, "distinct_annotations": distinct}


def matching(figure: Figure, images: int, counts: Sequence[int]) -> dict[str, Any]:
    """Rectangular and tiled matching of four predictions with two annotations."""
    truth = weighted(np.stack([ellipse(24, 10, 10, 8.4, 8.4), ellipse(24, 14, 14, 4.4, 6.4)])[None])
    shapes = ((10.5, 10.5, 8.2, 7.7), (14, 14, 4.4, 5.4), (5, 17, 3.4, 5.4), (19, 5, 3.4, 3.4))
    guess = weighted(np.stack([ellipse(24, *shape) for shape in shapes])[None])
    iou = m.Comparison(guess, truth).cross.iou()
    found = means(guess, truth, "hm_iou", "hm_iou_tiled", "hm_iou_multi", "max_dice_matching", "ged")
    panels = figure.subplots(2, 4, gridspec_kw={"width_ratios": (1, 1, 2.5, 4)})
    for cell, mask in zip(panels[:, :2].flat, guess.masks[0], strict=True):
        cell.imshow(mask, cmap="gray_r")
    for cell, mask in zip(panels[:, 2], truth.masks[0], strict=True):
        cell.imshow(mask, cmap="gray_r")
    panels[0, 0].set_title("predictions", fontsize=8)
    panels[0, 2].set_title("annotations", fontsize=8)
    for axes, copies, name in zip(panels[:, 3], (1, 2), ("hm_iou", "hm_iou_tiled"), strict=True):
        table = iou[0].repeat(1, copies)
        axes.imshow(table, cmap="Blues", vmin=0, vmax=1.5, aspect="auto")
        for i, j in enumerate(match(-table[None]).columns[0].tolist()):
            for k in range(2 * copies):
                style = "bold" if k == j else "normal"
                axes.text(k, i, f"{table[i, k]:.2f}", ha="center", va="center", weight=style, fontsize=8)
        axes.set_title(f"{m.METRICS[name].title} = {found[name]:.3f}, mean of the bold", fontsize=8)
    for cell in panels.flat:
        cell.set(xticks=[], yticks=[])
    return {**found, "iou": iou[0].tolist()}


def energy(figure: Figure, images: int, counts: Sequence[int]) -> dict[str, Any]:
    """The parts of GED for a collapsed, a true and a too diverse model of 16 masks."""
    world = World(images, 0.0, 1)
    raters, middle = world.draw(4), (world.common > 0.8).repeat(16, 1)
    models = {"collapsed": weighted(middle), "perfect": world.draw(16), "too diverse": world.draw(16, 1.5)}
    result: dict[str, Any] = {"images": images, "samples": 16}
    bars = figure.subplots(2, 1, gridspec_kw={"height_ratios": (1, 4)})
    for i, (name, given) in enumerate(models.items()):
        parts = m.ged_parts(given, raters)
        pairs = {"d(S,Y)": parts.between, "d(S,S)": parts.predictions, "d(Y,Y)": parts.annotations}
        found = {key: float(value.double().mean()) for key, value in pairs.items()}
        result[name] = found | means(given, raters, "ged", "ged_unbiased", "hm_iou", "hm_iou_tiled")
        start, less, rest = 2 * found["d(S,Y)"], found["d(S,S)"], found["d(Y,Y)"]
        heights, bottoms = (start, -less, -rest, start - less - rest), (0, start, start - less, 0)
        bars[1].bar(np.arange(4) + 5 * i, heights, 0.8, bottoms, color=("C0", "C1", "0.6", "C2"))
    bars[1].margins(y=0.1)
    bars[1].set_xticks(
        [1.5, 6.5, 11.5], [f"{n}:\n2 d(S, Y) − d(S, S) − d(Y, Y) = GED²" for n in models], fontsize=7
    )
    chosen = int((raters.masks.float().mean((1, 2, 3)) - 0.25).abs().argmin())
    rows = [torch.cat(list(given.masks[chosen, :4]), 1) for given in (raters, *models.values())]
    bars[0].imshow(torch.cat([nn.functional.pad(row, (0, 12)) for row in rows], 1), cmap="gray_r")
    bars[0].set_title("four masks of the annotators and of each model", fontsize=8)
    bars[0].axis("off")
    return result


def reliability(figure: Figure, images: int, counts: Sequence[int]) -> dict[str, Any]:
    """Pixels of true probabilities, of too sharp ones, and of a few samples of the truth."""
    world = World(images, 0.0, 2)
    raters, true = world.draw(4), ndtr((world.common - 0.8) / 0.5).clip(1e-7, 1 - 1e-7)
    samples, sharp = world.draw(100), expit(3 * logit(true))
    soft = [MaskSet.from_probabilities(torch.from_numpy(p[:, None]).float(), BINARY) for p in (true, sharp)]
    names = ("calibrated", "over-confident", "true distribution, n = 4")
    result: dict[str, Any] = {"images": images, "raters": 4}
    for axes, name, given in zip(figure.subplots(1, 3), names, (*soft, first(samples, 4)), strict=True):
        bins = m.pixel_bins(given, raters).pooled()
        confidence, target = (curve[0, 0] for curve in bins.curve())
        share, error = (bins.count[0, 0] / bins.count.sum()), float(bins.error())
        both = means(given, raters, "ece", "dice_of_mean")
        result[name] = {
            "ece": error,
            "ece_mean_over_images": both["ece"],
            "dice_of_mean": both["dice_of_mean"],
        }
        result[name]["share_of_pixels_below_0.1"] = float(share[0])
        axes.bar(np.arange(10) / 10 + 0.05, share, 0.09, color="0.85")
        axes.plot(confidence, target, "o-", markersize=4)
        axes.axline((0, 0), (1, 1), linestyle="--", color="0.6")
        axes.set_title(f"{name}\nECE {error:.3f}", fontsize=8)
        axes.set_xlabel("predicted probability", fontsize=8)
    sizes = (1, 4, 16, 32, 100)
    errors = [float(m.pixel_bins(first(samples, n), raters).pooled().error()) for n in sizes]
    figure.axes[0].set_ylabel("marked by the raters; share of pixels (bars)", fontsize=8)
    return {**result, "true_distribution": dict(zip(map(str, sizes), errors, strict=True))}


def duplicates(figure: Figure, images: int, counts: Sequence[int]) -> dict[str, Any]:
    """Mode probabilities where the most probable mode is proposed three times."""
    shapes = ((32, 32, 22, 22), (20, 40, 10, 16), (46, 18, 12, 9), (14, 14, 7, 7))
    copies = (shapes[0], (32, 32, 21.7, 22), (32, 32, 22, 21.6), *shapes[1:])
    truth = weighted(np.stack([ellipse(64, *s) for s in shapes])[None], (0.55, 0.25, 0.15, 0.05))
    split = weighted(np.stack([ellipse(64, *s) for s in copies])[None], (0.25, 0.16, 0.14, 0.25, 0.15, 0.05))
    result: dict[str, Any] = {"iou_of_copies": m.Comparison(split, split).cross.iou()[0, 0, 1:3].tolist()}
    cases = {"matched": split, "nearest": split, "merged": split.drop_near_duplicates()}
    for axes, (name, given) in zip(figure.subplots(1, 3, sharey=True), cases.items(), strict=True):
        how = "nearest" if name == "nearest" else "matched"
        found = m.mode_probabilities(given, truth, assignment=how)
        order = [i for i in (-found.true[0]).argsort(stable=True).tolist() if found.there[0, i]]
        skill = float(m.brier_skill_score(given, truth, assignment=how))
        distance = float(m.total_variation(given, truth, assignment=how))
        pairs = {"estimated": found.estimated[0, order].tolist(), "true": found.true[0, order].tolist()}
        result[name] = {"brier_skill_score": skill, "total_variation": distance, **pairs}
        for shift, (what, values) in zip((0.2, -0.2), pairs.items(), strict=True):
            axes.bar(np.arange(len(order)) + shift, values, 0.38, label=what)
        axes.set_title(f"{name}: BSS {skill:.2f}, TV {distance:.2f}", fontsize=8)
    figure.axes[0].legend(fontsize=8)
    return result


def draws(figure: Figure, images: int, counts: Sequence[int]) -> dict[str, Any]:
    """Eight modes of probabilities 2^i / 255: ranked proposals against draws, and how many draws it takes."""
    turns, g = [2 * np.pi * i / 8 for i in range(8)], torch.Generator().manual_seed(0)
    masks = np.stack([ellipse(64, 31.5 + 12 * np.sin(a), 31.5 + 12 * np.cos(a), 9, 17, a) for a in turns])
    sets = {
        "skewed": weighted(masks[None], [2**i / 255 for i in range(7, -1, -1)]),
        "even": weighted(masks[None]),
    }
    n, repeats = [2**i for i in range(11)], 100 if images > 9 else 2
    tables = [m.reachable_table(sets["skewed"], ["hm_iou_unique"], k, repeats, g) for k in n]
    sampled = [float(table["hm_iou_unique"].mean.double().mean()) for table in tables]
    curve = m.coverage_curve(sets["skewed"], sets["skewed"])[0].tolist()
    likeliest = {
        name: [float(m.draws_of(given.weights.double()[:, :k])) for k in range(1, 9)]
        for name, given in sets.items()
    }
    left, right = figure.subplots(1, 2)
    left.plot(range(1, 9), curve, "o-", label="k best proposals")
    left.plot(n, sampled, "s-", label="n draws")
    left.set(title="HM IoU* of 8 modes, 2^i / 255", xlabel="masks (k or n)", xscale="log")
    for name, values in likeliest.items():
        right.plot(range(1, 9), values, "o-", label=name)
    right.set(title="expected draws to see the k likeliest", xlabel="k", yscale="log")
    for axes in (left, right):
        axes.legend(fontsize=8, frameon=False)
    result = {"coverage_curve": curve, "n": n, "hm_iou_unique_of_draws": sampled}
    all_of = {name: float(m.expected_draws(given, given)) for name, given in sets.items()}
    return {**result, "expected_draws_of_k_likeliest": likeliest, "expected_draws": all_of}


def columns(figure: Figure, images: int, counts: Sequence[int]) -> dict[str, Any]:
    """The three columns of ``ambiseg evaluate`` on one image: all masks, kept masks, annotation oracle."""
    shapes = ((24, 20, 15, 11), (24, 28, 9, 15), (30, 24, 10, 8), (14, 30, 6, 6))
    guesses = ((24, 20, 14.6, 11), (24, 20, 15, 10.7), (24, 28, 9, 14), (24, 28.3, 9, 14), (30, 24.5, 9, 8))
    masks = [ellipse(48, *s) for s in (*guesses, (15, 30, 5.5, 6), (38, 10, 6, 6), (10, 10, 5, 7))]
    weights, scores = (0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02), (0.98, 0.93, 0.96, 0.9, 0.9, 0.8, 0.2, 0.1)
    truth = weighted(np.stack([ellipse(48, *s) for s in shapes])[None], (0.5, 0.3, 0.15, 0.05))
    guess = replace(weighted(np.stack(masks)[None], weights), scores=torch.tensor([scores]))
    settings = PredictSettings(score_threshold=0.5, duplicate_iou=0.95)
    oracle = next(m.oracle_samples(truth, len(masks), 1, torch.Generator().manual_seed(2)))
    sets = {"all masks": guess, "kept masks": postprocess(guess, settings).masks, "annotation oracle": oracle}
    result: dict[str, Any] = {}
    grid = figure.add_gridspec(4, 1)
    for row, (name, given) in enumerate({"annotations": truth, **sets}.items()):
        part = figure.add_subfigure(grid[row])
        cells, shown = part.subplots(1, 8), given.sort().compact()
        for cell in cells:
            cell.axis("off")
        for cell, mask, weight in zip(cells, shown.masks[0], shown.weights[0].tolist(), strict=False):
            cell.axis("on")
            cell.imshow(mask, cmap="gray_r", vmax=1.6)
            cell.set(xticks=[], yticks=[])
            cell.set_xlabel(f"{weight:.3f}", fontsize=8, labelpad=2)
        title = f"{name}, with their probabilities"
        if name in sets:
            result[name] = means(given, truth, "hm_iou_unique", "ged", "total_variation")
            result[name]["masks"] = int(given.count[0])
            title = f"{name}: HM IoU* {result[name]['hm_iou_unique']:.3f}, GED² {result[name]['ged']:.3f}"
        part.suptitle(title, x=0.01, ha="left", fontsize=9)
    return result


def main(words: Sequence[str] | None = None) -> None:
    """Write seven pictures and ``pictures.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    images, counts = (3, COUNTS[:3]) if arguments.quick else (60, COUNTS)
    result: dict[str, Any] = {"command": "python examples/metric_pictures.py", "seed": 0}
    heights = {
        dialects: 5.6,
        matching: 3.2,
        energy: 4.2,
        reliability: 3.1,
        duplicates: 2.9,
        draws: 3.1,
        columns: 5.0,
    }
    for part, height in heights.items():
        figure = Figure(figsize=(7, height), layout="constrained")
        result[part.__name__] = part(figure, images, counts)
        save_png(figure, arguments.out / f"{part.__name__}.png", dpi=140)
    rounded = json.loads(json.dumps(result), parse_float=lambda text: round(float(text), 4))
    write_json(arguments.out / "pictures.json", rounded)


if __name__ == "__main__":
    main()
