"""Probabilities of modes by every way of estimating them, on simulated wildfires and class flips.

    python benchmarks/probabilities.py --work DIR --results docs/results/probabilities.json [--source DIR] [--sets NAME...]

Trains one flow model per data set, unless it is done, and estimates the probabilities of three kinds of
masks: the annotated modes themselves ("truth", the upper bound of table 4), and the proposals of the runs
that ``benchmarks/mode_proposals.py`` left in the same ``--work``, full and single labels. Proposals are taken
as they are, filtered by score, and filtered by score and near-duplicates (table 5). Ways: the probability
head, decomposition of one velocity at t = 0 ("mean"), of 64 ("velocity"), of posterior means at t > 0
("posterior", with some numbers of draws and resolutions), these with medians over areas ("robust"), and
counted samples. Class flips also get the structure of B.2 after "velocity", with templates found in the masks
(``atoms``, ``pca``), or, for the annotated modes, the true ones.

For each: Brier skill scores (one to one and nearest, pooled), total variation (nearest) and HM IoU*; nearest
Brier skill and total variation once more with annotated modes that are nearly alike counted as one ("merged":
of modes with an IoU above 0.9 the most probable stands for all), and the one to one skill where the masks
that are judged are merged as well; the one to one skill of the images in which no two modes are that much
alike ("distinct"), and a bootstrap interval of that of all; flow evaluations and seconds per image, one image
at a time after a warm-up; those of proposals include proposing. Class flips: also the skill of the class-flip
probabilities q, against .5 for each class that the image shows; by the flips of the true templates, or, where
templates were found, of those, paired one to one with the true ones by IoU. Every way replaces its rows as it
ends.

``wildfire-prevailing`` has probabilities that its images tell, for the head to read, and no flow model;
``wildfire-others`` are more fires for the networks of ``wildfire`` (``--images 1000``). ``--without-flow``
leaves out what needs a flow model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ambiseg
from ambiseg.data.batches import annotations_of
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split
from ambiseg.engine.postprocess import PredictSettings, postprocess
from ambiseg.engine.run import Run
from ambiseg.engine.run_folder import TRAINING, write_json
from ambiseg.engine.settings import TrainSettings
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.matching import match
from ambiseg.methods.flow_matching import FlowMatchingSettings
from ambiseg.mode_probabilities.class_flips import (
    find_templates,
    flip_probabilities,
    flip_states,
    structured_decomposition,
)
from ambiseg.mode_probabilities.posterior_decomposition import RESOLUTIONS, posterior_decomposition
from ambiseg.mode_probabilities.velocity_decomposition import (
    assignment_counts,
    decompose_mean,
    estimate_mean,
    with_probabilities,
)
from ambiseg.overlap import pairwise_overlap
from mode_proposals import FLIPS, MANY, SPLITS, more, prepare
from mode_scores import Masks, Tally
from training_runs import CORES, common_options, describe, parsed, train_once


@dataclass(frozen=True)
class Way:
    """How probabilities are estimated: ``head``, ``velocity``, ``posterior`` or ``samples``; draws;
    resolutions; robust."""

    kind: str
    draws: int = 0
    resolutions: tuple[float, ...] = RESOLUTIONS
    robust: bool = False


WAYS = {
    "head": Way("head"),
    "mean": Way("velocity", 1),
    "mean, robust": Way("velocity", 1, robust=True),
    "velocity": Way("velocity", 64),
    "velocity, robust": Way("velocity", 64, robust=True),
    "posterior": Way("posterior", 64),
    "posterior 16": Way("posterior", 16),
    "posterior 16, robust": Way("posterior", 16, robust=True),
    "posterior 16 at 2": Way("posterior", 16, (2.0,)),
    "posterior 16 at 1, 2, 4": Way("posterior", 16, (1.0, 2.0, 4.0)),
    "samples 16": Way("samples", 16),
    "samples 64": Way("samples", 64),
    "samples 256": Way("samples", 256),
}
FILTERS = {
    "none": PredictSettings(None, None),
    "scores": PredictSettings(0.5, None),
    "scores and duplicates": PredictSettings(0.5, 0.9),
}
"""Rows of table 5."""
FILTERED = "scores and duplicates"
"""The only proposals that the posterior is tried on: the one way that asks the flow anew for every kind of
masks."""
EXACT = FlowMatchingSettings(parameterisation="edm", time_shift=8, target="posterior")
FlowPhase = tuple[int | None, FlowMatchingSettings, TrainSettings]
"""Number of other scenarios to train on in place of those of the data set, settings of the flow model and its
training."""
FLOWS: dict[str, tuple[FlowPhase, ...]] = {
    "wildfire": ((MANY, EXACT, TrainSettings(minutes=58, batch_size=16, lr=2e-3)),),
    "camvid": (
        (None, replace(EXACT, time_shift=12), TrainSettings(minutes=27, batch_size=16, lr=2e-3)),
        (None, replace(EXACT, time_shift=12), TrainSettings(minutes=30, batch_size=16, lr=1e-3)),
    ),
}
"""Phases of the flow model of each data set; a later phase starts from the weights of the one before. Flows
need more fires than proposals do."""
OTHERS = "wildfire-others"
"""Test scenarios of the data set that the flow of the wildfires learns from: ten times as many as "wildfire"
has."""
SETS = ("wildfire", OTHERS, "wildfire-prevailing", "camvid")
RUNS = {
    ("wildfire", "full"): "wildfire-full-10000-scenarios",
    ("wildfire", "single"): "wildfire-single-10000-scenarios",
    ("wildfire-prevailing", "single"): "wildfire-prevailing-single-posterior",
    ("camvid", "single"): "camvid-single-flips",
}
"""Variants of ``mode_proposals.py`` whose proposals are taken in place of those of its recipe."""


# -- data and runs -------------------------------------------------------------------------------------------


def flow_run(
    name: str,
    data: Path,
    work: Path,
    recipe: tuple[FlowPhase, ...],
    minutes: float | None = None,
    seed: int = 0,
) -> Path:
    """The flow model of a data set, trained phase after phase unless it is done."""
    run: Path | None = None
    for phase, (scenarios, settings, training) in enumerate(recipe, 1):
        used = data if scenarios is None else more("wildfire", scenarios, work)
        train = replace(training, seed=seed, init=None if run is None else str(run))
        train = train if minutes is None else replace(train, minutes=minutes)
        run = train_once("flow-matching", used, work / f"{name}-flow-{seed}-phase{phase}", train, settings)
    assert run is not None
    return run


# -- masks whose probabilities are estimated -----------------------------------------------------------------


def truths_of(samples: Sequence[Sample], labels: LabelSpace) -> list[MaskSet]:
    """The annotated masks of each image."""
    return [annotations_of(sample, labels) for sample in samples]


def modes_of(truths: Sequence[MaskSet]) -> Masks:
    """The distinct annotated masks, their probabilities forgotten."""
    merged = [truth.merge_identical() for truth in truths]
    return Masks("truth", "none", [MaskSet.uniform(modes.masks, modes.labels) for modes in merged])


def proposals_of(name: str, run: Run, samples: Sequence[Sample]) -> Iterator[Masks]:
    """What a run proposes, one image at a time, through each filter."""
    for title, settings in FILTERS.items():
        postprocess(run.propose([samples[0].image]).hard(), settings)
        began = time.perf_counter()
        sets = [postprocess(run.propose([sample.image]).hard(), settings).masks for sample in samples]
        yield Masks(name, title, sets, (time.perf_counter() - began) / len(samples))


# -- estimates -----------------------------------------------------------------------------------------------


class Estimator:
    """One way of estimating, one image at a time.

    What does not depend on the masks (`look`) is computed once for an image, since several kinds of masks
    share it.
    """

    def __init__(self, flow: Run | None, way: Way, seed: int) -> None:
        self.flow, self.way, self.evaluations = flow, way, 0
        self.noise = torch.Generator("cpu" if flow is None else flow.hardware.device).manual_seed(seed)
        if flow is not None:
            network: Any = flow.model.g
            self.hook = network.register_forward_hook(self._count)

    def _count(self, _: Any, inputs: tuple[Tensor, ...], __: Any) -> None:
        self.evaluations += len(inputs[0])

    def _image(self, sample: Sample) -> Tensor:
        assert self.flow is not None
        image: Tensor = self.flow.hardware.images(self.flow.config.normalization(sample.image)[None])
        return image

    @torch.no_grad()
    def look(self, sample: Sample) -> Any:
        """The mean mask, the samples, or nothing."""
        if self.flow is None or self.way.kind in ("head", "posterior"):
            return None
        model: Any = self.flow.model
        with self.flow.hardware.autocast():
            if self.way.kind == "samples":
                return model.predict(self._image(sample), self.way.draws, self.noise).hard().to("cpu")
            channels = self.flow.config.labels.channels
            return estimate_mean(model, self._image(sample), self.way.draws, self.noise, channels)

    def weigh(self, sample: Sample, seen: Any, masks: MaskSet) -> MaskSet:
        """The masks with the probabilities that `look` and, for the posterior, the flow itself give them."""
        if self.flow is None or self.way.kind == "head":
            return masks
        if self.way.kind == "samples":
            return with_probabilities(masks, assignment_counts(seen, masks))
        if self.way.kind == "velocity":
            return with_probabilities(masks, decompose_mean(masks, seen, self.way.robust).probabilities)
        model: Any = self.flow.model
        with self.flow.hardware.autocast():
            found = posterior_decomposition(
                model,
                self._image(sample),
                masks,
                draws=self.way.draws,
                generator=self.noise,
                resolutions=self.way.resolutions,
                robust=self.way.robust,
            )
        return with_probabilities(masks, found.probabilities)

    def close(self) -> None:
        """Stop counting."""
        if self.flow is not None:
            self.hook.remove()


def templates_of(sample: Sample) -> Tensor | None:
    """True templates of class flips ``(1, P, *S)`` bool, the modes with one class on; None for other data."""
    if not sample.annotators[0].startswith("flip-"):
        return None
    on = ("flip-" + "".join(str(int(c == k)) for k in range(len(FLIPS))) for c in range(len(FLIPS)))
    return torch.from_numpy(sample.masks[[sample.annotators.index(name) for name in on]])[None] > 0


def paired(found: Tensor, true: Tensor, q: Tensor) -> Tensor:
    """Probabilities ``(1, P)`` of found templates in the order of the true ones, paired one to one by IoU."""
    iou = pairwise_overlap(found.to(torch.uint8), true.to(torch.uint8), LabelSpace.binary()).iou()
    partner = match(1 - iou, columns=true.flatten(2).any(2)).rows
    return q.gather(1, partner.clamp(min=0))


def estimate(
    samples: Sequence[Sample],
    truths: Sequence[MaskSet],
    kinds: Sequence[Masks],
    name: str,
    way: Way,
    flow: Run | None,
    seed: int,
) -> list[dict[str, Any]]:
    """One row for each kind of masks, and for class flips after "velocity" one more for each sort of
    templates."""
    estimator = Estimator(flow, way, seed)
    tallies: dict[tuple[int, str], Tally] = {}
    for i, (sample, truth) in enumerate([(samples[0], truths[0]), *zip(samples, truths, strict=True)]):
        true = templates_of(sample)
        before, began = estimator.evaluations, time.perf_counter()
        seen = estimator.look(sample)
        looked, evaluations = time.perf_counter() - began, estimator.evaluations - before
        for k, masks in enumerate(kinds):
            given = masks.sets[max(0, i - 1)]
            before, began = estimator.evaluations, time.perf_counter()
            plain = estimator.weigh(sample, seen, given)
            seconds, cost = (
                looked + time.perf_counter() - began,
                evaluations + estimator.evaluations - before,
            )
            flips = None if true is None else flip_probabilities(plain.weights, flip_states(plain, true))
            variants = [(name, plain, seconds, flips)]
            if true is not None and way.kind == "velocity" and way.draws > 1:
                for how in ("atoms", "pca", *(["true templates"] if masks.name == "truth" else [])):
                    began = time.perf_counter()
                    templates = (
                        true if how == "true templates" else find_templates(given, count=len(FLIPS), how=how)
                    )
                    found = with_probabilities(
                        given, structured_decomposition(given, plain.weights, templates)
                    )
                    spent = seconds + time.perf_counter() - began
                    q = flip_probabilities(plain.weights, flip_states(given, templates))
                    variants.append((f"{name}, {how}", found, spent, paired(templates, true, q)))
            if i == 0:  # the warm-up
                continue
            for title, found, spent, q_found in variants:
                tally = tallies.setdefault((k, title), Tally(masks))
                tally.add(found, truth, spent, cost, q_found, true)
        if i == 0:
            estimator.noise.manual_seed(seed)
    estimator.close()
    return [tally.row(title, len(samples)) for (_, title), tally in tallies.items()]


def measure(name: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The results of a data set, once more after each way."""
    seed, chosen_split = arguments.seed, SPLITS.get(name, "test")
    trained_on = "wildfire" if name == OTHERS else name
    data = prepare(trained_on, arguments.source, arguments.work)
    split = open_split(more("wildfire", MANY, arguments.work) if name == OTHERS else data, chosen_split)
    samples = [split[i] for i in range(min(len(split), arguments.images))]
    truths = truths_of(samples, split.info.labels)
    flow_folder = None
    if trained_on in FLOWS and name not in arguments.without_flow:
        recipe = FLOWS[trained_on]
        title = f"{trained_on}-{MANY}" if recipe[0][0] == MANY else trained_on
        flow_folder = flow_run(title, data, arguments.work, recipe, arguments.minutes, seed)
    kinds, runs = [modes_of(truths)], {}
    for labels in ("full", "single"):
        title = RUNS.get((trained_on, labels), f"{trained_on}-{labels}")
        phases = sorted(p.parent for p in arguments.work.glob(f"{title}-{seed}-phase*/{TRAINING}"))
        if not phases:
            print(f"no run {title} in {arguments.work}: train it with mode_proposals.py", file=sys.stderr)
            continue
        kinds += proposals_of(labels, ambiseg.load(phases[-1]), samples)
        runs[labels] = describe(phases[-1])
    flow = None if flow_folder is None else ambiseg.load(flow_folder)
    facts = {
        "data": name,
        "seed": seed,
        "flow": None if flow_folder is None else describe(flow_folder),
        "proposals": runs,
    }
    for title in arguments.ways:
        way = WAYS[title]
        if way.kind != "head" and flow is None:
            continue
        chosen = [masks for masks in kinds if masks.name != "truth" or way.kind != "head"]
        if way.kind == "posterior":
            chosen = [masks for masks in chosen if masks.name == "truth" or masks.filter == FILTERED]
        rows = estimate(samples, truths, chosen, title, way, flow, seed)
        how = {"draws": way.draws, "split": chosen_split, "images": len(samples), "cores": CORES}
        yield {**facts, "rows": [{**row, **how} for row in rows]}


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old rows with the new ones in their place."""
    key = ("masks", "filter", "way")
    rows = {tuple(row[k] for k in key): row for row in itertools.chain(old, new)}
    return list(rows.values())


def main() -> None:
    """Measure what is asked for; results already there are replaced, those of other networks are left out."""
    parser = common_options(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["wildfire", "camvid"])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument(
        "--without-flow", nargs="+", choices=SETS, default=[], help="data sets without a flow model"
    )
    parser.add_argument(
        "--minutes", type=float, help="training time of each phase of a flow; its recipe's if left out"
    )
    parser.add_argument("--images", type=int, default=100, help="at most this many images of the split")
    arguments = parsed(parser)
    for name in arguments.sets:
        for entry in measure(name, arguments):
            known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
            key = f"{name}-seed{arguments.seed}"
            before = known.get(key, {})
            of_these = all(before.get(part) == entry[part] for part in ("flow", "proposals"))
            rows = merged(before["rows"] if of_these else [], entry["rows"])
            write_json(arguments.results, {**known, key: {**entry, "rows": rows}})
            for row in entry["rows"]:
                print(json.dumps({"data": name, **row}), flush=True)


if __name__ == "__main__":
    main()
