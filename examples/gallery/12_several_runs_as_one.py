"""
Several runs as one
===================

Runs of different methods or seeds make different mistakes. A mixture is the union of their masks, with a weight for
each run. The weights are fitted on validation images, so a run that adds nothing gets the weight zero.
"""

# sphinx_gallery_thumbnail_number = 2

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import ambiseg
from ambiseg.engine.run import fit_mixture, mixed

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# Two runs
# --------

data = ambiseg.simulate("lesions", folder / "lesions.h5", 200, size=24)
train = {"batch_size": 8, "warmup": 10, "ema": 0, "validations": 1}
methods = {
    "mode-proposals": {"train": {**train, "updates": 70, "lr": 0.005}, "settings": {"proposals": 6}},
    "ssn": {
        "train": {**train, "updates": 160, "lr": 0.01},
        "settings": {"rank": 6, "antithetic": True, "mean_pretraining": 0.3},
    },
}
runs = {}
for method, words in methods.items():
    network = {"width": 16, "depth": 2}
    ambiseg.fit(method, data, folder / method, backbone=network, quiet=True, fit_filter=False, **words)
    runs[method] = ambiseg.load(folder / method)

# %%
# The best weights
# ----------------
# The mean of GED² over images is a quadratic function of the weights, so its minimum is found exactly. On the command line
# the same is `ambiseg mix`.

fit = fit_mixture(list(runs.values()), ambiseg.open_split(data, "val"))
weights = fit.weights()
for method, weight in zip(runs, weights, strict=True):
    print(f"{method}: weight {weight:.2f}")

shares = np.linspace(0, 1, 51)
figure, axes = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
axes.plot(shares, [fit.ged((share, 1 - share)) for share in shares])
axes.plot(weights[0], fit.ged(weights), "o", color="tab:orange", label="fitted")
axes.set(xlabel="weight of mode-proposals", ylabel="mean GED² on validation images")
axes.legend(frameon=False)
plt.show()

# %%
# Use the mixture
# ---------------
# `mixed` gives a run like any other: it predicts and can be evaluated. A mixture has many masks, so keep a few that
# stand for all of them, with `PredictSettings(top=...)`.

mixture = mixed(list(runs.values()), weights)
evaluations = {
    name: ambiseg.evaluate(run, data, bootstrap=None) for name, run in {**runs, "mixture": mixture}.items()
}
for name, evaluation in evaluations.items():
    print(f"{name:15} GED² {evaluation.all['ged']:.3f}, HM IoU* {evaluation.all['hm_iou_unique']:.3f}")

test = ambiseg.open_split(data, "test")
sample = test[13]
found = mixture.predict(sample.image, ambiseg.PredictSettings(top=6), torch.Generator().manual_seed(0))
ambiseg.plot(sample.image, found, ambiseg.annotations_of(sample, test.info.labels), title="Mixture")
plt.show()
