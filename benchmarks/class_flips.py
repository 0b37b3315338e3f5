"""How fast class flips become batches, against the plain way, which builds all 2^k maps of an image by one
boolean product.

    python benchmarks/class_flips.py [--source DIR] [--size 96 128] [--images 367] [--batch 16] [--seconds 3] [--json]

Road, pavement, tree and car of CamVid flip with probability .05, .25, .75, .95; all images lie in memory.
With ``--source`` the labels are those of ``camvid-96x128-train.npz`` in that folder (images uint8 (n, 96,
128, 3), labels uint8 (n, 96, 128)), else random rectangles of twelve classes. The ways alternate batch by
batch on one thread, and each prints its images per second of processor time, in which other programs have no
say:

- ``full``, ``single``: what training calls, label views with all modes or with one draw;
- ``plain``: the same images, the 16 maps as an einsum of states and class masks, nothing merged, the same
  collation;
- ``modes``, ``plain modes``: the masks alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.data.batches import Item, LabelView, Normalization, collate
from ambiseg.data.class_flip_view import FlippedSplit
from ambiseg.data.class_flips import ClassFlips
from ambiseg.data.importers.camvid import CLASSES, FLIPS
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

CHANCES = FLIPS["binary"]
Images = NDArray[np.uint8]


class InMemory(Split):
    """Label maps as a split."""

    def __init__(self, images: Images, label_maps: Images) -> None:
        self.images, self.label_maps = images, label_maps
        self.ids = tuple(f"frame-{i:04}" for i in range(len(images)))
        self.info = DatasetInfo("camvid", LabelSpace(CLASSES), flips=ClassFlips(CHANCES))

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], self.images[index], self.label_maps[index, None], np.ones(1), ("r",))


def random_scenes(count: int, height: int, width: int) -> tuple[Images, Images]:
    """Images ``(n, 3, H, W)`` of noise, label maps of thirty rectangles."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, height, width), np.uint8)
    label_maps = np.zeros((count, height, width), np.uint8)
    for label_map in label_maps:
        for _ in range(30):
            top, left = rng.integers(0, [height, width])
            label_map[top : top + height // 3, left : left + width // 3] = rng.integers(len(CLASSES))
    return images, label_maps


def plain_modes(label_map: Images) -> tuple[Images, NDArray[np.float64]]:
    """All states of all classes, present or not."""
    on = np.array(list(itertools.product([0, 1], repeat=len(CHANCES))))
    chances = np.array(list(CHANCES.values()))
    templates = np.stack([label_map == CLASSES.index(name) for name in CHANCES])
    masks = np.einsum("mc,chw->mhw", on, templates).astype(np.uint8)
    return masks, np.where(on, chances, 1 - chances).prod(1)


def rates(
    ways: dict[str, Callable[[list[int]], object]], count: int, batch: int, seconds: float
) -> dict[str, float]:
    """Images per second of each way, in turns on the same batches, after one visit of every image."""
    order = itertools.cycle(np.random.default_rng(1).permutation(count).tolist())
    spent = dict.fromkeys(ways, 0.0)
    for way in ways.values():
        way(list(range(count)))
    turns = 0
    while min(spent.values()) < seconds / len(ways) and sum(spent.values()) < 10 * seconds:
        chosen = list(itertools.islice(order, batch))
        for name, way in ways.items():
            began = time.process_time()
            way(chosen)
            spent[name] += time.process_time() - began
        turns += 1
    return {name: turns * batch / value for name, value in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128))
    parser.add_argument("--images", type=int, default=367)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.source:
        with np.load(arguments.source / "camvid-96x128-train.npz", allow_pickle=False) as arrays:
            images, label_maps = (
                np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2)),
                arrays["labels"],
            )
    else:
        images, label_maps = random_scenes(arguments.images, *arguments.size)
    split = FlippedSplit(InMemory(images, label_maps))
    normalization = Normalization((128.0,) * 3, (64.0,) * 3)
    full, single = (LabelView(split, normalization, mode) for mode in ("full", "single"))
    binary, known = LabelSpace.binary(), [normalization(image) for image in images]

    def plain(i: int) -> Item:
        masks, weights = plain_modes(label_maps[i])
        return Item(
            known[i],
            MaskSet(torch.from_numpy(masks)[None], torch.from_numpy(weights).float()[None], binary),
            "",
        )

    found = rates(
        {
            "full": lambda chosen: collate([full[0, i] for i in chosen]),
            "single": lambda chosen: collate([single[0, i] for i in chosen]),
            "plain": lambda chosen: collate([plain(i) for i in chosen]),
            "modes": lambda chosen: [split.modes.all(label_maps[i]) for i in chosen],
            "plain modes": lambda chosen: [plain_modes(label_maps[i]) for i in chosen],
        },
        len(images),
        arguments.batch,
        arguments.seconds,
    )
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for name, rate in found.items():
            print(f"{name:12} {rate:9.0f} images/s")


if __name__ == "__main__":
    main()
