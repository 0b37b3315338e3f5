"""
A network of your own
=====================

Every method here builds on a network that you can exchange. It must map images to features of the same height and
width, and nothing else. This page compares two small networks that see more or less of their surroundings.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from torch import nn

import ambiseg
from ambiseg import UNetSettings

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# Register a function
# -------------------
# It gets the number of image channels and the settings of the network. Its name is then a value of `backbone.kind`,
# in Python and on the command line.


def layers(channels: int, width: int, dilations: tuple[int, ...]) -> nn.Module:
    """Convolutions whose pixels see the further, the greater the dilations are."""
    parts: list[nn.Module] = []
    for before, dilation in zip([channels] + [width] * len(dilations), dilations, strict=False):
        parts += [nn.Conv2d(before, width, 3, padding=dilation, dilation=dilation), nn.SiLU()]
    return nn.Sequential(*parts)


def near_sighted(channels: int, settings: UNetSettings) -> nn.Module:
    return layers(channels, settings.width, (1, 1))


def far_sighted(channels: int, settings: UNetSettings) -> nn.Module:
    return layers(channels, settings.width, (1, 2, 4, 8))


ambiseg.register_network("near-sighted", near_sighted, overwrite=True)
ambiseg.register_network("far-sighted", far_sighted, overwrite=True)

# %%
# Train the same method with both
# -------------------------------
# A module can also be passed as it is, `backbone=my_module`: then it keeps its weights, for example pre-trained ones.

data = ambiseg.simulate("lesions", folder / "lesions.h5", 120, size=24)
runs = {}
for kind in ("near-sighted", "far-sighted"):
    ambiseg.fit(
        "mode-proposals",
        data,
        folder / kind,
        train={"updates": 80, "batch_size": 4, "lr": 0.005, "warmup": 10, "ema": 0, "validations": 1},
        backbone={"kind": kind, "width": 16},
        settings={"proposals": 6},
        quiet=True,
        fit_filter=False,
    )
    runs[kind] = ambiseg.load(folder / kind)

# %%
# What a pixel sees
# -----------------
# The gradient of the features in the middle of the image tells which pixels they depend on. The near-sighted network
# sees a few pixels around, so it can hardly tell the satellite from the lesion.

test = ambiseg.open_split(data, "test")
sample = test[5]
figure, axes = plt.subplots(2, 5, figsize=(10, 4.4), layout="constrained")
for row, (kind, run) in zip(axes, runs.items(), strict=True):
    image = run.config.normalization.stack([sample.image]).requires_grad_()
    run.model.g(image)[0, :, 12, 12].square().sum().backward()
    gradient = image.grad[0, 0].abs()
    row[0].imshow(gradient / gradient.max(), cmap="Blues", vmin=0, vmax=0.5)
    row[0].set_ylabel(kind)
    row[0].set_title("what the middle sees", fontsize=10)
    masks = run.propose([sample.image]).top(4)
    for cell, mask, weight in zip(row[1:], masks.masks[0], masks.weights[0], strict=False):
        cell.imshow(sample.image[0], cmap="gray", vmin=-0.4, vmax=1.2)
        cell.imshow(mask, cmap="autumn_r", vmin=0, vmax=1, alpha=0.5 * mask.float())
        cell.set_title(f"{weight:.0%}", fontsize=10)
for cell in axes.flat:
    cell.set(xticks=[], yticks=[])
plt.show()

# %%
# Which one is better?
# --------------------

for kind, run in runs.items():
    found = ambiseg.evaluate(run, data, bootstrap=None).all
    print(f"{kind}: HM IoU* {found['hm_iou_unique']:.2f}, GED² {found['ged']:.2f}")
