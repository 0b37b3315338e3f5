"""
Data in memory, a loop of your own
==================================

A method is a module of PyTorch. This page makes images and masks in memory, trains a method in a loop of five lines,
and turns the model into a run, which all functions and commands read.
"""

import itertools
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.utils.data import DataLoader

import ambiseg
from ambiseg.data.batches import BatchOrder, LabelView
from ambiseg.data.simulators.lesions import simulate_lesions

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# Images and masks are any objects
# --------------------------------
# An item is an image, its masks and their weights: arrays here, and just as well tensors, pictures, or items of MONAI,
# TorchIO and Hugging Face. The splits are drawn from the one list.

lesions = simulate_lesions(150, size=24, seed=0)
items = [
    (lesion.image, dict(zip(lesion.annotators, lesion.masks, strict=True)), lesion.weights)
    for lesion in lesions
]
data = ambiseg.dataset(items, classes=["skin", "lesion"])
print(data)

# %%
# The loop
# --------
# `SplitStatistics` knows the normalisation. `LabelView` gives normalised images with their masks, `BatchOrder` an
# endless order in which every image comes once per epoch.

known = ambiseg.SplitStatistics.of(data["train"])
torch.manual_seed(0)
model = ambiseg.build(
    "mode-proposals", known.channels, data.info.labels, {"width": 16, "depth": 3}, preset="recommended"
)
view = LabelView(data["train"], known.normalization)
loader = DataLoader(view, batch_sampler=BatchOrder(len(view), 16))

steps, losses = 150, []
optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
for step, batch in enumerate(itertools.islice(loader, steps)):
    model.progress = step / steps
    loss = model.loss(batch.images, batch.annotations)["loss"]
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
    losses.append(loss.item())

figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.plot(losses)
axes.set(xlabel="step", ylabel="loss")
plt.show()

# %%
# From the model to a run
# -----------------------
# `save_run` writes a run folder and chooses on the validation images what predictions keep.

run = ambiseg.save_run(model, folder / "run", known, val=data["val"])
print(ambiseg.evaluate(run, data))

# %%
# The masks of a test image, with their probabilities:

sample = data["test"][0]
ambiseg.plot(sample.image, run.predict(sample.image), heading="Predicted")
plt.show()
ambiseg.plot(sample.image, ambiseg.annotations_of(sample, data.info.labels), heading="Annotated")
plt.show()
