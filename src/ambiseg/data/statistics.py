"""What training has to know of a split, from one pass over it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ambiseg.data.batches import Normalization
from ambiseg.data.image_range import MEASURED, ImageRange, RangeTally
from ambiseg.data.mask_oddities import MaskOddities
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.errors import AmbisegError


@dataclass(frozen=True)
class SplitStatistics:
    """What training has to know of a split.

    Attributes:
        channels: number of channels, the same for all images.
        images: number types, sizes and range of the images.
        normalization: mean and standard deviation of each channel.
        digest: SHA-256 over all samples.
        remarks: what a person should look at in the images and masks.
        single_masks: whether every image has one mask, which stands for itself alone.
        annotators: share of each annotator in the masks: mean over images of the weights, by name.
    """

    channels: int
    images: ImageRange
    normalization: Normalization
    digest: str
    remarks: tuple[str, ...] = ()
    single_masks: bool = False
    annotators: Mapping[str, float] = field(default_factory=dict)

    @property
    def types(self) -> tuple[str, ...]:
        """Number types of the images, sorted."""
        return self.images.types

    @classmethod
    def of(
        cls, split: Split, measured: int = MEASURED, progress: Callable[[int, int], None] | None = None
    ) -> SplitStatistics:
        """Read every image of a split once.

        Args:
            split: a split that is not empty.
            measured: use so many images, the first ones, for the normalisation.
            progress: called with images done and in all.

        Raises:
            AmbisegError: the files of an image are wrong, images differ in their number of channels, or one
                value is so far from all others that normalised images would be constant.
        """
        done = itertools.count(1)
        images, masks = RangeTally(measured), MaskOddities(split.stored.info.labels)
        drawn: Counter[str] = Counter()

        def read(sample: Sample) -> None:
            images.add(sample.id, sample.image)
            masks.add(sample)
            for name, weight in zip(sample.annotators, sample.weights.tolist(), strict=True):
                drawn[name] += weight / len(split)
            if progress is not None:
                progress(next(done), len(split))

        digest = split.digest(read)
        stray = images.crushed()
        if stray is not None:
            raise AmbisegError(f"{stray}, so all images would be constant for training: {STRAY_REMEDY}")
        remarks = [f"{problem}: {remedy}" for problem, remedy in masks.remarks()]
        if images.strays:
            remarks.append(f"{stray_words(images)}: {STRAY_REMEDY}")
        single = masks.most == 1 and split.modes is None
        return cls(
            *(images.channels, images.range(), images.normalization(), digest, tuple(remarks), single), drawn
        )


STRAY_REMEDY = "replace numbers for missing measurements by one within the range of the others"


def stray_words(images: RangeTally) -> str:
    """The first value that is far from all others, and in how many images there is one."""
    count = len({stray.id for stray in images.strays})
    return f"{images.strays[0]}" + (f"; in {count} images there is such a value" if count > 1 else "")
