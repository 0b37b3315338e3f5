"""How many experts a mixture needs: GED by their number on lung nodules, in both representations.

    python benchmarks/mose_experts.py --source DIR --work DIR --results docs/results/mose-experts.json

Gao, Chen, Zhang and He (2023), "Modeling multimodal aleatoric uncertainty in segmentation with mixture of
stochastic experts", appendix B.4 and figure 5, on ``lidc-on-ct-64``, split by patient, all four annotations.
Every mixture takes the same number of steps with the same settings but for K; a run that is finished in
``--work`` is evaluated only. 16 masks of every validation image. Writes the figures and, beside them, a
picture of the same name.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ambiseg.engine.run_folder import write_json
from ambiseg.engine.settings import TrainSettings
from ambiseg.methods.mose import MoSESettings
from mode_proposals import prepare
from training_runs import common_options, measure, parsed, train_once

EXPERTS = (1, 2, 4, 8)
REPRESENTATIONS = ("standard", "compact")
SAMPLES = 16
FIGURES = ["ged", "m_iou", "ece"]


def figures(experts: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a mixture of so many experts unless it is done, and evaluate both representations."""
    data = prepare("lidc", arguments.source, arguments.work)
    train = TrainSettings(epochs=arguments.epochs, batch_size=16, lr=1e-3, seed=arguments.seed)
    run = arguments.work / f"lidc-mose-{experts}-experts-{arguments.seed}"
    train_once("mose", data, run, train, MoSESettings(experts=experts))
    options = {"every": arguments.every, "batch_size": 8}
    return {
        name: measure(run, data, "val", SAMPLES, FIGURES, representation=name, **options)
        for name in REPRESENTATIONS
    }


def draw(results: dict[str, Any], path: Path) -> None:
    """Figure 5: GED by the number of experts; the annotation oracle as a line."""
    entries = sorted((int(key.split(" ")[0]), entry) for key, entry in results.items())
    counts = [count for count, _ in entries]
    figure, axes = plt.subplots(figsize=(4.6, 3.4), layout="constrained")
    for representation in REPRESENTATIONS:
        values = [entry[representation]["all"]["ged"] for _, entry in entries]
        axes.plot(counts, values, "o-", label=representation)
    floor = [entry["standard"]["oracle"]["ged"] for _, entry in entries]
    axes.plot(counts, floor, "--", color="#9ca3af", label="annotation oracle")
    axes.set(xlabel="experts K", ylabel=f"GED\u00b2({SAMPLES})", xscale="log", ylim=(0, None))
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure what is asked for; results already there are replaced."""
    parser = common_options(__doc__)
    parser.add_argument("--experts", nargs="+", type=int, default=list(EXPERTS))
    parser.add_argument("--epochs", type=int, default=4, help="4 are 1000 steps of 16 images")
    parser.add_argument("--every", type=int, default=1, help="one in so many validation images")
    arguments = parsed(parser)
    for experts in arguments.experts:
        entry = figures(experts, arguments)
        known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
        known[f"{experts} experts"] = entry
        write_json(arguments.results, known)
        draw(known, arguments.results.with_suffix(".png"))
        print(json.dumps({"experts": experts, **{r: entry[r]["all"] for r in REPRESENTATIONS}}), flush=True)


if __name__ == "__main__":
    main()
