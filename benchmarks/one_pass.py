"""One pass against 1, 4, 16 and 100 samples: quality against inference time of every method of a finished
benchmark.

    ambiseg benchmark cpu --data-root DIR --out OUT
    python benchmarks/one_pass.py --runs OUT --results docs/results/one-pass.json --picture docs/results/one-pass.png

Takes the trained runs (seed 0) as they are and measures each on the same images, evenly spread over the
split: methods that sample at 1, 4, 16 and 100 masks (MoSE with the weights of its experts), those that give a
set of their own once, with all their masks. GED counts every mask with itself: a sampler of the true
distribution is still ``E[d] / n`` above 0 with n masks; the column ``oracle`` tells by how much. Times are
seconds in the model for an image, in batches of ``--batch-size``.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import ambiseg
from ambiseg.data.source import SpreadSplit, open_split
from ambiseg.engine.benchmark_run import read_note
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import load
from ambiseg.engine.run_folder import write_json
from ambiseg.report.plots import style_axes
from training_runs import CORES

SAMPLES = (1, 4, 16, 100)
OWN_NUMBER = ("mode-proposals", "m-heads", "unet-ensemble")
"""Methods that give as many masks as they have."""
METRICS = ["ged", "hm_iou_unique", "hm_iou_tiled", "m_iou"]


def measure(note: Path, samples: int | None, images: int, batch_size: int) -> dict[str, Any]:
    """Figures of a run with so many masks, or with its own number."""
    entries = read_note(note)
    name = entries["order"]["evaluation"]["split"]
    split = open_split(entries["data"], name)
    chosen = SpreadSplit(split, images)
    model = load(note.with_suffix(""))
    model.propose([chosen[i].image for i in range(batch_size)], samples)
    model.seconds, model.images = 0.0, 0
    found = ambiseg.evaluate(
        model,
        chosen,
        name,
        PredictSettings(None, None, samples=samples),
        batch_size=batch_size,
        metrics=METRICS,
        oracle_draws=1,
    ).to_dict()
    return {
        "samples": samples,
        "masks": found["all"]["masks_per_image"],
        "images": found["images"],
        "split": name,
        "seconds_per_image": found["seconds_per_image"],
        "oracle": found["oracle"],
        **{metric: found["all"][metric] for metric in METRICS},
    }


def draw(results: dict[str, Any], metric: str, title: str) -> Figure:
    """A panel for each data set: the metric against milliseconds per image; a line joins the sample counts of
    a method."""
    names = list(results["data"])
    figure, panels = plt.subplots(1, len(names), figsize=(4.4 * len(names), 4.6), squeeze=False)
    methods = sorted({method for name in names for method in results["data"][name]})
    styles = {m: (plt.get_cmap("tab20")(i % 20), "osD^v"[i % 5]) for i, m in enumerate(methods)}
    for axes, name in zip(panels[0], names, strict=True):
        style_axes(axes)
        for method, rows in results["data"][name].items():
            color, marker = styles[method]
            points = [(1000 * r["seconds_per_image"], r[metric]) for r in rows if r[metric] is not None]
            if not points:
                continue
            own = len(rows) == 1
            axes.plot(
                *zip(*points, strict=True),
                color=color,
                marker="*" if own and method.startswith("mode") else marker,
                markersize=13 if own and method.startswith("mode") else 5,
                linewidth=1.2,
                label=method,
            )
        axes.set_xscale("log")
        axes.set_xlabel("ms per image")
        axes.set_ylabel(title)
        axes.set_title(name)
    handles = {
        label: h for axes in panels[0] for h, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    columns = 2 * len(names)
    figure.legend(
        handles.values(), handles.keys(), loc="lower center", ncols=columns, fontsize=8, frameon=False
    )
    figure.tight_layout(rect=(0, 0.02 + 0.04 * math.ceil(len(handles) / columns), 1, 1))
    return figure


def main() -> None:
    """Measure what is not there yet, write the results after every run, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder of a finished 'ambiseg benchmark'")
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add the results to")
    parser.add_argument("--picture", type=Path, help="PNG file: GED against inference time")
    parser.add_argument("--data", nargs="+", default=["wildfire", "camvid-flips", "lidc-on-ct"])
    parser.add_argument("--methods", nargs="+", help="entries of the benchmark; all if left out")
    parser.add_argument("--images", type=int, default=50, help="images of each data set")
    parser.add_argument("--batch-size", type=int, default=4)
    arguments = parser.parse_args()
    old = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    results: dict[str, Any] = {
        "images": arguments.images,
        "batch_size": arguments.batch_size,
        "cores": CORES,
        "threads": torch.get_num_threads(),
        "data": old.get("data", {}),
    }
    for name in arguments.data:
        for note in sorted((arguments.runs / "runs" / name).glob("*/seed-0.json")):
            method = note.parent.name
            if arguments.methods and method not in arguments.methods:
                continue
            rows = results["data"].setdefault(name, {}).setdefault(method, [])
            own = read_note(note)["order"]["training"]["method"] in OWN_NUMBER
            for samples in [None] if own else SAMPLES:
                if any(row["samples"] == samples for row in rows) or "result" not in read_note(note):
                    continue
                rows.append(measure(note, samples, arguments.images, arguments.batch_size))
                print(name, method, json.dumps(rows[-1]), flush=True)
                write_json(arguments.results, results)
    if arguments.picture:
        draw(results, "ged", "GED², 1 - IoU (less is better)").savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
