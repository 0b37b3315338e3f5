"""Put the measured results into the pages that show them.

    python benchmarks/tables.py

Reads the JSON files of ``docs/results`` and replaces what stands between ``<!-- table NAME -->`` and ``<!-- end -->`` in
the pages that show them. No figure of these tables is typed by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ambiseg.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "metrics.md",
    ROOT / "docs" / "methods" / "mode-proposals.md",
)
COLUMNS = (
    "hm_iou_unique",
    "hm_iou",
    "hm_iou_tiled",
    "m_iou",
    "ged",
    "dice_of_mean",
    "brier_skill_nearest",
    "total_variation",
    "ece",
)


def read(name: str) -> Any:
    """A result file, empty where there is none yet."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def number(value: float | None) -> str:
    """Three decimals, a dash where there is no value."""
    return "–" if value is None else f"{value:.3f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def demo() -> str:
    """The table that the demo prints."""
    result = read("demo.json")
    columns = ("all", "kept", "perfect")
    names = [n for n in METRICS if any(n in result[c] for c in columns)]
    rows = [["masks per image", "", *(f"{result[c]['masks_per_image']:.2f}" for c in columns)]]
    for name in names:
        arrow = {True: "↑", False: "↓", None: ""}[METRICS[name].higher_is_better]
        cells = [number(result[c][name]) if name in result[c] else "" for c in columns]
        rows.append([METRICS[name].title, arrow, *cells])
    note = (
        f"{result['images']} test scenarios, seed {result['seed']}, split digest `{result['data_digest'][:12]}`,"
        f" {1000 * result['seconds_per_image']:.1f} ms per image in batches."
    )
    head = ["metric", "better", "all masks", "kept masks", "perfect sampler"]
    return table(head, rows) + "\n\n" + note


def runs() -> str:
    """One row per run: coverage and distances over all masks, then selection and probabilities."""
    head = ["data, labels", "cores", "minutes", "steps", "M", *(METRICS[c].title for c in COLUMNS)]
    head += ["perfect", "F1", "kept", "HM IoU* kept", "BSS kept", "BSS merged", "ms/image"]
    rows = []
    for entry in read("mode-proposals.json").values():
        every, kept, phases = entry["all"], entry["kept"], entry["phases"]
        rows.append(
            [
                f"{entry['data']}, {entry['labels']}",
                str(entry["cores"]),
                " + ".join(f"{phase['train']['minutes']:g}" for phase in phases),
                str(sum(phase["training"]["steps"] for phase in phases)),
                f"{every['masks_per_image']:.0f}",
                *(number(every[c]) for c in COLUMNS),
                number(entry["perfect"]["hm_iou_unique"]),
                number(every.get("selection_f1")),
                f"{kept['masks_per_image']:.1f}",
                number(kept["hm_iou_unique"]),
                number(kept["brier_skill_score"]),
                number(entry["merged"]["brier_skill_score"]),
                f"{1000 * entry['seconds_per_image']:.1f}",
            ]
        )
    return table(head, rows)


def score_cost() -> str:
    """Selection with and without scores in the matching."""
    rows = []
    for title, name in (
        ("0 (the paper)", "demo-without-score-cost.json"),
        ("0.1", "demo-score-cost.json"),
    ):
        every, kept = read(name)["all"], read(name)["kept"]
        numbers = (every["selection_f1"], every["hm_iou_unique"], kept["brier_skill_score"])
        rows.append([title, *map(number, numbers)])
    titles = [METRICS[name].title for name in ("selection_f1", "hm_iou_unique")]
    return table(["score cost", *titles, "BSS kept"], rows)


def speed() -> str:
    """What `speed.py` measured."""
    result = read("speed.json")
    step = result["training_step_seconds"]
    rows = [
        ["training step of 32 images 64x64, float32", f"{step['float32']:.3f} s", "1"],
        [
            "the same, bf16 + channels-last",
            f"{step['bf16 + channels-last']:.3f} s",
            f"{result['training_speedup']:.2f} x",
        ],
        ["GroupNorm, groups of 16 channels against 8 groups", "", f"{result['group_norm_speedup']:.1f} x"],
        ["one 64x64 image, one thread", f"{1000 * result['latency_one_thread_seconds']:.1f} ms", ""],
    ]
    return table(["what", "time", "ratio"], rows)


def metrics_speed() -> str:
    """What `metrics.py` measured."""
    result = read("metrics-speed.json")
    rows = []
    for key, title in (
        ("overlaps_seconds", "all pairs of 104 masks 128x128, one thread"),
        ("ged_seconds", "GED² of 100 samples and 4 annotations 128x128, one thread"),
    ):
        base = result[key]["pair by pair"]
        rows += [
            [title, name, f"{1000 * seconds:.2f} ms", f"{base / seconds:.1f} x"]
            for name, seconds in result[key].items()
        ]
    suite = f"{len(result['suite_metrics'])} default metrics, 100 images x 100 samples 128x128"
    rows.append([suite, f"{result['threads']} threads", f"{result['suite_seconds']:.2f} s", ""])
    big = result["thousand_samples"]
    rows.append(
        [
            f"1,000 samples 512x512 ({big['masks_mib']:.0f} MiB), all pairs, one thread",
            f"{big['peak_mib']:.0f} MiB beside the masks",
            f"{big['seconds']:.1f} s",
            "",
        ]
    )
    return table(["what", "how", "time", "ratio"], rows)


def main() -> None:
    """Rewrite the pages."""
    made = {
        "demo": demo,
        "runs": runs,
        "score-cost": score_cost,
        "speed": speed,
        "metrics-speed": metrics_speed,
    }
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name, make in made.items():
            mark = f"<!-- table {name} -->"
            if mark in text:
                pattern = re.escape(mark) + r".*?<!-- end -->"
                content = f"{mark}\n{make()}\n<!-- end -->"
                text = re.sub(pattern, lambda _, content=content: content, text, flags=re.DOTALL)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
