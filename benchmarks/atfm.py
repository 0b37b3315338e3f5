"""Truncated flow matching on lung nodules: its parts one by one, its steps and its weight alpha, and its
speed.

    python benchmarks/atfm.py --source DIR --work DIR --results docs/results/atfm.json [--parts ablation steps speed]

Li et al. (2026), "Ambiguity-aware truncated flow matching for ambiguous medical image segmentation", on
``lidc-on-ct-64``, split by patient, all four annotations. Every row trains for the same minutes, a prior and
the flow on top of it together; rows with a prior share one prior run. A run that is finished in ``--work`` is
evaluated only. HM IoU is the tiled one.

- ``ablation``: the five rows of table 4, with 16, 32 and 100 samples of every 32nd validation image.
- ``steps``: figure 6, quality and time by the number of Euler steps, and quality by alpha (each trained
  anew); 32 samples.
- ``speed``: the claim of table 3, 100 samples in 25 steps from the prior against 250 steps from noise of the
  same network: seconds for one image in turns, their ratio, and GED(100) of both on every 100th image.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ambiseg.data.source import open_split
from ambiseg.engine.run_folder import write_json
from ambiseg.engine.settings import TrainSettings
from ambiseg.methods.atfm import ATFMSettings
from ambiseg.methods.ssn import SSNSettings
from ambiseg.networks.settings import UNetSettings
from mode_proposals import prepare
from speed import medians
from training_runs import CORES, common_options, loaded, measure, parsed, train_once

PARTS = ("ablation", "steps", "speed")
SMALL = UNetSettings(width=16)
PRIOR_MINUTES, FLOW_MINUTES = 4.0, 6.0
FRESH = ATFMSettings(prior_share=0.0)
"""A flow on a prior that is trained already."""
ABLATION: dict[str, SSNSettings | ATFMSettings] = {
    "Act. GTR": SSNSettings(),
    "SFM w/o L_SF": dataclasses.replace(FRESH, start="noise", alpha=0.0),
    "SFM": dataclasses.replace(FRESH, start="noise"),
    "ATFM w/o L_SF": dataclasses.replace(FRESH, alpha=0.0),
    "ATFM": FRESH,
}
"""Rows of table 4."""
SAMPLES = (16, 32, 100)
STEPS = (1, 5, 10, 25, 50)
ALPHAS = (0.0, 1e-4, 1e-3, 1e-2)
NOISE_STEPS = 250
FIGURES = ["ged", "diversity", "hm_iou_tiled", "max_dice_matching", "dice_of_mean"]


def trained(settings: SSNSettings | ATFMSettings, name: str, arguments: argparse.Namespace) -> Path:
    """The run folder of a row, trained unless it is done; flows on a prior start from the one SSN run of that
    purpose."""
    data = prepare("lidc", arguments.source, arguments.work)
    train = TrainSettings(minutes=PRIOR_MINUTES + FLOW_MINUTES, batch_size=16, lr=1e-3, seed=arguments.seed)
    run = arguments.work / f"lidc-atfm-{name}-{arguments.seed}"
    if isinstance(settings, SSNSettings):
        return train_once("ssn", data, run, train, settings, SMALL)
    if settings.start == "prior":
        short = dataclasses.replace(train, minutes=PRIOR_MINUTES)
        prior = arguments.work / f"lidc-atfm-prior-{arguments.seed}"
        train_once("ssn", data, prior, short, SSNSettings(), SMALL)
        train = dataclasses.replace(train, minutes=FLOW_MINUTES, init=str(prior))
    return train_once("atfm", data, run, train, settings, SMALL)


def row(title: str, arguments: argparse.Namespace) -> Path:
    """The run of a row of table 4."""
    name = title.lower().replace(".", "").replace("w/o ", "without-").replace(" ", "-")
    return trained(ABLATION[title], name, arguments)


def measured(
    run: Path, arguments: argparse.Namespace, samples: int, every: int, **options: Any
) -> dict[str, Any]:
    """Figures of a run on every n-th validation image."""
    data = prepare("lidc", arguments.source, arguments.work)
    return measure(run, data, "val", samples, FIGURES, every=every, **options)


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """100 samples of one image in 25 steps from the prior and in 250 from noise, in turns, and what both are
    worth."""
    runs = {"prior": row("ATFM", arguments), "noise": row("SFM", arguments)}
    steps = {"prior": FRESH.steps, "noise": NOISE_STEPS}
    data = open_split(prepare("lidc", arguments.source, arguments.work), "val")
    models = {name: loaded(run, steps=steps[name]) for name, run in runs.items()}

    def draw(name: str) -> None:
        run = models[name]
        image = run.hardware.images(run.config.normalization(data[0].image)[None])
        with torch.no_grad(), run.hardware.autocast():
            run.model.predict(image, 100)

    seconds = medians({name: partial(draw, name) for name in runs}, arguments.repeats)
    figures = {
        name: measured(run, arguments, 100, arguments.speed_every, steps=steps[name])
        for name, run in runs.items()
    }
    return {
        "steps": steps,
        "seconds": seconds,
        "ratio": {"noise / prior": seconds["noise"] / seconds["prior"]},
        "figures": figures,
        "threads": torch.get_num_threads(),
        "cores": CORES,
    }


def main() -> None:
    """Measure what is asked for; results already there are replaced."""
    parser = common_options(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--every", type=int, default=32, help="ablation and steps: one in so many validation images"
    )
    parser.add_argument(
        "--speed-every", type=int, default=100, help="speed: one in so many validation images"
    )
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parsed(parser)

    def note(part: str, title: str, entry: dict[str, Any]) -> None:
        known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
        write_json(arguments.results, {**known, part: {**known.get(part, {}), title: entry}})
        shown = {k: entry[k] for k in ("all", "seconds_per_image", "seconds", "ratio") if k in entry}
        print(json.dumps({part: title, **shown}), flush=True)

    if "ablation" in arguments.parts:
        for title in ABLATION:
            run = row(title, arguments)
            for samples in SAMPLES:
                note("ablation", f"{title} ({samples})", measured(run, arguments, samples, arguments.every))
    if "steps" in arguments.parts:
        for steps in STEPS:
            found = measured(row("ATFM", arguments), arguments, 32, arguments.every, steps=steps)
            note("steps", str(steps), found)
        rows = {ABLATION[title]: row(title, arguments) for title in ("ATFM", "ATFM w/o L_SF")}
        for alpha in ALPHAS:
            settings = dataclasses.replace(FRESH, alpha=alpha)
            run = rows.get(settings) or trained(settings, f"alpha-{alpha:g}", arguments)
            note("steps", f"alpha {alpha:g}", measured(run, arguments, 32, arguments.every))
    if "speed" in arguments.parts:
        note("speed", "25 steps from the prior, 250 from noise", speed(arguments))


if __name__ == "__main__":
    main()
