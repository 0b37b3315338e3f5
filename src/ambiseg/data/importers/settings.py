"""Options of the importers of ordinary files; plain dataclasses that need no torch, so that ``--help`` is
instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class SplitSettings:
    """How data without official splits are split."""

    seed: int = 0
    """Seed of the split, 60 % train, 20 % val, 20 % test."""
    split_file: Path | None = None
    """CSV with the columns id and split to follow instead of drawing, as `ambiseg data split` writes it; ids
    that it does not name are left out."""


@dataclass(frozen=True)
class CamvidSettings:
    """Options of `camvid`."""

    output: Literal["binary", "twins"] = "binary"
    """binary: road, pavement, tree and car are foreground with probability .05, .25, .75, .95; twins:
    pavement, pedestrian, car, tree and road become a class of their own with probability 8/17, 7/17, 6/17,
    5/17, 4/17."""
    size: tuple[int, int] = (96, 128)
    """Height and width; images are averaged, labels taken at the nearest pixel; 0 0 keeps those of the
    files."""


@dataclass(frozen=True)
class CityscapesSettings:
    """Options of `cityscapes`."""

    output: Literal["binary", "twins"] = "binary"
    """binary: four classes are foreground or background, 16 modes; twins: five classes have a twin, 24
    classes, 32 modes."""
    size: tuple[int, int] = (64, 128)
    """Height and width, taken at the nearest pixel; 0 0 keeps 1024 x 2048."""
    split: Literal["official-val-as-test", "plain"] = "official-val-as-test"
    """official-val-as-test: the official val is test, random training images are val; plain: train and val as
    they are."""
    held_out: int = 500
    """Training images that official-val-as-test takes for val."""
    seed: int = 0
    """Seed of that choice."""


@dataclass(frozen=True)
class MMFireSettings:
    """Options of `mmfire`."""

    probabilities: Literal["skewed", "uniform"] = "skewed"
    """Of the eight outcomes: 2^j / 255, or all alike."""
    train: int = 5000
    """Scenarios that train: the first ones."""
    val: int = 2500
    """Scenarios that validate: the next ones. The rest tests."""


@dataclass(frozen=True)
class RefugeSettings:
    """Options of `refuge`."""

    structure: Literal["cup", "disc"] = "cup"
    """What the masks show."""
    size: tuple[int, int] = (256, 256)
    """Height and width; 0 0 keeps those of the files."""


@dataclass(frozen=True)
class IsicSettings(SplitSettings):
    """Options of `isic`."""

    masks: int = 3
    """Import the images with exactly so many segmentations; 0: with two or more."""
    size: tuple[int, int] = (256, 256)
    """Height and width; 0 0 keeps those of the files."""


@dataclass(frozen=True)
class BsdsSettings:
    """Options of `bsds`."""

    point: tuple[float, float] = (0.5, 0.5)
    """Where the region lies: share of the height from the top, share of the width from the left."""


@dataclass(frozen=True)
class NiftiSettings(SplitSettings):
    """Options of `nifti`."""

    axis: int = 2
    """Axis of the array that the slices stand on: 0, 1 or 2."""
    classes: tuple[str, ...] = ("background", "foreground")
    """Names of the label values 0, 1, ..."""
    empty: bool = False
    """Import slices in which nobody marks anything, too."""
    other_grid: Literal["refuse", "resample", "voxels"] = "refuse"
    """Masks that lie on another grid than their image: refuse leaves the volume out; resample takes the
    nearest voxel; voxels ignores the affines and takes masks voxel by voxel."""
    stacked: bool = False
    """Masks may have a fourth axis with one volume per annotator, and may stand as masks/<volume>.nii.gz."""


@dataclass(frozen=True)
class QubiqSettings:
    """Options of `qubiq`."""

    task: int = 1
    """Which structure: the number after ``task``."""
    seed: int = 0
    """Seed of the split of Training into 80 % train and 20 % val."""
    other_grid: Literal["refuse", "voxels"] = "refuse"
    """Masks whose affine is not that of their image: refuse leaves the case out; voxels ignores the affines
    and takes masks pixel by pixel."""


@dataclass(frozen=True)
class CocoSettings(SplitSettings):
    """Options of `coco`."""

    empty: bool = False
    """Import images in which nobody marks anything, too, with empty masks."""
    rotated: Literal["by-size", "as-shown", "as-stored"] = "by-size"
    """Which pixels the coordinates mean where a photograph is rotated by its EXIF tag: by-size, those whose
    width and height the file states, and photographs that fit both are left out; as-shown, the rotated ones;
    as-stored, those before the rotation."""


@dataclass(frozen=True)
class ArraysSettings:
    """Options of `arrays`."""

    name: str = ""
    """Beginning of the names of the files, such as lidc-on-ct-64; needed where there are several."""
    augment: tuple[str, ...] | None = None
    """What training may do to the images, such as flip, rotate (quarter turns included), scale and intensity;
    if left out, training tests these."""
    licence: str = ""
    """Terms of the data."""
