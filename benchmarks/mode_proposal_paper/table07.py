"""Table 7: proposals from scratch and from a flow model, with nothing, the encoder, or all but the last layer
frozen.

    python benchmarks/mode_proposal_paper/table07.py --work DIR

Full labels, 16 proposals.
"""

from __future__ import annotations

from runs import SPLIT, data_of, parse, proposal_run, row, save

import ambiseg

PAPER: dict[str, dict[str, float | None]] = {
    "scratch": {"hm_iou_unique": 0.927, "selection_f1": 0.948},
    "nothing": {"hm_iou_unique": 0.927, "selection_f1": 0.952},
    "encoder": {"hm_iou_unique": 0.923, "selection_f1": 0.994},
    "all-but-last": {"hm_iou_unique": 0.752, "selection_f1": 0.933},
}
"""Table 7: from scratch, all weights, decoder only, last convolution only."""
METRICS = ["selection_f1", "hm_iou_unique"]


def main() -> None:
    """Train and measure."""
    arguments = parse(__doc__)
    data, rows, used = data_of(arguments), [], []
    for regime, paper in PAPER.items():
        runs = [proposal_run(arguments, "full", seed, regime=regime) for seed in arguments.seeds]
        used += runs
        if arguments.train_only:
            continue
        found = [ambiseg.evaluate(run, data, SPLIT, metrics=METRICS, oracle_draws=0) for run in runs]
        ours = {name: [e.all[name] for e in found] for name in METRICS}
        rows.append(row(arguments, {"labels": "full", "frozen": regime}, ours, paper, runs))
    if rows:
        save(arguments, "table07", rows, used)


if __name__ == "__main__":
    main()
