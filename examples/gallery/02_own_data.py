"""
Your own images and annotators
==============================

Write images and masks from memory into a data set, each mask with the name of its annotator and a probability.
Check the data set and look at where the annotators disagree.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ambiseg
from ambiseg.data.check import check_dataset

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# Images and masks as arrays
# --------------------------
# Here are twelve images of a spot with a soft border. Three annotators draw the border at different brightness. The
# third one is there for every second image only: images may have different numbers of masks.

rng = np.random.default_rng(0)
rows, columns = np.mgrid[:48, :64]
thresholds = {"anna": 0.3, "ben": 0.55, "cleo": 0.8}


def make_sample(index: int) -> ambiseg.Sample:
    y, x = rng.uniform(18, 30), rng.uniform(20, 44)
    height, width = rng.uniform(8, 14, 2)
    spot = np.exp(-(((rows - y) / height) ** 2) - ((columns - x) / width) ** 2)
    image = spot + 0.05 * rng.standard_normal(spot.shape)
    names = list(thresholds) if index % 2 == 0 else ["anna", "ben"]
    masks = np.stack([spot > thresholds[name] * rng.uniform(0.8, 1.2) for name in names])
    return ambiseg.Sample(
        id=f"spot-{index:02}",
        image=image[None].astype(np.float32),  # channels, height, width
        masks=masks.astype(np.uint8),  # annotators, height, width
        weights=np.full(len(names), 1 / len(names)),  # probability of each mask
        annotators=tuple(names),
    )


samples = [make_sample(index) for index in range(12)]
splits = {"train": samples[:8], "val": samples[8:10], "test": samples[10:]}

# %%
# Write the data set
# ------------------
# `DatasetInfo` is the content of `dataset.yaml`: names of the classes, which augmentations the masks survive, source
# and licence.

info = ambiseg.DatasetInfo(
    name="spots",
    labels=ambiseg.LabelSpace.binary("spot"),
    augment={"flip": True, "rotate": True, "scale": True, "intensity": False},
)
data = ambiseg.write_dataset(folder / "spots", splits, info)

for path in sorted((data / "test").rglob("*.*")):
    print(path.relative_to(data))

# %%
# That is the split `test`: one file for each image, and one for each mask. You can also make such a folder yourself,
# with images as PNG, TIFF, NIfTI or NumPy files. If the name ends with `.h5`, the same function writes one packed
# file, which is faster to read.

packed = ambiseg.write_dataset(folder / "spots.h5", splits, info)
same = ambiseg.open_split(packed, "test").digest() == ambiseg.open_split(data, "test").digest()
print("the same content:", same)

# %%
# Check it
# --------
# The check reads everything and lists all problems at once, before any training.

report = check_dataset(data)
print("ready to train on:", report.ok)
for summary in report.summaries:
    print(f"{summary.split}: {summary.images} images, {summary.annotations} masks")

# %%
# `describe` measures how far the annotators disagree. An IoU of 1 between two annotators means that they agree.

description = ambiseg.describe(data)
for split in description.splits:
    print(f"{split.summary.split}: IoU of two annotators {split.disagreement['pairwise_iou']:.2f}")

# %%
# Look at it
# ----------
# Above are the outlines of all annotators, below is the entropy of each pixel: bright where they disagree.

figure, axes = plt.subplots(2, 4, figsize=(10, 4.2), layout="constrained")
colors = {"anna": "tab:orange", "ben": "tab:cyan", "cleo": "tab:red"}
for above, below, sample in zip(*axes, ambiseg.open_split(data, "train"), strict=False):
    above.imshow(sample.image[0], cmap="gray", vmin=0, vmax=1)
    for name, mask in zip(sample.annotators, sample.masks, strict=True):
        above.contour(mask, [0.5], colors=colors[name], linewidths=2)
    above.set_title(f"{sample.id}: {len(sample.masks)} annotators", fontsize=10)
    masks = ambiseg.annotations_of(sample, info.labels)
    picture = below.imshow(masks.entropy()[0], cmap="magma", vmin=0, vmax=np.log(2))
for cell in axes.flat:
    cell.set_axis_off()
figure.colorbar(picture, ax=axes, label="entropy in nats", shrink=0.5, anchor=(0, 0))
handles = [plt.Line2D([], [], color=color, linewidth=2, label=name) for name, color in colors.items()]
figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
plt.show()
