"""Networks of published experiments have as many parameters as published, and can be trained."""

from __future__ import annotations

import pytest
import torch

from ambiseg.engine.presets import resolve
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.methods import METHODS, build

BINARY, CLASSES = LabelSpace.binary(), LabelSpace.of_classes

ONE_LOGIT = 32 + 1
"""Weights and bias of one more channel of logits: the authors have two for binary masks."""
SIGMA_OF_A_DIMENSION = 35 * (5 - 1)
"""The authors of MoSE have one standard deviation for each of 5 dimensions of 35 experts, we one for each expert."""

PUBLISHED = {
    "mose lidc": ("mose", "lidc", 1, BINARY, "", 9_321_195 - ONE_LOGIT),
    "mose cityscapes": ("mose", "cityscapes", 4, CLASSES(25), "", 9_329_628 - SIGMA_OF_A_DIMENSION),
    "probabilistic u-net": ("probabilistic-unet", "cityscapes", 3, CLASSES(24), "", 17_954_736),
    "u-net of kohl": (
        "unet-ensemble",
        "cityscapes",
        3,
        CLASSES(24),
        "members.15",
        9_231_456 + 24 * ONE_LOGIT,
    ),
}
"""Method, preset, channels of the images, classes, part of the model ("" is all of it), parameters."""

PRESETS = [
    (spec.name, name)
    for spec in METHODS.values()
    for name, preset in spec.presets.items()
    if preset.backbone and str(spec.model).startswith("ambiseg.")
]
SMALL = {"width": 4, "depth": 3, "factors": []}


def outline(method, preset, channels, labels, **over):
    """The model of a preset without memory."""
    _, backbone, settings = resolve(METHODS[method], preset, **over)
    with torch.device("meta"):
        return build(method, channels, labels, backbone, settings)


@pytest.mark.parametrize("case", PUBLISHED)
def test_parameters_are_as_many_as_published(case):
    method, preset, channels, labels, part, expected = PUBLISHED[case]
    module = outline(method, preset, channels, labels).get_submodule(part)
    assert sum(p.numel() for p in module.parameters()) == expected


def test_the_probabilistic_unet_is_that_of_the_public_code():
    """Widths, three convolutions with bias per level; prior and posterior are the way down; 1x1 convolutions."""
    widths = (32, 64, 128, 192, 192, 192, 192)

    def block(inputs, outputs):
        return 9 * (inputs + 2 * outputs) * outputs + 3 * outputs

    def down(channels):
        return sum(block(*pair) for pair in zip((channels, *widths), widths, strict=False))

    model = outline("probabilistic-unet", "cityscapes", 3, CLASSES(24))
    up = sum(block(upper + lower, upper) for upper, lower in zip(widths, widths[1:], strict=False))
    latent = 192 * 12 + 12
    expected = {
        "g": down(3) + up,
        "prior": down(3) + latent,
        "posterior": down(3 + 24) + latent,
        "combine": (32 + 6) * 32 + 32 + 2 * (32 * 32 + 32) + 32 * 24 + 24,
    }
    found = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert found == expected
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_the_norms_of_mose_are_those_of_the_public_code():
    norms = [m for m in outline("mose", "lidc", 1, BINARY).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 3 * 13 + 3
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_a_latent_of_another_network_has_no_encoder():
    with pytest.raises(AmbisegError, match="ncsnpp has no encoder of its own for a latent"):
        outline(
            "probabilistic-unet", "lidc", 1, BINARY, backbone={"kind": "ncsnpp", "convolutions": {"norm": {}}}
        )


def test_convolutions_belong_to_phiseg():
    with pytest.raises(
        AmbisegError, match="convolutions belongs to the network phiseg, received it for unet"
    ):
        outline("mose", "lidc", 1, BINARY, backbone={"kind": "unet"})
