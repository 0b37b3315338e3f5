"""
Mask sets in a notebook
=======================

Annotations and predictions are the same type: a `MaskSet`, several masks with their weights for each image. This page
shows what you can do with one. No training is needed.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import ambiseg
from ambiseg.data.simulators.wildfire import CHANNELS, simulate_wildfires

# %%
# From arrays
# -----------
# Here are three simulated fires. Each has eight outcomes with known probabilities. `annotations_of` makes a mask set
# from a sample, `MaskSet` itself takes tensors. `stack` joins several sets into a batch.

labels = ambiseg.LabelSpace.binary("burned")
fires = list(simulate_wildfires(3, size=48, seed=4))
outcomes = ambiseg.MaskSet.stack([ambiseg.annotations_of(fire, labels) for fire in fires])
print("images, masks, height, width:", tuple(outcomes.masks.shape))
print("weights of the first image:", outcomes.weights[0].numpy().round(3))

# %%
# Go through it
# -------------
# `len` is the number of images, and `outcomes[i]` is a set for one image. `masks` and `weights` are tensors: `.numpy()`
# makes arrays of them.

for fire, one in zip(fires, outcomes, strict=True):
    areas = one.areas()[0].numpy()
    print(f"{fire.id}: {int(one.count[0])} masks, {areas.min():.1%} to {areas.max():.1%} of the image burn")

# %%
# Look at it
# ----------

ambiseg.plot(fires[0].image, outcomes[0], channels=CHANNELS, heading="Outcomes")
plt.show()

# %%
# Mean and disagreement of each pixel
# -----------------------------------
# `mean` is the probability that a pixel burns, `entropy` the disagreement about it.

figure, axes = plt.subplots(2, 3, figsize=(8, 5.2), layout="constrained")
for above, below, fire, one in zip(*axes, fires, outcomes, strict=True):
    burns = above.imshow(one.mean()[0, 0], cmap="viridis", vmin=0, vmax=1)
    doubt = below.imshow(one.entropy()[0], cmap="magma", vmin=0, vmax=np.log(2))
    above.set_title(fire.id, fontsize=10)
for cell in axes.flat:
    cell.set_axis_off()
figure.colorbar(burns, ax=axes[0], label="probability")
figure.colorbar(doubt, ax=axes[1], label="entropy in nats")
plt.show()

# %%
# Select and change
# -----------------
# Every operation returns a new set. `top` keeps the most probable masks, `drop_near_duplicates` adds the weight of
# masks that are nearly alike, and `sample_one` draws one mask by its weight.

one = outcomes[1]
print("all:            ", one.sort().weights[0].numpy().round(3))
print("top 3:          ", one.top(3).weights[0].numpy().round(3))
print("duplicates gone:", one.drop_near_duplicates(iou=0.8).sort().weights[0].numpy().round(3))
drawn = one.sample_one(torch.Generator().manual_seed(0))
print("one drawn:      ", f"{float(drawn.areas()):.1%} of the image burn")

# %%
# A number of your own for each mask, and its distribution: here the burned area of all outcomes.

figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
for k, one in enumerate(outcomes):
    areas, weights = one.areas()[0].numpy(), one.weights[0].numpy()
    axes.scatter(100 * areas, np.full(len(areas), k), s=1500 * weights, alpha=0.5)
    axes.plot(100 * (weights * areas).sum(), k, "k|", markersize=24)
axes.set_yticks(range(3), [fire.id for fire in fires])
axes.set(xlabel="burned area in % of the image", ylim=(-0.6, 2.6))
axes.set_title("Size: probability; line: expected area", fontsize=10)
plt.show()

# %%
# Keep it
# -------

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "outcomes.npz"
    outcomes.save(path)
    again = ambiseg.MaskSet.load(path)
    print(f"{path.stat().st_size / 1024:.0f} KiB; the same masks: {torch.equal(again.masks, outcomes.masks)}")
