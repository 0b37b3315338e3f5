"""How much faster each hardware setting makes a training step here, and how often the calibration takes it.

    python benchmarks/hardware_choice.py [--methods NAME ...] [--widths 16 32] [--precision auto] [--repeats 5]
                                          [--seconds 3] [--json]

Every repeat calibrates each method and width once, as before a training, on 64x64 images in batches of
16. The speed of a setting is relative to the rule that decides without measuring, the first row of each table: its median
and range over the repeats. ``--precision 32`` is a machine that does not compute in bfloat16, and
``ONEDNN_MAX_CPU_ISA=AVX512_CORE`` or ``AVX2`` before the command one with older kernels.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ambiseg.data.batches import Batch
from ambiseg.engine.machine.calibration import Calibration, calibrate
from ambiseg.engine.machine.cores import busy_cores, thread_counts
from ambiseg.engine.machine.hardware import Hardware, machine_name
from ambiseg.engine.machine.hardware_choice import SECONDS
from ambiseg.engine.presets import resolve
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build
from ambiseg.methods.base import Segmenter

LABELS = LabelSpace.binary()
IMAGES, CHANNELS, SIDE, MASKS = 16, 3, 64, 4


def model_of(method: str, width: int) -> Segmenter:
    """A method with its recommended settings, halfway through its training."""
    torch.manual_seed(0)
    _, backbone, settings = resolve(METHODS[method])
    model = build(method, CHANNELS, LABELS, replace(backbone, width=width), settings)
    model.progress = 0.5
    return model


def random_batch(images: int = IMAGES, side: int = SIDE) -> Batch:
    """Noise with smooth masks."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(images, MASKS, 8, 8, generator=generator)
    fine: Tensor = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    noise = torch.randn(images, CHANNELS, side, side, generator=generator)
    masks = MaskSet.uniform((fine > 0.3).to(torch.uint8), LABELS)
    return Batch(noise, masks, tuple(map(str, range(images))))


def summary(found: list[Calibration]) -> dict[str, Any]:
    """Speeds of the candidates over the repeats, in how many each was timed, and in how many it was taken."""
    speeds: dict[str, list[float]] = defaultdict(list)
    problems: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        for timing in one.timings:
            speeds[timing.name] += [timing.speed] * bool(timing.speed)
            problems[timing.name].update([timing.problem] * bool(timing.problem))
    taken = Counter(one.best.name for one in found)
    rows = {
        name: {
            "speed": round(statistics.median(values), 2) if values else None,
            "range": [round(min(values), 2), round(max(values), 2)] if values else None,
            "timed": len(values),
            "taken": taken[name],
            "left_out": dict(problems[name]),
        }
        for name, values in speeds.items()
    }
    return {
        "images": [one.images for one in found],
        "seconds": [one.seconds for one in found],
        "settings": rows,
    }


def table(name: str, found: dict[str, Any]) -> str:
    """One method and width in lines of text."""
    lines = [f"\n{name}", f"{'setting':<36}{'speed':>7}{'range':>14}{'timed':>7}{'taken':>7}  left out"]
    for setting, row in found["settings"].items():
        span = "" if row["range"] is None else "{:.2f}-{:.2f}".format(*row["range"])
        why = ", ".join(f"{what} ({count})" for what, count in row["left_out"].items())
        lines.append(
            f"{setting:<36}{row['speed'] or '':>7}{span:>14}{row['timed']:>7}{row['taken']:>7}  {why}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=["mode-proposals", "ssn"], choices=list(METHODS))
    parser.add_argument("--widths", nargs="+", type=int, default=[16, 32])
    parser.add_argument("--precision", default="auto", choices=["auto", "32", "tf32", "bf16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each calibration")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    candidates = Hardware.candidates(options.precision, counts=thread_counts())
    device = candidates[0].device
    busy, batch = busy_cores(), random_batch()
    models = {
        f"{method}, width {width}": model_of(method, width)
        for method in options.methods
        for width in options.widths
    }
    found: dict[str, list[Calibration]] = {name: [] for name in models}
    for _ in range(options.repeats):
        for name, model in models.items():
            found[name].append(calibrate(model, batch, candidates, options.seconds))
    results = {name: summary(several) for name, several in found.items()}
    facts = {
        "machine": machine_name(device),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "others": round(busy(), 2),
        "repeats": options.repeats,
        "limit": options.seconds,
    }
    if options.json:
        print(json.dumps({**facts, "results": results}, indent=2))
        return
    print(", ".join(f"{name}: {value}" for name, value in facts.items()))
    for name, result in results.items():
        print(table(name, result))


if __name__ == "__main__":
    main()
