"""
First steps
===========

Simulate images that four readers mark in different ways. Train a network on them for a few seconds.
Then predict all plausible masks of a new image, each with its probability.
"""

# sphinx_gallery_thumbnail_number = 2

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import ambiseg

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# Data
# ----
# `simulate` writes a data set with the splits `train`, `val` and `test`. Each image shows a lesion with a rim, and a
# satellite beside it. The readers mark the core, the core with its rim, everything, or nothing. The fainter the
# lesion, the more probable is the empty mask.

data = ambiseg.simulate("lesions", folder / "lesions.h5", 200)
test = ambiseg.open_split(data, "test")
sample = test[7]

readers = ambiseg.annotations_of(sample, test.info.labels)
ambiseg.plot(sample.image, readers, heading="Readers")
plt.show()

# %%
# Train
# -----
# `fit` trains a method and writes a run folder. These settings are for a few seconds on a CPU. For your own data,
# leave them out and give a time instead: `train={"minutes": 30}`. At the end, `fit` chooses on validation images which
# masks predictions keep.

result = ambiseg.fit(
    "mode-proposals",
    data,
    folder / "run",
    train={"updates": 120, "batch_size": 8, "lr": 0.005, "warmup": 10, "ema": 0, "validations": 1},
    backbone={"width": 8, "depth": 3},
    settings={"proposals": 6},
    quiet=True,
)
print(result.filter)

# %%
# Predict
# -------
# `load` reads the run folder. `predict` takes a path or an array and returns a `MaskSet`: masks with probabilities,
# the most probable first.

run = ambiseg.load(folder / "run")
proposals = run.predict(sample.image)
for probability, area in zip(proposals.weights[0], proposals.areas()[0], strict=True):
    print(f"probability {probability:.2f}, area {area:.1%} of the image")

# %%
# The picture shows the image, the expected mask and the disagreement. Below it are all predicted masks, and the masks
# of the readers to compare with.

ambiseg.plot(sample.image, proposals, readers)
plt.show()

# %%
# Evaluate
# --------
# `evaluate` compares predictions and annotations on all test images. The annotation oracle draws as many masks from
# the annotations themselves, so it shows which values are within reach.

evaluation = ambiseg.evaluate(run, data)
print(f"{'':24}{'all masks':>12}{'kept masks':>12}{'oracle':>12}")
for name in ("hm_iou_unique", "ged", "total_variation"):
    print(f"{name:24}" + "".join(f"{column[name]:12.3f}" for column in evaluation.columns().values()))
