"""Peak of the resident memory: of more and more images, and of one prediction against what is expected of it.

    python benchmarks/reliability/memory.py --out docs/results/reliability/memory.json        (ten minutes of a core)
    python benchmarks/reliability/memory.py --parts estimate

Each figure is that of a process of its own. It needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambiseg.cli.main import main as ambiseg
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import write_dataset
from ambiseg.engine.run import Run, load
from ambiseg.engine.train import fit
from ambiseg.labels import LabelSpace
from ambiseg.memory_budget import network_parts, prediction_bytes

MIB = 2**20
IMAGES, EVALUATED = (500, 1500, 3000), (8, 24, 72)
CASES = [
    ("mode-proposals", 32, 2, "32"),
    ("mode-proposals", 32, 2, "bf16"),
    ("mode-proposals", 8, 4, "32"),
    ("ssn", 8, 2, "32"),
    ("probabilistic-unet", 8, 2, "32"),
    ("dropout-unet", 8, 2, "32"),
]
"""Method, width, classes and precision."""


def peak(action: Callable[[], object], before: Callable[[], object] | None = None) -> float:
    """MiB of resident memory at the peak of a new process; where it does something before, the rise above that."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            start = 0
            if before is not None:
                before()
                start = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            if not action():
                highest = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                os.write(write, str((highest - start) / MIB).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as found:
        value = found.read()
    os.waitpid(child, 0)
    assert value, "the process ended with an error"
    return round(float(value), 1)


def samples(size: int, count: int, classes: int = 2) -> Iterator[Sample]:
    """Noise with two masks each."""
    rng = np.random.default_rng(0)
    for i in range(count):
        image = rng.normal(size=(1, size, size)).astype(np.float32)
        masks = rng.integers(0, classes, (2, size, size), np.uint8)
        yield Sample(f"{i:05}", image, masks, np.array([0.5, 0.5]), ("a", "b"))


def trained(place: Path, method: str, width: int, classes: int = 2) -> Path:
    """A run of one update."""
    run = place / f"{method}-{width}-{classes}"
    if not run.exists():
        data = place / f"data-{classes}"
        if not data.exists():
            few = list(samples(16, 2, classes))
            write_dataset(
                data, {"train": few, "val": few}, DatasetInfo("noise", LabelSpace.of_classes(classes))
            )
        train = {"updates": 1, "batch_size": 2, "validations": 1}
        fit(method, data, run, train=train, backbone={"width": width}, quiet=True)
    return run


def predict(place: Path) -> list[dict[str, Any]]:
    """``ambiseg predict`` of more and more images of 32x32."""
    run, rows = trained(place, "mode-proposals", 8), []
    for count in IMAGES:
        folder = place / f"images-{count}"
        folder.mkdir()
        for sample in samples(32, count):
            np.save(folder / f"{sample.id}.npy", sample.image)
        words = ["predict", str(run), str(folder), "--out", str(place / f"masks-{count}")]
        rows.append({"images": count, "MiB": peak(partial(ambiseg, words))})
    return rows


def evaluate(place: Path) -> list[dict[str, Any]]:
    """``ambiseg evaluate`` with 100 samples of more and more images of 256x256."""
    run, data, rows = trained(place, "ssn", 8), place / "large", []
    write_dataset(data, {f"of-{count}": samples(256, count) for count in EVALUATED}, DatasetInfo("large"))
    for count in EVALUATED:
        words = ["evaluate", str(run), "--data", str(data), "--split", f"of-{count}"]
        words += ["--samples", "100", "--batch-size", "4"]
        rows.append({"images": count, "MiB": peak(partial(ambiseg, words))})
    return rows


def estimate(place: Path) -> list[dict[str, Any]]:
    """One image of 1024x1024 with 16 masks, measured and as `prediction_bytes` expects."""
    rows = []
    image = np.random.default_rng(0).normal(size=(1, 1024, 1024)).astype(np.float32)
    for method, width, classes, precision in CASES:
        folder = trained(place, method, width, classes)

        run = load(folder, precision, "cpu")

        def one(size: int = 1024, run: Run = run) -> None:
            run.predict(image[:, :size, :size])

        channels = 16 * (1 if classes == 2 else classes)
        together = network_parts(16, 1, image.size * width)[0] if method == "dropout-unet" else 1
        expected = prediction_bytes(image.size, width, channels, together, precision == "bf16")
        row = {
            "method": method,
            "width": width,
            "classes": classes,
            "precision": precision,
            "MiB": peak(one, partial(one, 32)),
        }
        rows.append({**row, "expected MiB": round(expected / MIB, 1)})
    return rows


PARTS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "predict": predict,
    "evaluate": evaluate,
    "estimate": estimate,
}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--out", type=Path, help="JSON to write")
    chosen = parser.parse_args(words)
    torch.set_num_threads(1)  # a forked process has no other threads
    table: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for part in chosen.parts:
            table[part] = PARTS[part](Path(place))
            print(part, *table[part], sep="\n    ", flush=True)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
