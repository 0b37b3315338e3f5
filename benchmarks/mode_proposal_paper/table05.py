"""Table 5: Brier skill of velocity decomposition for the annotated modes and for proposals, filtered or not.

    python benchmarks/mode_proposal_paper/table05.py --work DIR

The paper's figure matches masks and modes one to one (equation 23, "BSS"); beside it stands the skill where
every proposal gives its probability to its nearest mode, and that once more with modes that are nearly alike
counted as one ("merged", as in ``benchmarks/probabilities.py``).
"""

from __future__ import annotations

from runs import SPLIT, data_of, flow_of, parse, proposal_run, row, save

import ambiseg
from ambiseg.data.source import open_split
from mode_scores import Masks
from probabilities import FILTERS, WAYS, estimate, modes_of, proposals_of, truths_of

PAPER = {
    ("full", "none"): 0.924,
    ("full", "scores"): 0.940,
    ("full", "scores and duplicates"): 0.939,
    ("single", "none"): 0.205,
    ("single", "scores"): 0.199,
    ("single", "scores and duplicates"): 0.821,
    ("truth", "none"): 0.919,
}
"""Table 5, MMFire."""
METRICS = ("brier_skill_score", "brier_skill_nearest", "brier_skill_nearest_merged")


def main() -> None:
    """Train, decompose, measure."""
    arguments = parse(__doc__)
    flow, views = flow_of(arguments), ("full", "single")
    runs = {v: [proposal_run(arguments, v, seed) for seed in arguments.seeds] for v in views}
    if arguments.train_only:
        return
    split = open_split(data_of(arguments), SPLIT)
    samples = [split[i] for i in range(len(split))]
    truths = truths_of(samples, split.info.labels)
    loaded, found = ambiseg.load(flow), []
    for i, seed in enumerate(arguments.seeds):
        kinds: list[Masks] = [modes_of(truths)]
        for view in views:
            kinds += proposals_of(view, ambiseg.load(runs[view][i]), samples)
        rows = estimate(samples, truths, kinds, "velocity", WAYS["velocity"], loaded, seed)
        found.append({(r["masks"], r["filter"]): r for r in rows})
    table = []
    for masks, title in (*((v, f) for v in views for f in FILTERS), ("truth", "none")):
        ours = {name: [rows[masks, title][name] for rows in found] for name in METRICS}
        paper: dict[str, float | None] = {"brier_skill_score": PAPER[masks, title]}
        what = {"masks": masks, "filter": title}
        used = runs.get(masks, [])
        table.append(row(arguments, what, ours, paper, used, draws=WAYS["velocity"].draws))
    save(arguments, "table05", table, [flow, *(run for view in views for run in runs[view])])


if __name__ == "__main__":
    main()
