"""Flow-SSN on lung nodules: both variants beside SSN and the probabilistic U-Net, its prior, and its number
of steps.

    python benchmarks/flow_ssn.py --source DIR --work DIR --results docs/results/flow-ssn.json [--parts table priors steps]
    python benchmarks/flow_ssn.py --work DIR --results docs/results/flow-ssn.json --parts speed

De Sousa Ribeiro et al. (2025), "Flow stochastic segmentation networks": the protocol of table 1 (GED(16),
GED(100), diversity, Dice of the mean, HM IoU in both dialects), figure 6 (learnt against fixed prior) and
figure 7 (steps) on ``lidc-on-ct-64``, split by patient, all four annotations. Every network of a part trains
for the same minutes; a run that is finished in ``--work`` is evaluated only.

- ``table``: four methods on one backbone, 100 samples of every eighth validation image.
- ``priors``: a wider network as base under the small flow, and as the flow itself; also the narrow model of
  the table; 16 samples of every sixteenth image.
- ``steps``: the continuous model of the table with other numbers of Euler steps and the other drift; 16
  samples of every 32nd image.
- ``speed``: no training; the network of the paper's size on 128x128, samples at once against a pass for
  everything.
- ``refuge``: the protocol of table 2 for a data set of optic cups in the house's format (``--data``, splits
  train, val and test, 256x256), the paper's sizes and ``--epochs``; 16, 100 and 512 samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import ambiseg
from ambiseg.engine.hardware import Hardware
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run_folder import write_json
from ambiseg.engine.settings import TrainSettings
from ambiseg.labels import LabelSpace
from ambiseg.methods import build, method_info
from ambiseg.methods.base import Segmenter
from ambiseg.methods.flow_ssn import FlowSSNSettings
from ambiseg.networks.settings import UNetSettings
from mode_proposals import prepare
from speed import medians
from training_runs import common_options, measure, parsed, train_once

PARTS = ("table", "priors", "steps", "speed", "refuge")
SMALL, WIDE = UNetSettings(width=16), UNetSettings(width=48, max_width=192)
PAPER = UNetSettings(width=32, max_width=256, blocks=6, attention=True, dropout=0.1)
"""13.9 million parameters; the paper's base network has 14.3, in larger blocks."""
FAST: dict[str, Any] = {"steps": 10}
TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "Flow-SSN, continuous": ("flow-ssn", FAST),
    "Flow-SSN, discrete": ("flow-ssn", {"kind": "iaf", "strip_height": 8, "strip_width": 8}),
    "SSN": ("ssn", {}),
    "probabilistic U-Net": ("probabilistic-unet", {}),
}
PRIORS = {"learned": FAST, "fixed": {**FAST, "prior": "fixed"}}
STEPS = (2, 5, 10, 25, 50, 250)
MINUTES = {"table": 8.0, "priors": 12.0}
CUPS: dict[str, dict[str, Any]] = {
    "discrete": {
        "kind": "iaf",
        "strip_height": 8,
        "strip_width": 8,
        "layers": 2,
        "body_width": 128,
        "draws": 32,
    },
    "continuous": {"flow_depth": 4},
}
"""Flow-SSN on REFUGE: what differs from the defaults."""
LARGE = UNetSettings(width=32, max_width=192, depth=5, blocks=2, attention=True, dropout=0.1)
"""The paper's base network on REFUGE: channels 32 x (1, 2, 2, 4, 6), two blocks; here they double up to
192."""
FIGURES = ["ged", "diversity", "dice_of_mean", "hm_iou", "hm_iou_tiled", "hm_iou_unique"]


def trained(title: str, part: str, options: dict[str, Any], arguments: argparse.Namespace) -> Path:
    """The run folder, trained unless it is done."""
    method = TABLE[title][0] if part == "table" else "flow-ssn"
    settings = dataclasses.replace(method_info(method).settings(), **options)
    train = TrainSettings(minutes=MINUTES[part], batch_size=16, lr=1e-3, seed=arguments.seed)
    run = (
        arguments.work / f"lidc-{part}-{title.lower().replace(', ', '-').replace(' ', '-')}-{arguments.seed}"
    )
    data = prepare("lidc", arguments.source, arguments.work)
    return train_once(method, data, run, train, settings, SMALL if part == "table" else WIDE)


def measured(
    run: Path, arguments: argparse.Namespace, samples: int, every: int, **options: Any
) -> dict[str, Any]:
    """Figures of a run on every n-th validation image."""
    data = prepare("lidc", arguments.source, arguments.work)
    return measure(run, data, "val", samples, FIGURES, every=every, **options)


def refuge(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Both variants with the training of the paper, and their figures for three numbers of samples."""
    if arguments.data is None:
        raise SystemExit("the part refuge needs --data, a data set of optic cups in the house's format")
    train = TrainSettings(
        epochs=arguments.epochs, batch_size=32, lr=1e-4, warmup=2000, ema=0.9999, clip=10, seed=arguments.seed
    )
    for title, options in CUPS.items():
        settings = dataclasses.replace(FlowSSNSettings(), **options)
        run = arguments.work / f"refuge-{title}-{arguments.seed}"
        train_once("flow-ssn", arguments.data, run, train, settings, LARGE)
        for samples in (16, 100, 512):
            keep = PredictSettings(None, None, samples=samples)
            found = ambiseg.evaluate(run, arguments.data, "test", keep, batch_size=1, metrics=FIGURES)
            yield f"{title} ({samples})", {"samples": samples, **found.to_dict()}


def draw(results: dict[str, Any], path: Path) -> None:
    """Figures 6 and 7: quality and time of both priors, quality by the number of steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for title, entry in results["priors"].items():
        left.plot(entry["seconds_per_image"], entry["all"]["ged"], "o", markersize=9)
        left.annotate(
            f"{title} prior",
            (entry["seconds_per_image"], entry["all"]["ged"]),
            xytext=(0, 10),
            textcoords="offset points",
            ha="center",
        )
    left.set(xlabel="seconds per image, 16 samples, 10 Euler steps", ylabel="GED\u00b2(16)", xscale="log")
    left.margins(0.4)
    left.set_xticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
    left.minorticks_off()
    steps = {int(k): v["all"]["ged"] for k, v in results["steps"].items() if k.isdigit()}
    right.plot(list(steps), list(steps.values()), "o-")
    right.set(xlabel="Euler steps", ylabel="GED\u00b2(16)", xscale="log")
    right.set_xticks(list(steps), [str(k) for k in steps])
    right.minorticks_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def speed(repeats: int) -> dict[str, Any]:
    """16 samples in 10 steps of one 128x128 image by the network of the paper's size, together and one by
    one."""
    torch.manual_seed(0)
    settings, hardware = FlowSSNSettings(**FAST), Hardware.choose(device="cpu")
    labels, images = LabelSpace.binary(), torch.randn(1, 1, 128, 128)
    model = hardware.place(build("flow-ssn", 1, labels, PAPER, settings)).eval()
    plain = build("flow-ssn", 1, labels, PAPER, settings).eval()
    fixed = hardware.place(
        build("flow-ssn", 1, labels, PAPER, dataclasses.replace(settings, prior="fixed"))
    ).eval()

    @torch.no_grad()
    def fast(chosen: Segmenter, count: int) -> None:
        with hardware.autocast():
            chosen.predict(hardware.images(images), count)

    @torch.no_grad()
    def one_by_one() -> None:
        for _ in range(16):
            plain.predict(images, 1)

    def autocast_one_by_one() -> None:
        for _ in range(16):
            fast(model, 1)

    found = medians(
        {
            "at once": lambda: fast(model, 16),
            "one by one": autocast_one_by_one,
            "one by one, float32": one_by_one,
            "fixed prior, at once": lambda: fast(fixed, 16),
        },
        repeats,
    )
    parts = {"base": model.get_submodule("base"), "flow": model.get_submodule("eta")}
    return {
        "seconds": found,
        "ratio": {name: seconds / found["at once"] for name, seconds in found.items()},
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "threads": torch.get_num_threads(),
        "bf16": hardware.bf16,
    }


def main() -> None:
    """Measure what is asked for; results already there are replaced."""
    parser = common_options(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS[:4]))
    parser.add_argument("--data", type=Path, help="optic cups, for the part refuge")
    parser.add_argument("--epochs", type=int, default=1000, help="of the part refuge")
    parser.add_argument("--picture", type=Path, help="file for figures 6 and 7")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parsed(parser)

    def note(part: str, title: str, entry: dict[str, Any]) -> None:
        known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
        write_json(arguments.results, {**known, part: {**known.get(part, {}), title: entry}})
        shown = {k: entry[k] for k in ("all", "seconds_per_image", "ratio") if k in entry}
        print(json.dumps({part: title, **shown}), flush=True)

    if "priors" in arguments.parts:
        for title, options in PRIORS.items():
            run = trained(title, "priors", options, arguments)
            note("priors", title, measured(run, arguments, 16, 16))
        narrow = trained("Flow-SSN, continuous", "table", FAST, arguments)
        note("priors", "learned, narrow", measured(narrow, arguments, 16, 16))
    if "table" in arguments.parts:
        for title, (_, options) in TABLE.items():
            run = trained(title, "table", options, arguments)
            for samples in (16, 100):
                note("table", f"{title} ({samples})", measured(run, arguments, samples, 8))
    if "steps" in arguments.parts:
        run = trained("Flow-SSN, continuous", "table", FAST, arguments)
        for steps in STEPS:
            note("steps", str(steps), measured(run, arguments, 16, 32, steps=steps))
        for steps in (10, 50):
            found = measured(run, arguments, 16, 32, steps=steps, drift="conditional")
            note("steps", f"{steps}, conditional", found)
    if "speed" in arguments.parts:
        note("speed", "network of the paper's size", speed(arguments.repeats))
    if "refuge" in arguments.parts:
        for title, entry in refuge(arguments):
            note("refuge", title, entry)
    if arguments.picture is not None:
        draw(json.loads(arguments.results.read_text()), arguments.picture)


if __name__ == "__main__":
    main()
