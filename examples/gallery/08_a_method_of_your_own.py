"""
A method of your own
====================

A method is a class with a loss and a prediction. The masks of this one lie within each other, like contour lines on a
map. It trains, predicts and evaluates like every other method.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import ambiseg
from ambiseg import LabelSpace, MaskSet, MethodSpec, Segmenter, UNetSettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.testing import check_method

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# Settings and class
# ------------------
# The network predicts the probability of every pixel. Of two classes, mask k of K holds the pixels whose probability is
# above 1 - k / (K + 1). All masks have the same weight, so on average a pixel has about the probability that was
# predicted.


@dataclass(frozen=True)
class ContourSettings:
    """Masks within each other, from one map of probabilities."""

    samples: int = 8
    """Number of masks K."""


class Contours(Segmenter):
    """Level sets of one map of pixel probabilities."""

    settings: ContourSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: ContourSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        self.g = build_backbone(in_channels, backbone)
        self.h = nn.Conv2d(self.g.out_channels, labels.channels, 1)

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Cross-entropy with every annotation, weighted by its probability."""
        logits = self.h(self.g(images)).float()
        masks = annotations.masks.unbind(1)
        errors = [self.labels.cross_entropy(logits, mask).flatten(1).mean(1) for mask in masks]
        return {"loss": (annotations.weights * torch.stack(errors, 1)).sum(1).mean()}

    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """The same masks every time: nothing is drawn at random."""
        count = samples or self.settings.samples
        probabilities = self.labels.probabilities(self.h(self.g(images)))
        below = self.labels.all_classes(probabilities, dim=1).cumsum(1)[:, None, :-1]
        levels = torch.arange(1, count + 1, device=images.device) / (count + 1)
        masks = (levels[None, :, None, None, None] > below).sum(2)
        return MaskSet.uniform(masks.to(torch.uint8), self.labels)


# %%
# Name and register it
# --------------------
# The spec says what the library must know before it builds a model. After `register`, the name works everywhere, also
# when a run is loaded.

SPEC = MethodSpec(
    name="contours",
    summary="level sets of one map of pixel probabilities",
    citation="@misc{contours, title = {An example}}",
    model=Contours,
    settings=ContourSettings,
    validation="ged",
)
if "contours" not in ambiseg.METHODS:
    ambiseg.register(SPEC)

# %%
# The library brings tests for every method. Here are three of them.

check_method(SPEC, ["valid_predictions", "any_image_size", "images_of_a_batch_do_not_see_each_other"])

# %%
# Train and predict
# -----------------

data = ambiseg.simulate("lesions", folder / "lesions.h5", 120)
ambiseg.fit(
    "contours",
    data,
    folder / "run",
    train={"updates": 100, "batch_size": 8, "lr": 0.005, "warmup": 10, "ema": 0, "validations": 1},
    backbone={"width": 8, "depth": 3},
    quiet=True,
)
run = ambiseg.load(folder / "run")

test = ambiseg.open_split(data, "test")
sample = test[2]
ambiseg.plot(
    sample.image,
    run.propose([sample.image]),
    ambiseg.annotations_of(sample, test.info.labels),
    title="Contours",
)
plt.show()

# %%
# What it can and cannot do
# -------------------------
# The mean of its masks is good. But a contour is rarely a shape that a reader drew, so HM IoU* stays below that of the
# annotation oracle.

evaluation = ambiseg.evaluate(run, data)
for name in ("dice_of_mean", "hm_iou_unique", "ged"):
    print(f"{name:14} contours {evaluation.all[name]:.2f}   oracle {evaluation.oracle[name]:.2f}")
