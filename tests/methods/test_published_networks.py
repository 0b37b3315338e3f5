"""Networks of published experiments have as many parameters as published, and can be trained."""

from __future__ import annotations

import pytest
import torch

from ambiseg.engine.presets import resolve
from ambiseg.engine.run import load
from ambiseg.engine.train import fit
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build
from ambiseg.networks.backbone import build_backbone

BINARY, CLASSES = LabelSpace.binary(), LabelSpace.of_classes

LOGIT = 32 + 1
"""A channel of logits from 32 features."""
SIGMAS = 35 * (5 - 1)
"""The authors of MoSE have one standard deviation for each of 5 dimensions of 35 experts, we one for each expert."""

PUBLISHED = {
    "mose lidc": ("mose", "lidc", 1, BINARY, "", 9_321_195),
    "mose cityscapes": ("mose", "cityscapes", 4, CLASSES(25), "", 9_329_628 - SIGMAS),
    "phiseg": ("phiseg", "lidc", 1, BINARY, "", 17_819_186),
    "probabilistic u-net": ("probabilistic-unet", "cityscapes", 3, CLASSES(24), "", 17_954_736),
    "u-net of kohl": ("unet-ensemble", "cityscapes", 3, CLASSES(24), "members.15", 9_231_456 + 24 * LOGIT),
    "prior of atfm": ("atfm", "lidc", 1, BINARY, "prior", 2_262_444),
    "prior of atfm, alone": ("ssn", "atfm-lidc", 1, BINARY, "", 2_262_444),
    "flow of atfm": ("atfm", "lidc", 1, BINARY, "", 2_262_444 + 38_547_585),
    "flow of atfm, isic": ("atfm", "isic", 3, BINARY, "g", 152_133_889 - (256 + 1)),
    "ssn++, about 20 M": ("ssn", "lidc", 1, BINARY, "", 19_082_104),
}
"""Method, preset, channels of the images, classes, part of the model ("" is all of it), parameters."""

PRESETS = [
    (spec.name, name)
    for spec in METHODS.values()
    for name, preset in spec.presets.items()
    if preset.backbone and str(spec.model).startswith("ambiseg.")
]


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def outline(method, preset, channels, labels, **over):
    """The model of a preset without memory."""
    train, backbone, settings = resolve(METHODS[method], preset, **over)
    with torch.device("meta"):
        return build(method, channels, labels.with_binary_channels(train.binary_channels), backbone, settings)


@pytest.mark.parametrize("case", PUBLISHED)
def test_parameters_are_as_many_as_published(case):
    method, preset, channels, labels, part, expected = PUBLISHED[case]
    module = outline(method, preset, channels, labels).get_submodule(part)
    assert count(module) == expected


@pytest.mark.parametrize(
    ("preset", "channels", "base", "flow"),
    [("lidc", 1, 14_290_660, 150_850), ("refuge", 3, 14_626_180, 787_010)],
)
def test_flow_ssn_has_what_an_input_reaches_of_the_published_networks(preset, channels, base, flow):
    """Two channels of logits. With a time and a scale the base has the published size, but for an embedding of an
    image; it is given no time and has no scale. The flow has all of its own but that embedding."""

    def embedding_of_an_image(width):
        return (width + width) + 2 * width + (width * width + width)

    _, backbone, settings = resolve(METHODS["flow-ssn"], preset)
    small = settings.flow.network
    with torch.device("meta"):
        timed, network = build_backbone(channels, backbone, time=True), build_backbone(2, small, time=True)
        heads = timed.head(4, 1), network.head(2, 1)
    assert count(timed, heads[0]) + embedding_of_an_image(32) == base
    assert count(network, heads[1]) + embedding_of_an_image(small.width) == flow
    model = outline("flow-ssn", preset, channels, BINARY)
    of_a_time = [p for n, p in timed.named_parameters() if n.startswith("time.") or ".modulation." in n]
    scale = 2 * (9 * 32 + 1)
    unreached = sum(p.numel() for p in of_a_time) + embedding_of_an_image(32) + scale
    assert count(model.base) == base - unreached
    assert count(model.eta, model.head) == flow - embedding_of_an_image(small.width)
    discrete = outline("flow-ssn", f"{preset}-discrete", channels, BINARY)
    assert count(discrete.base) == count(model.base)


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
    found = {name: count(part) for name, part in model.named_children()}
    assert found == expected
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_phiseg_is_that_of_the_public_code():
    """Convolutions without bias and with two numbers of batch normalisation for each channel, and 1x1 heads with bias.

    The public graph has 887,808 parameters more that no output depends on: convolutions of latents to levels beyond the
    next finer one."""
    widths, levels, offset, channels = (32, 64, 128, 192, 192, 192, 192), 5, 2, 2

    def chain(*sizes):
        return sum(9 * i * o + 2 * o for i, o in zip(sizes, sizes[1:], strict=False))

    def head(inputs, outputs, kernel=1):
        return kernel**2 * inputs * outputs + outputs

    def down(inputs):
        return sum(chain(i, o, o, o) for i, o in zip((inputs, *widths), widths, strict=False))

    latents = head(192, channels, 3) + head(192, channels)
    likelihood, above = 0, None
    for i in reversed(range(levels)):
        own, wide = widths[i], widths[i + offset]
        likelihood += chain(channels, own, own) + offset * chain(own, own)
        if above is None:
            above = own
        else:
            latents += chain(channels, 64, 64) + chain(wide + 64, own, own) + 2 * head(own, channels)
            likelihood += chain(above, own) + chain(2 * own, wide, wide)
            above = wide
        likelihood += head(above, 2)
    model = outline("phiseg", "lidc", 1, BINARY)
    found = {name: count(part) for name, part in model.named_children()}
    assert found == {
        "g": down(1),
        "h": down(1 + 2),
        "prior": latents,
        "posterior": latents,
        "likelihood": likelihood,
    }
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_the_hierarchical_probabilistic_unet_is_that_of_the_public_code():
    """Widths, three blocks of three 3x3 convolutions and a 1x1 convolution at each level and side; one latent channel at
    the four coarsest levels. Its posterior has one level more on the way up, which no output reaches."""
    widths, latents = [24, 48, 96, *[192] * 5], [1, 1, 1, 1]

    def block(inputs, outputs):
        inner = outputs // 2
        skip = (inputs + 1) * outputs if inputs != outputs else 0
        return 9 * (inputs + 2 * inner) * inner + 3 * inner + (inner + 1) * outputs + skip

    def level(inputs, outputs):
        return block(inputs, outputs) + 2 * block(outputs, outputs)

    def down(channels):
        return sum(level(*pair) for pair in zip([channels, *widths], widths, strict=False))

    reverse = widths[::-1]
    up = [
        level(reverse[i] + reverse[i + 1] + (latents[i] if i < len(latents) else 0), reverse[i + 1])
        for i in range(len(widths) - 1)
    ]
    distributions = sum((reverse[i] + 1) * 2 * n for i, n in enumerate(latents))
    code = down(1) + down(1 + 2) + sum(up) + sum(up[:4]) + 2 * distributions + (24 + 1) * 2
    model = outline("hierarchical-probabilistic-unet", "lidc", 1, BINARY)
    assert model.labels.channels == 2 and model.latents == (1, 1, 1, 1)
    assert count(model) == code - up[3]
    assert count(model.g) == down(1) + sum(up)
    assert code == 21_877_230


@pytest.mark.parametrize("method", ["c-ssn", "c-probabilistic-unet"])
def test_networks_with_label_styles_are_those_of_the_public_code(method):
    """Four levels; three convolutions with bias at each, two in prior and posterior net; three styles."""
    widths, styles = (32, 64, 128, 192), 3

    def block(inputs, outputs, count):
        return 9 * (inputs + (count - 1) * outputs) * outputs + count * outputs

    def down(channels, count):
        return sum(block(*pair, count) for pair in zip((channels, *widths), widths, strict=False))

    up = sum(block(upper + lower, upper, 3) for upper, lower in zip(widths, widths[1:], strict=False))
    parts = {"g": down(3, 3) + up}
    if method == "c-ssn":
        parts |= {"mu": LOGIT, "d": LOGIT, "p": 10 * LOGIT}
        parts |= {"style": styles * 32 + 32, "join": 2 * 32 * 32 + 32}
    else:
        latent = 192 * 12 + 12
        parts |= {"prior": down(3 + styles, 2) + latent, "posterior": down(3 + styles + 1, 2) + latent}
        parts["combine"] = (32 + 6) * 32 + 32 + 2 * (32 * 32 + 32) + LOGIT
    model = outline(method, "isic", 3, BINARY, settings={"annotators": ("T1", "T2", "T3")})
    assert {name: count(part) for name, part in model.named_children()} == parts
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


SMALL = {"width": 4, "depth": 3, "max_width": 16}
SMALL_PARTS = {
    "flow-ssn": {"flow": {"network": {"width": 4, "depth": 2, "max_width": 8}}},
    "flow-ssn discrete": {"flow": {"body": {"width": 8}}},
    "atfm": {"flow_network": {"width": 8, "depth": 3, "max_width": 16}},
    "unet-ensemble": {"members": 2},
    "mode-proposals": {"selection": {"head_width": 4}},
}


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_presets_of_experiments_train_and_predict(method, preset):
    torch.manual_seed(0)
    labels = CLASSES(4) if preset == "cityscapes" else BINARY
    name = f"{method} discrete" if preset.endswith("-discrete") else method
    train, backbone, settings = resolve(
        METHODS[method], preset, backbone=SMALL, settings=SMALL_PARTS.get(name, {})
    )
    model = build(method, 3, labels.with_binary_channels(train.binary_channels), backbone, settings)
    images = torch.randn(2, 3, 16, 16)
    masks = MaskSet.uniform(torch.randint(labels.classes, (2, 3, 16, 16)).to(torch.uint8), labels)
    model.train()
    loss = model.loss(images, masks)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    found = model.eval().predict(images, samples=2)
    assert found.masks.shape[0] == 2 and found.masks.shape[2:] == (16, 16)


def test_networks_of_a_run_are_saved_and_loaded(fires, tmp_path):
    tiny = {"epochs": 1, "batch_size": 4, "validations": 1, "warmup": 2, "precision": "32", "augment": False}
    parts = {**SMALL_PARTS["flow-ssn"], "samples": 2, "likelihood_samples": 2}
    found = fit(
        "flow-ssn", fires, tmp_path / "run", preset="refuge", train=tiny, backbone=SMALL, settings=parts
    )
    predictor = load(found.run)
    assert predictor.config.backbone.factors == (1, 2, 2, 4, 6)
    assert predictor.config.settings.flow.network.kind == "adm"
    assert predictor.config.labels.channels == predictor.model.base.mu.out_channels == 2


@pytest.mark.parametrize("preset", ["lidc", "lidc-planar", "lidc-nf-planar"])
def test_cflow_has_the_layers_of_the_public_code(preset):
    """Without its batch normalisation; the steps of Glow have one shift per dimension, there one per step."""
    widths = (32, 64, 128, 192 if "nf" in preset else 256)
    last, size, steps = widths[-1], 6, 4

    def linear(inputs, outputs):
        return inputs * outputs + outputs

    def block(inputs, outputs):
        return 9 * (inputs + 2 * outputs) * outputs + 3 * outputs

    def down(channels):
        return sum(block(*pair) for pair in zip((channels, *widths), widths, strict=False))

    def two(outputs):
        return linear(last, outputs) + linear(outputs, outputs)

    half = linear(size, 4) + 2 * linear(4, 4) + linear(4, size // 2)
    glow = {
        "matrix": linear(last, 4) + linear(4, steps * size**2),
        "scale": linear(last, steps * size),
        "shift": linear(last, steps * size),
        "networks": steps * (linear(last, size // 2) + 2 * half),
    }
    planar = {"u": two(steps * size), "w": two(steps * size), "b": two(steps)}
    up = sum(block(upper + lower, upper) for upper, lower in zip(widths, widths[1:], strict=False))
    expected = {
        "g": down(1) + up,
        "prior": down(1) + linear(last, 2 * size),
        "posterior": down(2) + linear(last, 2 * size),
        "combine": linear(32 + size, 32) + 2 * linear(32, 32) + linear(32, 1),
    }
    model = outline("cflow", preset, 1, BINARY)
    flow = {name: count(part) for name, part in model.flow.named_children()}
    assert flow == (glow if preset == "lidc" else planar)
    assert {name: count(part) for name, part in model.named_children() if name != "flow"} == expected
    assert linear(last, steps * size) - linear(last, steps) == 5140 or preset != "lidc"
