"""Put the measured results into the pages that show them.

    python benchmarks/tables.py

Reads the JSON files of ``docs/results`` and replaces what stands between ``<!-- table NAME -->`` and ``<!--
end -->`` in the pages that show them. No figure of these tables is typed by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gpu_tables
from ambiseg.metrics import METRICS
from thresholds import THRESHOLDS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "metrics.md",
    ROOT / "docs" / "benchmark-cpu.md",
    ROOT / "docs" / "energy-score.md",
    ROOT / "docs" / "methods" / "mode-proposals.md",
    ROOT / "docs" / "methods" / "flow-matching.md",
    ROOT / "docs" / "methods" / "sampling-baselines.md",
    ROOT / "docs" / "methods" / "flow-ssn.md",
    ROOT / "docs" / "methods" / "mose.md",
    ROOT / "docs" / "methods" / "atfm.md",
    ROOT / "docs" / "gpu.md",
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


def figure(value: float | list[float] | None) -> str:
    """A number, or the two ends of an interval."""
    return "{:.2f} to {:.2f}".format(*value) if isinstance(value, list) else number(value)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def demo() -> str:
    """The table that the demo prints."""
    result = read("demo.json")
    columns = ("all", "kept", "oracle")
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
    head = ["metric", "better", "all masks", "kept masks", "annotation oracle"]
    return table(head, rows) + "\n\n" + note


def _settled(settings: dict[str, Any]) -> str:
    prior = settings.get("settle_prior")
    return f"settled by prior {prior:g}" if prior else f"settle {settings['settle']:g}"


def runs() -> str:
    """One row per run: coverage and distances over all masks, then selection and probabilities."""
    head = ["data, labels", "cores", "minutes", "steps", "M", *(METRICS[c].title for c in COLUMNS)]
    head += ["annotation oracle", "F1", "kept", "HM IoU* kept", "BSS kept", "ms/image"]
    rows = []
    for title, entry in read("mode-proposals.json").items():
        every, kept, phases = entry["all"], entry["kept"], entry["phases"]
        settings = phases[0]["settings"]
        options = [f"balance {settings['balance']:g}"] if settings.get("balance") else []
        losses = [p["settings"]["mask_loss"] for p in phases]
        options += [" then ".join(dict.fromkeys(losses))] if "mse" in losses else []
        options += [_settled(p["settings"]) for p in phases if p["settings"]["settle"] < 1][-1:]
        options += ["shares as targets"] if settings.get("probability_target") == "posterior" else []
        options += ["energy score for probabilities"] if settings.get("energy_weight") else []
        options += ["image cue"] if settings.get("image_cue") else []
        options += ["flips only"] if title.endswith("-flips-seed0") else []
        options += [f"{entry['scenarios']} scenarios"] if entry.get("scenarios") else []
        rows.append(
            [
                ", ".join([entry["data"], entry["labels"], *options]),
                str(entry["cores"]),
                " + ".join(f"{phase['train']['minutes']:g}" for phase in phases),
                str(sum(phase["training"]["steps"] for phase in phases)),
                f"{every['masks_per_image']:.0f}",
                *(number(every[c]) for c in COLUMNS),
                number(entry["oracle"]["hm_iou_unique"]),
                number(every.get("selection_f1")),
                f"{kept['masks_per_image']:.1f}",
                number(kept["hm_iou_unique"]),
                number(kept["brier_skill_score"]),
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


def thresholds(name: str) -> str:
    """What `thresholds.py` measured of one threshold; "kept" is the number of masks, where it filters
    them."""
    threshold = THRESHOLDS[name]
    kept = ["masks_per_image"] if threshold.column == "kept" else []
    rows = []
    for row in read(threshold.results)["rows"]:
        line = [row["run"], f"{row['threshold']:g}", *(f"{row[f]:.1f}" for f in kept)]
        rows.append([*line, *(number(row[f]) for f in threshold.metrics)])
    head = ["run", "threshold", *(["kept"] if kept else []), *(METRICS[f].title for f in threshold.metrics)]
    return table(head, rows)


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


TITLES = {
    **{name: info.title for name, info in METRICS.items()},
    "proposals": "proposals",
    "hm_iou_unique_merged": "HM IoU* (merged)",
    "brier_skill_nearest_merged": "BSS (nearest, merged)",
    "brier_skill_score_both_merged": "BSS (one to one, merged)",
    "brier_skill_score_interval": "95 % of BSS",
    "brier_skill_score_distinct": "BSS, no modes alike",
    "flip_skill": "BSS of q",
}
WHAT = {"masks": "masks", "labels": "labels", "filter": "filter", "frozen": "frozen", "draws": "draws"}
"""Keys of a row that say what it is, and their headings; 'proposals' is also one where it is not a figure."""


def not_yet(command: str) -> str:
    """What stands where there is no result."""
    return f"Not measured yet: `python benchmarks/{command} --work DIR` makes this table."


def several(found: dict[str, Any] | None, digits: int = 3) -> str:
    """A figure of one seed, or the mean of several with their standard deviation."""
    if found is None:
        return ""
    spread = f" ± {found['std']:.{digits}f}" if "std" in found else ""
    return f"{found['mean']:.{digits}f}{spread}"


def paper_table(number_: str) -> str:
    """One of the paper's tables: its figures beside ours, of the paper's recipe and of every other that was
    measured."""
    name, results = f"table{number_}", read("mode-proposal-paper.json")
    variants = {key: made for key, made in results.items() if key == name or key.startswith(f"{name}-")}
    if not variants:
        return not_yet(f"mode_proposal_paper/{name}.py")
    first = next(iter(variants.values()))["rows"]
    labels = [key for key in (*WHAT, "proposals") if key in first[0]]
    figures = list(dict.fromkeys(figure for row in first for figure in (*row["paper"], *row["ours"])))
    head = [WHAT.get(key, "proposals") for key in labels]
    for figure in figures:
        head.append(f"{TITLES[figure]}, paper")
        head += [f"{TITLES[figure]}, {recipe(key, name)}" for key in variants]
    rows = []
    for i, row in enumerate(first):
        line = [str(row[key]) for key in labels]
        for figure in figures:
            digits = 1 if figure == "proposals" else 3
            printed = row["paper"].get(figure)
            line.append("" if printed is None else f"{printed:.{digits}f}")
            line += [several(made["rows"][i]["ours"].get(figure), digits) for made in variants.values()]
        rows.append(line)
    filled = [j for j in range(len(head)) if any(line[j] for line in rows)]
    text = table([head[j] for j in filled], [[line[j] for j in filled] for line in rows])
    return text + "\n\n" + " ".join(made_by(key, name, made) for key, made in variants.items())


def recipe(key: str, name: str) -> str:
    """The heading of a variant of a table."""
    return (
        key.removeprefix(name).replace("-ours", " our recipe").replace("-from-", " from ").strip() or "here"
    )


def made_by(key: str, name: str, made: dict[str, Any]) -> str:
    """One sentence on how a variant was measured."""
    row = made["rows"][0]
    trained: dict[tuple[str, float], list[int]] = {}
    for run in made["runs"].values():
        trained.setdefault((run["method"], run["train"]["minutes"]), []).append(run["training"]["steps"])
    parts = [
        f"{method} {minutes:g} minutes ({min(steps)} to {max(steps)} steps)"
        if len(steps) > 1
        else f"{method} {minutes:g} minutes ({steps[0]} steps)"
        for (method, minutes), steps in trained.items()
    ]
    seeds = ", ".join(map(str, row["seeds"]))
    return (
        f"{recipe(key, name).capitalize()}: {'; '.join(parts)}; cores {row['cores']}; seeds {seeds};"
        f" {row['images']} images of the split {row['split']}."
    )


def probabilities(name: str) -> str:
    """Every way of estimating probabilities on a data set, and how many times as fast as "velocity" it is."""
    found = {k: v for k, v in read("probabilities.json").items() if k.startswith(f"{name}-seed")}
    if not found:
        source = " --source DATA" if name == "camvid" else ""
        return not_yet(f"probabilities.py --results docs/results/probabilities.json --sets {name}{source}")
    return "\n\n".join(ways(made) for made in found.values())


def ways(made: dict[str, Any]) -> str:
    """The rows of one data set."""
    figures = (
        "hm_iou_unique",
        "brier_skill_score",
        "brier_skill_score_interval",
        "brier_skill_score_distinct",
        "brier_skill_nearest",
        "brier_skill_nearest_merged",
        "brier_skill_score_both_merged",
        "total_variation",
        "flip_skill",
    )
    shown = [f for f in figures if any(f in row for row in made["rows"])]
    head = ["masks", "filter", "way", "flow evaluations", *(TITLES[f] for f in shown)]
    head += ["ms/image", "times as fast as velocity"]
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in made["rows"]:
        kinds.setdefault((row["masks"], row["filter"]), []).append(row)
    rows, remarks = [], []
    for masks, title in sorted(kinds, key=lambda kind: ("truth", "full", "single").index(kind[0])):
        group = kinds[masks, title]
        base = next((row for row in group if row["way"] == "velocity"), None)
        for row in group:
            line = [masks, title, row["way"], str(row["evaluations"])]
            line += [figure(row.get(f)) for f in shown]
            ratio = f"{base['seconds_per_image'] / row['seconds_per_image']:.2f}" if base else "–"
            rows.append([*line, f"{1000 * row['seconds_per_image']:.1f}", ratio])
        key = "brier_skill_nearest_merged"
        rivals = [r for r in group if r["way"] == "head" or r["way"].startswith(("mean", "posterior"))]
        if base and rivals and all(key in r for r in (base, *rivals)):
            best = max(rivals, key=lambda r: r[key])
            remarks.append(
                f"{masks}, {title}: {best['way']} {number(best[key])}, velocity {number(base[key])},"
                f" {base['seconds_per_image'] / best['seconds_per_image']:.2f} times as fast"
            )
    images = "/".join(str(n) for n in dict.fromkeys(row["images"] for row in made["rows"]))
    cores = "/".join(str(n) for n in dict.fromkeys(row["cores"] for row in made["rows"]))
    split = made["rows"][0]["split"]
    note = f"{images} images of the split {split}, seed {made['seed']}, one at a time; cores {cores}."
    if "images_distinct" in made["rows"][0]:
        note += f" In {made['rows'][0]['images_distinct']} of them no two modes have an IoU above 0.9."
    if made["flow"]:
        train, done = made["flow"]["train"], made["flow"]["training"]
        note += f" Flow model: {train['minutes']:g} minutes, {done['steps']} steps."
    if remarks:
        note += "\n\nThe best of head, mean and posterior, BSS (nearest, merged): " + "; ".join(remarks) + "."
    return table(head, rows) + "\n\n" + note


def sampling_methods() -> str:
    """Methods that sample, data set by data set."""
    found = read("sampling-methods.json")
    if not found:
        return not_yet("sampling_methods.py --results docs/results/sampling-methods.json --source DATA")
    figures = ("ged", "hm_iou_tiled", "hm_iou_unique")
    head = ["data", "method", "masks", *(METRICS[f].title for f in figures), "ms/image", "ms/training step"]
    rows = [
        [
            entry["data"],
            entry["title"],
            f"{entry['all']['masks_per_image']:.0f}",
            *(number(entry["all"][f]) for f in figures),
            f"{1000 * entry['seconds_per_image']:.1f}",
            f"{1000 * entry['seconds_per_step']:.0f}",
        ]
        for entry in found.values()
    ]
    made = list(found.values())
    epochs = "/".join(str(n) for n in dict.fromkeys(entry["train"]["epochs"] for entry in made))
    seeds = "/".join(str(n) for n in dict.fromkeys(entry["train"]["seed"] for entry in made))
    images = ", ".join(dict.fromkeys(f"{e['images']} images of {e['data']}, {e['split']}" for e in made))
    cores = "/".join(str(n) for n in dict.fromkeys(entry["cores"] for entry in made))
    note = (
        f"{epochs} epochs of batches of 16, one annotation per visit, seed {seeds}; {images}; cores {cores}."
    )
    return table(head, rows) + "\n\n" + note


def sampling_speed() -> str:
    """What `sampling_speed.py` measured."""
    result = read("sampling-speed.json")
    rows = [
        [
            f"`{name}`",
            f"{1000 * times['at once']:.0f} ms",
            f"{1000 * times['one by one']:.0f} ms",
            f"{result['ratio'][name]:.1f} x",
        ]
        for name, times in result["seconds"].items()
    ]
    return table(["method", f"{result['samples']} at once", "one by one", "ratio"], rows)


def markov_shapes() -> str:
    """Bits per dimension, errors and distance of the law of samples."""
    found = read("markov-shapes.json")
    if not found:
        return not_yet("markov_shapes.py --results docs/results/markov-shapes.json")
    head = ["model", "bits per dimension", "gap to the entropy", "impossible images", "total variation"]
    head += ["error of the covariance", "effective rank", "parameters", "minutes"]
    rows = [
        [
            name,
            f"{r['bits_per_dimension']:.4f}",
            f"{100 * r['gap']:.1f} %",
            f"{100 * r['errors']:.1f} %",
            number(r["total_variation"]),
            number(r["covariance_error"]),
            f"{r['effective_rank']:.1f}",
            str(r["parameters"]),
            f"{r['seconds'] / 60:.1f}",
        ]
        for name, r in found.items()
    ]
    counts = list(next(iter(found.values()))["convergence"])
    convergence = [[n, *(f"{r['convergence'][c]:.4f}" for c in counts)] for n, r in found.items()]
    return (
        table(head, rows)
        + "\n\nBits per dimension by the number S of samples of the logits they are estimated from:\n\n"
        + table(["model", *counts], convergence)
    )


def flow_ssn() -> str:
    """What `flow_ssn.py` measured, a table for each part."""
    found = read("flow-ssn.json")
    figures = ["ged", "diversity", "dice_of_mean", "hm_iou", "hm_iou_tiled", "hm_iou_unique"]
    texts = []
    heads = {
        "table": "Four methods, equal minutes and backbone",
        "priors": "Learnt against fixed prior",
        "steps": "Euler steps of the continuous model",
    }
    for part, title in heads.items():
        entries = found.get(part)
        if not entries:
            texts.append(not_yet(f"flow_ssn.py --parts {part} --results docs/results/flow-ssn.json"))
            continue
        head = ["", "samples", *(METRICS[f].title for f in figures), "s/image", "parameters", "steps trained"]
        rows = [
            [
                name,
                str(e["samples"]),
                *(number(e["all"][f]) for f in figures),
                f"{e['seconds_per_image']:.3f}",
                str(e["parameters"]),
                str(e["training"]["steps"]),
            ]
            for name, e in entries.items()
        ]
        one = next(iter(entries.values()))
        texts.append(
            f"{title}: {one['train']['minutes']:g} minutes each on {one['cores']} core(s), width {one['backbone']['width']},"
            f" seed {one['train']['seed']}, {one['images']} images of the split {one['split']}.\n\n"
            + table(head, rows)
        )
    for entry in found.get("speed", {}).values():
        rows = [
            [name, f"{seconds:.2f} s", f"{entry['ratio'][name]:.1f} x"]
            for name, seconds in entry["seconds"].items()
        ]
        base, flow = (entry["parameters"][k] / 1e6 for k in ("base", "flow"))
        texts.append(
            f"16 samples of one 128x128 image in 10 steps, base {base:.1f} M and flow {flow:.2f} M parameters,"
            f" {entry['threads']} thread(s), random weights:\n\n" + table(["", "time", "of the first"], rows)
        )
    return "\n\n".join(texts)


def measured(head: str, entries: dict[str, dict[str, Any]], figures: list[str]) -> str:
    """A sentence and a table: one row per run, its figures over all masks."""
    titles = ["", "samples", *(METRICS[f].title for f in figures), "s/image", "steps trained"]
    rows = [
        [
            name,
            str(e["samples"]),
            *(number(e["all"].get(f)) for f in figures),
            f"{e['seconds_per_image']:.3f}",
            str(e["training"]["steps"]),
        ]
        for name, e in entries.items()
    ]
    one = next(iter(entries.values()))
    how = f"width {one['backbone']['width']}, {one['cores']} core(s), seed {one['train']['seed']}"
    digest = one["data_digest"].split()[0][:12]
    return (
        f"{head}; {how}, {one['images']} images of the"
        f" split {one['split']}, digest `{digest}`.\n\n" + table(titles, rows)
    )


def mose() -> str:
    """What `mose.py` measured."""
    found = read("mose.json")
    texts = []
    for representation in ("standard", "compact") if "ablation" in found else ():
        rows = {title: entry[representation] for title, entry in found["ablation"].items()}
        head = f"Lung nodules, rows of table 2, {representation} representation, equal steps"
        texts.append(measured(head, rows, ["ged", "m_iou", "ece", "hm_iou_unique"]))
    for kind in ("binary", "twins"):
        entries = found.get("flips", {}).items()
        rows = {title.split(", ", 1)[1]: entry for title, entry in entries if title.startswith(kind)}
        if rows:
            one = next(iter(rows.values()))
            minutes = one["train"]["minutes"]
            head = f"Class flips of street scenes whose label map is given, {kind}, {minutes:g} minutes each"
            texts.append(measured(head, rows, ["ged", "m_iou", "ece", "hm_iou_unique"]))
            ten = ("ged_of_switched_classes", "m_iou_of_switched_classes") if kind == "twins" else ()
            lines = [
                [name, *(number(v) for v in e["estimated"])]
                + [number(e[figure]) for figure in ("flip_bias", "flip_error", *ten)]
                for name, e in rows.items()
            ]
            truth = ["truth", *(number(v) for v in one["true"]), "", "", *("" for _ in ten)]
            titles = ["", *one["classes"], "error of the means", "error per image"]
            titles += ["GED² of the ten classes", "M-IoU of the ten classes"] if ten else []
            texts.append("Probability that a class is on:\n\n" + table(titles, [truth, *lines]))
    if "coupling" in found:
        one = found["coupling"]["trained"]
        caps = list(one["ratio of means"])
        lines = [
            [f"{name}, {kind}", *(number(entry[kind][cap]) for cap in caps)]
            for name, entry in found["coupling"].items()
            for kind in ("ratio of means", "largest ratio")
        ]
        texts.append(
            f"Cost of the greedy coupling over that of the linear programme, {one['images']} training images, by the cap"
            " gamma:\n\n" + table(["MoSE on lung nodules", *caps], lines)
        )
    return "\n\n".join(texts) or not_yet("mose.py --results docs/results/mose.json")


def mose_speed() -> str:
    """Training steps of MoSE, samples together and one by one."""
    found = read("mose-speed.json")
    if not found:
        return not_yet("mose_speed.py --results docs/results/mose-speed.json")
    head = ["data", "images", "format", "at once", "one by one", "U-Net alone", "ratio", "without the U-Net"]
    rows = []
    for name, entry in found["data"].items():
        times = [f"{entry['seconds'][way]:.3f} s" for way in ("at once", "one by one", "U-Net alone")]
        ratios = [f"{value:.2f} x" for value in entry["ratio"].values()]
        rows.append([name, str(entry["images"]), "bf16" if entry["bf16"] else "float32", *times, *ratios])
    return f"4 experts of 4 samples, {found['threads']} thread(s):\n\n" + table(head, rows)


def atfm() -> str:
    """What `atfm.py` measured."""
    found = read("atfm.json")
    figures = ["ged", "diversity", "hm_iou_tiled", "max_dice_matching", "dice_of_mean"]
    heads = {"ablation": "Rows of table 4, equal minutes", "steps": "Euler steps, and alpha (25 steps)"}
    texts = [measured(heads[part], found[part], figures) for part in heads if part in found]
    for entry in found.get("speed", {}).values():
        rows = [
            [
                f"{entry['steps'][name]} steps from the {name}"
                if name == "prior"
                else f"{entry['steps'][name]} steps from noise",
                f"{seconds:.2f} s",
                number(entry["figures"][name]["all"]["ged"]),
            ]
            for name, seconds in entry["seconds"].items()
        ]
        ratio, one = entry["ratio"]["noise / prior"], entry["figures"]["prior"]
        texts.append(
            f"100 samples of one image, {entry['threads']} thread(s), in turns: {ratio:.1f} times faster; GED(100) of"
            f" {one['images']} images.\n\n" + table(["", "time", METRICS["ged"].title], rows)
        )
    return "\n\n".join(texts) or not_yet("atfm.py --results docs/results/atfm.json")


def benchmark(suite: str, data: str) -> str:
    """A table of ``ambiseg benchmark SUITE`` as it wrote it, without its heading."""
    path = RESULTS / suite / "tables" / f"{data}.md"
    if not path.exists():
        return f"Not measured yet: `ambiseg benchmark {suite}`."
    return path.read_text(encoding="utf-8").split("\n", 2)[2].strip()


def one_pass() -> str:
    """What `one_pass.py` measured: GED against the number of masks, and what a mask set costs."""
    found = read("one-pass.json")
    texts = []
    for name, methods in found.get("data", {}).items():
        rows = []
        for method, entries in methods.items():
            for entry in entries:
                masks = f"{entry['masks']:.0f}" if entry["samples"] is None else str(entry["samples"])
                oracle = number((entry["oracle"] or {}).get("ged"))
                figures = [
                    number(entry[figure]) for figure in ("ged", "hm_iou_unique", "hm_iou_tiled", "m_iou")
                ]
                rows.append([method, masks, *figures, f"{1000 * entry['seconds_per_image']:.1f}", oracle])
        images = next(iter(methods.values()))[0]["images"]
        titles = [METRICS[figure].title for figure in ("ged", "hm_iou_unique", "hm_iou_tiled", "m_iou")]
        head = ["method", "masks", *titles, "ms/image", "GED² of the annotation oracle"]
        texts.append(f"{name}, {images} images, {found['threads']} thread(s):\n\n" + table(head, rows))
    return "\n\n".join(texts) or not_yet("one_pass.py --results docs/results/one-pass.json")


def main() -> None:
    """Rewrite the pages."""
    made: dict[str, Callable[[], str]] = {
        **{f"paper-{n}": partial(paper_table, n) for n in ("03", "05", "07", "10", "11")},
        **{
            f"probabilities-{n}": partial(probabilities, n)
            for n in ("wildfire", "wildfire-others", "wildfire-prevailing", "camvid")
        },
        "sampling-methods": sampling_methods,
        "sampling-speed": sampling_speed,
        "markov-shapes": markov_shapes,
        "flow-ssn": flow_ssn,
        "mose": mose,
        "mose-speed": mose_speed,
        "one-pass": one_pass,
        **{
            f"{suite}-{data}": partial(benchmark, suite, data)
            for suite in ("cpu", "energy", "energy-single")
            for data in ("wildfire", "markov-shapes", "camvid-flips", "lidc-on-ct")
        },
        "atfm": atfm,
        "demo": demo,
        "runs": runs,
        "score-cost": score_cost,
        "speed": speed,
        "foreground-threshold": partial(thresholds, "foreground"),
        "duplicate-filter": partial(thresholds, "duplicates"),
        "metrics-speed": metrics_speed,
        **gpu_tables.TABLES,
    }
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name, make in made.items():
            mark = f"<!-- table {name} -->"
            if mark in text:
                pattern = re.escape(mark) + r".*?<!-- end -->"
                content = f"{mark}\n{make()}\n<!-- end -->"
                text = re.sub(pattern, content.replace("\\", r"\\"), text, flags=re.DOTALL)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
