"""Whether data suit the experiment that a preset is named after; where not, what to do, in one sentence."""

from __future__ import annotations

from pathlib import Path

from ambiseg.data.memory.dataset import InMemory
from ambiseg.data.statistics import SplitStatistics
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.methods.spec import MethodSpec


def check_data_are_there(spec: MethodSpec, preset: str, data: Path | InMemory) -> None:
    """Say how to get the data of a preset where there are none.

    Raises:
        AmbisegError: nothing at ``data``, and the preset is made for a public data set.
    """
    layout = spec.preset(preset).data
    if layout is not None and isinstance(data, Path) and not data.exists():
        raise layout.missing(data)


def check_suits(
    spec: MethodSpec, preset: str, labels: str, classes: LabelSpace, found: SplitStatistics
) -> None:
    """Refuse data without that on which the settings of a preset rest; other differences do not matter.

    Args:
        spec, preset: the experiment.
        labels: which labels training uses, "full" or "single".
        classes: of the masks.
        found: in its training split.

    Raises:
        AmbisegError: the classes have no twins or do not flip, the channel of another network's prediction is
            missing, or images have one mask each where settings for several are chosen.
    """
    layout = spec.preset(preset).data
    if layout is None:
        return
    made, instead = f"the preset {preset} of {spec.name} is made for", "or choose another preset"
    if layout.flips == "twins" and classes.is_binary:
        raise AmbisegError(
            f"{made} {layout.classes} classes, twins among them, received binary masks: import the data with"
            f" --output twins, {instead}"
        )
    if layout.flips and found.single_masks:
        raise AmbisegError(
            f"{made} classes that flip, received one mask of each image: say in dataset.yaml which classes flip,"
            f" {instead}"
        )
    if layout.prediction and found.channels != layout.channels:
        raise AmbisegError(
            f"{made} images of {layout.channels} channels, the last one the prediction of another network, received"
            f" {found.channels}: add that channel to the images, {instead}"
        )
    if layout.masks > 1 and found.single_masks and labels == "full" and spec.has_single_settings:
        raise AmbisegError(
            f"{made} several masks of each image, received one: give --labels single, {instead}"
        )
