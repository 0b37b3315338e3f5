"""`simulate`: a data set, on disk, from one of the simulators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from ambiseg.data.augmentation_kinds import NONE, TURNS
from ambiseg.data.folder import Progress
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.simulators import lesions, markov_shapes, wildfire
from ambiseg.data.source import write_dataset
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace

Scene = Literal["wildfire", "markov-shapes", "lesions"]

FEWEST_SCENARIOS = 10
"""With fewer, a split would be empty."""
DEFAULTS: dict[str, tuple[int, int]] = {
    "wildfire": (1500, 64),
    "markov-shapes": (40, 10),
    "lesions": (500, 32),
}
"""Number of images and their height and width, where they are left out."""


def simulate(
    scene: Scene,
    out: str | Path,
    scenarios: int | None = None,
    *,
    size: int | None = None,
    seed: int = 0,
    probabilities: str = "skewed",
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Make a data set whose images have several right answers of known probability.

    By number of image, the first 80 % are the split ``train``, then 10 % ``val`` and 10 % ``test``.

    Args:
        scene: ``wildfire``, where a landscape burns under eight winds (`ambiseg.data.simulators.wildfire`);
            ``markov-shapes``, 256 masks behind an image that tells nothing (`markov_shapes`); ``lesions``, four
            readers of a small image, quickly learnt (`lesions`).
        out: data set to make: a folder, or one packed file if the name ends with .h5.
        scenarios: number of images, 10 or more; that of `DEFAULTS` if None.
        size: their height and width; that of `DEFAULTS` if None.
        seed: the same one gives the same data; nothing is random in ``markov-shapes``.
        probabilities: of the outcomes of ``wildfire`` (`simulate_wildfire`).
        workers: processes that simulate ``wildfire`` (`simulate_wildfires`).
        overwrite: replace an existing data set.
        progress: called with the name of the split, images done in it, and their number.

    Returns:
        ``out``.

    Raises:
        AmbisegError: no such scene, too few images, senseless numbers, an option that the scene does not have, or
            an existing ``out``.

    Example:
        >>> simulate("lesions", "lesions.h5", 100)  # doctest: +SKIP
    """
    make, info, count = _recipe(scene, scenarios, size, seed, probabilities, workers)
    tenth = count // 10
    train = count - 2 * tenth
    parts = {"train": (0, train), "val": (train, tenth), "test": (train + tenth, tenth)}
    splits = {name: _Scenarios(make, first, number) for name, (first, number) in parts.items()}
    return write_dataset(out, splits, info, progress, overwrite)


def check_simulation(
    scene: Scene, scenarios: int | None = None, size: int | None = None, seed: int = 0
) -> None:
    """Raise `AmbisegError` where `simulate` would, before anything is made."""
    _recipe(scene, scenarios, size, seed, "skewed", 1)


def _recipe(
    scene: str, scenarios: int | None, size: int | None, seed: int, probabilities: str, workers: int
) -> tuple[Callable[..., Iterator[Sample]], DatasetInfo, int]:
    """What simulates images, what the data set says about itself, and the number of images."""
    if scene not in get_args(Scene):
        raise UnknownNameError("scene", str(scene), get_args(Scene))
    count, side = (
        default if given is None else given
        for given, default in zip((scenarios, size), DEFAULTS[scene], strict=True)
    )
    if count < FEWEST_SCENARIOS:
        raise AmbisegError(f"scenarios must be at least {FEWEST_SCENARIOS}, received {count}")
    words = f"ambiseg data simulate {scene} --scenarios {count} --size {side}"
    make: Callable[..., Iterator[Sample]]
    if scene == "wildfire":
        options: dict[str, Any] = {"seed": seed, "probabilities": probabilities, "workers": workers}
        words += f" --seed {seed} --probabilities {probabilities}"
        make = partial(wildfire.simulate_wildfires, size=side, **options)
        channels, labels, augment = wildfire.CHANNELS, LabelSpace.binary(), NONE
        if probabilities == "prevailing":
            channels = (*channels, wildfire.PREVAILING_CHANNEL)
    else:
        for name, value, default in (("probabilities", probabilities, "skewed"), ("workers", workers, 1)):
            if value != default:
                raise AmbisegError(f"{name} is of use with wildfire only, not with {scene}: leave it out")
        if scene == "lesions":
            words += f" --seed {seed}"
            make = partial(lesions.simulate_lesions, size=side, seed=seed)
            channels, labels = lesions.CHANNELS, LabelSpace.binary("lesion")
            augment = {**NONE, **TURNS}
        else:
            make = partial(markov_shapes.simulate_markov_shapes, size=side)
            channels, labels, augment = markov_shapes.CHANNELS, LabelSpace.binary("shape"), NONE
    make(0)  # refuses numbers that cannot be, before anything is written
    info = DatasetInfo(
        name=scene,
        labels=labels,
        source=words,
        licence="CC0-1.0",
        augment=augment,
        channels=channels,
    )
    return make, info, count


class _Scenarios:
    """Some of the scenarios of a simulation, as an iterable that knows its length."""

    def __init__(self, make: Callable[..., Iterator[Sample]], start: int, count: int) -> None:
        self.make, self.start, self.count = make, start, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return self.make(self.count, start=self.start)
