"""Tubes along the last axis of a volume that can be marked in several ways, as slices of a model and as data on disk."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import nibabel
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ambiseg.data.info import DatasetInfo
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

SIZE = 40


@dataclass(frozen=True)
class Slices:
    """What a model would say of the slices of a tube.

    Attributes:
        sets: masks of each slice in any order, near-duplicates merged.
        modes: ``(D, modes)``, which mask each mode is; -1 where it was dropped.
    """

    sets: list[MaskSet]
    modes: np.ndarray

    @property
    def told(self) -> list[int]:
        """Slices whose masks differ."""
        return [d for d, one in enumerate(self.sets) if int(one.count[0]) > 1]

    def kept(self, taken: np.ndarray) -> float:
        """Share of the slices in which every mode that is there belongs to its hypothesis, the best way to name them."""
        shares = []
        for order in permutations(range(taken.shape[1]), self.modes.shape[1]):
            same = (taken[self.told][:, list(order)] == self.modes[self.told]) | (self.modes[self.told] < 0)
            shares.append(same.all(1).mean())
        return float(max(shares))


def slices_of(
    kind: str,
    seed: int,
    depth: int = 48,
    shares: tuple[float, ...] = (0.6, 0.4),
    rough: float = 1.0,
    gap: int = 0,
    dropped: float = 0.0,
) -> Slices:
    """A tube of a kind: nested (radii apart), close (radii 1.5 pixels apart), radius (radii cross) or cross (places cross).

    Borders are rough by so many pixels, weights are those of ``shares`` with errors, masks come in any order. ``gap``
    slices have no foreground; in a share ``dropped`` of the slices one mask is left.
    """
    rng = np.random.default_rng(seed)
    t, drift, phase = np.linspace(0, 1, depth), rng.uniform(-5, 5, 2), rng.uniform(0, 2 * np.pi, 2)
    begin = int(rng.integers(depth // 4, depth // 2))
    places = np.stack(np.mgrid[:SIZE, :SIZE], -1)
    sets, modes = [], []
    for d in range(depth):
        centre = SIZE / 2 + drift * (t[d] - 0.5) + 2 * np.sin(4 * t[d] + phase)
        masks = np.zeros((len(shares), SIZE, SIZE), np.uint8)
        for k in range(len(shares)):
            middle, radius = centre, {"nested": 5 + 4 * k, "close": 8 + 1.5 * k}.get(kind, 6.0 + 3 * (k > 1))
            if kind == "radius":
                radius += 6 * (t[d] if k == 0 else 1 - t[d]) + 3 * (k > 1)
            elif kind == "cross" and k < 2:
                middle = centre + (0, (1 - 2 * k) * 18 * (t[d] - 0.5))
            noise = gaussian_filter(rng.standard_normal((SIZE, SIZE)), 3)
            distance = np.linalg.norm(places - middle, axis=-1) - radius + rough * noise / noise.std()
            masks[k] = distance < 0
        if begin <= d < begin + gap:
            masks[:] = 0
        weights = np.clip(np.array(shares) + 0.1 * rng.standard_normal(len(shares)), 0.05, None)
        order = rng.permutation(len(shares))
        one = MaskSet.from_numpy(masks[order], weights[order] / weights.sum()).drop_near_duplicates(0.95)
        one = one.top(1) if rng.random() < dropped else one
        left = one.masks[0].numpy()
        same = [[k for k, mask in enumerate(left) if np.array_equal(mask, wanted)] for wanted in masks]
        sets.append(one)
        modes.append([found[0] if found else -1 for found in same])
    return Slices(sets, np.array(modes))


def tube_volume(index: int, size: int = 16, depth: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """An image ``(X, Y, Z)`` of a bright core in a faint rim, and masks ``(2, X, Y, Z)``: the core, both. The outermost
    slices are empty."""
    rng = np.random.default_rng(index)
    places, masks = np.stack(np.mgrid[:size, :size], -1), np.zeros((2, size, size, depth), np.uint8)
    for z in range(1, depth - 1):
        distance = np.linalg.norm(places - size / 2 - rng.uniform(-1, 1, 2), axis=-1)
        masks[0, :, :, z], masks[1, :, :, z] = distance < 3, distance < 5.5
    image = 600.0 * masks[1] + 400.0 * masks[0] + 50 * rng.standard_normal(masks[0].shape)
    return image.astype(np.int16), masks


AFFINE = np.array([[0, -0.9, 0, 30], [0.8, 0, 0, -20], [0, 0, 2.5, 10], [0, 0, 0, 1.0]])
"""Of the volumes that `write_tubes` writes: turned by a right angle."""


def write_tubes(root: Path, counts: dict[str, int], slices: SliceSettings | None = None) -> Path:
    """A data set of volumes; the first annotator, of the core, has the weight 0.75."""
    root.mkdir(parents=True)
    info = DatasetInfo("tubes", slices=slices or SliceSettings())
    (root / "dataset.yaml").write_text(info.to_yaml(), encoding="utf-8")
    index = 0
    for split, count in counts.items():
        rows = ["id,annotator,weight"]
        (root / split / "images").mkdir(parents=True)
        for _ in range(count):
            image, masks = tube_volume(index)
            name = f"tube{index}"
            nibabel.save(nibabel.Nifti1Image(image, AFFINE), root / split / "images" / f"{name}.nii.gz")
            (root / split / "masks" / name).mkdir(parents=True)
            for annotator, mask, share in zip(("core", "whole"), masks, (0.75, 0.25), strict=True):
                place = root / split / "masks" / name / f"{annotator}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(mask, AFFINE), place)
                rows.append(f"{name},{annotator},{share}")
            index += 1
        (root / split / "weights.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def discs(radii: list[float], weights: list[float], size: int = 12) -> MaskSet:
    """One slice: discs in the middle, empty ones for radius 0."""
    distance = torch.from_numpy(np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2)))
    masks = torch.stack([(distance < radius).to(torch.uint8) for radius in radii])
    return MaskSet(masks[None], torch.tensor([weights]), LabelSpace.binary())
