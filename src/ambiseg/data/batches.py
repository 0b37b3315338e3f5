"""From a split on disk to batches for training: label views, normalisation, augmentation, and an order that
can be resumed.

*Full* labels: every training sample of an image has all its distinct masks with their probabilities. *Single*
labels: every training sample has one mask, drawn anew by its probability. Where classes flip, label maps are
kept and modes made for each sample. What a sample holds is a pure function of (seed, epoch, index), and which
images a batch holds is a pure function of (seed, step): the same for any number of workers, processes or
interruptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Sampler
from torch.utils.data._utils.collate import default_collate_fn_map

from ambiseg.data.annotators import Styles
from ambiseg.data.augmentation import Augmentation
from ambiseg.data.class_flips import FlipModes
from ambiseg.data.collate import extended
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.data.volumes.unpacked import MOST_BYTES
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

MEMORY_LIMIT = 4 * 2**30
"""Splits whose images and masks take fewer bytes are kept in memory after they were first read."""

SampleKey = tuple[int, int]
"""Epoch and index of one image."""


@dataclass(frozen=True)
class Batch:
    """Some images with their annotations.

    Attributes:
        images: ``(B, C, H, W)`` float32, normalised; smaller images are extended with 0 at their lower right.
        annotations: their masks; void where an image was extended.
        ids: names of the images.
    """

    images: Tensor
    annotations: MaskSet
    ids: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(self.images.to(device), self.annotations.to(device), self.ids)


def halved(batch: Batch) -> Batch:
    """A batch of half the size: means of 2x2 pixels, and of masks the same one of the four, drawn at random for the whole
    batch; masks that are the same then become one. An odd last row or column is left out; images of one row or column
    stay as they are.

    Example:
        >>> masks = MaskSet.uniform(torch.ones(1, 1, 4, 5, dtype=torch.uint8), LabelSpace.binary())
        >>> small = halved(Batch(torch.arange(20.0).view(1, 1, 4, 5), masks, ("a",)))
        >>> small.images.tolist(), small.annotations.masks.shape
        ([[[[3.0, 5.0], [13.0, 15.0]]]], torch.Size([1, 1, 2, 2]))
    """
    height, width = (size - size % 2 for size in batch.images.shape[-2:])
    if not height or not width:
        return batch
    row, column = torch.randint(2, (2,)).tolist()
    masks = batch.annotations.masks[..., row:height:2, column:width:2].contiguous()
    images = functional.avg_pool2d(batch.images, 2)
    annotations = replace(batch.annotations, masks=masks).merge_identical()
    return Batch(images, annotations, batch.ids)


FAR = 1e5
"""Standard deviations from the mean of training at which a value is no measurement. A channel that was constant in
training counts as one of standard deviation 1, and may hold any number of 16 bits."""


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation of the training images: ``x -> (x - mean) / std``.

    Example:
        >>> Normalization((1.0,), (2.0,))(np.full((1, 1, 1), 5, np.uint8)).item()
        2.0
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: np.ndarray[Any, Any]) -> Tensor:
        """Normalise an image ``(C, H, W)`` of any numeric type to float32.

        Raises:
            AmbisegError: another number of channels.
        """
        self.check(image)
        mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        return torch.from_numpy((image.astype(np.float32) - mean) / std)

    def stack(self, images: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        """Normalise images of one size, ``(B, C, H, W)`` float32; `AmbisegError` as for one image."""
        return torch.stack([self(image) for image in images])

    def check(self, image: np.ndarray[Any, Any]) -> None:
        """Raise `AmbisegError` where an image ``(C, H, W)`` has another number of channels."""
        if image.shape[0] != len(self.mean):
            raise AmbisegError(
                f"the image has {image.shape[0]} channel(s), the model was trained on {len(self.mean)}:"
                " predict with images like those it was trained on"
            )

    def check_values(self, image: np.ndarray[Any, Any]) -> None:
        """Raise `AmbisegError` where a value of an image ``(C, H, W)`` is `FAR` standard deviations off or more."""
        mean, std = (np.asarray(v, np.float64) for v in (self.mean, self.std))
        for extreme in (image.min(axis=(1, 2)), image.max(axis=(1, 2))):
            off = np.abs(extreme.astype(np.float64) - mean) / std
            worst = int(off.argmax())
            if not off[worst] < FAR:
                raise AmbisegError(
                    f"the image holds the value {extreme[worst]:g}, far outside those of training (mean"
                    f" {mean[worst]:g}, standard deviation {std[worst]:g}): replace such values, which may stand for"
                    " missing measurements"
                )

    def to_dict(self) -> dict[str, list[float]]:
        """Plain lists, for the run folder."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, list[float]]) -> Normalization:
        """The inverse of `to_dict`."""
        return cls(tuple(map(float, values["mean"])), tuple(map(float, values["std"])))


@dataclass(frozen=True)
class Item:
    """One training sample: what `collate` joins into a batch."""

    image: Tensor
    annotations: MaskSet
    id: str


class LabelView(Dataset[Item]):
    """A split seen with full or single labels.

    Args:
        split: where the samples come from.
        normalization: of the images.
        mode: ``full`` (all distinct masks with their probabilities; at least two places, so that methods can
            tell unanimous annotators from single labels) or ``single`` (one, drawn by probability).
        augmentation: what to do to image and masks of each sample.
        seed: of draws and augmentation.
        styles: say whose style each mask has (`MaskSet.annotators`), and leave identical masks apart.
    """

    def __init__(
        self,
        split: Split,
        normalization: Normalization,
        mode: Literal["full", "single"] = "full",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        styles: Styles | None = None,
    ) -> None:
        if mode not in ("full", "single"):
            raise AmbisegError(f"mode is 'full' or 'single', received {mode!r:.80}")
        self.split, self.normalization, self.mode, self.seed = split, normalization, mode, seed
        self.augmentation, self.styles = augmentation or Augmentation(), styles
        self.labels: LabelSpace = split.info.labels
        self._kept: dict[int, Item] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: SampleKey | int) -> Item:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        item = self._item(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        annotations = item.annotations
        if self.split.modes is not None:
            return self._flipped(self.split.modes, item, rng)
        if self.mode == "single":
            weights = annotations.weights[0].double().numpy()
            chosen = int(rng.choice(len(weights), p=weights / weights.sum()))
            one = annotations.gather(torch.tensor([[chosen]]))
            annotations = replace(one, weights=torch.ones_like(one.weights))
        else:
            annotations = annotations.padded(2)
        image, masks = self.augmentation(item.image, annotations.masks[0], self.labels.void, rng)
        return Item(image, replace(annotations, masks=masks[None]), item.id)

    def _flipped(self, modes: FlipModes, item: Item, rng: np.random.Generator) -> Item:
        """Modes of an item that holds a label map; that one map is augmented instead of all of them."""
        stored = item.annotations
        image, label_maps = self.augmentation(item.image, stored.masks[0], stored.labels.void, rng)
        if self.mode == "single":
            drawn = modes.draw(label_maps[0].numpy(), rng)
            return Item(image, MaskSet.uniform(torch.from_numpy(drawn)[None, None], self.labels), item.id)
        sample = Sample(item.id, image.numpy(), *modes.all(label_maps[0].numpy()))
        return Item(image, annotations_of(sample, self.labels).padded(2), item.id)

    def _item(self, index: int) -> Item:
        if index in self._kept:
            return self._kept[index]
        stored, labels = self.split.stored_sample(index), self.split.stored.info.labels
        item = prepare(stored, self.normalization, labels)
        if self.styles is None:
            annotations = item.annotations.merge_identical()
        else:
            places = torch.tensor([self.styles.places(stored.annotators)])
            annotations = replace(item.annotations, annotators=places)
        item = replace(item, annotations=annotations)
        size = item.image.nbytes + item.annotations.masks.nbytes
        if self._bytes + size <= MEMORY_LIMIT:
            self._kept[index] = item
            self._bytes += size
        return item


def annotations_of(sample: Sample, labels: LabelSpace) -> MaskSet:
    """The masks of one image with their weights, duplicates included, ``(1, N, H, W)``."""
    masks, weights = torch.from_numpy(sample.masks)[None], torch.from_numpy(sample.weights).float()[None]
    return MaskSet(masks, weights, labels)


def prepare(sample: Sample, normalization: Normalization, labels: LabelSpace) -> Item:
    """Normalise the image; annotations stay as they are, duplicates included."""
    try:
        return Item(normalization(sample.image), annotations_of(sample, labels), sample.id)
    except AmbisegError as error:
        raise AmbisegError(f"image {sample.id!r}: {error}") from error


def collate(items: Sequence[Item]) -> Batch:
    """Join samples into a batch, extending smaller images and sets."""
    annotations = MaskSet.stack([item.annotations for item in items])
    return Batch(extended([item.image for item in items]), annotations, tuple(item.id for item in items))


def _collated(batch: Sequence[Item], *, collate_fn_map: object = None) -> Batch:
    return collate(batch)


default_collate_fn_map[Item] = _collated


class BatchOrder(Sampler[list[SampleKey]]):
    """Endless batches of samples; each epoch is a new permutation, and batches run across the ends of epochs.

    Batch t of shard r of R holds positions ``(t R + r) B .. + B`` of the stream of permutations, so R
    processes with batches of B see together what one process with batches of R B sees.

    Args:
        count: number of images.
        batch_size: B, per shard.
        seed: of the permutations.
        start: the step to begin with (resuming).
        shard, shards: which of how many processes this one is.
        units: places that are read from one file, and the bytes that it takes in memory (`Split.units`). Then only so
            many files take turns as fit in ``window`` bytes, one after another in random order; within them the order
            is random. None: the order is random throughout.
        window: bytes.

    Example:
        >>> first = iter(BatchOrder(5, 2, seed=0))
        >>> batches = [next(first) for _ in range(4)]
        >>> next(iter(BatchOrder(5, 2, seed=0, start=3))) == batches[3]
        True
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int = 0,
        start: int = 0,
        shard: int = 0,
        shards: int = 1,
        units: Sequence[tuple[Sequence[int], int]] | None = None,
        window: int = MOST_BYTES,
    ) -> None:
        if count < 1 or batch_size < 1:
            raise AmbisegError(
                f"batches need an image and a size of 1 or more, received {count} and {batch_size}"
            )
        self.count, self.batch_size, self.seed, self.start = count, batch_size, seed, start
        self.shard, self.shards, self.units, self.window = shard, shards, units, window

    def __iter__(self) -> Iterator[list[SampleKey]]:
        step, known, order = self.start, -1, np.empty(0, np.int64)
        while True:
            first = (step * self.shards + self.shard) * self.batch_size
            batch: list[SampleKey] = []
            for position in range(first, first + self.batch_size):
                epoch, place = divmod(position, self.count)
                if epoch != known:
                    known, order = epoch, self._order(np.random.default_rng([self.seed, epoch]))
                batch.append((epoch, int(order[place])))
            yield batch
            step += 1

    def _order(self, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
        """All places once."""
        if self.units is None:
            return rng.permutation(self.count)
        windows: list[list[int]] = [[]]
        size = 0
        for unit in rng.permutation(len(self.units)):
            places, own = self.units[unit]
            if windows[-1] and size + own > self.window:
                windows.append([])
                size = 0
            windows[-1] += places
            size += own
        return np.concatenate([rng.permutation(np.array(places, np.int64)) for places in windows])
