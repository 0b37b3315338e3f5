"""Encoders of the package transformers (Hugging Face): the models that it offers as backbones.

A model type, such as convnext or dinov2, is built with random weights from its configuration. A checkpoint, by its
folder or by its name on the Hub, gives a type, its options and weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.networks.foreign.names import ForeignName, check_options
from ambiseg.networks.foreign.pyramid import FINEST_OF_PATCHES, spread
from ambiseg.networks.foreign.saying import in_one_sentence, quiet
from ambiseg.networks.foreign.weights import LEAST_SHARE

NOT_OFFERED = ("timm_backbone", "dinat", "vitpose_backbone")
"""Types that need a further package, or images of one size."""
OURS = {"num_channels", "out_features", "out_indices", "num_labels", "architectures", "model_type"}
"""Options that the library gives, or that have no meaning for an encoder."""
_HUB = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")


class FeatureMaps(nn.Module):
    """A backbone of transformers that returns the list of its feature maps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.model(images).feature_maps)


def encoder(name: ForeignName, channels: int, options: Mapping[str, Any]) -> nn.Module:
    """An encoder with random weights.

    Args:
        name: its type.
        channels: of the images.
        options: of its configuration.

    Raises:
        AmbisegError: transformers is not installed, knows no such type, or cannot build it with these options.
    """
    config = _config(name, options)
    from transformers import AutoBackbone

    count = len(config.stage_names) - (config.stage_names[0] == "stem")
    indices = tuple(len(config.stage_names) - count + i for i in _used(config, count))
    values = {**options, "out_indices": list(indices)}
    if hasattr(config, "num_channels"):
        values["num_channels"] = channels
    with _saying(name):
        made: Any = AutoBackbone
        return FeatureMaps(made.from_config(type(config)(**values)))


def checkpoint(source: str) -> tuple[str, dict[str, Any]]:
    """Type and options of the encoder of a checkpoint.

    Args:
        source: a folder, or a name on the Hub such as facebook/dinov2-small.

    Raises:
        AmbisegError: there is none, it cannot be reached, or its type is not offered.
    """
    _installed()
    from transformers import AutoConfig

    with _reaching(source):
        found = AutoConfig.from_pretrained(source, **_local(source))
    config = getattr(found, "vision_config", found)
    kind = str(config.model_type)
    _check_type(ForeignName("transformers", kind))
    told = config.to_diff_dict()
    known = type(config)().to_dict()
    options = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in told.items()
        if key in known and _allowed(kind, key, value)
    }
    return kind, options


def pretrained(name: ForeignName, options: Mapping[str, Any], source: str) -> nn.Module:
    """The encoder with the weights of a checkpoint, for the channels that it was trained on.

    Raises:
        AmbisegError: there is none, it cannot be reached, or it does not fit.
    """
    _installed()
    from transformers import AutoConfig

    with _reaching(source):
        found = AutoConfig.from_pretrained(source, **_local(source))
    trained = getattr(getattr(found, "vision_config", found), "num_channels", 3)
    plain = encoder(name, trained, options)
    model: Any = plain.model
    with _reaching(source):
        loaded, told = type(model).from_pretrained(
            source, config=model.config, dtype=torch.float32, output_loading_info=True, **_local(source)
        )
    count, missing = len(loaded.state_dict()), sorted(told["missing_keys"])
    if (
        len(missing) > (1 - LEAST_SHARE) * count
    ):  # transformers draws at random what a checkpoint does not have
        raise AmbisegError(
            f"{source} has {count - len(missing)} of the {count} tensors of {name}, not {', '.join(missing[:3])}: give"
            " weights of this network"
        )
    return FeatureMaps(loaded)


def _config(name: ForeignName, options: Mapping[str, Any]) -> Any:
    """Its configuration, once the options are known to be among its own."""
    _installed()
    from transformers import CONFIG_MAPPING

    _check_type(name)
    made = CONFIG_MAPPING[name.name]
    with _saying(name):
        known = {key for key in made().to_dict() if _allowed(name.name, key, None)}
    check_options(name, options, OURS)
    for key in options:
        if key not in known:
            raise UnknownNameError(f"option of {name}", str(key), sorted(known))
    with _saying(name):
        return made(**options)


def _used(config: Any, count: int) -> tuple[int, ...]:
    """Which of the stages give a map: all where the image is halved, else some depths of the transformer."""
    patch = getattr(config, "patch_size", 0)
    patches = hasattr(config, "num_hidden_layers") and not hasattr(config, "depths")
    if not patches or not isinstance(patch, int) or patch < 2:
        return tuple(range(count))
    levels = round(math.log2(patch))
    return tuple(dict.fromkeys(spread(count, max(1, levels - FINEST_OF_PATCHES + 1))))


def _allowed(kind: str, key: str, value: Any) -> bool:
    if key in OURS:
        return False
    try:
        check_options(ForeignName("transformers", kind), {key: value})
    except AmbisegError:
        return False
    return True


def _types() -> tuple[str, ...]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

    return tuple(kind for kind in MODEL_FOR_BACKBONE_MAPPING_NAMES if kind not in NOT_OFFERED)


def _check_type(name: ForeignName) -> None:
    if name.name not in _types():
        raise UnknownNameError("encoder of transformers", name.name, _types())


def _installed() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise AmbisegError(
            "networks of transformers need the package transformers, which is not installed: pip install"
            " 'ambiseg[transformers]'"
        ) from error


def _local(source: str) -> dict[str, Any]:
    return {"local_files_only": Path(source).exists(), "trust_remote_code": False}


def _saying(name: ForeignName) -> AbstractContextManager[None]:
    return in_one_sentence(f"{name} cannot be built", "correct backbone.encoder.options")


@contextmanager
def _reaching(source: str) -> Iterator[None]:
    """What keeps a checkpoint from being read, in one sentence; the package's progress bars are off meanwhile."""
    if not Path(source).exists() and _HUB.fullmatch(source) is None:
        raise AmbisegError(
            f"{source} is neither a folder nor a name on Hugging Face such as facebook/dinov2-small: correct the path"
        )
    from transformers.utils import logging as found

    logging: Any = found
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    remedy = "check the name and the connection, or give a folder that holds the checkpoint"
    what = f"{source} cannot be read from Hugging Face"
    if Path(source).exists():
        remedy = "give a folder with config.json and model.safetensors"
        what = f"{source} is no checkpoint of transformers"
    try:
        with quiet("transformers", "huggingface_hub"), in_one_sentence(what, remedy):
            yield
    finally:
        if bars:
            logging.enable_progress_bar()
