"""How many files `ambiseg predict` predicts per second, and in how much memory.

    python benchmarks/predict_speed.py [--images 2000] [--pictured 200] [--size 64] [--width 16] [--bf16] [--threads 1]
        [--rounds 3] [--memory-at 500 2000]

An untrained network of mode proposals predicts PNG files of smooth noise, without and with pictures. Reading, network
and writing one after the other alternate with reading and writing in threads, each on a third of the files per round.
The median of the rounds counts. On a busy machine look at the milliseconds per image: those of the processor, and of
them those of the main thread. Peak memory is that of processes of their own, which predict so many files without
pictures and a tenth of them with pictures. Prints JSON. Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from ambiseg.cli.predict import predict
from ambiseg.data.batches import Normalization
from ambiseg.engine.machine.hardware import Hardware, machine_name
from ambiseg.engine.parallel.pieces import HERE
from ambiseg.engine.parallel.threads import Threads
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import Run
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.labels import LabelSpace
from ambiseg.methods.mode_proposals import ModeProposalsSettings
from ambiseg.networks.settings import UNetSettings

SETTINGS = PredictSettings(score_threshold=None, duplicate_iou=1.0)
"""All masks that differ: an untrained network gives no scores to choose by."""


def make_images(folder: Path, count: int, size: int) -> list[Path]:
    """Smooth noise as grey PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(0), []
    for i in range(count):
        field = gaussian_filter(rng.standard_normal((size, size)), size / 12)
        image = 128 + 60 * field / field.std() + 10 * rng.standard_normal(field.shape)
        paths.append(folder / f"image-{i:05}.png")
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def untrained(width: int, bf16: bool) -> Run:
    """Eight proposals of one grey channel."""
    torch.manual_seed(0)
    config = RunConfig(
        "mode-proposals",
        1,
        LabelSpace.binary(),
        Normalization((128.0,), (60.0,)),
        UNetSettings(width=width),
        ModeProposalsSettings(proposals=8),
        TrainSettings(),
    )
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():  # else all masks are empty
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Run(config, model, Hardware("cpu", bf16, bf16))


CLOCKS = (time.perf_counter, time.process_time, time.thread_time)


def measured(run: Run, paths: list[Path], picture: bool, engine: Any) -> tuple[float, ...]:
    """Seconds of a whole prediction into a new folder; of the processor; and of those, in this thread."""
    with tempfile.TemporaryDirectory() as room:
        began = [clock() for clock in CLOCKS]
        predict(run, paths, Path(room) / "out", SETTINGS, picture=picture, lines=False, engine=engine)
        return tuple(clock() - start for clock, start in zip(CLOCKS, began, strict=True))


def compare(run: Run, paths: list[Path], picture: bool, rounds: int) -> dict[str, Any]:
    """Both ways in turns: the median of images per second, of milliseconds per image of the processor and of the main
    thread, and of the ratio of their speeds."""
    engines = {"one after the other": HERE, "threads": Threads()}
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in engines}
    for part in (paths[i::rounds] for i in range(rounds)):
        for name, engine in engines.items():
            times[name].append(tuple(one / len(part) for one in measured(run, part, picture, engine)))
    found: dict[str, Any] = {}
    for name, rows in times.items():
        wall, processor, main = (statistics.median(column) for column in zip(*rows, strict=True))
        found[name] = {
            "images_per_second": round(1 / wall, 1),
            "processor_ms": round(1000 * processor, 1),
            "main_thread_ms": round(1000 * main, 1),
        }
    ratios = (old[0] / new[0] for old, new in zip(*times.values(), strict=True))
    return {**found, "ratio": round(statistics.median(ratios), 2)}


def peak(queue: Any, folder: Path, count: int, picture: bool, width: int, bf16: bool, threads: int) -> None:
    """MiB of a process that predicts so many files in threads."""
    torch.set_num_threads(threads)
    measured(untrained(width, bf16), sorted(folder.iterdir())[:count], picture, None)
    status = Path("/proc/self/status").read_text()  # ru_maxrss of a child begins with what its parent held
    queue.put(int(status.partition("VmHWM:")[2].split()[0]) >> 10)


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--pictured", type=int, default=200)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-at", type=int, nargs="*", default=[500, 2000])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    record: dict[str, Any] = {**vars(given), "machine": machine_name("cpu"), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room) / "in"
        paths = make_images(folder, max(given.images, *given.memory_at, 16), given.size)
        run = untrained(given.width, given.bf16)
        measured(run, paths[:16], True, None)
        for name, count, picture in (("masks", given.images, False), ("pictures", given.pictured, True)):
            record[name] = compare(run, paths[:count], picture, given.rounds) if count else None
        context = multiprocessing.get_context("spawn")
        job = partial(peak, width=given.width, bf16=given.bf16, threads=given.threads)
        for count in given.memory_at:
            for name, part, picture in (("masks", count, False), ("pictures", count // 10, True)):
                queue = context.Queue()
                process = context.Process(target=job, args=(queue, folder, part, picture))
                process.start()
                record[f"peak MiB, {part} files, {name}"] = queue.get()
                process.join()
    print(json.dumps(record))


if __name__ == "__main__":
    main()
