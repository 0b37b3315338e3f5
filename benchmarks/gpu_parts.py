"""What ``benchmarks/gpu.py`` measures, one part in a process: the measurements themselves.

    python benchmarks/gpu_parts.py PART --out DIR --work DIR --data-root DIR --until SECONDS [--seed 0] [--smoke]

``gpu.py`` starts it and has written ``OUT/PART.json`` before, with the rows that are measured already. A part
is a list of rows; each is measured by itself and written at once, so an error or too little memory costs one
row.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import ambiseg
from ambiseg.data.batches import Batch
from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.settings import ArraysSettings
from ambiseg.data.source import SpreadSplit, open_split
from ambiseg.defaults import DUPLICATE_IOU
from ambiseg.engine.curve import training_curve
from ambiseg.engine.machine.calibration import calibrate
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.machine.hardware_choice import SECONDS
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run_folder import TRAINING, RunConfig
from ambiseg.engine.smoke import shrunk
from ambiseg.engine.suite import Suite, load_suite
from ambiseg.json_files import read_mapping
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build, method_info
from ambiseg.methods.base import Segmenter
from ambiseg.metrics import default_metrics, evaluate_all
from gpu import DONE, NO_TIME, status_of, write_note
from speed import stepper

Action = Callable[[float], dict[str, Any]]
"""What measures a row; receives the seconds that it may train."""
BINARY = LabelSpace.binary()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LEAST_SHARE = 0.5
"""Training is shortened to this share of what was meant, not further."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the way is the same for all sizes."""

    updates: int = 20
    images: int = 64
    image_size: int = 32
    paper_size: int = 128
    paper_batch: int | None = None
    paper_small: bool = False
    predicted: int = 4
    repeats: int = 10
    compiler: str = "inductor"
    compiling: float = 60.0
    calibrating: float = SECONDS
    matmul: int = 8192
    width: int = 64
    samplers_width: int = 32
    batch: int = 64
    workers: int = 8
    fire_seconds: float = 180.0
    nodule_seconds: float = 120.0
    sampler_seconds: float = 60.0
    evaluating: float = 18.0
    every: int = 4
    metric_images: int = 1000
    metric_samples: int = 100
    metric_size: int = 128
    stand_in: int | None = None
    """So many random crops in place of the lung nodules."""


FULL = Sizes()
TINY = Sizes(
    updates=1, images=12, image_size=16,
    paper_size=64, paper_batch=2, paper_small=True, predicted=1, repeats=1, compiler="eager", compiling=0.0,
    calibrating=1.0, matmul=64,
    width=8, samplers_width=8, batch=4, workers=0, fire_seconds=0.3, nodule_seconds=0.3, sampler_seconds=0.3,
    evaluating=0.0, stand_in=8, metric_images=4, metric_samples=10, metric_size=16,
)  # fmt: skip


@dataclass(frozen=True)
class Context:
    """What every part is given; ``until`` is when it plans to end, in seconds since the epoch."""

    out: Path
    work: Path
    data_root: Path
    until: float
    seed: int
    sizes: Sizes


@dataclass(frozen=True)
class Row:
    """One line of a result.

    Attributes:
        name: its key.
        action: measures it; receives the seconds that it may train.
        training: seconds that it would like to train.
        besides: seconds that it takes besides.
    """

    name: str
    action: Action
    training: float = 0.0
    besides: float = 0.0


class Skipped(Exception):
    """A row that cannot be measured here, and why."""


def training_time(left: float, rows: Sequence[Row]) -> float | None:
    """Seconds that the first of these rows may train, None where there is no time for it.

    As many rows as possible get the same share of what they want; where it would be below `LEAST_SHARE`, the
    last ones wait for another call.

    Example:
        >>> rows = [Row(name, lambda seconds: {}, training=100, besides=20) for name in "abc"]
        >>> training_time(1000, rows), training_time(270, rows), training_time(130, rows), training_time(60, rows)
        (100.0, 70.0, 100.0, None)
    """
    for count in range(len(rows), 0, -1):
        wanted = sum(row.training for row in rows[:count])
        spare = left - sum(row.besides for row in rows[:count])
        share = spare / wanted if wanted else math.inf
        if spare >= 0 and share >= LEAST_SHARE:
            return min(1.0, share) * rows[0].training
    return None


def measure_rows(context: Context, part: str, rows: Sequence[Row]) -> None:
    """Measure the rows that are not there yet, and write each at once."""
    path = context.out / f"{part}.json"
    note = read_mapping(path)
    note["sizes"] = dataclasses.asdict(context.sizes)
    pending = [row for row in rows if row.name not in note["rows"]]
    for i, row in enumerate(pending):
        note["rows"][row.name] = _measured(row, training_time(context.until - time.time(), pending[i:]))
        print(row.name, note["rows"][row.name]["status"], flush=True)
        write_note(path, note)
    write_note(path, note | {"status": status_of(note["rows"])})


def _measured(row: Row, seconds: float | None) -> dict[str, Any]:
    """What a row came to, whatever happens."""
    if seconds is None:
        return {"status": NO_TIME}
    began = time.monotonic()
    try:
        found = {"status": DONE, **row.action(seconds)}
    except Skipped as reason:
        found = {"status": f"skipped: {reason}"}
    except torch.OutOfMemoryError as error:
        found = {"status": f"skipped: out of memory: {str(error).splitlines()[0][:200]}"}
    except Exception as error:
        found = {"status": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    gc.collect()
    torch.cuda.empty_cache()
    return found | {"row_seconds": round(time.monotonic() - began, 2)}


# -- do all methods work -------------------------------------------------------------------------------------

AUTOREGRESSIVE = {"kind": "autoregressive", "body": {"kind": "transformer", "strip_width": 4}}
SMALL: dict[str, dict[str, Any]] = {
    "mode-proposals": {"proposals": 5, "selection": {"head_width": 8}},
    "flow-matching": {"steps": 4},
    "flow-ssn": {"flow": {"kind": "continuous", "steps": 10}},
    "flow-ssn+autoregressive": {"flow": AUTOREGRESSIVE},
    "flow-ssn+dual": {"flow": {**AUTOREGRESSIVE, "against_collapse": {"kind": "entropy", "weight": 0.01}}},
    "atfm": {"steps": 4},
}
"""Settings of every kind that differ from the defaults."""
KINDS = [*METHODS, *(kind for kind in SMALL if kind not in METHODS)]
TOLERANCE = 1e-3
"""Most that probabilities and weights on the card may differ from those on the CPU, and most of the pixels of
all masks."""


def methods(context: Context) -> list[Row]:
    """20 updates of every method in float32 and bf16; then the same weights and noise on the card and on the
    CPU."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    data = context.work / "small.h5"
    if not data.exists():
        from ambiseg.data.simulators.dataset import simulate

        simulate("wildfire", data, 10 * context.sizes.images // 8, size=context.sizes.image_size)
    rows = []
    for kind in KINDS:
        for precision in ("32", "bf16"):
            rows.append(Row(f"{kind} {precision}", _trains_and_agrees(context, data, kind, precision)))
    return rows


def _trains_and_agrees(context: Context, data: Path, kind: str, precision: str) -> Action:
    def action(seconds: float) -> dict[str, Any]:
        sizes, name = context.sizes, kind.partition("+")[0]
        train = {"updates": sizes.updates, "batch_size": 8, "lr": 1e-3, "warmup": 5, "precision": precision}
        train |= {"validations": 1, "validation_images": 4, "seed": context.seed}
        run, small = context.work / f"methods-{kind}-{precision}", {"width": 8, "depth": 2}
        ambiseg.fit(
            name,
            data,
            run,
            train=train,
            backbone=small,
            settings=SMALL.get(kind, {}),
            quiet=True,
            fit_filter=False,
        )
        losses = [row["train_loss"] for row in training_curve(run) if "train_loss" in row]
        if not all(map(math.isfinite, losses)):
            raise ValueError(f"losses are not finite: {losses}")
        last = losses[-1] if losses else None
        return {"updates": sizes.updates, "losses": losses, "last_loss": last, **agreement(run, data)}

    return action


def agreement(run: Path, data: Path, samples: int = 8) -> dict[str, Any]:
    """How far predictions of the same weights, with noise of the same generator, differ between the card and
    the CPU.

    In float32; `methods` has switched TF32 off. Dropout has random numbers of its own on each device, so it
    is off here.
    """
    split = open_split(data, "test")
    images = [split[i].image for i in range(min(4, len(split)))]
    found = []
    for device in ("cpu", DEVICE):
        loaded = ambiseg.load(run, precision="32", device=device)
        for layer in loaded.model.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        found.append(loaded.propose(images, samples, torch.Generator().manual_seed(0)))
    one, other = found
    shares = [s.probabilities for s in found if s.probabilities is not None]
    differences = {
        "probability_difference": float((shares[0] - shares[1]).abs().max()) if len(shares) == 2 else 0.0,
        "weight_difference": float((one.weights - other.weights).abs().max()),
        "pixels_differ": float((one.masks != other.masks).float().mean()),
    }
    return {**differences, "tolerance": TOLERANCE, "agrees": max(differences.values()) <= TOLERANCE}


# -- how fast ------------------------------------------------------------------------------------------------

FLAGSHIP = "mode-proposals"


def synchronize() -> None:
    """Wait for the card."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def milliseconds(action: Callable[[], object], repeats: int, seconds: float = 3.0) -> float:
    """Median milliseconds of an action that has run before; fewer repeats where it takes long."""
    times: list[float] = []
    while len(times) < repeats and sum(times) < seconds:
        synchronize()
        began = time.perf_counter()
        action()
        synchronize()
        times.append(time.perf_counter() - began)
    return 1000 * sorted(times)[len(times) // 2]


def observed(action: Callable[[], object]) -> tuple[float, float]:
    """Floating-point operations (in 10^12) of products and convolutions in one run, and MiB that tensors take
    at most.

    0 MiB on the CPU.
    """
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with counting() as counter:
        action()
    synchronize()
    mib = torch.cuda.max_memory_allocated() / 2**20 if DEVICE == "cuda" else 0.0
    return counter.get_total_flops() / 1e12, mib


class _Whole:
    """In place of the counter's tracker of modules, which refuses second derivatives: all belongs to the whole."""

    parents: ClassVar = {"Global"}

    def __enter__(self) -> _Whole:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def counting() -> FlopCounterMode:
    """A counter of operations that also takes losses with gradients in them."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Whole()  # type: ignore[assignment]
    return counter


def matmul_rate(size: int, repeats: int) -> float:
    """FLOP/s of a bf16 matrix product of this size on random data."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 / (milliseconds(lambda: a @ b, 2 * repeats) / 1000)


@dataclass(frozen=True)
class Model:
    """A method at the size and batch of its paper, with random images and annotations."""

    model: Segmenter
    hardware: Hardware
    images: Tensor
    annotations: MaskSet
    predicted: int

    @classmethod
    def of(cls, suite: Suite, kind: str, sizes: Sizes, channels_last: bool) -> Model:
        """Build it; a method whose paper begins with another one's weights is built as if it had them."""
        entry = suite.methods[kind]
        train, backbone, settings, _ = suite.resolved("lidc", kind)
        method = entry.method or kind
        if entry.start_from:
            start = suite.methods[entry.start_from].method or entry.start_from
            settings = method_info(method).starts_from[start](
                settings, suite.resolved("lidc", entry.start_from)[2]
            )
        if sizes.paper_small:
            train, backbone, settings = shrunk(train, backbone, settings)
        torch.manual_seed(0)
        hardware = Hardware(DEVICE, True, channels_last)
        labels = BINARY.with_binary_channels(train.binary_channels)
        model = hardware.place(build(method, 1, labels, backbone, settings)).train()
        model.freeze(train.freeze)
        model.progress = 0.75
        batch = sizes.paper_batch or train.batch_size
        size = max(sizes.paper_size, 2 ** (backbone.depth - 1))
        annotations = MaskSet.uniform(blobs(batch, 4, size), BINARY)
        images = hardware.images(torch.randn(batch, 1, size, size))
        return cls(model, hardware, images, annotations.to(DEVICE), sizes.predicted)

    def stepper(self) -> Callable[[], None]:
        """One step of the optimiser."""
        return stepper(
            self.model, self.hardware, lambda: self.model.loss(self.images, self.annotations)["loss"]
        )

    def predict(self) -> None:
        """16 masks of some images."""
        self.model.eval()
        with torch.no_grad(), self.hardware.autocast():
            self.model.predict(self.images[: self.predicted], 16)


def speed(context: Context) -> list[Row]:
    """A training step and a prediction of 16 masks of every method at its paper's size and batch, in bf16."""
    suite, sizes = load_suite("paper"), context.sizes
    kinds = [
        name
        for name in suite.methods_on("lidc")
        if not suite.methods[name].run_of and not name.endswith(("-single", "-prior"))
    ]
    rate = matmul_rate(sizes.matmul, sizes.repeats)
    rows = [Row("matmul", lambda seconds: {"tflops": rate / 1e12})]
    kinds.sort(key=lambda kind: kind != FLAGSHIP)
    rows += [Row(kind, _speed_of(suite, kind, sizes, rate), besides=3) for kind in kinds]
    return [*rows, Row(f"{FLAGSHIP} compiled", _compiled(suite, sizes), besides=sizes.compiling)]


def _speed_of(suite: Suite, kind: str, sizes: Sizes, rate: float) -> Action:
    def action(seconds: float) -> dict[str, Any]:
        one = Model.of(suite, kind, sizes, channels_last=True)
        step = one.stepper()
        found: dict[str, Any] = {
            "batch": len(one.images),
            "parameters": sum(p.numel() for p in one.model.parameters()),
        }
        for what, act, images in (("step", step, 1), ("predict", one.predict, one.predicted)):
            tflop, found[f"{what}_mib"] = observed(act)
            took = milliseconds(act, sizes.repeats)
            found[f"{what}_ms"] = took / images
            found[f"{what}_tflop"] = tflop / images
            found[f"{what}_share"] = tflop * 1e15 / took / rate
        del step, one
        other = Model.of(suite, kind, sizes, channels_last=False)
        step = other.stepper()
        step()
        found["step_ms_contiguous"] = milliseconds(step, sizes.repeats)
        return found

    return action


def _compiled(suite: Suite, sizes: Sizes) -> Action:
    def action(seconds: float) -> dict[str, Any]:
        one = Model.of(suite, FLAGSHIP, sizes, channels_last=True)
        step, network = one.stepper(), one.model.get_submodule("g")
        network.compile(backend=sizes.compiler)
        began = time.perf_counter()
        for _ in range(2):
            step()
            one.predict()
        synchronize()
        compiling = time.perf_counter() - began
        return {
            "batch": len(one.images),
            "compiling_seconds": compiling,
            "step_ms": milliseconds(step, sizes.repeats),
            "predict_ms": milliseconds(one.predict, sizes.repeats) / one.predicted,
        }

    return action


def hardware(context: Context) -> list[Row]:
    """What the calibration before a training takes, and the speeds of all candidates."""
    suite, sizes = load_suite("paper"), context.sizes
    return [
        Row(kind, _calibrated(suite, kind, sizes), besides=sizes.calibrating) for kind in (FLAGSHIP, "ssn")
    ]


def _calibrated(suite: Suite, kind: str, sizes: Sizes) -> Action:
    def action(seconds: float) -> dict[str, Any]:
        one = Model.of(suite, kind, sizes, channels_last=False)
        batch = Batch(one.images, one.annotations, tuple(map(str, range(len(one.images)))))
        found = calibrate(one.model, batch, Hardware.candidates(), sizes.calibrating)
        speeds = [f"{timing.name} {timing.speed:.2f}" for timing in found.timings if timing.speed]
        left_out = [f"{timing.name}: {timing.problem}" for timing in found.timings if timing.problem]
        return {
            "chosen": found.best.name,
            "batch": found.images,
            "images_per_second": found.images_per_second,
            "calibrating_seconds": found.seconds,
            "speeds": "; ".join(speeds),
            "left_out": "; ".join(left_out),
        }

    return action


# -- metrics -------------------------------------------------------------------------------------------------


def blobs(images: int, count: int, size: int, seed: int = 0, device: str = "cpu") -> Tensor:
    """Smooth random masks ``(images, count, size, size)``; those of one image resemble one another."""
    generator = torch.Generator(device).manual_seed(seed)
    common, own = (
        torch.randn(images, n, 8, 8, generator=generator, device=device, dtype=torch.float32)
        for n in (1, count)
    )
    height = torch.nn.functional.interpolate(common + 0.5 * own, size=(size, size), mode="bicubic")
    return (height > 0.8).to(torch.uint8)


def metrics(context: Context) -> list[Row]:
    """The default metrics of many samples on the card and on the CPU: seconds, and whether they are the same
    numbers."""
    sizes = context.sizes

    def action(seconds: float) -> dict[str, Any]:
        at_once = min(20, sizes.metric_images)
        chunks = []
        for start in range(0, sizes.metric_images, at_once):
            masks = blobs(at_once, sizes.metric_samples + 4, sizes.metric_size, context.seed + start, DEVICE)
            chunks.append((MaskSet.uniform(masks[:, 4:], BINARY), MaskSet.uniform(masks[:, :4], BINARY)))
        names = default_metrics(chunks[0][0])
        evaluate_all(*chunks[0])
        synchronize()
        began = time.perf_counter()
        on_card = [evaluate_all(p, y, names) for p, y in chunks]
        synchronize()
        card_seconds = time.perf_counter() - began
        there = [(p.to("cpu"), y.to("cpu")) for p, y in chunks]
        singles = [(p[i], y[i]) for p, y in there for i in range(len(p))]
        threads = len(os.sched_getaffinity(0))
        torch.set_num_threads(1)
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            on_cpu = list(pool.map(lambda pair: evaluate_all(pair[0], pair[1], names), singles))
        cpu_seconds = time.perf_counter() - began
        differences = {}
        for name in names:
            one, other = (torch.cat([found[name].cpu() for found in all_]) for all_ in (on_card, on_cpu))
            undefined = one.isnan() & other.isnan()
            differences[name] = float((one - other).masked_fill(undefined, 0.0).abs().nan_to_num(1.0).max())
        largest = max(differences.values())
        found: dict[str, Any] = {
            "images": sizes.metric_images,
            "samples": sizes.metric_samples,
            "threads": threads,
        }
        found |= {
            "card_seconds": card_seconds,
            "cpu_seconds": cpu_seconds,
            "ratio": cpu_seconds / card_seconds,
        }
        return found | {"differences": differences, "largest_difference": largest, "same": largest <= 1e-5}

    return [Row("default metrics", action, besides=10)]


# -- how good ------------------------------------------------------------------------------------------------


def _train(
    context: Context, method: str, data: Path, settings: Any, seconds: float, width: int, **train: Any
) -> Path:
    """Train for so many seconds; the run folder."""
    run = context.work / f"run-{len(list(context.work.glob('run-*')))}"
    recipe = {"batch_size": context.sizes.batch, "lr": 2e-3, "validations": 4, "seed": context.seed, **train}
    recipe |= {"minutes": seconds / 60, "workers": min(context.sizes.workers, len(os.sched_getaffinity(0)))}
    ambiseg.fit(
        method, data, run, train=recipe, backbone={"width": width}, settings=settings, fit_filter=False
    )
    return run


def describe(run: Path) -> dict[str, Any]:
    """What a run was made of and came to."""
    config = RunConfig.load(run)
    parts = {name: dataclasses.asdict(getattr(config, name)) for name in ("train", "settings", "backbone")}
    return {"method": config.method, **parts, "training": read_mapping(run / TRAINING)}


def measure(run: Path, data: Path, samples: int, names: list[str], every: int, batch: int) -> dict[str, Any]:
    """How a run was trained, and its figures with all masks on every n-th image of the split ``val``."""
    split, keep = open_split(data, "val"), PredictSettings(None, None, samples=samples)
    chosen = SpreadSplit(split, max(1, len(split) // every))
    found = ambiseg.evaluate(run, chosen, "val", keep, batch_size=batch, metrics=names, oracle_draws=1)
    return {**describe(run), "samples": samples, **found.to_dict()}


def fires(context: Context) -> list[Row]:
    """Mode proposals on simulated wildfires, full and single labels: all metrics of the test split."""
    data, sizes = context.work / "fires.h5", context.sizes
    suite = load_suite(Path(__file__).with_name("mode-proposals.yaml"))

    def row(labels: str) -> Row:
        settings = suite.resolved("wildfire-10000", labels)[2]

        def action(seconds: float) -> dict[str, Any]:
            run = _train(context, FLAGSHIP, data, settings, seconds, sizes.width, labels=labels)
            keep = PredictSettings(duplicate_iou=DUPLICATE_IOU)
            found = ambiseg.evaluate(run, data, "test", keep, batch_size=64, metrics=["all"], oracle_draws=1)
            return describe(run) | {"scenarios": len(open_split(data, "train"))} | found.to_dict()

        return Row(labels, action, training=sizes.fire_seconds, besides=2 * sizes.evaluating)

    return [row("full"), row("single")]


def _nodules(context: Context) -> Path:
    """The lung nodules, packed.

    Raises:
        Skipped: they are not there.
    """
    source = context.data_root
    if context.sizes.stand_in:
        source = _stand_in(context.work / "stand-in", context.sizes.stand_in)
    for split in ("train", "val"):
        name = f"lidc-on-ct-64-{split}.npz"
        if not (source / name).is_file():
            raise Skipped(f"no {name} in the data root")
    target = context.work / "lidc.h5"
    if not target.exists():
        import_dataset("arrays", source, target, ArraysSettings("lidc-on-ct-64", ("flip", "rotate")))
    return target


def _stand_in(folder: Path, count: int) -> Path:
    """Random crops in the format of the lung nodules."""
    folder.mkdir(exist_ok=True)
    for split in ("train", "val"):
        masks = np.packbits(blobs(count, 4, 16).numpy(), axis=-1)
        images = np.random.default_rng(0).integers(0, 256, (count, 16, 16), dtype=np.uint8)
        np.savez(folder / f"lidc-on-ct-64-{split}.npz", images=images, masks=masks)
    return folder


def nodules(context: Context) -> list[Row]:
    """Mode proposals on lung nodules with and without the energy score: the metrics of the validation
    split."""
    sizes, suite = context.sizes, load_suite(Path(__file__).with_name("energy.yaml"))

    def row(recipe: str) -> Row:
        def action(seconds: float) -> dict[str, Any]:
            data = _nodules(context)
            settings = suite.resolved("lidc-on-ct", recipe)[2]
            run = _train(context, FLAGSHIP, data, settings, seconds, sizes.width)
            names = list(suite.protocol.metrics)
            return measure(run, data, 16, names, max(1, sizes.every // 4), batch=64)

        return Row(recipe, action, training=sizes.nodule_seconds, besides=sizes.evaluating)

    return [row("winner"), row("energy")]


def samplers(context: Context) -> list[Row]:
    """Methods that sample, on lung nodules: GED and HM IoU of 16 and of 100 samples."""
    sizes, suite = context.sizes, load_suite("cpu")

    def row(method: str) -> Row:
        def action(seconds: float) -> dict[str, Any]:
            data = _nodules(context)
            train, _, settings, _ = suite.resolved("lidc-on-ct", method)
            run = _train(context, method, data, settings, seconds, sizes.samplers_width, lr=train.lr)
            found: dict[str, Any] = describe(run)
            for count in (16, 100):
                one = measure(run, data, count, ["ged", "hm_iou"], sizes.every, batch=10)
                found |= {f"{name}_{count}": one["all"][name] for name in ("ged", "hm_iou")}
                found |= {f"seconds_per_image_{count}": one["seconds_per_image"], "images": one["images"]}
            return found

        return Row(method, action, training=sizes.sampler_seconds, besides=sizes.evaluating)

    return [row(name) for name in ("ssn", "flow-ssn", "atfm", "mose", "probabilistic-unet")]


# -- the command line ----------------------------------------------------------------------------------------

WHAT: dict[str, Callable[[Context], list[Row]]] = {
    "methods": methods,
    "speed": speed,
    "hardware": hardware,
    "metrics": metrics,
    "fires": fires,
    "nodules": nodules,
    "samplers": samplers,
}


def facts() -> dict[str, Any]:
    """The card, None where there is no CUDA, and the versions."""
    found: dict[str, Any] = {"card": None, "memory_gib": None}
    if DEVICE == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found = {"card": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
    version = ".".join(map(str, sys.version_info[:3]))
    return {**found, "torch": torch.__version__, "python": version, "cores": len(os.sched_getaffinity(0))}


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["card", *WHAT])
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--work", type=Path, default=Path())
    parser.add_argument("--data-root", type=Path, default=Path())
    parser.add_argument("--until", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.part == "card":
        print(json.dumps(facts()))
        return
    torch.manual_seed(options.seed)
    sizes = TINY if options.smoke else FULL
    context = Context(options.out, options.work, options.data_root, options.until, options.seed, sizes)
    measure_rows(context, options.part, WHAT[options.part](context))


if __name__ == "__main__":
    main()
