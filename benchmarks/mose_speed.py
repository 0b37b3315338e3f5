"""Time of one training step of MoSE, all samples at once against one expert, one sample and one pair after another.

    python benchmarks/mose_speed.py [--threads 2] [--repeats 5] [--images 16] [--width 16] [--json]

4 experts of 4 samples each, 16 images 64x64 with 4 masks each, a U-Net of 16 channels, in the number
format and layout that training chooses here, or that ``--precision`` names. The plain way runs the
fusion and the last layers once for each sample, and computes the cost of each pair on its own; the U-Net, which both run
once, is part of both times, and is also timed alone. Both ways have the same loss (checked in float32), alternate, and the
median of their times counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor

from ambiseg.engine.hardware import Hardware
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.mose import MoSE, divergence, pairwise_cost
from ambiseg.methods.transport import capped_coupling
from ambiseg.networks.settings import UNetSettings
from speed import medians

SIZE, MASKS = 64, 4


def plain_loss(model: MoSE, images: Tensor, annotations: MaskSet) -> Tensor:
    """The loss of `MoSE.loss`, written as loops."""
    encoded, u_d, log_pi = model._encoded(images)
    draws = model.settings.draws
    z = model.latents(torch.arange(model.settings.experts).repeat_interleave(draws).expand(len(images), -1))
    rows = []
    for i in range(z.shape[1]):
        logits = model.experts.head(model.experts.fuse(u_d, z[:, i : i + 1]))[:, None]
        pairs = [
            pairwise_cost("iou", logits, annotations.masks[:, j : j + 1], model.labels)[:, 0, 0]
            for j in range(annotations.masks.shape[1])
        ]
        rows.append(torch.stack(pairs, 1))
    cost = torch.stack(rows, 1)
    coupling = capped_coupling(cost, annotations.weights, model.cap)
    received = coupling.sum(2).view(len(images), -1, draws).sum(2)
    return ((coupling * cost).sum((1, 2)) + model.settings.beta * divergence(received, log_pi)).mean()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--width", type=int, default=16, help="channels of the U-Net")
    parser.add_argument("--precision", choices=("auto", "32", "bf16"), default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    labels = LabelSpace.binary()
    hardware = Hardware.choose(arguments.precision, device="cpu")
    model = hardware.place(MoSE(1, labels, UNetSettings(width=arguments.width)))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    images = hardware.images(torch.randn(arguments.images, 1, SIZE, SIZE))
    masks = (torch.rand(arguments.images, MASKS, SIZE, SIZE) < 0.2).to(torch.uint8)
    annotations = MaskSet.uniform(masks, labels)

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
        value.backward()
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
    ratio = {
        "step": times["one by one"] / times["at once"],
        "without the U-Net": (times["one by one"] - times["U-Net alone"])
        / (times["at once"] - times["U-Net alone"]),
    }
    if arguments.json:
        print(
            json.dumps(
                {"threads": arguments.threads, "bf16": hardware.bf16, "seconds": times, "ratio": ratio},
                indent=2,
            )
        )
        return
    seconds = ", ".join(f"{name} {value:.3f} s" for name, value in times.items())
    print(f"training step, {arguments.images} images: {seconds}")
    print(", ".join(f"{name}: {value:.2f} x" for name, value in ratio.items()))


if __name__ == "__main__":
    main()
