"""How fast one and two workers are: training in processes of Lightning, evaluation over Ray.

    python benchmarks/scaling.py --repeats 3

The two take turns, so that what else the machine does meets both. Two workers do twice the work of one in training (the
same batch for each process) and the same work in evaluation.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

from ambiseg.data.info import DatasetInfo
from ambiseg.data.simulators.wildfire import simulate_wildfires
from ambiseg.data.source import write_dataset
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.parallel.over_ray import RayEngine
from ambiseg.engine.run import load
from ambiseg.engine.train import fit


@dataclass(frozen=True)
class Arguments:
    """Measure one and two workers."""

    images: int = 64
    """Images that are evaluated."""
    size: int = 64
    """Their height and width."""
    updates: int = 30
    """Steps of each training."""
    batch_size: int = 8
    """Images of a step in each process."""
    repeats: int = 3
    """How often each is measured."""


def main() -> None:
    """Simulate data, measure, and print a line for each."""
    arguments = tyro.cli(Arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        splits = {
            split: simulate_wildfires(count, size=arguments.size, start=start)
            for split, count, start in (("train", 32, 0), ("val", 4, 32), ("test", arguments.images, 36))
        }
        data = write_dataset(folder / "data", splits, DatasetInfo("fires"))
        found: dict[str, list[float]] = {}
        for repeat in range(arguments.repeats):
            for workers in (1, 2):
                _measure(arguments, data, folder / f"{repeat}-{workers}", workers, found)
    for title, values in found.items():
        print(f"{title}: {median(values):.2f} (from {min(values):.2f} to {max(values):.2f})")


def _measure(
    arguments: Arguments, data: Path, run: Path, workers: int, found: dict[str, list[float]]
) -> None:
    def add(title: str, value: float) -> None:
        found.setdefault(f"{title}, {workers} worker{'s' * (workers > 1)}", []).append(value)

    train = {
        "updates": arguments.updates,
        "batch_size": arguments.batch_size,
        "devices": workers,
        "precision": "32",
        "validations": 1,
        "augment": False,
    }
    result = fit("mode-proposals", data, run, train=train, quiet=True, fit_filter=False)
    add("training, images/s", arguments.updates * arguments.batch_size * workers / result.seconds)
    began = time.perf_counter()
    with RayEngine(workers=workers) as engine:
        model = load(run)
        list(engine.map(_load, [run] * workers))
        add("Ray, seconds to start", time.perf_counter() - began)
        began = time.perf_counter()
        evaluate(model, data, batch_size=8, engine=engine)
        add("evaluation, images/s", arguments.images / (time.perf_counter() - began))


def _load(run: Path) -> list[str]:
    """Import what a worker needs."""
    return [load(run).config.method]


if __name__ == "__main__":
    main()
