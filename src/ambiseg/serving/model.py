"""The run that is served: what requests ask of it, and the images of a batch computed together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ambiseg.engine.postprocess import Image, PredictSettings
from ambiseg.engine.run import MIXTURE_METHOD, Run
from ambiseg.maskset import MaskSet
from ambiseg.methods import method_info
from ambiseg.version import __version__


@dataclass(frozen=True, eq=False)
class Task:
    """One image and what is asked of it.

    Attributes:
        image: ``(C, H, W)``, not normalised.
        settings: without "auto".
        seed: of methods that sample; None where nothing is drawn.
    """

    image: Image
    settings: PredictSettings
    seed: int | None

    @property
    def key(self) -> Hashable | None:
        """Tasks of the same key are computed together; None for one that draws random numbers."""
        return None if self.seed is not None else (self.image.shape, self.settings)


@dataclass(frozen=True, eq=False)
class Found:
    """Kept masks of one image, without the probabilities of pixels.

    ``determined`` is False where the flow model left a choice of probabilities (`Postprocessed`).
    """

    masks: MaskSet
    determined: bool


@dataclass(frozen=True)
class Served:
    """A run with the settings that hold unless a request asks for others.

    Attributes:
        run: held in memory; its folder is not needed any more.
        settings: filters, probabilities and number of samples.
        flow: a run of flow-matching, where the probabilities need one.
        seed: of requests that give none.
    """

    run: Run
    settings: PredictSettings
    flow: Run | None = None
    seed: int = 0

    @cached_property
    def draws(self) -> bool:
        """Whether predictions draw random numbers; of mixtures this is not known and taken for granted."""
        config = self.run.config
        sampling = config.method == MIXTURE_METHOD or not method_info(config.method).test.deterministic
        return sampling or self.settings.estimate.kind != "head"

    def warm(self) -> None:
        """Read what the run folder still holds, so that it may go."""
        self.settings.for_run(self.run)
        _ = self.name

    @cached_property
    def name(self) -> str:
        """Name of the run folder, while there is a working directory to look from."""
        return "" if self.run.folder is None else self.run.folder.resolve().name

    def task(
        self,
        image: Image,
        *,
        samples: int | None = None,
        top: int | None = None,
        keep_all: bool = False,
        seed: int | None = None,
    ) -> Task:
        """What a request asks for; None for what was chosen when the service began."""
        settings = self.settings
        if keep_all:
            settings = replace(
                settings, score_threshold=None, probability_threshold=None, duplicate_iou=None, top=None
            )
        if samples is not None:
            settings = replace(settings, samples=samples)
        if top is not None:
            settings = replace(settings, top=top)
        chosen = self.seed if seed is None else seed
        return Task(image, settings.for_run(self.run), chosen if self.draws else None)

    def predict(self, tasks: Sequence[Task]) -> list[Found]:
        """Masks of tasks of one key; of a single task if it has none."""
        first = tasks[0]
        generator = None
        if first.seed is not None:
            generator = torch.Generator(self.run.hardware.device).manual_seed(first.seed)
        images = [task.image for task in tasks]
        found = self.run.predict_batch(images, first.settings, generator, self.flow)
        masks = replace(found.masks, probabilities=None)
        return [Found(masks[row].compact(), determined) for row, determined in enumerate(found.determined)]

    def facts(self) -> dict[str, Any]:
        """What ``/health`` says of the run."""
        config = self.run.config
        return {
            "version": __version__,
            "run": self.name,
            "method": config.method,
            "preset": config.preset,
            "data": Path(config.data).name,
            "classes": list(config.labels.names),
            "channels": list(config.channels) or config.in_channels,
            "device": self.run.hardware.device,
            "settings": self.settings.for_run(self.run).record(),
            "seed": self.seed if self.draws else None,
        }
