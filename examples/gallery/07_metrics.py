"""
Metrics and their dialects
==========================

The same name can stand for different numbers in different papers. Here are a few masks drawn by hand, and what the
metrics say about them. No model is involved.
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt
import numpy as np
import torch

import ambiseg
from ambiseg.matching import match
from ambiseg.metrics import METRICS, Comparison, evaluate_all

rows, columns = np.mgrid[:32, :32]
labels = ambiseg.LabelSpace.binary()


def disc(y: float, x: float, radius: float) -> np.ndarray:
    return np.hypot(rows - y, columns - x) < radius


def mask_set(masks: list[np.ndarray], weights: list[float] | None = None) -> ambiseg.MaskSet:
    stacked = torch.from_numpy(np.stack(masks).astype(np.uint8))[None]
    found = ambiseg.MaskSet.uniform(stacked, labels)
    return found if weights is None else ambiseg.MaskSet(stacked, torch.tensor([weights]), labels)


# %%
# Four annotators and five predictions
# ------------------------------------
# Three annotators agree on the large disc, one marks the small one. Each prediction is a set of masks with
# probabilities.

large, small, middle = disc(16, 13, 9), disc(16, 13, 5), disc(16, 13, 7)
moved, nothing = disc(16, 16, 9), disc(0, 0, 0)
annotations = mask_set([large, large, large, small])
predictions = {
    "right": mask_set([large, small], [0.75, 0.25]),
    "even": mask_set([large, small], [0.5, 0.5]),
    "one of two": mask_set([large]),
    "average": mask_set([middle]),
    "too many": mask_set([large, small, moved, nothing]),
}

figure, axes = plt.subplots(6, 5, figsize=(6.5, 7), layout="constrained")
for cell in axes.flat:
    cell.set_axis_off()
for line, (name, one) in zip(axes, {"annotations": annotations, **predictions}.items(), strict=True):
    line[0].text(0.5, 0.5, name, ha="center", va="center", fontsize=11)
    for cell, mask, weight in zip(line[1:], one.masks[0], one.weights[0], strict=False):
        cell.set_axis_on()
        cell.imshow(mask[4:28, 2:26], cmap="Greys", vmin=0, vmax=1.4)
        cell.set(xticks=[], yticks=[])
        cell.set_title(f"{weight:.0%}", fontsize=9, pad=2)
plt.show()

# %%
# What the metrics say
# --------------------
# Dark green is good. HM IoU matches masks one to one, and it does not see probabilities. Its three
# dialects differ in what they do with repeated annotations: HM IoU* merges them, HM IoU keeps them, and the tiled one
# repeats both sides until they have the same number. M-IoU and GED weigh masks by their probabilities.

shown = ("hm_iou_unique", "hm_iou", "hm_iou_tiled", "max_dice_matching", "m_iou", "ged", "total_variation")
values = np.array(
    [
        [float(value) for value in evaluate_all(one, annotations, shown).values()]
        for one in predictions.values()
    ]
).T
better = np.array([METRICS[name].higher_is_better for name in shown])
titles = [f"{METRICS[name].title} {'↑' if high else '↓'}" for name, high in zip(shown, better, strict=True)]

figure, axes = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
quality = np.where(better[:, None], values, 1 - values)
axes.imshow(quality, cmap="Greens", vmin=quality.min() - 0.3, vmax=1.4, aspect="auto")
for (i, j), value in np.ndenumerate(values):
    best = np.isclose(quality[i, j], quality[i].max())
    axes.text(j, i, f"{value:.2f}", ha="center", va="center", weight="bold" if best else "normal")
axes.set_xticks(range(len(predictions)), list(predictions))
axes.set_yticks(range(len(shown)), titles)
axes.tick_params(length=0)
axes.set_title("Best values are bold")
plt.show()

# %%
# Two traps stand in this table. HM IoU of "one of two" is 1: a single mask makes a single pair, and nothing else
# counts. The total variation of "too many" is 0: every mask counts for its nearest annotation, even if it is unlike
# all of them.

# %%
# How masks are matched
# ---------------------
# HM IoU looks for the assignment with the greatest sum of IoUs. The tiled dialect repeats the set "one of two" four
# times to match four annotations, so its one mask is compared with all of them.

one = predictions["too many"]
iou = Comparison(one, annotations).cross.iou()[0]
partner = match(-iou[None]).columns[0].tolist()

figure, axes = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
picture = axes.imshow(iou, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
for (i, j), value in np.ndenumerate(iou.numpy()):
    axes.text(j, i, f"{value:.2f}", ha="center", va="center", weight="bold" if partner[i] == j else "normal")
axes.set_xticks(range(4), ["large", "large", "large", "small"])
axes.set_yticks(range(4), ["large", "small", "moved", "nothing"])
axes.set(xlabel="annotations", ylabel="predictions")
axes.tick_params(length=0)
axes.set_title(f"HM IoU: mean of the bold = {np.mean([iou[i, j] for i, j in enumerate(partner)]):.3f}")
plt.show()

# %%
# More masks, better numbers
# --------------------------
# These predictions are discs at random places, so they are equally bad at any number. Still HM IoU* and MDM rise with
# their number, and GED falls. M-IoU and the unbiased GED hardly change. So a table must say how many masks were
# compared.

rng = np.random.default_rng(0)
counts = (2, 4, 8, 16, 32, 64)
names = ("hm_iou_unique", "max_dice_matching", "m_iou", "ged", "ged_unbiased")
curves = np.zeros((len(counts), len(names)))
for _ in range(20):
    pool = [disc(*rng.uniform(10, 22, 2), rng.uniform(3, 10)) for _ in range(counts[-1])]
    for row, n in zip(curves, counts, strict=True):
        row += [float(v) / 20 for v in evaluate_all(mask_set(pool[:n]), annotations, names).values()]

figure, axes = plt.subplots(figsize=(5.8, 3.6), layout="constrained")
for name, curve in zip(names, curves.T, strict=True):
    axes.plot(counts, curve, "o-", label=METRICS[name].title)
axes.set(xscale="log", xlabel="number of random discs", ylabel="mean of 20 draws", ylim=(0, 1))
axes.set_xticks(counts, counts)
axes.minorticks_off()
axes.legend(frameon=False, ncols=3, fontsize=9)
plt.show()
