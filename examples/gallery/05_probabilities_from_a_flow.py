"""
Probabilities from a flow
=========================

Flow matching turns noise into masks, so the probability of a mask is the share of noise that ends there. You can
estimate it by counting samples, or much faster from the velocity at the very start.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import ambiseg
from ambiseg.engine.postprocess import EstimateSettings, estimate_probabilities

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# Train a flow
# ------------
# Here all masks of an image and their probabilities are known, so the flow may learn from the exact mean of all masks
# that a noisy one can come from (`target="posterior"`).

data = ambiseg.simulate("lesions", folder / "lesions.h5", 200, size=24)
ambiseg.fit(
    "flow-matching",
    data,
    folder / "flow",
    train={"updates": 140, "batch_size": 12, "lr": 0.01, "warmup": 10, "ema": 0, "validations": 1},
    backbone={"width": 8, "depth": 3},
    settings={"target": "posterior", "steps": 5},
    quiet=True,
    fit_filter=False,
)
flow = ambiseg.load(folder / "flow")

# %%
# From noise to masks
# -------------------
# The model is a velocity field. Start with noise at time 0, follow the velocity, and arrive at a mask at time 1. All
# rows show the same image. They differ in the noise alone.

test = ambiseg.open_split(data, "test")
sample = test[13]
image = flow.config.normalization.stack([sample.image])
steps = 12

z = torch.randn(4, 1, 24, 24, generator=torch.Generator().manual_seed(0))
states = [z]
with torch.no_grad():
    for step in range(steps):
        time = torch.full((len(z),), step / steps)
        z = z + flow.model.velocity(image.expand(len(z), -1, -1, -1), z, time) / steps
        states.append(z)

chosen = (0, 3, 6, 9, 12)
figure, axes = plt.subplots(4, 1 + len(chosen), figsize=(9, 6), layout="constrained")
for row, noise in enumerate(axes):
    noise[0].imshow(sample.image[0], cmap="gray", vmin=-0.4, vmax=1.2)
    for cell, k in zip(noise[1:], chosen, strict=True):
        picture = cell.imshow(states[k][row, 0], cmap="gray", vmin=-1.5, vmax=1.5)
for cell, title in zip(axes[0], ["image", *(f"time {k / steps:.2f}" for k in chosen)], strict=True):
    cell.set_title(title, fontsize=10)
for cell in axes.flat:
    cell.set_axis_off()
plt.show()

# %%
# Two ways to get probabilities
# -----------------------------
# Take the masks whose probabilities you want: here those of the four readers. `samples` draws masks and counts for
# each one the nearest mode. `velocity` needs no samples. At time 0 the velocity contains the mean of all masks, and the
# probabilities are those with which the modes mix to that mean.

samples = list(test)
modes = ambiseg.MaskSet.stack([ambiseg.annotations_of(one, test.info.labels) for one in samples])


def probabilities(kind: str, draws: int) -> np.ndarray:
    settings = EstimateSettings(kind, draws=draws)
    generator = torch.Generator().manual_seed(0)
    images = [one.image for one in samples]
    return estimate_probabilities(modes, settings, images, flow, generator).masks.weights.numpy()


true = modes.weights.numpy()
estimates = {"true": true, "8 samples": probabilities("samples", 8), "velocity": probabilities("velocity", 8)}

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
places = np.arange(4)
for k, (name, values) in enumerate(estimates.items()):
    color = ["0.7", "tab:orange", "tab:blue"][k]
    axes.bar(places + 0.27 * (k - 1), values.mean(0), 0.25, label=name, color=color)
axes.set_xticks(places, sample.annotators)
axes.set(ylabel="mean of all test images", title="Probabilities of the four readers", ylim=(0, 0.6))
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, ncols=3)
plt.show()

# %%
# What they cost
# --------------
# Counting is noisy: with n samples, every probability is a multiple of 1/n. The velocity needs only a
# few draws. A draw costs one pass through the network, a sample costs ten. What is left is the error of the
# network, which has trained for a few seconds only.

counts = (1, 2, 4, 8)
figure, axes = plt.subplots(figsize=(5.4, 3.2), layout="constrained")
for kind, color in (("samples", "tab:orange"), ("velocity", "tab:blue")):
    errors = [np.abs(probabilities(kind, n) - true).sum(1).mean() / 2 for n in counts]
    axes.plot(counts, errors, "o-", color=color, label=kind)
axes.set(ylim=(0, None), xlabel="samples, or draws of noise", ylabel="total variation")
axes.set_xticks(counts)
axes.legend(frameon=False)
axes.set_title("Distance to the true probabilities, all test images", fontsize=11)
plt.show()
