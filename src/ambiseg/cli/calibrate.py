"""``ambiseg calibrate-filter``: choose what a run keeps of its predictions, on annotated images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tyro.conf import Positional

from ambiseg.cli.console import command, next_commands, progress, say, show, show_json
from ambiseg.cli.evaluate import data_of
from ambiseg.cli.parsing import at_least_one, parse
from ambiseg.errors import AmbisegError


@dataclass(frozen=True)
class CalibrateArguments:
    """Choose on annotated images which masks predictions of a run keep, and write it into the run (filter.json)."""

    run: Positional[Path]
    """Run folder that 'ambiseg train' wrote."""
    data: Path | None = None
    """Data set; the one of the run if left out."""
    split: str = "val"
    """Which split of it: images that the run was not trained on."""
    images: int = 200
    """At most this many images, spread evenly over the split."""
    seed: int = 0
    """Seed of methods that draw at random."""
    json: bool = False
    """Print the outcome as JSON."""


def run(args: list[str]) -> int:
    """Choose, save and print."""
    arguments = parse(CalibrateArguments, args, "ambiseg calibrate-filter")
    at_least_one(images=arguments.images)
    if arguments.seed < 0:
        raise AmbisegError(f"--seed must not be negative, received {arguments.seed}")
    from ambiseg.data.source import open_split
    from ambiseg.engine.filter_choice import choose_filter
    from ambiseg.engine.run import load
    from ambiseg.engine.run_folder import FILTER

    model = load(arguments.run)
    data = data_of(model.config, arguments.data)
    split = open_split(data, arguments.split)
    with progress("choosing a filter", not arguments.json) as update:
        found = choose_filter(
            model,
            split,
            arguments.split,
            data=str(data),
            images=arguments.images,
            seed=arguments.seed,
            progress=update,
        )
    found.save(arguments.run)
    if arguments.json:
        show_json({"run": arguments.run, **asdict(found)})
        return 0
    show(found.message)
    say(f"written: {arguments.run / FILTER}")
    next_commands((command("ambiseg", "evaluate", arguments.run), "measure it on the test split"))
    return 0
