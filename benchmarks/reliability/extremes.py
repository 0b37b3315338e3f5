"""Train every method on extreme data: masks without any pixel, images without any contrast, values that are no numbers.

    python benchmarks/reliability/extremes.py --out docs/results/reliability/extremes.json      (half an hour of a core)
    python benchmarks/reliability/extremes.py --methods ssn --cases "all void" nan --updates 5

Losses, weights and predictions must be finite and valid, or one `AmbisegError` must say what is wrong with the data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import write_dataset
from ambiseg.engine.curve import training_curve
from ambiseg.engine.run import load
from ambiseg.engine.run_folder import WEIGHTS
from ambiseg.engine.train import fit
from ambiseg.errors import AmbisegError, DataWarning
from ambiseg.labels import LabelSpace
from ambiseg.methods import METHODS

SIZE, SPLITS = 16, {"train": 6, "val": 2, "test": 2}
TRAINED = "trained"
"""What stands in the table where losses and weights are finite and predictions valid."""

Array = NDArray[Any]
BINARY, VOIDED = LabelSpace.binary(), LabelSpace.binary(ignore_value=255)


@dataclass(frozen=True)
class Case:
    """A way in which data are extreme.

    Attributes:
        image: changes an image ``(C, H, W)`` of normal noise.
        masks: changes masks ``(2, H, W)`` of one square each.
        labels: of the data set.
    """

    image: Callable[[Array], Array] = lambda image: image
    masks: Callable[[Array], Array] = lambda masks: masks
    labels: LabelSpace = BINARY


def one_pixel(masks: Array) -> Array:
    only = np.zeros_like(masks)
    only[:, 3, 5] = masks.max()
    return only


CASES = {
    "all empty": Case(masks=np.zeros_like),
    "all full": Case(masks=np.ones_like),
    "one pixel": Case(masks=one_pixel),
    "class missing": Case(labels=LabelSpace.of_classes(3)),
    "all void": Case(masks=lambda masks: np.full_like(masks, 255), labels=VOIDED),
    "constant": Case(image=lambda image: np.full_like(image, 0.1)),
    "all 65535": Case(image=lambda image: np.full(image.shape, 65535, np.uint16)),
    "nan": Case(image=lambda image: np.where(image > 1, np.nan, image)),
    "infinite": Case(image=lambda image: np.where(image > 1, np.inf, image)),
}


def write_case(folder: Path, case: Case) -> Path:
    """A data set of a case; images are written past the check, which refuses some of them."""
    rng = np.random.default_rng(0)
    images: dict[str, Array] = {}

    def sample(name: str) -> Sample:
        images[name] = rng.normal(size=(1, SIZE, SIZE)).astype(np.float32)
        masks = np.zeros((2, SIZE, SIZE), np.uint8)
        masks[0, 2:9, 2:9], masks[1, 5:14, 5:14] = 1, 1
        return Sample(name, images[name], case.masks(masks), np.array([0.5, 0.5]), ("a", "b"))

    splits = {split: [sample(f"{split}-{i}") for i in range(count)] for split, count in SPLITS.items()}
    write_dataset(folder, splits, DatasetInfo(folder.name, case.labels))
    for name, image in images.items():
        np.save(folder / name.split("-")[0] / "images" / f"{name}.npy", case.image(image))
    return folder


def outcome(method: str, data: Path, run: Path, updates: int, labels: str) -> str:
    """`TRAINED`, the sentence that refuses the data, or what is wrong."""
    spec, test = METHODS[method], METHODS[method].test
    train = {
        "updates": updates,
        "batch_size": 4,
        "validations": 2,
        "warmup": 5,
        "lr": test.rate,
        "labels": labels,
    }
    warnings.simplefilter("ignore", DataWarning)
    try:
        fit(
            spec,
            data,
            run,
            train=train,
            backbone={"width": 8, "depth": 2},
            settings=test.settings,
            quiet=True,
        )
        rows = training_curve(run)
        lost = {name for row in rows for name, value in row.items() if not np.isfinite(value)}
        lost |= {name for name, value in load_file(run / WEIGHTS).items() if not bool(value.isfinite().all())}
        if lost:
            return f"not finite: {', '.join(sorted(lost))}"
        trained = load(run)
        for path in sorted((data / "test" / "images").iterdir()):
            trained.predict(path).validate()
    except AmbisegError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return TRAINED


def is_right(outcome: str) -> bool:
    return outcome == TRAINED or outcome.startswith("refused: ")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--labels", nargs="*", default=["full", "single"])
    parser.add_argument("--out", type=Path, help="JSON to write")
    chosen = parser.parse_args(words)
    table: dict[str, dict[str, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for case in chosen.cases:
            data = write_case(Path(place) / case.replace(" ", "-"), CASES[case])
            for method in chosen.methods:
                for labels in chosen.labels:
                    run = Path(place) / f"{method}-{labels}-{data.name}"
                    found = outcome(method, data, run, chosen.updates, labels).replace(f"{place}/", "")
                    table.setdefault(case, {}).setdefault(method, {})[labels] = found
                    print(f"{case:14} {method:20} {labels:7} {found}", flush=True)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps({"updates": chosen.updates, "outcomes": table}, indent=2) + "\n")
    return int(
        not all(is_right(found) for row in table.values() for cell in row.values() for found in cell.values())
    )


if __name__ == "__main__":
    sys.exit(main())
