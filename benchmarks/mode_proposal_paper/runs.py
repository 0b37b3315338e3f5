"""What the table scripts of this folder share: command line, data, runs that are trained once, rows of
results.

The paper's MMFire stands behind the tables; here it is the simulator of the house (64x64, probabilities 2^i /
255). Its recipe (table 6, appendix A): the network of a flow model with its encoder frozen (``--regime
encoder``), Dice + Focal for full labels and MSE for single ones, no probability head. ``--ours`` takes the
settings of ``benchmarks/mode_proposals.py`` in place of these, from scratch unless ``--regime`` says
otherwise.

Runs lie in ``--work`` under the names of their settings, so that the scripts share them: a finished one is
not trained again, one that was stopped goes on from its last checkpoint. There is one flow model, of seed 0,
as in the paper; seeds are those of the proposal networks and of the noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ambiseg.cli.data import write_wildfires
from ambiseg.data.batches import label_mode
from ambiseg.data.source import open_split
from ambiseg.engine.run_folder import TRAINING, RunConfig, write_json
from ambiseg.engine.settings import TrainSettings
from ambiseg.methods.mode_proposals import EDM_NOISE, ModeProposalsSettings
from mode_proposals import RECIPES
from probabilities import EXACT, FlowPhase, flow_run
from training_runs import CORES, describe, train_once

SAMPLED = dataclasses.replace(EXACT, target="sample")
FLOW: tuple[FlowPhase, ...] = (
    (None, SAMPLED, TrainSettings(minutes=30, batch_size=16, lr=2e-3)),
    (None, EXACT, TrainSettings(minutes=15, batch_size=16, lr=1e-3)),
    (2500, EXACT, TrainSettings(minutes=16, batch_size=16, lr=1e-3)),
)
"""Phases of the flow model; proposal networks start from those on their own scenarios."""
OWN = 2
"""Number of these."""
MODES = 8
"""Outcomes of a simulated fire, and of one of MMFire."""
SPLIT = "test"
REGIMES = ("scratch", "nothing", "encoder", "all-but-last")
"""From scratch, or from the flow model with this part frozen."""
RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "mode-proposal-paper.json"


def parse(doc: str | None, arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line of every table."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for packed data and runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to add the table to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=4, help="training time of a proposal network")
    parser.add_argument("--flow-minutes", type=float, help="training time of each phase of the flow model")
    parser.add_argument("--scenarios", type=int, default=1000, help="simulated scenarios")
    parser.add_argument("--regime", choices=REGIMES, help="where proposal networks start (not table 7)")
    parser.add_argument("--ours", action="store_true", help="settings of the house in place of the paper's")
    parser.add_argument(
        "--train-only", action="store_true", help="train what the table needs, measure nothing"
    )
    given = parser.parse_args(arguments)
    given.work = given.work.resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    given.results.parent.mkdir(parents=True, exist_ok=True)
    return given


def data_of(arguments: argparse.Namespace) -> Path:
    """The simulated scenarios; 1000 of them are those of ``benchmarks/mode_proposals.py``."""
    name = "wildfire" if arguments.scenarios == 1000 else f"wildfire-{arguments.scenarios}"
    target: Path = arguments.work / f"{name}.h5"
    if not target.exists():
        write_wildfires(target, arguments.scenarios)
    return target


def flow_of(arguments: argparse.Namespace, phases: int | None = None) -> Path:
    """The flow model, trained once; only its first phases if asked."""
    data = data_of(arguments)
    return flow_run(data.stem, data, arguments.work, FLOW[:phases], arguments.flow_minutes)


def settings_of(labels: str, proposals: int, ours: bool) -> ModeProposalsSettings:
    """Settings of the method for a label view."""
    prior = min(1.0, MODES / proposals)
    if ours:
        house = RECIPES["wildfire", labels][0][0]
        return dataclasses.replace(house, proposals=proposals, positive_prior=prior)
    return ModeProposalsSettings(
        proposals=proposals,
        mask_loss="dice-focal" if labels == "full" else "mse",
        positive_prior=prior,
        probability_head=False,
        image_cue=False,
    )


def regime_of(arguments: argparse.Namespace) -> str:
    """Where proposal networks start."""
    return arguments.regime or ("scratch" if arguments.ours else "encoder")


def proposal_run(
    arguments: argparse.Namespace,
    labels: str,
    seed: int,
    proposals: int = 2 * MODES,
    regime: str | None = None,
) -> Path:
    """A proposal network, trained once."""
    regime, data = regime or regime_of(arguments), data_of(arguments)
    settings = settings_of(labels, proposals, arguments.ours)
    train = TrainSettings(
        labels=label_mode(labels), minutes=arguments.minutes, batch_size=16, lr=2e-3, seed=seed
    )
    if regime != "scratch":
        frozen: dict[str, Any] = {"freeze": regime}
        train = dataclasses.replace(train, init=str(flow_of(arguments, OWN)), **frozen)
        settings = dataclasses.replace(settings, flow_input=True, flow_time=EDM_NOISE)
    recipe = "ours" if arguments.ours else "paper"
    run = arguments.work / f"{data.stem}-{recipe}-{labels}-{proposals}-{regime}-{seed}"
    return train_once("mode-proposals", data, run, train, settings)


def images_of(arguments: argparse.Namespace) -> int:
    """Images that are measured."""
    return len(open_split(data_of(arguments), SPLIT))


def summary(values: list[float]) -> dict[str, Any]:
    """The figure of each seed with mean and, of several, standard deviation."""
    found: dict[str, Any] = {
        "seeds": [round(v, 4) for v in values],
        "mean": round(statistics.fmean(values), 4),
    }
    return found | ({"std": round(statistics.stdev(values), 4)} if len(values) > 1 else {})


def row(
    arguments: argparse.Namespace,
    what: dict[str, Any],
    ours: dict[str, list[float]],
    paper: dict[str, float | None],
    runs: list[Path],
    **facts: Any,
) -> dict[str, Any]:
    """One row of a table: what it is, our figures of each seed, the paper's, and how ours were made."""
    return {
        **what,
        "ours": {name: summary(values) for name, values in ours.items()},
        "paper": paper,
        "seeds": arguments.seeds,
        "steps": [json.loads((run / TRAINING).read_text())["steps"] for run in runs],
        "minutes": [RunConfig.load(run).train.minutes for run in runs],
        "cores": CORES,
        "split": SPLIT,
        "images": images_of(arguments),
        **facts,
    }


def save(arguments: argparse.Namespace, table: str, rows: list[dict[str, Any]], runs: list[Path]) -> None:
    """Put a table into the results; variants of the recipe have keys of their own."""
    regime = arguments.regime and f"from-{arguments.regime}"
    key = "-".join(part for part in (table, "ours" if arguments.ours else None, regime) if part)
    known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    starts = [Path(init) for run in runs if (init := RunConfig.load(run).train.init)]
    made = {"rows": rows, "runs": {run.name: describe(run) for run in dict.fromkeys([*starts, *runs])}}
    write_json(arguments.results, {**known, key: made})
    for entry in rows:
        print(json.dumps(entry))
