"""Time of one training step of MoSE, all samples at once against one expert, one sample and one pair after
another.

    python benchmarks/mose_speed.py [--threads 1] [--repeats 5] [--width 16] [--results docs/results/mose-speed.json]

4 experts of 4 samples each, random data of the shapes of two benchmarks (`SHAPES`), a U-Net of 16 channels,
in the number format and layout that training chooses here, or that ``--precision`` names. The plain way runs
the fusion and the last layers once for each sample, and computes the cost of each pair on its own; the U-Net,
which both run once, is part of both times, and is also timed alone. Both ways have the same loss (checked
without gradients, to the precision of the format), alternate, and the median of their times counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ambiseg.engine.hardware import Hardware
from ambiseg.engine.run_folder import write_json
from ambiseg.labels import LabelSpace
from ambiseg.losses.transport import capped_coupling
from ambiseg.maskset import MaskSet
from ambiseg.methods.mose.model import MoSE, divergence, pairwise_cost
from ambiseg.networks.settings import UNetSettings
from speed import medians


class Shape(NamedTuple):
    """What a batch looks like."""

    images: int
    channels: int
    size: tuple[int, int]
    masks: int
    labels: LabelSpace


SHAPES = {
    "lung nodules": Shape(16, 1, (64, 64), 4, LabelSpace.binary()),
    "class flips with twins": Shape(8, 14, (48, 64), 32, LabelSpace.of_classes(16)),
}
"""As `mose.py` trains on them."""


def plain_loss(model: MoSE, images: Tensor, annotations: MaskSet) -> Tensor:
    """The loss of `MoSE.loss`, written as loops."""
    encoded, u_d, log_pi = model._encoded(images)
    draws = model.settings.draws
    z = model.latents(torch.arange(model.settings.experts).repeat_interleave(draws).expand(len(images), -1))
    rows = []
    for i in range(z.shape[1]):
        logits = model.experts.head(model.experts.fuse(u_d, z[:, i : i + 1]))[:, None]
        pairs = [
            pairwise_cost(model.cost, logits, annotations.masks[:, j : j + 1], model.labels)[:, 0, 0]
            for j in range(annotations.masks.shape[1])
        ]
        rows.append(torch.stack(pairs, 1))
    cost = torch.stack(rows, 1)
    coupling = capped_coupling(cost, annotations.weights, model.cap)
    received = coupling.sum(2).view(len(images), -1, draws).sum(2)
    return ((coupling * cost).sum((1, 2)) + model.settings.beta * divergence(received, log_pi)).mean()


def measure(shape: Shape, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step either way and of its U-Net, and their ratios."""
    torch.manual_seed(0)
    hardware = Hardware.choose(arguments.precision, device="cpu")
    model = hardware.place(MoSE(shape.channels, shape.labels, UNetSettings(width=arguments.width)))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    images = hardware.images(torch.randn(shape.images, shape.channels, *shape.size))
    masks = torch.randint(shape.labels.classes, (shape.images, shape.masks, *shape.size), dtype=torch.uint8)
    annotations = MaskSet.uniform(masks, shape.labels)

    def at_once() -> Tensor:
        return model.loss(images, annotations)["loss"]

    def one_by_one() -> Tensor:
        return plain_loss(model, images, annotations)

    def seeded(loss: Callable[[], Tensor]) -> Tensor:
        torch.manual_seed(1)
        return loss()

    def step(loss: Callable[[], Tensor]) -> None:
        optimiser.zero_grad()
        with hardware.autocast():
            value = loss()
        torch.autograd.backward(value)
        optimiser.step()

    with torch.no_grad():
        torch.testing.assert_close(seeded(at_once), seeded(one_by_one))
    times = medians(
        {
            "at once": lambda: step(at_once),
            "one by one": lambda: step(one_by_one),
            "U-Net alone": lambda: step(lambda: model.g(images).mean()),
        },
        arguments.repeats,
    )
    without = {name: times[name] - times["U-Net alone"] for name in ("one by one", "at once")}
    ratio = {
        "step": times["one by one"] / times["at once"],
        "without the U-Net": without["one by one"] / without["at once"],
    }
    return {"bf16": hardware.bf16, "images": shape.images, "seconds": times, "ratio": ratio}


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=16, help="channels of the U-Net")
    parser.add_argument("--precision", choices=("auto", "32", "bf16"), default="auto")
    parser.add_argument("--results", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {name: measure(shape, arguments) for name, shape in SHAPES.items()}
    if arguments.results is not None:
        write_json(arguments.results, {"threads": arguments.threads, "data": found})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
