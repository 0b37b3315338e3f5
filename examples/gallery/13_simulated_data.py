"""
Simulated data
==============

Three simulators make data whose probabilities are known exactly: fires, shapes of a Markov chain, and lesions. They
need no download, so they are good for tests of a method.
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt
import numpy as np

import ambiseg
from ambiseg.data.simulators.lesions import READERS, simulate_lesions
from ambiseg.data.simulators.markov_shapes import (
    markov_shapes_covariance,
    markov_shapes_entropy,
    markov_shapes_masks,
    markov_shapes_probabilities,
)
from ambiseg.data.simulators.wildfire import CHANNELS, simulate_wildfire

# %%
# Fires
# -----
# Seven channels show a landscape and the area that burns already. Where the fire goes depends on the wind direction,
# which the image does not show. The eight outcomes are computed with published models of fire spread.

fire = simulate_wildfire(seed=0, index=5)
figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), layout="constrained")
for cell, channel, name in zip(axes.flat, fire.image, CHANNELS, strict=False):
    picture = cell.imshow(channel, cmap="viridis")
    cell.set_title(name.replace("_", " "), fontsize=10)
    figure.colorbar(picture, ax=cell, shrink=0.8)
for cell in axes.flat:
    cell.set_axis_off()
plt.show()

# %%
# With the probabilities `skewed`, each outcome is twice as probable as the one before. They can also be `uniform`, or
# `prevailing`: then an eighth channel tells which wind is probable.

outcomes = ambiseg.annotations_of(fire, ambiseg.LabelSpace.binary("burned"))
ambiseg.plot(fire.image, outcomes, channels=CHANNELS, heading="Outcomes")
plt.show()

# %%
# MarkovShapes
# ------------
# Each quadrant of an image is empty or shows a square, a plus or a dot. The four are a Markov chain. There are 256
# masks, and their probabilities, entropy and covariance are known exactly. The image tells nothing. So this is a test
# of how well a method learns a distribution.

masks, probabilities = markov_shapes_masks(20), markov_shapes_probabilities()
order = np.argsort(-probabilities, kind="stable")
chosen = [*order[:4], *order[126:130], *order[-4:]]
figure, axes = plt.subplots(2, 6, figsize=(9, 3.6), layout="constrained")
for cell, k in zip(axes.flat, chosen, strict=True):
    cell.imshow(masks[k], cmap="Greys", vmin=0, vmax=1.4)
    cell.set(xticks=[], yticks=[])
    cell.set_title(f"{100 * probabilities[k]:.2f} %", fontsize=10)
figure.suptitle(
    "Four of the most probable masks, four in the middle, four of the least probable", fontsize=10
)
plt.show()

# %%
# No model can need fewer bits per image than the entropy.

print(f"entropy: {markov_shapes_entropy():.2f} bits per image")
covariance = markov_shapes_covariance()
print(f"rank of the covariance of the pixels: {np.linalg.matrix_rank(covariance)}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.plot(np.sort(probabilities)[::-1] * 100)
left.axhline(100 / 256, color="0.6", linestyle="--", label="uniform")
left.set(xlabel="masks, most probable first", ylabel="probability in %", title="256 masks")
left.legend(frameon=False)
picture = right.imshow(covariance, cmap="RdBu_r", vmin=-0.25, vmax=0.25)
right.set(xlabel="pixel", ylabel="pixel", title="covariance of 10 x 10 pixels")
figure.colorbar(picture, ax=right)
plt.show()

# %%
# Lesions
# -------
# Four readers mark a small lesion in four ways. The fainter it is, the more often nothing is marked. A tiny network
# learns this in seconds, so most pages of this gallery use it.

lesions = list(simulate_lesions(400))
contrast = [lesion.image[0][lesion.masks[0] > 0].mean() for lesion in lesions]
weights = np.stack([lesion.weights for lesion in lesions])

figure, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained", width_ratios=(1, 1, 1, 1, 1.8))
for cell, lesion in zip(axes[:4], lesions, strict=False):
    cell.imshow(lesion.image[0], cmap="gray", vmin=-0.3, vmax=1.2)
    for mask, color in zip(lesion.masks[:3], ("tab:orange", "tab:cyan", "tab:red"), strict=True):
        cell.contour(
            mask, [0.5], colors=color, linewidths=1.5, linestyles="--" if color == "tab:red" else "-"
        )
    cell.set_axis_off()
for k, color in enumerate(("tab:orange", "tab:cyan", "tab:red", "0.5")):
    axes[4].plot(contrast, weights[:, k], ".", color=color, label=READERS[k], markersize=3)
axes[4].set(xlabel="brightness of the core", ylabel="probability")
axes[4].legend(frameon=False, fontsize=8, markerscale=3)
plt.show()

# %%
# As a data set on disk
# ---------------------
# `simulate` writes any of them with splits, ready for training: `ambiseg.simulate("wildfire", "fires.h5")`.
