"""Table 10: 8, 16 and 32 proposals, full and single labels.

    python benchmarks/mode_proposal_paper/table10.py --work DIR

The prior of a proposal being positive is 8 modes over the number of proposals (A.4).
"""

from __future__ import annotations

from runs import SPLIT, data_of, parse, proposal_run, row, save

import ambiseg

PAPER: dict[tuple[str, int], dict[str, float | None]] = {
    ("full", 8): {"hm_iou_unique": 0.923, "selection_f1": 0.997},
    ("full", 16): {"hm_iou_unique": 0.923, "selection_f1": 0.994},
    ("full", 32): {"hm_iou_unique": 0.924, "selection_f1": 0.978},
    ("single", 8): {"hm_iou_unique": 0.883, "selection_f1": 0.995},
    ("single", 16): {"hm_iou_unique": 0.910, "selection_f1": 0.692},
    ("single", 32): {"hm_iou_unique": 0.914, "selection_f1": 0.306},
}
"""Table 10."""
METRICS = ["selection_f1", "hm_iou_unique"]


def main() -> None:
    """Train and measure."""
    arguments = parse(__doc__)
    data, rows, used = data_of(arguments), [], []
    for (labels, proposals), paper in PAPER.items():
        runs = [proposal_run(arguments, labels, seed, proposals) for seed in arguments.seeds]
        used += runs
        if arguments.train_only:
            continue
        found = [ambiseg.evaluate(run, data, SPLIT, metrics=METRICS, oracle_draws=0) for run in runs]
        ours = {name: [e.all[name] for e in found] for name in METRICS}
        rows.append(row(arguments, {"labels": labels, "proposals": proposals}, ours, paper, runs))
    if rows:
        save(arguments, "table10", rows, used)


if __name__ == "__main__":
    main()
