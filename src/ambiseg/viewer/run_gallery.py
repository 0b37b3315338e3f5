"""What a run predicts for a split, one image at a time when it is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ambiseg.data.split import Split
from ambiseg.engine.run import Run
from ambiseg.viewer.gallery import Case, SplitGallery


class RunGallery(SplitGallery):
    """What a run predicts for the images of a split, beside their annotations.

    Args:
        run: a loaded run.
        split: the images.
        title: what they are.
        inputs: what is read.
        seed: of methods that sample; each image has random numbers of its own.

    Raises:
        AmbisegError: the split is empty or does not fit the run.
    """

    def __init__(self, run: Run, split: Split, title: str, inputs: Sequence[Path], seed: int = 0) -> None:
        run.check_data(split)
        super().__init__(split, title, inputs)
        self.run, self.seed = run, seed

    def read(self, index: int) -> Case:
        """An image with its annotations and what the run predicts for it."""
        case = super().read(index)
        assert case.image is not None
        remark = self.run.difference(case.image)
        generator = torch.Generator(self.run.hardware.device).manual_seed((self.seed << 32) + index)
        found = self.run.predict_batch([case.image], generator=generator).masks.compact()
        return replace(case, predictions=found, remark=remark)
