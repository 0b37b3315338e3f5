"""The run folder: everything that belongs to one training run, and how to get a model back from it.

::

    RUN/
      config.yaml          replays the run: method, settings, data, normalisation, hash of the training split
      model.safetensors    weights of the best validation (moving average)
      logs/version_*/metrics.csv    training curve, one file per session
      training.json        steps, seconds, best validation
      filter.json          what is kept of predictions, fitted on the validation split
      metrics.json         what `evaluate` measured
      report.html          what `report` drew
      checkpoints/last.ckpt    to go on from (`train --resume`)

Weights are read as safetensors and checkpoints with ``weights_only``: neither can execute anything.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ambiseg import owned_files
from ambiseg.atomic_write import replacing_file, write_text
from ambiseg.data.batches import Normalization
from ambiseg.data.image_range import ImageRange
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.engine.augmentation_choice import AugmentationChoice
from ambiseg.engine.checkpoints import check_finite
from ambiseg.engine.limits import check_memory, outline
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.machine.hardware_choice import HardwareChoice
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.methods import build, method_info
from ambiseg.methods.base import Segmenter
from ambiseg.methods.spec import RECOMMENDED
from ambiseg.nested_settings import fits, from_values, number_problems
from ambiseg.networks.foreign.names import stored
from ambiseg.networks.settings import UNetSettings
from ambiseg.plain_yaml import read_yaml, read_yaml_file
from ambiseg.version import __version__, written_by

CONFIG, WEIGHTS, TRAINING = "config.yaml", "model.safetensors", "training.json"
TRAIN_VERB = "train"
"""Verb that the list of a run folder names; see `ambiseg.owned_files`."""
FILTER = "filter.json"
METRICS, REPORT, LAST = "metrics.json", "report.html", "checkpoints/last.ckpt"
MAX_CHANNELS = 10_000

T = TypeVar("T")
C = TypeVar("C", AugmentationChoice, HardwareChoice)


@dataclass(frozen=True)
class RunConfig:
    """What a run was made of: enough to build its model and to repeat it.

    Attributes:
        method: name of the method.
        in_channels: channels of the images.
        labels: the label space.
        normalization: of the images.
        backbone, settings, train: the settings of network, method and training.
        data: the data set as it was given.
        data_digest: hash of the training split.
        channels: names of the image channels, where the data set gives them.
        images: number types, sizes and range of the training images; None in runs of before these were kept.
        preset: the preset that the settings began with.
        augmentation: which augmentation is used and why; None in runs of earlier versions.
        hardware: what training computes in and why; None in runs of earlier versions.
        extended_at: steps at which a run that was finished got a longer budget.
        slices: how volumes were read, for a run that was trained on their slices.
        directions: of the training slices (`slice_directions`); empty if they are unknown.
        smoke: a run of a few steps of small networks, whose figures mean nothing (`ambiseg.engine.smoke`).
        version: of the library.
    """

    method: str
    in_channels: int
    labels: LabelSpace
    normalization: Normalization
    backbone: UNetSettings
    settings: Any
    train: TrainSettings
    data: str = ""
    data_digest: str = ""
    channels: tuple[str, ...] = ()
    images: ImageRange | None = None
    preset: str = RECOMMENDED
    augmentation: AugmentationChoice | None = None
    hardware: HardwareChoice | None = None
    extended_at: tuple[int, ...] = ()
    slices: SliceSettings | None = None
    directions: tuple[str, ...] = ()
    smoke: bool = False
    version: str = __version__

    @property
    def trained_in(self) -> Hardware | None:
        """Device and number format of the training, where they are known."""
        return None if self.hardware is None else self.hardware.chosen

    def build(self) -> Segmenter:
        """A new model of this configuration, with random weights; nothing is read.

        Raises:
            AmbisegError: its method or its network is not registered.
        """
        try:
            return build(self.method, self.in_channels, self.labels, stored(self.backbone), self.settings)
        except UnknownNameError as error:
            raise AmbisegError(f"{error}; {_register('register_network')}") from error

    def save(self, run: Path) -> None:
        """Write ``config.yaml``."""
        write_text(run / CONFIG, self.text())

    def text(self) -> str:
        """What ``config.yaml`` says."""
        entries = {
            "ambiseg": self.version,
            "method": self.method,
            "preset": self.preset,
            "in_channels": self.in_channels,
            "channels": list(self.channels),
            "labels": self.labels.to_dict(),
            "normalization": self.normalization.to_dict(),
            "images": None if self.images is None else self.images.to_dict(),
            "backbone": asdict(self.backbone),
            "settings": asdict(self.settings),
            "train": asdict(self.train),
            "data": self.data,
            "data_digest": self.data_digest,
        }
        if self.extended_at:
            entries["extended_at"] = list(self.extended_at)
        if self.slices is not None:
            entries["slices"] = self.slices.entries()
        if self.directions:
            entries["directions"] = list(self.directions)
        if self.smoke:
            entries["smoke"] = True
        if self.augmentation is not None:
            entries["augmentation"] = self.augmentation.to_dict()
        if self.hardware is not None:
            entries["hardware"] = self.hardware.to_dict()
        return yaml.safe_dump(entries, sort_keys=False, default_flow_style=None, width=110)

    @classmethod
    def of_text(cls, text: str) -> RunConfig:
        """The inverse of `text`."""
        return cls._of(read_yaml(text, CONFIG))

    @classmethod
    def load(cls, run: str | Path) -> RunConfig:
        """Read ``config.yaml`` of a run folder.

        Raises:
            AmbisegError: the folder is not a run, its configuration is damaged or of another version, or its method
                is not registered.
        """
        run = Path(run)
        path = run / CONFIG
        if not path.is_file():
            raise AmbisegError(
                f"{run} is not a run folder (it has no {CONFIG}): give the folder that 'ambiseg train' wrote"
            )
        try:
            return cls._of(read_yaml_file(path))
        except UnknownNameError as error:
            raise AmbisegError(f"{path}: {error}; {_register('register')}") from error
        except AmbisegError as error:
            raise AmbisegError(
                f"{path} cannot be read ({str(error).removeprefix(f'{path}: ')}): train again, or restore the file"
            ) from error

    @classmethod
    def _of(cls, found: Any) -> RunConfig:
        """The configuration of the entries of a ``config.yaml``.

        Raises:
            UnknownNameError: its method is not registered.
            AmbisegError: an entry is missing or wrong.
        """
        entries = _Entries.of(found)
        name, version = entries.get("method", str), entries.get("ambiseg", str, "")
        channels = entries.get("in_channels", int)
        if not 1 <= channels <= MAX_CHANNELS:
            raise AmbisegError(f"in_channels is 1 to {MAX_CHANNELS}, received {channels}")
        labels, scale = entries.get("labels", dict), entries.get("normalization", dict)
        values = {name: _floats(scale, f"normalization: {name}", name, channels) for name in ("mean", "std")}
        if not all(value > 0 for value in values["std"]):
            raise AmbisegError(f"normalization: std are numbers above 0, received {scale['std']}")
        parts = {name: entries.get(name, dict) for name in ("backbone", "settings", "train")}
        method = method_info(name)
        try:
            backbone = from_values(UNetSettings, parts["backbone"], "backbone")
            settings = from_values(method.settings, parts["settings"], "settings")
            train = from_values(TrainSettings, parts["train"], "train")
        except AmbisegError as error:
            raise AmbisegError(f"{error}; {written_by(version)}") from error
        problems = number_problems(backbone, "backbone.") + number_problems(settings) + train.problems()
        if problems:
            raise AmbisegError("; ".join(problems))
        return cls(
            method=method.name,
            in_channels=channels,
            labels=_labels(labels),
            normalization=Normalization(values["mean"], values["std"]),
            backbone=backbone,
            settings=settings,
            train=train,
            data=entries.get("data", str, ""),
            data_digest=entries.get("data_digest", str, ""),
            channels=tuple(map(str, entries.get("channels", list, []))),
            images=_images(entries.get("images", dict, {}), channels),
            preset=entries.get("preset", str, RECOMMENDED),
            augmentation=_choice(AugmentationChoice, "augmentation", entries),
            hardware=_choice(HardwareChoice, "hardware", entries),
            extended_at=tuple(step for step in entries.get("extended_at", list, []) if type(step) is int),
            slices=_slices(entries.get("slices", dict, {})),
            directions=tuple(map(str, entries.get("directions", list, []))),
            smoke=entries.values.get("smoke") is True,
            version=version,
        )


def _register(function: str) -> str:
    """What to do where a run needs something that another program registered."""
    return f"if it is one of yours, call ambiseg.{function} before the run is loaded, or install its package"


class _Entries:
    """Entries of a file, each of which is asked for with its type."""

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        self.values, self.where = values, where

    @classmethod
    def of(cls, found: Any) -> _Entries:
        if not isinstance(found, Mapping) or not found:
            raise AmbisegError(f"it holds no entries such as 'method: ssn' but {found!r:.80}")
        return cls(found)

    def get(self, name: str, kind: type[T], default: T | None = None) -> T:
        """An entry; the default where it is missing or null.

        Raises:
            AmbisegError: it is missing, or of another type.
        """
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise AmbisegError(f"the entry '{self.where}{name}' is missing")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise AmbisegError(f"the entry '{self.where}{name}' is {_TYPES[kind]}, received {value!r:.80}")
        return value


_TYPES: dict[type, str] = {str: "a text", int: "a whole number", dict: "'key: value' lines", list: "a list"}


def _floats(values: Mapping[str, Any], where: str, name: str, count: int) -> tuple[float, ...]:
    found = values.get(name)
    if (
        not isinstance(found, list)
        or len(found) != count
        or not all(fits(value, float) and math.isfinite(value) for value in found)
    ):
        raise AmbisegError(
            f"{where} are {count} finite numbers, one for each channel, received {found!r:.80}"
        )
    return tuple(map(float, found))


def _images(values: Mapping[str, Any], channels: int) -> ImageRange | None:
    try:
        found = ImageRange.from_dict(values) if values else None
    except (LookupError, ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise AmbisegError(f"the entry 'images' is wrong ({error})") from error
    for row in () if found is None else (found.least, found.low, found.high, found.most):
        if len(row) != channels or not all(map(math.isfinite, row)):
            raise AmbisegError(
                f"the entry 'images' is wrong ({list(row)!r:.80} are not {channels} finite numbers)"
            )
    return found


def _slices(values: Mapping[str, Any]) -> SliceSettings | None:
    try:
        return SliceSettings.of(values) if values else None
    except (AmbisegError, TypeError) as error:
        raise AmbisegError(f"the entry 'slices' is wrong ({error})") from error


def _choice(kind: type[C], name: str, entries: _Entries) -> C | None:
    values = entries.get(name, dict, {})
    try:
        return kind.from_dict(values) if values else None
    except (KeyError, TypeError, ValueError) as error:
        raise AmbisegError(f"the entry '{name}' is wrong ({error})") from error


def _labels(values: Mapping[str, Any]) -> LabelSpace:
    entries = _Entries(values, "labels: ")
    entries.get("names", list)
    try:
        return LabelSpace.from_dict(dict(values))
    except (LookupError, ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise AmbisegError(f"the entry 'labels' is wrong ({error})") from error


def check_target(run: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Check that a run folder may be made; only an earlier run without files of somebody else is replaced.

    Raises:
        AmbisegError: it exists and must stay.
    """
    owned_files.check_inputs(run, inputs)
    if run.is_dir() and not owned_files.is_empty(run) and not overwrite:
        raise AmbisegError(
            f"{run} exists: choose another --out, go on with --resume, or replace it with --overwrite"
        )
    owned_files.check_replaceable(run, [TRAIN_VERB], inputs)


def save_weights(run: Path, model: Segmenter) -> None:
    """Write ``model.safetensors``, with a checksum of all numbers in it."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing_file(run / WEIGHTS) as partial:
        save_file(tensors, partial, metadata={"format": "pt", "sha256": digest_of_tensors(tensors)})


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and numbers."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


class OtherSizeError(AmbisegError):
    """Weights of a model of another method or size."""


def load_weights(run: str | Path, config: RunConfig) -> Segmenter:
    """Build the model of a run and load its weights.

    Raises:
        AmbisegError: no weights, or a damaged or foreign file.
        OtherSizeError: weights of another method or size.
    """
    path = Path(run) / WEIGHTS
    if not Path(run).is_dir():
        raise AmbisegError(f"{run} is not a run folder: give the folder that 'ambiseg train' wrote")
    if not path.is_file():
        raise AmbisegError(f"{run} holds no {WEIGHTS}: its training has not come to a first validation yet")
    try:
        with safe_open(path, framework="pt") as file:
            checksum = (file.metadata() or {}).get("sha256")
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise AmbisegError(f"{path} is no safetensors file ({error}): restore it or train again") from error
    check_finite(tensors, path)
    planned = outline(config.build)
    if planned is not None:
        check_memory(planned)
    if checksum not in (None, digest_of_tensors(tensors)):
        raise AmbisegError(
            f"{path} is damaged: its numbers do not have the checksum in it; restore it or train again"
        )
    model = config.build()
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        name = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        raise OtherSizeError(
            f"{path} does not hold a {config.method} model of the size in {CONFIG}: {name!r} has shape"
            f" {found.get(name)}, expected {expected.get(name)}; use the weights of this run"
        )
    model.load_state_dict(tensors)
    return model.eval()
