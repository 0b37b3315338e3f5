"""
Are the probabilities right?
============================

A model says that a mask is right in 30 % of all cases. Is that so? This page shows how to read a reliability diagram
of modes and of pixels, and what the numbers beside it mean.
"""

# sphinx_gallery_thumbnail_number = 2

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ambiseg
from ambiseg.metrics import mode_probabilities

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# Data with known probabilities
# -----------------------------
# Four readers mark a simulated lesion in four ways. The fainter the lesion, the more probable is the empty mask. So
# the true probabilities differ from image to image, and a model can see them.

data = ambiseg.simulate("lesions", folder / "lesions.h5", 320, size=24)
ambiseg.fit(
    "mode-proposals",
    data,
    folder / "run",
    train={"updates": 140, "batch_size": 10, "lr": 0.005, "warmup": 10, "ema": 0, "validations": 1},
    backbone={"width": 8, "depth": 3},
    settings={"proposals": 6},
    quiet=True,
)
run = ambiseg.load(folder / "run")

# %%
# Probabilities of modes
# ----------------------
# A mode is one of the different masks that annotators drew. `mode_probabilities` gives each predicted mask to the
# mode that it resembles most, and adds up the probabilities. Points on the diagonal are right. A point at 0 is a mode
# to which no predicted mask was nearest.

test = ambiseg.open_split(data, "test")
readers = test[0].annotators
true, estimated = [], []
for sample in test:
    pairs = mode_probabilities(
        run.predict(sample.image), ambiseg.annotations_of(sample, test.info.labels), assignment="nearest"
    )
    true.append(pairs.true[0].numpy())
    estimated.append(pairs.estimated[0].numpy())
true, estimated = np.stack(true), np.stack(estimated)

figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained", sharex=True, sharey=True)
for k, cell in enumerate(axes):
    cell.axline((0, 0), slope=1, color="0.7", linestyle="--")
    cell.scatter(true[:, k], estimated[:, k], s=18, alpha=0.7)
    gap = np.abs(estimated[:, k] - true[:, k]).mean()
    cell.set(
        title=f"{readers[k]}: mean gap {gap:.3f}", xlabel="true probability", xlim=(0, 0.8), ylim=(0, 0.8)
    )
axes[0].set_ylabel("predicted probability")
plt.show()

# %%
# The reliability diagram
# -----------------------
# Bins collect predictions of similar probability. Below the diagonal, the model gives too high probabilities. The
# bars show how many modes a bin holds: a bin with few of them is not reliable itself.

bins = np.linspace(0, 0.8, 9)
place = np.digitize(estimated.ravel(), bins) - 1
count = np.bincount(place, minlength=len(bins))
filled = count > 0
mean_estimated = np.bincount(place, estimated.ravel(), len(bins))[filled] / count[filled]
mean_true = np.bincount(place, true.ravel(), len(bins))[filled] / count[filled]

figure, (above, below) = plt.subplots(
    2, 1, figsize=(4.6, 5.2), layout="constrained", sharex=True, height_ratios=(3, 1)
)
above.axline((0, 0), slope=1, color="0.7", linestyle="--", label="right")
above.plot(mean_estimated, mean_true, "o-", label="mode-proposals")
above.set(
    ylabel="true probability (mean of bin)", xlim=(0, 0.8), ylim=(0, 0.8), title="Modes of all test images"
)
above.legend(frameon=False)
below.bar(bins + 0.05, count, width=0.09, color="0.7")
below.set(xlabel="predicted probability (mean of bin)", ylabel="modes")
plt.show()

# %%
# Pixels
# ------
# A pixel has a probability as well: the sum over all masks that contain it. `ambiseg.evaluate` collects the pixels of
# all images in ten bins. ECE is the mean distance to the diagonal, weighted by the number of pixels. Most pixels are
# background with a probability near zero, so a low ECE alone says little about the lesion.

evaluation = ambiseg.evaluate(run, data)
confidence, target, count = evaluation.figures.pixels
there = count > 0

figure, axes = plt.subplots(figsize=(4.6, 4), layout="constrained")
axes.axline((0, 0), slope=1, color="0.7", linestyle="--")
points = axes.scatter(
    confidence[there], target[there], c=count[there], norm="log", cmap="viridis_r", s=60, edgecolor="0.3"
)
axes.set(
    title=f"Pixels: ECE {evaluation.all['ece']:.3f}",
    xlabel="predicted probability",
    ylabel="probability among readers",
    xlim=(0, 1),
    ylim=(0, 1),
)
figure.colorbar(points, label="pixels in the bin")
plt.show()

# %%
# One number for the probabilities
# --------------------------------
# The total variation of modes (TV) is half the summed difference between predicted and true probabilities: 0 is
# right, 1 is all wrong. The Brier skill score (BSS) compares with equal probabilities: 1 is right, 0 is no better.

print(f"TV of modes: {evaluation.kept['total_variation']:.3f}")
print(f"BSS:         {evaluation.kept['brier_skill_score']:.3f}")
