"""What one training step of each method is made of, on a CPU.

    python benchmarks/step.py --out docs/results/step.json [--methods NAME ...] [--images 2] [--size 64] [--smoke]

``methods``: every method with the network of its paper (presets of the suite ``paper`` for lung nodules), in float32 on
one thread, random images with four masks each. For each: milliseconds of processor time of a step (loss, backward,
optimiser); the same without `ambiseg.engine.machine.allocator` and with ``train.checkpointing``, in turns, as a ratio;
the share of the step in convolutions, by torch.profiler; their floating-point operations per second over those of a
matrix product on this machine (Winograd convolutions can pass 1); the most MiB that tensors of a step took.

``lines``: the flow of ATFM at its default settings, with as many lines together as it takes by itself, against all.

A row is written when it is measured; rows that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ambiseg.engine.machine.allocator import keep_freed_memory, return_freed_memory
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.suite import load_suite
from ambiseg.maskset import MaskSet
from ambiseg.methods import build
from ambiseg.methods.atfm import model as atfm
from ambiseg.methods.base import Segmenter
from ambiseg.networks.settings import UNetSettings
from gpu_parts import BINARY, FULL, TINY, Model, blobs, counting
from speed import stepper

Action = Callable[[], object]
CPU = Hardware("cpu", False, False)
PRODUCT = 1024
"""Rows and columns of the matrix product."""


def seconds(action: Action) -> float:
    """Processor seconds of an action: other programs of the machine count little."""
    began = time.process_time()
    action()
    return time.process_time() - began


def in_turns(ways: Mapping[str, tuple[Action, Action]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, after what it does first and a step in it, since what it does first may free memory; the
    first turn does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, (first, action) in ways.items():
            first()
            action()
            took = seconds(action)
            if turn:
                found[name].append(took)
    return found


def ratio(one: list[float], other: list[float]) -> float:
    """Median over the turns."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def product_rate(size: int) -> float:
    """FLOP/s of a float32 matrix product, the best of several."""
    a = torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ a) for _ in range(9))


def convolutions(action: Action) -> tuple[float, float]:
    """FLOP of convolutions, and their share of all time."""
    with counting() as counter:
        action()
    flop = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "convolution" in str(op))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        action()
    rows = profiler.key_averages()
    total = sum(row.self_cpu_time_total for row in rows)
    spent = sum(row.self_cpu_time_total for row in rows if "conv" in row.key and row.key.startswith("aten::"))
    return flop, spent / total


def peak_mib(action: Action, model: Segmenter) -> float:
    """Most MiB that tensors of a step took together, gradients included."""
    model.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    events = profiler.profiler.kineto_results.events()
    held = most = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        held += size
        most = max(most, held)
    return most / 2**20


def measured(one: Model, repeats: int, size: int) -> dict[str, Any]:
    """A row of ``methods``."""
    step = one.stepper()
    checkpointing = one.model.checkpoint_activations

    def kept(again: bool) -> None:
        keep_freed_memory()
        checkpointing(again)

    def default() -> None:
        checkpointing(False)
        return_freed_memory()

    ways = {
        "default allocator": (default, step),
        "now": (lambda: kept(False), step),
        "checkpointing": (lambda: kept(True), step),
    }
    times = in_turns(ways, repeats)
    kept(False)
    rate = product_rate(size)
    flop, share = convolutions(step)
    spent = share * statistics.median(times["now"])
    plain = peak_mib(step, one.model)
    kept(True)
    return {
        "network": one.model.backbone.kind,
        "parameters": sum(p.numel() for p in one.model.parameters()),
        "images": len(one.images),
        "size": one.images.shape[-1],
        "step_ms": 1000 * statistics.median(times["now"]),
        "default_allocator_ratio": ratio(times["default allocator"], times["now"]),
        "checkpointing_ratio": ratio(times["checkpointing"], times["now"]),
        "convolution_gflop": flop / 1e9,
        "product_gflops": rate / 1e9,
        "convolution_share": share,
        "product_share": flop / spent / rate,
        "peak_mib": plain,
        "checkpointing_mib": peak_mib(step, one.model),
    }


def lines(images: int, size: int, repeats: int) -> dict[str, Any]:
    """A step of the flow of ATFM, all lines together against some, each with and without the default allocator."""
    torch.manual_seed(0)
    net = build("atfm", 3, BINARY, UNetSettings(width=16))
    net.progress = 0.75
    annotations = MaskSet.uniform(blobs(images, 8, size), BINARY)
    pictures, some = torch.randn(images, 3, size, size), atfm.VALUES_ON_CPU
    step = stepper(net, CPU, lambda: net.loss(pictures, annotations)["loss"])

    def taking(values: int, allocator: Action) -> Action:
        def first() -> None:
            allocator()
            atfm.VALUES_ON_CPU = values

        return first

    ways = {
        "default allocator": (taking(2**40, return_freed_memory), step),
        "together": (taking(2**40, keep_freed_memory), step),
        "some": (taking(some, keep_freed_memory), step),
    }
    times = in_turns(ways, repeats)
    peaks = {}
    for name in ("together", "some"):
        ways[name][0]()
        peaks[name] = peak_mib(step, net)
    return {
        "images": images,
        "size": size,
        "masks": 8,
        "ms": {name: 1000 * statistics.median(found) for name, found in times.items()},
        "ratio": {name: ratio(found, times["some"]) for name, found in times.items()},
        "peak_mib": peaks,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repeat")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    suite, tiny = load_suite("paper"), options.smoke
    found: dict[str, Any] = {"smoke": tiny, "threads": 1, "methods": {}}
    if options.out.exists():
        found = json.loads(options.out.read_text(encoding="utf-8"))
    names = [
        name
        for name in suite.methods_on("lidc")
        if not suite.methods[name].run_of and not name.endswith(("-single", "-prior"))
    ]
    sizes = replace(
        TINY if tiny else FULL, paper_size=32 if tiny else options.size, paper_batch=options.images
    )
    repeats = 1 if tiny else options.repeats
    for name in options.methods or names:
        if name not in found["methods"]:
            one = replace(Model.of(suite, name, sizes, False), hardware=CPU)
            found["methods"][name] = measured(one, repeats, 64 if tiny else PRODUCT)
            options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if "lines" not in found:
        found["lines"] = lines(2 if tiny else 16, 16 if tiny else 64, repeats)
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return_freed_memory()


if __name__ == "__main__":
    main()
