"""Time of 16 masks of one 128x128 image for every method that samples, against 16 full passes of the same
model.

    python benchmarks/sampling_speed.py [--threads 2] [--json]

Sampling 16 masks at once and one mask 16 times alternate; the median of their times counts. Methods whose
samples share the network (probabilistic U-Net, SSN) should be far ahead, those that need a pass for each gain
by the batch alone.
"""

from __future__ import annotations

import argparse
import json

import torch

from ambiseg.engine.hardware import Hardware
from ambiseg.labels import LabelSpace
from ambiseg.methods import build
from ambiseg.networks.settings import UNetSettings
from speed import medians

METHODS = ("probabilistic-unet", "ssn", "image2image-vae", "dropout-unet")
SAMPLES = 16


def times(name: str, repeats: int) -> dict[str, float]:
    """Seconds of both ways."""
    torch.manual_seed(0)
    hardware = Hardware.choose(device="cpu")
    model = hardware.place(build(name, 1, LabelSpace.binary(), UNetSettings(width=32))).eval()
    image = hardware.images(torch.randn(1, 1, 128, 128))

    def draw(count: int) -> None:
        with torch.no_grad(), hardware.autocast():
            model.predict(image, count)

    def one_by_one() -> None:
        for _ in range(SAMPLES):
            draw(1)

    return medians({"at once": lambda: draw(SAMPLES), "one by one": one_by_one}, repeats)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {name: times(name, arguments.repeats) for name in METHODS}
    result = {
        "threads": arguments.threads,
        "samples": SAMPLES,
        "seconds": found,
        "ratio": {name: t["one by one"] / t["at once"] for name, t in found.items()},
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, t in found.items():
        print(
            f"{name}: {SAMPLES} masks at once {1000 * t['at once']:.0f} ms, one by one {1000 * t['one by one']:.0f} ms:"
            f" {result['ratio'][name]:.1f} x"
        )


if __name__ == "__main__":
    main()
