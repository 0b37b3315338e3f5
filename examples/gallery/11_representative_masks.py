"""
A few masks that stand for many
===============================

Methods that sample give a hundred masks of the same weight. Nobody looks at a hundred masks. `represent` finds the few
that stand best for all of them, and the probability of each.
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt
import numpy as np
import torch

import ambiseg
from ambiseg.data.simulators.wildfire import burned_after, simulate_wildfire
from ambiseg.metrics import ged
from ambiseg.mode_probabilities.representative_masks import represent

# %%
# A hundred masks
# ---------------
# A fire may spread under any wind. Here are a hundred directions, drawn around one that prevails. A trained model
# that samples gives such masks with `run.propose([image], 100)`.

fire = simulate_wildfire(seed=0, index=18, size=48)
rng = np.random.default_rng(0)
directions = np.degrees(rng.vonmises(np.radians(60), 0.6, 100))
masks = torch.from_numpy(burned_after(fire.image, directions))[None]
samples = ambiseg.MaskSet.uniform(masks, ambiseg.LabelSpace.binary("burned"))

figure, axes = plt.subplots(5, 20, figsize=(10, 2.7), layout="constrained")
for cell, mask in zip(axes.flat, samples.masks[0], strict=True):
    cell.imshow(mask, cmap="Reds", vmin=0, vmax=1.4)
    cell.set(xticks=[], yticks=[])
figure.suptitle("100 masks of the same weight", fontsize=11)
plt.show()

# %%
# Eight of them
# -------------
# The masks are chosen one after the other, each time the one that brings GED to all hundred down most. Their
# probabilities are fitted together. A mask that many others resemble gets a high probability.

few = represent(samples, 8)

figure, axes = plt.subplots(2, 4, figsize=(8, 4.4), layout="constrained")
relief = fire.image[2]
for cell, mask, weight in zip(axes.flat, few.masks[0], few.weights[0], strict=False):
    cell.imshow(relief, cmap="gray")
    cell.imshow(mask, cmap="autumn_r", vmin=0, vmax=1, alpha=0.6 * mask.float())
    cell.contour(fire.image[-1], [0.5], colors="black", linewidths=1)
    cell.set_title(f"{weight:.0%}", fontsize=10)
for cell in axes.flat:
    cell.set_axis_off()
figure.suptitle("Burned area; the black line is the fire at the start")
plt.show()

# %%
# Do they say the same?
# ---------------------
# The probability of every pixel, from all hundred masks and from the eight.

figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
whole, part = samples.mean()[0, 0], few.mean()[0, 0]
pictures = [(whole, "100 masks"), (part, "8 masks"), ((part - whole).abs(), "difference")]
for cell, (picture, title) in zip(axes, pictures, strict=True):
    shown = cell.imshow(picture, cmap="viridis", vmin=0, vmax=1)
    cell.set_title(title)
    cell.set_axis_off()
figure.colorbar(shown, ax=axes, label="probability that a pixel burns", shrink=0.9)
plt.show()

# %%
# How many masks are enough?
# --------------------------
# GED to all hundred masks falls with the number that is kept. A random choice with equal weights needs several times
# as many.

counts = (1, 2, 4, 8, 16, 32)
chosen = [float(ged(represent(samples, n), samples)) for n in counts]
random = []
for n in counts:
    draws = [torch.from_numpy(rng.choice(100, n, replace=False)) for _ in range(20)]
    sets = [samples.gather(draw[None]).normalised() for draw in draws]
    random.append(np.mean([float(ged(one, samples)) for one in sets]))

figure, axes = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
axes.plot(counts, random, "s-", color="0.6", label="chosen at random (mean of 20)")
axes.plot(counts, chosen, "o-", label="represent")
axes.set(xscale="log", yscale="log", xlabel="masks", ylabel="GED² to all 100")
axes.set_xticks(counts, counts)
axes.minorticks_off()
axes.legend(frameon=False)
plt.show()
