"""``ambiseg mix``: several runs as one, the weighted union of their masks, stored as a run folder of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from ambiseg.cli.console import Grid, command, next_commands, progress, show, show_grid, show_json
from ambiseg.cli.parsing import at_least_one, parse
from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.engine.fitted_filter import FittedFilter
    from ambiseg.engine.run import Run

MIX = "mix"
"""Verb that the list of a mixture folder names."""


@dataclass(frozen=True)
class MixArguments:
    """Mix trained runs: all their masks, each run with a weight that makes the mean GED on validation images smallest.

    The same images then choose which masks predictions of the mixture keep (filter.json)."""

    runs: Positional[tuple[Path, ...]]
    """Run folders, trained on the same data; methods, settings and seeds may differ."""
    out: Path
    """Folder to make; it can be used in place of a run."""
    weights: tuple[float, ...] = ()
    """Weight of each run; fitted if left out."""
    data: Path | None = None
    """Data set to fit on; the one of the runs if left out."""
    split: str = "val"
    """Which split of it."""
    images: int = 400
    """Fit on at most so many images, evenly spread."""
    samples: int | None = None
    """Masks that each run is asked for; its own number if left out."""
    seed: int = 0
    """Seed of sampling methods."""
    overwrite: bool = False
    """Replace an existing mixture."""
    json: bool = False
    """Print the outcome as JSON."""


def run(args: list[str]) -> int:
    """Fit, write and print."""
    arguments = parse(MixArguments, args, "ambiseg mix")
    at_least_one(images=arguments.images)
    if len(arguments.runs) < 2:
        raise AmbisegError("a mixture takes two runs or more: name their folders")
    from ambiseg.atomic_write import replacing_folder
    from ambiseg.engine.mixture import MixtureConfig, checked_weights
    from ambiseg.engine.run import load, mixed

    runs = [load(folder) for folder in arguments.runs]
    mixed(runs, [1 / len(runs)] * len(runs))
    table: dict[str, float] = {}
    filtering: FittedFilter | None = None
    if arguments.weights:
        weights = checked_weights(arguments.weights, len(runs), "--weights")
        chosen: dict[str, object] = {"by": "given"}
    else:
        weights, table, chosen, filtering = _fitted(arguments, runs)
    kept = [i for i, weight in enumerate(weights) if weight > 0]
    with replacing_folder(arguments.out, arguments.overwrite, MIX, inputs=arguments.runs) as partial:
        MixtureConfig(
            tuple(os.path.relpath(arguments.runs[i].resolve(), arguments.out.resolve()) for i in kept),
            tuple(weights[i] for i in kept),
            tuple(runs[i].digest() for i in kept),
            chosen,
        ).save(partial)
        if filtering is not None:
            filtering.save(partial)
    if arguments.json:
        rows = [{"run": folder, "weight": w} for folder, w in zip(arguments.runs, weights, strict=True)]
        kept_masks = filtering.message if filtering else ""
        show_json({"out": arguments.out, "runs": rows, "ged": table, "filter": kept_masks})
        return 0
    grid = Grid()
    grid.column("run")
    grid.column("weight", right=True)
    grid.column("GED²", right=True)
    for folder, weight in zip(arguments.runs, weights, strict=True):
        grid.row(str(folder), f"{weight:.3f}", f"{table[str(folder)]:.4f}" if table else "")
    if table:
        grid.row("mixture", "", f"{table['mixture']:.4f}")
    show_grid(grid)
    show(f"mixture of {len(kept)} runs in {arguments.out}")
    if filtering is not None:
        show(filtering.message)
    next_commands(
        (command("ambiseg", "evaluate", arguments.out), "measure it on the test split"),
        (
            f"{command('ambiseg', 'predict', arguments.out)} IMAGE... --out DIR --top 8",
            "8 masks that represent it",
        ),
    )
    return 0


def _fitted(
    arguments: MixArguments, runs: Sequence[Run]
) -> tuple[tuple[float, ...], dict[str, float], dict[str, object], FittedFilter]:
    """Weights, the mean GED of each run and of the mixture on the images, how it was done, and the filter."""
    from ambiseg.cli.evaluate import data_of
    from ambiseg.data.source import SpreadSplit, open_split
    from ambiseg.engine.filter_choice import choose_filter
    from ambiseg.engine.run import fit_mixture, mixed

    data = data_of(runs[0].config, arguments.data)
    split = SpreadSplit(open_split(data, arguments.split), arguments.images)
    with progress("fitting", not arguments.json) as update:
        fit = fit_mixture(runs, split, arguments.samples, arguments.seed, update)
    weights = fit.weights()
    alone = {str(f): fit.ged([float(i == r) for i in range(len(runs))]) for r, f in enumerate(arguments.runs)}
    how = {
        "by": "mean GED",
        "data": str(data),
        "split": arguments.split,
        "images": fit.images,
        "seed": arguments.seed,
    }
    used = [(run, weight) for run, weight in zip(runs, weights, strict=True) if weight > 0]
    mixture = mixed([run for run, _ in used], [weight for _, weight in used])
    with progress("choosing a filter", not arguments.json) as update:
        filtering = choose_filter(
            mixture, split, arguments.split, data=str(data), seed=arguments.seed, progress=update
        )
    return weights, {**alone, "mixture": fit.ged(weights)}, how, filtering
