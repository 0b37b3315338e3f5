"""Table 11: Brier skill of the annotated modes against the number of noise draws.

    python benchmarks/mode_proposal_paper/table11.py --work DIR

Velocity decomposition as in table 5; seeds are those of the noise.
"""

from __future__ import annotations

from runs import SPLIT, data_of, flow_of, parse, row, save

import ambiseg
from ambiseg.data.source import open_split
from probabilities import Way, estimate, modes_of, truths_of

PAPER: dict[int, float | None] = {8: 0.913, 16: 0.910, 32: 0.916, 64: 0.919, 128: None}
"""Table 11; the row of 128 draws is not in the text that we have."""
METRICS = ("brier_skill_score", "brier_skill_nearest", "brier_skill_nearest_merged")


def main() -> None:
    """Train, decompose, measure."""
    arguments = parse(__doc__)
    flow = flow_of(arguments)
    if arguments.train_only:
        return
    split = open_split(data_of(arguments), SPLIT)
    samples = [split[i] for i in range(len(split))]
    truths = truths_of(samples, split.info.labels)
    loaded, masks, rows = ambiseg.load(flow), [modes_of(truths)], []
    for draws, paper in PAPER.items():
        found = [
            estimate(samples, truths, masks, f"velocity {draws}", Way("velocity", draws), loaded, seed)[0]
            for seed in arguments.seeds
        ]
        ours = {name: [one[name] for one in found] for name in METRICS}
        what = {"masks": "truth", "draws": draws}
        rows.append(row(arguments, what, ours, {"brier_skill_score": paper}, [flow]))
    save(arguments, "table11", rows, [flow])


if __name__ == "__main__":
    main()
