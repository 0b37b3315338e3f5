"""Encoders of the package timm (Wightman 2019, "PyTorch image models"), with ``features_only=True``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.networks.foreign.names import ForeignName, check_options
from ambiseg.networks.foreign.saying import in_one_sentence, quiet
from ambiseg.networks.foreign.weights import LEAST_SHARE

OURS = {"features_only", "in_chans", "num_classes", "scriptable", "exportable"}
"""Arguments that the library gives."""
DOWNLOAD = "download"
ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""Arguments with which families of timm take images of any size."""


class FeatureMaps(nn.Module):
    """A model of timm that returns the list of its feature maps, whichever order of axes they have.

    Args:
        model: with ``feature_info``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels: list[int] = list(model.feature_info.channels())  # type: ignore[union-attr,operator]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [
            found if found.shape[1] == channels else found.permute(0, 3, 1, 2)
            for found, channels in zip(self.model(images), self.channels, strict=True)
        ]


def encoder(
    name: ForeignName, channels: int, options: Mapping[str, Any], pretrained: Mapping[str, Any] | None = None
) -> nn.Module:
    """An encoder, with random weights unless arguments of pretrained ones are given.

    Raises:
        AmbisegError: timm is not installed, knows no such model, or cannot build it with these options.
    """
    timm = _timm()
    check_options(name, options, OURS)
    if not timm.is_model(name.name):
        near = difflib.get_close_matches(name.name, timm.list_models(), n=5, cutoff=0.5)
        raise UnknownNameError("model of timm", name.name, [*near, "all of timm.list_models()"])
    values = {"features_only": True, "in_chans": channels, **options, **(pretrained or {})}
    what = "the weights of {} cannot be read" if pretrained else "{} cannot be built as an encoder"
    remedy = "check backbone.encoder, or choose another model"
    with in_one_sentence(what.format(name), remedy), quiet("timm", "huggingface_hub"):
        return FeatureMaps(_of_any_size(timm, name.name, values))


def pretrained(name: ForeignName, options: Mapping[str, Any], source: str) -> nn.Module:
    """The encoder for 3 channels with the weights of a file, or those that timm itself loads (`DOWNLOAD`).

    Raises:
        AmbisegError: they cannot be read, or do not fit.
    """
    given: dict[str, Any] = {"pretrained": True}
    if source != DOWNLOAD:
        given["pretrained_cfg_overlay"] = {"file": source}
    found = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(encoder(name, 3, options, given))
    pairs = zip(found[0].parameters(), found[1].parameters(), strict=True)
    same = [torch.equal(one, other) for one, other in pairs if one.dim() > 1]
    if sum(same) < LEAST_SHARE * len(same):  # timm passes over what a file does not have: that is random
        raise AmbisegError(
            f"{source} has {sum(same)} of the {len(same)} weights of {name}: give weights of this network"
        )
    return found[0]


def _of_any_size(timm: Any, name: str, values: Mapping[str, Any]) -> nn.Module:
    """A model that takes images of any size: transformers of timm must be asked for it, each family in its words."""
    for words in ANY_SIZE:
        try:
            with torch.device("meta"):
                timm.create_model(name, **{**words, **values, "pretrained": False})
        except TypeError as error:
            if any(word in str(error) for word in words):
                continue
        except Exception:  # the real model says what is wrong, if anything is
            pass
        found: nn.Module = timm.create_model(name, **{**words, **values})
        return found
    raise AssertionError("the last words of ANY_SIZE are none")


def _timm() -> Any:
    try:
        import timm
    except Exception as error:  # torchvision's wheel may be there and not load
        raise AmbisegError(
            f"networks of timm need the package timm, which cannot be imported ({type(error).__name__}): pip install"
            " 'ambiseg[timm]'"
        ) from error
    return timm
