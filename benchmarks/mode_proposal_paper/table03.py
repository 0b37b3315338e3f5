"""Table 3: what the selection scores keep, full and single labels.

    python benchmarks/mode_proposal_paper/table03.py --work DIR

The column "filter duplicates" of the paper is the filter by score: its text says that proposals are discarded
"solely based on the learned scores". The third filter here also drops near-duplicates (IoU above .9).
"""

from __future__ import annotations

from runs import SPLIT, data_of, parse, proposal_run, row, save

import ambiseg
from probabilities import FILTERS

PAPER: dict[tuple[str, str], dict[str, float | None]] = {
    ("full", "none"): {"selection_f1": 0.994, "hm_iou_unique": 0.923, "proposals": 16.0},
    ("full", "scores"): {"selection_f1": None, "hm_iou_unique": 0.920, "proposals": 7.9},
    ("single", "none"): {"selection_f1": 0.692, "hm_iou_unique": 0.910, "proposals": 16.0},
    ("single", "scores"): {"selection_f1": None, "hm_iou_unique": 0.894, "proposals": 14.0},
}
"""Table 3, MMFire."""
METRICS = ["selection_f1", "hm_iou_unique"]


def main() -> None:
    """Train, filter, measure."""
    arguments = parse(__doc__)
    data, rows, used = data_of(arguments), [], []
    for labels in ("full", "single"):
        runs = [proposal_run(arguments, labels, seed) for seed in arguments.seeds]
        used += runs
        if arguments.train_only:
            continue
        for title, settings in FILTERS.items():
            found = [
                ambiseg.evaluate(run, data, SPLIT, settings, metrics=METRICS, oracle_draws=0) for run in runs
            ]
            ours = {
                "hm_iou_unique": [e.kept["hm_iou_unique"] for e in found],
                "proposals": [e.n_kept for e in found],
            }
            if title == "none":
                ours["selection_f1"] = [e.all["selection_f1"] for e in found]
            what = {"labels": labels, "filter": title}
            rows.append(row(arguments, what, ours, PAPER.get((labels, title), {}), runs))
    if rows:
        save(arguments, "table03", rows, used)


if __name__ == "__main__":
    main()
