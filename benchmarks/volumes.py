"""Do hypotheses stay one surface through a volume? Two-mode tubes, measured on slices that keep their mode.

    python benchmarks/volumes.py [--steps 300] [--volumes 24] [--size 32] [--depth 40] [--seed 0] [--out RESULT.json]

Each simulated volume holds a tube along z which two annotators mark in different ways: the core, or the core with its rim
(kind "nested"); one or the other of two tubes that cross, the brighter or the fainter one (kind "crossing"). Some slices
in the middle of each tube are empty. A mode proposal network and an SSN are trained on the slices of two thirds of the
volumes, and predict the others. A slice keeps its mode if the mask of a hypothesis there is nearer to the mode to which
the hypothesis is nearest in most slices. Slices count in which the two modes differ (IoU below 0.95); hypotheses count by
their probability. Beside joined hypotheses the same is measured without joining: the k-th most probable mask of each
slice, or, for the SSN, samples of other random numbers in each slice.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ambiseg.data.info import DatasetInfo
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.data.volumes.slices import read_slice
from ambiseg.data.volumes.volume import open_volume
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import Run, load
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import fit
from ambiseg.engine.volumes import VolumePrediction, predict_volume
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.networks.settings import UNetSettings
from ambiseg.overlap import pairwise_overlap

SHARES = (0.55, 0.45)
"""Probabilities of the two annotators."""
ALIKE = 0.95
SPACING = (0.8, 0.8, 2.5)


def tube(
    seed: int, index: int, size: int = 32, depth: int = 40
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Image ``(X, Y, Z)`` and the masks ``(2, X, Y, Z)`` of a tube; kinds take turns."""
    rng = np.random.default_rng([seed, index])
    t = np.linspace(-1, 1, depth)
    places = np.moveaxis(np.mgrid[:size, :size], 0, -1)
    phase, swing = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.02, 0.08) * size
    centre = size / 2 + swing * np.sin(2 * t[:, None] + phase)
    ends, gap = rng.integers(2, 5, 2), int(rng.integers(depth // 3, depth // 2))
    there = (np.arange(depth) >= ends[0]) & (np.arange(depth) < depth - ends[1])
    there &= (np.arange(depth) < gap) | (np.arange(depth) >= gap + 4)
    masks = np.zeros((2, size, size, depth), np.uint8)
    image = np.zeros((size, size, depth))
    across = rng.choice([-1, 1]) * 0.22 * size
    for z in np.flatnonzero(there):
        if index % 2:  # two tubes that cross
            offsets, radii, values = (across * t[z], -across * t[z]), (0.13 * size, 0.13 * size), (1.0, 0.6)
            centres = [centre[z] + (offset, 0) for offset in offsets]
        else:
            radii, values = (0.14 * size, 0.22 * size), (1.0, 0.6)
            centres = [centre[z], centre[z]]
        for mode in (1, 0):
            inside = np.linalg.norm(places - centres[mode], axis=-1) < radii[mode]
            masks[mode, :, :, z] = inside
            image[:, :, z][inside] = values[mode]
    image = gaussian_filter(image, (0.5, 0.5, 0)) + 0.08 * rng.standard_normal(image.shape)
    return (1000 * image).astype(np.int16), masks


def write_tubes(root: Path, counts: dict[str, int], size: int = 32, depth: int = 40, seed: int = 0) -> Path:
    """A data set of tubes, splits with so many volumes each."""
    info = DatasetInfo("tubes", slices=SliceSettings())
    root.mkdir(parents=True)
    (root / "dataset.yaml").write_text(info.to_yaml(), encoding="utf-8")
    affine, index = np.diag([*SPACING, 1.0]), 0
    for split, count in counts.items():
        (root / split / "images").mkdir(parents=True)
        rows = ["id,annotator,weight"]
        for _ in range(count):
            name = f"tube{index:03}"
            image, masks = tube(seed, index, size, depth)
            nibabel.save(nibabel.Nifti1Image(image, affine), root / split / "images" / f"{name}.nii.gz")
            folder = root / split / "masks" / name
            folder.mkdir(parents=True)
            for reader, mask, share in zip(("first", "second"), masks, SHARES, strict=True):
                nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{reader}.nii.gz")
                rows.append(f"{name},{reader},{share}")
            index += 1
        (root / split / "weights.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def keeps(hypotheses: NDArray[np.uint8], weights: NDArray[np.float64], modes: NDArray[np.uint8]) -> float:
    """Share of slices in which hypotheses ``(H, X, Y, Z)`` keep the mode ``(2, X, Y, Z)`` that they have in most."""
    labels = LabelSpace.binary()
    ours = torch.from_numpy(np.moveaxis(hypotheses, -1, 0).copy())
    theirs = torch.from_numpy(np.moveaxis(modes, -1, 0).copy())
    apart = pairwise_overlap(theirs, theirs, labels).iou()[:, 0, 1] < ALIKE
    nearest = pairwise_overlap(ours, theirs, labels).iou()[apart].argmax(2).double()
    share = nearest.mean(0)
    return float(torch.maximum(share, 1 - share) @ torch.from_numpy(weights / weights.sum()))


def whole(found: VolumePrediction) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """All hypotheses ``(H, X, Y, Z)`` and their probabilities."""
    count = int(found.masks.count[0])
    return np.stack([found.whole(k) for k in range(count)]), found.masks.weights[0, :count].double().numpy()


def unjoined(
    run: Run, path: Path, settings: PredictSettings
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The same without joining: masks by their order in each slice; the last one again where a slice has fewer."""
    volume, slices = open_volume(path), SliceSettings()
    generator = torch.Generator().manual_seed(0)
    images = [read_slice(volume, slices, z) for z in range(volume.shape[2])]
    sets: list[MaskSet] = [run.predict_batch([image], settings, generator).masks for image in images]
    most = max(int(one.count[0]) for one in sets)
    taken = [np.minimum(np.arange(most), int(one.count[0]) - 1).tolist() for one in sets]
    masks = np.stack([one.masks[0, k].numpy() for one, k in zip(sets, taken, strict=True)], -1)
    weights = np.mean([one.weights[0, k].double().numpy() for one, k in zip(sets, taken, strict=True)], 0)
    return masks, weights


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Simulate, train, predict, print and return the shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("steps", 300), ("volumes", 24), ("size", 32), ("depth", 40), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--methods", default="mode-proposals,ssn")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(args)
    results: dict[str, Any] = {"settings": {k: v for k, v in vars(options).items() if k != "out"}}
    with tempfile.TemporaryDirectory() as room:
        test = max(2, options.volumes // 3)
        counts = {"train": options.volumes - test - 2, "val": 2, "test": test}
        data = write_tubes(Path(room) / "tubes", counts, options.size, options.depth, options.seed)
        for method in options.methods.split(","):
            training = TrainSettings(
                updates=options.steps, batch_size=16, lr=2e-3, validations=2, warmup=20, seed=options.seed
            )
            network = UNetSettings(width=16, depth=3)
            began = time.perf_counter()
            made = fit(method, data, Path(room) / method, train=training, backbone=network, quiet=True)
            run, seconds = load(made.run), time.perf_counter() - began
            rows: dict[str, list[float]] = {"joined": [], "not joined": []}
            for path in sorted((data / "test" / "images").iterdir()):
                index = int(path.name[4:7])
                modes = tube(options.seed, index, options.size, options.depth)[1]
                rows["joined"].append(keeps(*whole(predict_volume(run, path)), modes))
                rows["not joined"].append(keeps(*unjoined(run, path, PredictSettings()), modes))
            results[method] = {name: round(float(np.mean(row)), 4) for name, row in rows.items()}
            results[method] |= {
                "least": round(min(rows["joined"]), 4),
                "volumes": test,
                "seconds of training": round(seconds, 1),
            }
            print(f"{method}: {json.dumps(results[method])}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
