"""How fast the demo's model trains and predicts on this machine; each ratio is against a baseline of the same
run.

    python benchmarks/speed.py [--threads 2] [--json]

Two things that are compared alternate, and the median of their times counts.

- training: one step of 32 images 64x64 with 8 masks each, bf16 + channels-last against float32 in the default
  order;
- norm: GroupNorm with groups of 16 channels against 8 groups, 32 x 16 x 64 x 64, bf16 + channels-last,
  forward and backward;
- latency: one 64x64 image through network, scores and probabilities, on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from ambiseg.engine.hardware import Hardware
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.mode_proposals import ModeProposalsSettings
from ambiseg.methods.mode_proposals.model import ModeProposals
from ambiseg.networks.settings import UNetSettings


def medians(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each action, taken in turns after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(repeats + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def demo_model() -> ModeProposals:
    """The model of ``ambiseg demo``."""
    torch.manual_seed(0)
    return ModeProposals(7, LabelSpace.binary(), UNetSettings(width=16), ModeProposalsSettings(proposals=16))


def training_step(hardware: Hardware) -> Callable[[], object]:
    """One optimiser step on random data."""
    model = hardware.place(demo_model())
    optimizer = torch.optim.AdamW(model.parameters())
    images = hardware.images(torch.randn(32, 7, 64, 64))
    annotations = MaskSet.uniform((torch.rand(32, 8, 64, 64) < 0.2).to(torch.uint8), LabelSpace.binary())

    def step() -> None:
        with hardware.autocast():
            loss = model.loss(images, annotations)["loss"]
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def norm(groups: int) -> Callable[[], object]:
    """Forward and backward of one GroupNorm."""
    layer = nn.GroupNorm(groups, 16).bfloat16()
    x = torch.randn(32, 16, 64, 64).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    return lambda: layer(x).backward(torch.ones_like(x))


def latency() -> Callable[[], object]:
    """Prediction of one image."""
    hardware = Hardware.choose(device="cpu")
    model = hardware.place(demo_model()).eval()
    image = hardware.images(torch.randn(1, 7, 64, 64))

    def predict() -> None:
        with torch.no_grad(), hardware.autocast():
            model.predict(image)

    return predict


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    step = medians(
        {
            "float32": training_step(Hardware("cpu", False, False)),
            "bf16 + channels-last": training_step(Hardware("cpu", True, True)),
        },
        repeats=7,
    )
    norms = medians({"8 groups": norm(8), "1 group of 16": norm(1)}, repeats=15)
    torch.set_num_threads(1)
    one = medians({"one image": latency()}, repeats=30)
    result = {
        "threads": arguments.threads,
        "bf16_hardware": Hardware.choose(device="cpu").bf16,
        "training_step_seconds": step,
        "training_speedup": step["float32"] / step["bf16 + channels-last"],
        "group_norm_seconds": norms,
        "group_norm_speedup": norms["8 groups"] / norms["1 group of 16"],
        "latency_one_thread_seconds": one["one image"],
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"training step, 32 images: float32 {step['float32']:.3f} s, bf16 + channels-last "
        f"{step['bf16 + channels-last']:.3f} s: {result['training_speedup']:.2f} x"
    )
    print(f"GroupNorm, 8 groups against 1 group of 16 channels: {result['group_norm_speedup']:.1f} x")
    print(f"one 64x64 image, one thread: {1000 * one['one image']:.1f} ms")


if __name__ == "__main__":
    main()
