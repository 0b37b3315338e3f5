"""
Ambiguous data from a semantic data set
=======================================

Take any data set with one label map per image, and say which of its classes flip. Each of them is switched on or off
with its own probability. Every combination is a right answer whose probability is known.
"""

# sphinx_gallery_thumbnail_number = 2

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

import ambiseg
from ambiseg.data.class_flips import ClassFlips

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# A semantic data set
# -------------------
# These toy streets have the classes sky, building, road and car. Each image has one label map, as usual.

names = ("sky", "building", "road", "car")
colors = np.array([[110, 170, 230], [150, 110, 90], [120, 120, 130], [200, 40, 60]]) / 255
rng = np.random.default_rng(0)


def street(index: int) -> ambiseg.Sample:
    label_map = np.zeros((24, 32), np.uint8)
    horizon = rng.integers(12, 16)
    for left in range(0, 32, 8):
        label_map[rng.integers(3, 10) : horizon, left : left + rng.integers(5, 9)] = 1
    label_map[horizon:] = 2
    x, width = rng.integers(3, 20), rng.integers(6, 10)
    label_map[horizon - 1 : horizon + 4, x : x + width] = 3
    noisy = colors[label_map] + 0.05 * rng.standard_normal((24, 32, 3))
    image = np.moveaxis(noisy.clip(0, 1), 2, 0).astype(np.float32)
    return ambiseg.Sample(f"street-{index:03}", image, label_map[None], np.ones(1), ("labels",))


streets = [street(index) for index in range(120)]

# %%
# Say what flips
# --------------
# The road is marked in 25 % of all cases, a car in 60 %, independently of each other. The label maps are stored once.
# The masks are made when the data are read. In `dataset.yaml` the same is written as
# `flips: {road: 0.25, car: 0.6}`.

info = ambiseg.DatasetInfo(
    name="streets",
    labels=ambiseg.LabelSpace(names),
    flips=ClassFlips({"road": 0.25, "car": 0.6}),
    augment={"flip": True, "quarter-turns": False, "scale": False, "intensity": True},
)
splits = {"train": streets[:96], "val": streets[96:108], "test": streets[108:]}
data = ambiseg.write_dataset(folder / "streets.h5", splits, info)

# %%
# Every combination is a mask
# ---------------------------
# The name of a mask says which classes are on: `flip-01` means that the road is off and the car is on.

test = ambiseg.open_split(data, "test")
sample = test[0]
figure, axes = plt.subplots(1, 6, figsize=(11, 2.2), layout="constrained")
axes[0].imshow(np.moveaxis(sample.image, 0, 2))
axes[0].set_title("image")
axes[1].imshow(test.stored[0].masks[0], cmap=ListedColormap(colors), vmin=0, vmax=3)
axes[1].set_title("stored labels")
for cell, mask, weight, name in zip(axes[2:], sample.masks, sample.weights, sample.annotators, strict=True):
    cell.imshow(mask, cmap="gray", vmin=0, vmax=1)
    cell.set_title(f"{name}: {weight:.0%}")
for cell in axes:
    cell.set_axis_off()
plt.show()

# %%
# Train on it
# -----------
# Training sees an ordinary ambiguous data set. With `train={"labels": "single"}` it would see one random combination
# of each image at a time.

ambiseg.fit(
    "mode-proposals",
    data,
    folder / "run",
    train={"updates": 100, "batch_size": 8, "lr": 0.005, "warmup": 10, "ema": 0, "validations": 1},
    backbone={"width": 8, "depth": 3},
    settings={"proposals": 6},
    quiet=True,
)
run = ambiseg.load(folder / "run")
truth = ambiseg.annotations_of(sample, test.info.labels)
ambiseg.plot(sample.image, run.predict(sample.image), truth)
plt.show()
