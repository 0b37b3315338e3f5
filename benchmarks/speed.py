"""How fast the library is on this machine; what is compared alternates, and the median of the times counts.

    python benchmarks/speed.py PART [--threads N] [--source DIR] > RESULT.json

``model``: one training step of the demo's model, 32 images 64x64 with 8 masks each, bf16 + channels-last
against float32 in the default order; GroupNorm of 32 x 16 x 64 x 64 with groups of 16 channels against 8
groups, forward and backward; one image through network, scores and probabilities.

``optimiser``: the update of all weights and their moving average, all tensors at once against one after
another, as PyTorch does by default on a CPU; both beside forward and backward of the training step of ``model``.

``dropout``: dropout of 4 x 64 x 128 x 128, ours against that of PyTorch, forward and backward.

``sampling``: 16 masks of one 128x128 image at once against one mask 16 times, for every method that samples.

``mose``: a training step of MoSE, all samples at once against one expert, one sample and one pair after
another, and its U-Net alone. Both ways have the same loss.

``metrics``: all pairs of 104 masks counted four ways; GED of 100 samples and 4 annotations against the plain
double loop; the default metrics of 100 images; memory of a thousand large samples.

``class-flips``: class flips of CamVid as batches against the plain way, which builds all 16 maps of an image,
in images per second of processor time; the labels are those of ``camvid-96x128-train.npz`` in ``--source``,
else random rectangles.

``check``: how many images of a folder of 20,000 small ones are checked per second, and how much memory that
takes beyond the imports.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ambiseg.data.batches import Item, LabelView, Normalization, collate
from ambiseg.data.check import check_dataset
from ambiseg.data.class_flip_view import FlippedSplit
from ambiseg.data.class_flips import ClassFlips
from ambiseg.data.folder import write_folder
from ambiseg.data.importers.camvid import CLASSES, FLIPS
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.labels import LabelSpace
from ambiseg.losses.transport import capped_coupling
from ambiseg.maskset import MaskSet
from ambiseg.methods import build
from ambiseg.methods.base import Segmenter
from ambiseg.methods.mose import MoSESettings
from ambiseg.methods.mose.model import MoSE, divergence, pairwise_cost
from ambiseg.metrics import Comparison, default_metrics, evaluate_all, ged
from ambiseg.networks.dropout import Dropout
from ambiseg.networks.settings import UNetSettings
from ambiseg.overlap import pairwise_overlap

BINARY = LabelSpace.binary()
Bytes = NDArray[np.uint8]


def medians(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each action, taken in turns after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(repeats + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def stepper(model: Segmenter, hardware: Hardware, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One step of an optimiser."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3, fused=True)

    def step() -> None:
        model.train()
        optimiser.zero_grad()
        with hardware.autocast():
            value = loss()
        torch.autograd.backward(value)
        optimiser.step()

    return step


# -- models --------------------------------------------------------------------------------------------------


def model(threads: int, source: Path | None) -> dict[str, Any]:
    """The model of the demo."""

    def training(hardware: Hardware) -> Callable[[], None]:
        torch.manual_seed(0)
        net = hardware.place(build("mode-proposals", 7, BINARY, UNetSettings(width=16)))
        images = hardware.images(torch.randn(32, 7, 64, 64))
        annotations = MaskSet.uniform((torch.rand(32, 8, 64, 64) < 0.2).to(torch.uint8), BINARY)
        return stepper(net, hardware, lambda: net.loss(images, annotations)["loss"])

    def norm(groups: int) -> Callable[[], None]:
        layer = nn.GroupNorm(groups, 16).bfloat16()
        x = torch.randn(32, 16, 64, 64).bfloat16().contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        return lambda: layer(x).backward(torch.ones_like(x))

    formats = {"float32": Hardware("cpu", False, False), "bf16 + channels-last": Hardware("cpu", True, True)}
    step = medians({name: training(hardware) for name, hardware in formats.items()}, 7)
    norms = medians({"8 groups": norm(8), "1 group of 16": norm(1)}, 15)
    torch.set_num_threads(1)
    draw = drawer("mode-proposals", 7, UNetSettings(width=16), 64)
    return {
        "bf16_hardware": Hardware.choose(device="cpu").bf16,
        "training_step_seconds": step,
        "training_speedup": step["float32"] / step["bf16 + channels-last"],
        "group_norm_seconds": norms,
        "group_norm_speedup": norms["8 groups"] / norms["1 group of 16"],
        "latency_one_thread_seconds": medians({"image": lambda: draw(16)}, 30)["image"],
    }


def optimiser(threads: int, source: Path | None) -> dict[str, Any]:
    """Optimiser and moving average of the model of the demo."""
    net = build("mode-proposals", 7, BINARY, UNetSettings(width=16))
    images = torch.randn(32, 7, 64, 64)
    annotations = MaskSet.uniform((torch.rand(32, 8, 64, 64) < 0.2).to(torch.uint8), BINARY)

    def gradients() -> None:
        torch.autograd.backward(net.loss(images, annotations)["loss"])

    gradients()
    parameters = [p for p in net.parameters() if p.grad is not None]

    def decayed(averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        return averaged + (current - averaged) * 0.001

    one_by_one = AveragedModel(net, avg_fn=decayed, use_buffers=True)
    average = get_ema_multi_avg_fn(0.999)  # type: ignore[no-untyped-call]
    at_once = AveragedModel(net, multi_avg_fn=average, use_buffers=True)
    seconds = medians(
        {
            "optimiser, default": torch.optim.AdamW(parameters, 1e-4).step,
            "optimiser, at once": torch.optim.AdamW(parameters, 1e-4, fused=True).step,
            "average, one by one": lambda: one_by_one.update_parameters(net),
            "average, at once": lambda: at_once.update_parameters(net),
            "forward and backward": gradients,
        },
        15,
    )
    default, now = (
        seconds[f"optimiser, {one}"] + seconds[f"average, {other}"]
        for one, other in (("default", "one by one"), ("at once", "at once"))
    )
    return {
        "tensors": len(parameters),
        "seconds": seconds,
        "ratio": default / now,
        "step_ratio": (default + seconds["forward and backward"]) / (now + seconds["forward and backward"]),
    }


def dropout(threads: int, source: Path | None) -> dict[str, Any]:
    """Dropout of an activation of a diffusion model."""
    x = torch.randn(4, 64, 128, 128).requires_grad_()
    layers = {"PyTorch": nn.Dropout(0.1), "ours": Dropout(0.1)}
    seconds = medians(
        {name: partial(lambda layer: layer(x).sum().backward(), layer) for name, layer in layers.items()}, 15
    )
    return {"seconds": seconds, "ratio": seconds["PyTorch"] / seconds["ours"]}


def drawer(method: str, channels: int, backbone: UNetSettings, size: int) -> Callable[[int], None]:
    """Masks of one random image."""
    torch.manual_seed(0)
    hardware = Hardware.choose(device="cpu")
    net = hardware.place(build(method, channels, BINARY, backbone)).eval()
    image = hardware.images(torch.randn(1, channels, size, size))

    def draw(count: int) -> None:
        with torch.no_grad(), hardware.autocast():
            net.predict(image, count)

    return draw


def repeated(draw: Callable[[int], None]) -> None:
    """16 masks one by one."""
    for _ in range(16):
        draw(1)


def sampling(threads: int, source: Path | None) -> dict[str, Any]:
    """16 masks at once against one 16 times."""
    found = {}
    for name in ("probabilistic-unet", "ssn", "image2image-vae", "dropout-unet"):
        draw = drawer(name, 1, UNetSettings(width=32), 128)
        found[name] = medians({"at once": partial(draw, 16), "one by one": partial(repeated, draw)}, 7)
    ratio = {name: times["one by one"] / times["at once"] for name, times in found.items()}
    return {"samples": 16, "seconds": found, "ratio": ratio}


def mose(threads: int, source: Path | None) -> dict[str, Any]:
    """4 experts of 4 samples each, on random data of two shapes."""
    shapes = {
        "lung nodules": (16, 1, (64, 64), 4, BINARY),
        "class flips with twins": (8, 14, (48, 64), 32, LabelSpace.of_classes(16)),
    }
    return {"data": {name: _mose(*shape) for name, shape in shapes.items()}}


def _mose(count: int, channels: int, size: tuple[int, int], k: int, labels: LabelSpace) -> dict[str, Any]:
    torch.manual_seed(0)
    hardware = Hardware.choose(device="cpu")
    net = hardware.place(MoSE(channels, labels, UNetSettings(width=16), MoSESettings()))
    images = hardware.images(torch.randn(count, channels, *size))
    masks = torch.randint(labels.classes, (count, k, *size), dtype=torch.uint8)
    annotations = MaskSet.uniform(masks, labels)
    losses: dict[str, Callable[[], Tensor]] = {
        "at once": lambda: net.loss(images, annotations)["loss"],
        "one by one": lambda: plain_loss(net, images, annotations),
        "U-Net alone": lambda: net.g(images).mean(),
    }

    def seeded(name: str) -> Tensor:
        torch.manual_seed(1)
        return losses[name]()

    with torch.no_grad():
        torch.testing.assert_close(seeded("at once"), seeded("one by one"))
    times = medians({name: stepper(net, hardware, loss) for name, loss in losses.items()}, 5)
    slow, fast = (times[name] - times["U-Net alone"] for name in ("one by one", "at once"))
    ratio = {"step": times["one by one"] / times["at once"], "without the U-Net": slow / fast}
    return {"bf16": hardware.bf16, "images": count, "seconds": times, "ratio": ratio}


def plain_loss(net: MoSE, images: Tensor, annotations: MaskSet) -> Tensor:
    """The loss of `MoSE.loss`, written as loops."""
    encoded, u_d, log_pi = net._encoded(images)
    draws, experts = net.settings.draws, torch.arange(net.settings.experts)
    z = net.latents(experts.repeat_interleave(draws).expand(len(images), -1))
    rows = []
    for i in range(z.shape[1]):
        logits = net.experts.head(net.experts.fuse(u_d, z[:, i : i + 1]))[:, None]
        pairs = [
            pairwise_cost(net.cost, logits, annotations.masks[:, j : j + 1], net.labels)[:, 0, 0]
            for j in range(annotations.masks.shape[1])
        ]
        rows.append(torch.stack(pairs, 1))
    cost = torch.stack(rows, 1)
    coupling = capped_coupling(cost, annotations.weights, net.cap)
    received = coupling.sum(2).view(len(images), -1, draws).sum(2)
    return ((coupling * cost).sum((1, 2)) + net.settings.beta * divergence(received, log_pi)).mean()


# -- metrics -------------------------------------------------------------------------------------------------


def blobs(rng: np.random.Generator, count: int, size: int) -> Bytes:
    """Smooth random masks that resemble one another, ``(count, size, size)``."""
    common = gaussian_filter(rng.standard_normal((size, size)), size / 10)
    own = gaussian_filter(rng.standard_normal((count, size, size)), (0, size / 16, size / 16))
    height: NDArray[np.float64] = common / common.std() + 0.5 * own / own.std()
    return (height > 0.8).astype(np.uint8)


def sides(masks: Bytes) -> tuple[MaskSet, MaskSet]:
    """All masks but four as samples, four as annotations."""
    both = torch.from_numpy(masks[None])
    return MaskSet.uniform(both[:, 4:], BINARY), MaskSet.uniform(both[:, :4], BINARY)


def pair_by_pair(masks: Bytes) -> NDArray[np.int64]:
    """Intersections the straightforward way."""
    flags = masks == 1
    return np.array([[np.count_nonzero(a & b) for b in flags] for a in flags])


def ged_pair_by_pair(masks: Bytes) -> float:
    """Squared GED of `sides` the straightforward way."""

    def mean(p: NDArray[np.bool_], q: NDArray[np.bool_]) -> float:
        pairs = [(np.logical_and(a, b).sum(), np.logical_or(a, b).sum()) for a in p for b in q]
        return float(np.mean([0.0 if union == 0 else 1 - common / union for common, union in pairs]))

    s, y = masks[4:] == 1, masks[:4] == 1
    return 2 * mean(s, y) - mean(s, s) - mean(y, y)


def metrics(threads: int, source: Path | None) -> dict[str, Any]:
    """Overlaps, GED, the whole suite, and memory."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    masks = blobs(rng, 104, 128)
    tensor, (samples, annotations) = torch.from_numpy(masks)[None], sides(masks)

    def product(kind: torch.dtype) -> Tensor:
        flat = (tensor[0].flatten(1) == 1).to(kind)
        return torch._int_mm(flat, flat.T) if kind == torch.int8 else flat @ flat.T

    counted: dict[str, Callable[[], Any]] = {
        "pair by pair": lambda: pair_by_pair(masks),
        "float32 product": lambda: product(torch.float32),
        "int8 product": lambda: product(torch.int8),
        "packed bits": lambda: pairwise_overlap(tensor, tensor, BINARY).intersection[0, :, :, 0],
    }
    for name, action in counted.items():
        if not (np.asarray(action()) == pair_by_pair(masks)).all():
            raise SystemExit(f"{name} counts wrongly")
    if abs(ged_pair_by_pair(masks) - float(ged(samples, annotations))) > 1e-6:
        raise SystemExit("ged disagrees with the plain version")
    distances: dict[str, Callable[[], Any]] = {
        "pair by pair": lambda: ged_pair_by_pair(masks),
        "ged": lambda: ged(samples, annotations),
    }
    images = [blobs(rng, 104, 128) for _ in range(100)]
    evaluate_all(*sides(images[0]))
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda image: evaluate_all(*sides(image)), images))
    return {
        "overlaps_seconds": medians(counted, 9),
        "ged_seconds": medians(distances, 5),
        "suite_metrics": default_metrics(samples),
        "suite_seconds": time.perf_counter() - began,
        "thousand_samples": memory(np.tile(blobs(rng, 50, 512), (20, 1, 1))),
    }


def memory(masks: Bytes) -> dict[str, float]:
    """Peak memory in MiB above that of the masks, and seconds."""
    given = MaskSet.uniform(torch.from_numpy(masks[None]), BINARY)
    before, began = peak(), time.perf_counter()
    Comparison(given, given).among_predictions.iou()
    return {
        "masks_mib": masks.size / 2**20,
        "peak_mib": peak() - before,
        "seconds": time.perf_counter() - began,
    }


def peak() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- data ----------------------------------------------------------------------------------------------------


class InMemory(Split):
    """Label maps as a split."""

    def __init__(self, images: Bytes, label_maps: Bytes) -> None:
        self.images, self.label_maps = images, label_maps
        self.ids = tuple(f"frame-{i:04}" for i in range(len(images)))
        self.info = DatasetInfo("camvid", LabelSpace(CLASSES), flips=ClassFlips(FLIPS["binary"]))

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], self.images[index], self.label_maps[index, None], np.ones(1), ("r",))


def random_scenes(count: int, height: int, width: int) -> tuple[Bytes, Bytes]:
    """Images ``(n, 3, H, W)`` of noise, label maps of thirty rectangles."""
    rng = np.random.default_rng(0)
    label_maps = np.zeros((count, height, width), np.uint8)
    for label_map in label_maps:
        for _ in range(30):
            top, left = rng.integers(0, [height, width])
            label_map[top : top + height // 3, left : left + width // 3] = rng.integers(len(CLASSES))
    return rng.integers(0, 256, (count, 3, height, width), np.uint8), label_maps


def plain_modes(label_map: Bytes) -> tuple[Bytes, NDArray[np.float64]]:
    """All states of all classes, present or not."""
    flips = FLIPS["binary"]
    on = np.array(list(itertools.product([0, 1], repeat=len(flips))))
    chances = np.array(list(flips.values()))
    templates = np.stack([label_map == CLASSES.index(name) for name in flips])
    masks = np.einsum("mc,chw->mhw", on, templates).astype(np.uint8)
    return masks, np.where(on, chances, 1 - chances).prod(1)


def class_flips(threads: int, source: Path | None) -> dict[str, Any]:
    """What training calls with all modes and with one draw, the plain way, and the masks alone."""
    torch.set_num_threads(1)
    images, label_maps = random_scenes(367, 96, 128)
    if source:
        with np.load(source / "camvid-96x128-train.npz", allow_pickle=False) as arrays:
            label_maps, images = arrays["labels"], arrays["images"].transpose(0, 3, 1, 2).copy()
    split, normalization = (
        FlippedSplit(InMemory(images, label_maps)),
        Normalization((128.0,) * 3, (64.0,) * 3),
    )
    full, single = (LabelView(split, normalization, mode) for mode in ("full", "single"))

    def plain(i: int) -> Item:
        masks, weights = map(torch.from_numpy, plain_modes(label_maps[i]))
        return Item(normalization(images[i]), MaskSet(masks[None], weights.float()[None], BINARY), "")

    ways: dict[str, Callable[[list[int]], object]] = {
        "full": lambda chosen: collate([full[0, i] for i in chosen]),
        "single": lambda chosen: collate([single[0, i] for i in chosen]),
        "plain": lambda chosen: collate([plain(i) for i in chosen]),
        "modes": lambda chosen: [split.modes.all(label_maps[i]) for i in chosen],
        "plain modes": lambda chosen: [plain_modes(label_maps[i]) for i in chosen],
    }
    order = np.random.default_rng(1).permutation(len(images)).tolist()
    spent = dict.fromkeys(ways, 0.0)
    for first in range(0, len(order) - 16, 16):
        for name, way in ways.items():
            began = time.process_time()
            way(order[first : first + 16])
            spent[name] += time.process_time() - began
    return {name: len(range(0, len(order) - 16, 16)) * 16 / seconds for name, seconds in spent.items()}


def check(threads: int, source: Path | None, counts: tuple[int, int] = (2_000, 20_000)) -> dict[str, Any]:
    """A folder of 2,000 and one of 20,000 images, each checked in a process of its own; or that of --source."""
    if source is not None:
        before, began = peak(), time.perf_counter()
        report = check_dataset(source)
        assert report.ok and not report.warnings, report.problems[:3]
        return {"seconds": time.perf_counter() - began, "growth_mib": peak() - before}
    found = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            path, test = Path(folder) / "many", count // 10
            splits = {"train": small_samples(count - test, 0), "test": small_samples(test, 1)}
            write_folder(path, splits, DatasetInfo("many"))
            words = [sys.executable, __file__, "check", "--source", str(path)]
            one = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        found[str(count)] = one | {"images_per_second": count / one["seconds"]}
    few, many = counts
    grown = found[str(many)]["growth_mib"] - found[str(few)]["growth_mib"]
    return {"folders": found, "kib_per_image": 1024 * grown / (many - few)}


def small_samples(count: int, seed: int) -> Iterator[Sample]:
    """Random images of 16x16 pixels with two masks."""
    random = np.random.default_rng(seed)
    for i in range(count):
        image = random.integers(0, 256, (1, 16, 16), np.uint8)
        masks = random.integers(0, 2, (2, 16, 16), np.uint8)
        yield Sample(f"{seed}-{i:07}", image, masks, np.full(2, 0.5), ("a", "b"))


PARTS: dict[str, Callable[[int, Path | None], dict[str, Any]]] = {
    "model": model,
    "optimiser": optimiser,
    "dropout": dropout,
    "sampling": sampling,
    "mose": mose,
    "metrics": metrics,
    "class-flips": class_flips,
    "check": check,
}


def main() -> None:
    """Measure a part and print it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--source", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = PARTS[arguments.part](arguments.threads, arguments.source)
    print(json.dumps({"threads": arguments.threads, **result}, indent=2))


if __name__ == "__main__":
    main()
