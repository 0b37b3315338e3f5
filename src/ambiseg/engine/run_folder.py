"""The run folder: everything that belongs to one training run, and how to get a model back from it.

::

    RUN/
      config.yaml          replays the run: method, settings, data, normalisation, hash of the training split
      model.safetensors    weights of the best validation (moving average)
      logs/version_*/metrics.csv    training curve, one file per session
      training.json        steps, seconds, best validation
      metrics.json         what `evaluate` measured
      report.html          what `report` drew
      checkpoints/last.ckpt    to go on from (`train --resume`)

Weights are read as safetensors and checkpoints with ``weights_only``: neither can execute anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ambiseg.atomic_write import replacing_file, write_text
from ambiseg.data.batches import Normalization
from ambiseg.data.image_range import ImageRange
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.methods import build, method_info
from ambiseg.methods.base import Segmenter
from ambiseg.methods.spec import RECOMMENDED
from ambiseg.nested_settings import from_values
from ambiseg.networks.settings import UNetSettings
from ambiseg.version import __version__

CONFIG, WEIGHTS, TRAINING = "config.yaml", "model.safetensors", "training.json"
TRAIN_VERB = "train"
"""Verb that the list of a run folder names; see `ambiseg.owned_files`."""
METRICS, REPORT, LAST = "metrics.json", "report.html", "checkpoints/last.ckpt"


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
    version: str = __version__

    def build(self) -> Segmenter:
        """A new model of this configuration."""
        return build(self.method, self.in_channels, self.labels, self.backbone, self.settings)

    def save(self, run: Path) -> None:
        """Write ``config.yaml``."""
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
        write_text(run / CONFIG, yaml.safe_dump(entries, sort_keys=False, default_flow_style=None, width=110))

    @classmethod
    def load(cls, run: str | Path) -> RunConfig:
        """Read ``config.yaml`` of a run folder.

        Raises:
            AmbisegError: the folder is not a run, or its configuration is damaged or of another version.
        """
        run = Path(run)
        path = run / CONFIG
        if not path.is_file():
            raise AmbisegError(
                f"{run} is not a run folder (it has no {CONFIG}): give the folder that 'ambiseg train' wrote"
            )
        try:
            entries = yaml.safe_load(path.read_text(encoding="utf-8"))
            method = method_info(entries["method"])
            return cls(
                method=method.name,
                in_channels=int(entries["in_channels"]),
                labels=LabelSpace.from_dict(entries["labels"]),
                normalization=Normalization.from_dict(entries["normalization"]),
                backbone=from_values(UNetSettings, dict(entries["backbone"]), "backbone"),
                settings=from_values(method.settings, dict(entries["settings"]), "settings"),
                train=from_values(TrainSettings, dict(entries["train"]), "train"),
                data=str(entries.get("data", "")),
                data_digest=str(entries.get("data_digest", "")),
                channels=tuple(entries.get("channels") or ()),
                images=ImageRange.from_dict(entries["images"]) if entries.get("images") else None,
                preset=str(entries.get("preset", RECOMMENDED)),
                version=str(entries.get("ambiseg", "")),
            )
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise AmbisegError(
                f"{path} cannot be read ({error}): train again, or restore the file"
            ) from error


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
