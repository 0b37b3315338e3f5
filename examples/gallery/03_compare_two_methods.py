"""
Compare two methods
===================

Train mode proposals and a stochastic segmentation network on the same images. Compare their masks and their metrics.
The annotation oracle beside them shows which values are within reach.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import ambiseg
from ambiseg.metrics import METRICS, Bootstrap

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
data = ambiseg.simulate("lesions", folder / "lesions.h5", 200, size=24)

# %%
# Train both
# ----------
# All methods take the same words for training and network. Only `settings` belongs to the method. A fair comparison
# gives each method the learning rate and the number of steps that suit it.

train = {"batch_size": 8, "warmup": 10, "ema": 0, "validations": 1}
trainings = {
    "mode-proposals": {
        "train": {**train, "updates": 80, "lr": 0.005},
        "settings": {"proposals": 8},
    },
    "ssn": {
        "train": {**train, "updates": 150, "lr": 0.01},
        "settings": {"samples": 8, "rank": 6, "antithetic": True, "mean_pretraining": 0.3},
    },
}
runs = {}
for method, words in trainings.items():
    network = {"width": 16, "depth": 2}
    ambiseg.fit(method, data, folder / method, backbone=network, quiet=True, fit_filter=False, **words)
    runs[method] = ambiseg.load(folder / method)

# %%
# All masks of one image
# ----------------------
# `propose` returns everything that a model predicts, without filters. Mode proposals says how probable each mask is.
# The stochastic network draws masks: all of them are equally probable, and a probable mask is drawn more often.

test = ambiseg.open_split(data, "test")
sample = test[4]
sets = {"readers": ambiseg.annotations_of(sample, test.info.labels)}
for method, run in runs.items():
    sets[method] = run.propose([sample.image], generator=torch.Generator().manual_seed(0)).sort()

figure, axes = plt.subplots(3, 9, figsize=(11, 4.2), layout="constrained")
for row, (name, masks) in zip(axes, sets.items(), strict=True):
    for cell in row:
        cell.set_axis_off()
    row[0].text(0.5, 0.5, name, ha="center", va="center", fontsize=11)
    for cell, mask, weight in zip(row[1:], masks.masks[0], masks.weights[0], strict=False):
        cell.imshow(sample.image[0], cmap="gray", vmin=-0.4, vmax=1.2)
        cell.imshow(mask, cmap="autumn_r", vmin=0, vmax=1, alpha=0.5 * mask.float())
        cell.set_title(f"{weight:.1%}", fontsize=9)
plt.show()

# %%
# Metrics
# -------
# Some metrics are better when they are high, others when they are low. The arrows say which.

evaluations = {method: ambiseg.evaluate(run, data) for method, run in runs.items()}
names = ("hm_iou_unique", "m_iou", "dice_of_mean", "ged", "total_variation", "ece")

colors = ["tab:blue", "tab:orange", "0.7"]

figure, axes = plt.subplots(1, len(names), figsize=(11, 2.6), layout="constrained")
for cell, name in zip(axes, names, strict=True):
    values = [evaluation.all[name] for evaluation in evaluations.values()]
    oracle = evaluations["ssn"].oracle[name]
    cell.bar(range(3), [*values, oracle], color=colors)
    cell.set_title(f"{METRICS[name].title} {'↑' if METRICS[name].higher_is_better else '↓'}", fontsize=10)
    cell.set_xticks([])
    cell.tick_params(labelsize=8)
    cell.spines[["top", "right"]].set_visible(False)
handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in colors]
figure.legend(handles, [*runs, "annotation oracle"], loc="outside lower center", ncols=3, frameon=False)
plt.show()

# %%
# Is the difference more than chance?
# -----------------------------------
# Every test image gives one value of GED for each method. The interval is that of the mean difference over images.

first, second = (evaluation.per_image["ged"] for evaluation in evaluations.values())
mean, (low, high) = Bootstrap().difference(first, second)
print(f"GED² of mode-proposals minus GED² of ssn: {mean:.3f}, 95 % interval {low:.3f} to {high:.3f}")
