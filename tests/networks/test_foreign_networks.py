"""Networks of other packages: any image size and channels, equal draws, gradients, weights, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.nested_settings import from_values, parse_assignments
from ambiseg.networks import backbone as networks
from ambiseg.networks.backbone import build_backbone, register_network
from ambiseg.networks.foreign.build import load_encoder_weights, resolved
from ambiseg.networks.foreign.channels import adapt_first_convolution, adapted_weight
from ambiseg.networks.foreign.names import ForeignName, check_options, foreign_name, stored
from ambiseg.networks.foreign.pyramid import EncoderBackbone, Pyramid
from ambiseg.networks.foreign.weights import read_file, taken_over
from ambiseg.networks.settings import EncoderSettings, UNetSettings
from model_helpers import perturbed


class Halving(nn.Module):
    """A convolutional encoder with maps of strides 2, 4 and 8, as timm and smp have them."""

    def __init__(self, channels=3, width=8, first=True):
        super().__init__()
        inputs = (channels, width, 2 * width)
        outputs = (width, 2 * width, 2 * width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in zip(inputs, outputs, strict=True)
        )
        self.first = first

    def forward(self, x):
        maps = [x] if self.first else []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


@pytest.fixture
def stand_ins(monkeypatch):
    """Modules with the interfaces of timm and segmentation_models_pytorch that the adapters use."""

    def create_model(name, features_only, in_chans, pretrained=False, pretrained_cfg_overlay=None, **words):
        if words:
            raise TypeError(f"Net.__init__() got an unexpected keyword argument '{next(iter(words))}'")
        net = Halving(in_chans, first=False)
        net.feature_info = SimpleNamespace(channels=lambda: [8, 16, 16])
        if pretrained:
            if pretrained_cfg_overlay is None:
                raise OSError("no connection")
            net.load_state_dict(read_file(Path(pretrained_cfg_overlay["file"])), strict=False)
        return net

    timm, smp = ModuleType("timm"), ModuleType("segmentation_models_pytorch")
    timm.create_model, timm.is_model = create_model, lambda name: name == "halving"
    timm.list_models = lambda: ["halving"]
    smp.encoders = SimpleNamespace(
        get_encoder_names=lambda: ["halving"],
        get_encoder=lambda name, in_channels, weights, **options: Halving(in_channels),
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", smp)


STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
DINO = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56}
OPTIONS = {
    "transformers:convnext": STAGES | {"num_stages": 2},
    "transformers:resnet": STAGES | {"embedding_size": 8},
    "transformers:swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    "transformers:dinov2": DINO,
    "transformers:dinov3_vit": DINO | {"intermediate_size": 32, "patch_size": 8},
    "monai:SegResNet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "monai:BasicUNet": {"features": [8, 8, 8, 8, 8, 8]},
    "timm:halving": {},
    "smp:halving": {},
}
KINDS = tuple(OPTIONS)
ENCODERS = tuple(kind for kind in KINDS if not kind.startswith("monai"))


def make(kind, channels=2, time=False, **more):
    """A network in which no layer of ours is zero, as after some training."""
    package = kind.partition(":")[0]
    if package in ("transformers", "monai"):
        pytest.importorskip(package)
    torch.manual_seed(0)
    encoder = EncoderSettings(options=OPTIONS[kind])
    net = build_backbone(
        channels, UNetSettings(kind=kind, width=8, max_width=16, encoder=encoder, **more), time
    )
    return perturbed(net, 0.05).eval()


# -- what every network satisfies ----------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_any_size_and_any_channels(kind, channels, stand_ins):
    net = make(kind, channels)
    for size in ((13, 21), (1, 1), (32, 32)):
        encoded = net.encode(torch.randn(2, channels, *size))
        out = net.decode(encoded)
        assert out.shape == (2, net.out_channels, *size) and torch.isfinite(out).all()
        assert [level.shape[1] for level in encoded.levels] == list(net.widths)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_sizes_are_those_of_the_image_with_repeated_borders(kind, stand_ins):
    net, images = make(kind), torch.randn(1, 2, 13, 10)
    extended = functional.pad(images, (0, 6, 0, 3), mode="replicate")
    torch.testing.assert_close(net(images), net(extended)[..., :13, :10], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_batch_do_not_see_each_other(kind, stand_ins):
    net, images = make(kind), torch.randn(3, 2, 16, 16)
    torch.testing.assert_close(net(images)[1:2], net(images[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind, stand_ins):
    net = make(kind)
    net.train()(torch.randn(2, 2, 40, 40)).square().mean().backward()
    unused = ("mask_token", "swin.layernorm.weight", "swin.layernorm.bias")  # of pretraining and classifiers
    expected = {n: p for n, p in net.named_parameters() if p.numel() and not n.endswith(unused)}
    assert [n for n, p in expected.items() if p.grad is None or not bool(p.grad.ne(0).any())] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_the_network(kind, stand_ins):
    net, images = make(kind), torch.randn(1, 2, 16, 16)
    other = perturbed(make(kind))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(images), other(images))


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_part_of_the_way_up_goes_on_where_the_first_part_ended(kind, stand_ins):
    net = make(kind)
    encoded = net.encode(torch.randn(2, 2, 20, 20))
    for layer in range(net.depth):
        part = net.decode(encoded, last=layer)
        assert part.shape[1] == net.up_widths[net.depth - 1 - layer]
        torch.testing.assert_close(net.decode(encoded, part, layer), net.decode(encoded))


@pytest.mark.parametrize("kind", ENCODERS)
def test_time_changes_the_output(kind, stand_ins):
    net, images = make(kind, time=True), torch.randn(2, 2, 16, 16)
    early, late = (net(images, torch.full((2,), at)) for at in (0.0, 1.0))
    mixed = net(images, torch.tensor([0.0, 1.0]))
    assert (early - late).abs().max() > 1e-4
    torch.testing.assert_close(mixed[0], early[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1], late[1], rtol=1e-4, atol=1e-5)


def test_whole_networks_take_no_time_and_no_weights(stand_ins):
    with pytest.raises(AmbisegError, match="monai:SegResNet has no place for a time"):
        make("monai:SegResNet", time=True)
    weights = UNetSettings(kind="monai:SegResNet", encoder=EncoderSettings(weights="x.safetensors"))
    with pytest.raises(AmbisegError, match="is a whole network: leave them out"):
        build_backbone(2, weights)


# -- the pyramid ---------------------------------------------------------------------------------------------


class Maps(nn.Module):
    """Maps of given strides, or none; for the rules of the pyramid."""

    def __init__(self, *strides, kernel=1):
        super().__init__()
        self.strides, self.layer = strides, nn.Conv2d(1, 4, kernel, stride=kernel)

    def forward(self, x):
        x = self.layer(x)
        return [functional.avg_pool2d(x, stride) for stride in self.strides]


@pytest.mark.parametrize(
    ("strides", "first", "sources"),
    [
        ((4, 8, 16), 2, (0, 1, 2)),
        ((4, 4, 8), 2, (1, 2)),  # of several maps of one stride the last one counts
        ((2, 8), 1, (0, 1, 1)),  # a level between two maps takes the coarser one
        ((1, 2), 0, (0, 1)),
        ((8,), 3, (0,)),
    ],
)
def test_levels_take_the_maps_of_their_strides(strides, first, sources):
    found = Pyramid.of(Maps(*strides), 1, "maps")
    assert (found.first, found.sources, found.patch) == (first, sources, 0)
    assert found.depth == max(strides).bit_length()


@pytest.mark.parametrize(
    ("patch", "stride", "levels"), [(16, 16, 3), (14, 16, 3), (8, 8, 2), (4, 4, 1), (12, 16, 3)]
)
def test_maps_of_patches_become_a_pyramid_whose_levels_are_powers_of_two(patch, stride, levels):
    found = Pyramid.of(Maps(1, 1, 1, 1, 1, 1, kernel=patch), 1, "patches")
    assert (found.patch, found.stride, len(found.sources), found.sources[-1]) == (patch, stride, levels, 5)
    net = EncoderBackbone(Maps(1, 1, kernel=patch), 1, UNetSettings(width=4))
    assert net(torch.zeros(1, 1, 33, 40)).shape == (1, 4, 33, 40)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Maps(3), "have strides 3.04762, but powers of two that rise are needed"),
        (Maps(8, 4), "have strides 8, 4, but powers of two"),
        (nn.Conv2d(1, 4, 3), "must return a list of feature maps .* received one tensor of shape"),
        (Maps(), "received an empty list"),
        (nn.Conv2d(3, 4, 3), "does not take images of 64x64 pixels with 1 channel"),
    ],
)
def test_encoders_without_a_pyramid_are_refused(module, message):
    with pytest.raises(AmbisegError, match=message):
        Pyramid.of(module, 1, "odd")


def test_an_encoder_from_python_gets_the_decoder_and_keeps_its_weights(monkeypatch):
    monkeypatch.setattr(networks, "_EXTERNAL", {})
    encoder = Halving(2, first=False)
    register_network("mine", encoder)
    net = build_backbone(2, UNetSettings(kind="mine", width=8), time=True)
    assert isinstance(net, EncoderBackbone) and net.depth == 4
    assert torch.equal(net.encoder.layers[0][0].weight, encoder.layers[0][0].weight)
    assert net.encoder is not encoder and encoder.training


# -- channels and weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_an_image_of_equal_channels_gives_the_same_activations_in_any_number_of_channels(channels):
    weight, grey = torch.randn(5, 3, 3, 3), torch.randn(1, 1, 8, 8)
    before = functional.conv2d(grey.expand(1, 3, 8, 8), weight)
    after = functional.conv2d(grey.expand(1, channels, 8, 8), adapted_weight(weight, channels))
    torch.testing.assert_close(after, before)


def test_the_first_convolution_is_changed_in_place_and_said():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    said = adapt_first_convolution(net, 2, "net")
    assert said == (
        "net takes 3 channels: its first convolution was changed to 2, with the weights repeated and scaled by 3/2"
    )
    assert net(torch.zeros(1, 2, 9, 9)).shape == (1, 4, 5, 5) and adapt_first_convolution(net, 2) == ""
    with pytest.raises(AmbisegError, match="begins with no plain 2-D convolution"):
        adapt_first_convolution(nn.Linear(3, 3), 1)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("beginning", ["", "module.net."])
def test_weights_of_a_file_are_taken_over_whatever_their_names_begin_with(tmp_path, beginning, ending):
    donor, target, path = (
        perturbed(Halving(3)),
        nn.ModuleDict({"model": Halving(1)}),
        tmp_path / f"w.{ending}",
    )
    state = {beginning + name: value for name, value in donor.state_dict().items()}
    state["head.weight"] = torch.zeros(3)
    save_file(state, path) if ending == "safetensors" else torch.save({"state_dict": state}, path)
    said = taken_over(target, read_file(path), "net", "w", whole=False)
    assert said == (
        "net has the weights of w; its first convolution was fitted from 3 to 1 channel(s), with the sum of the weights"
    )
    one, other = target["model"].layers, donor.layers
    torch.testing.assert_close(one[0][0].weight, other[0][0].weight.sum(1, keepdim=True))
    assert torch.equal(one[2][0].weight, other[2][0].weight)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(
        AmbisegError, match="has shape .8, 3, 3, 3., expected .4, 3, 3, 3.; give backbone.encoder"
    ):
        taken_over(Halving(3, 4), Halving(3, 8).state_dict(), "net", "w", whole=False)
    with pytest.raises(AmbisegError, match="w has 0 of the 21 tensors of net, not layers.0.0.weight"):
        taken_over(Halving(3), {"other": torch.zeros(1)}, "net", "w", whole=False)
    some = {k: v for k, v in Halving(3).state_dict().items() if not k.startswith("layers.2")}
    assert "7 of 21 tensors are not there" in taken_over(Halving(3), some, "net", "w", whole=False)


class Evil:
    """What a pickle runs."""

    def __reduce__(self):
        return (print, ("ran",))


def test_files_that_hold_more_than_tensors_are_refused(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "weights.h5").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, message in (
        ("evil.pth", "is damaged or holds more than tensors"),
        ("text.safetensors", "is no safetensors file"),
        ("weights.h5", "weights are a file that ends in .safetensors, .bin"),
        ("list.pt", "holds no tensors by names"),
    ):
        with pytest.raises(AmbisegError, match=message):
            read_file(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("package", ["timm", "smp"])
def test_weights_of_timm_and_smp_come_from_files(tmp_path, stand_ins, package):
    donor = perturbed(Halving(3))
    save_file(donor.state_dict(), tmp_path / "model.safetensors")
    for source in (tmp_path, tmp_path / "model.safetensors"):
        settings = UNetSettings(
            kind=f"{package}:halving", width=8, encoder=EncoderSettings(weights=str(source))
        )
        net = build_backbone(1, settings)
        assert "fitted from 3 to 1 channel(s)" in load_encoder_weights(net, settings)
        assert torch.equal(net.encoder.model.layers[1][0].weight, donor.layers[1][0].weight)
    absent = UNetSettings(kind=f"{package}:halving", encoder=EncoderSettings(weights="nowhere"))
    with pytest.raises(AmbisegError, match="there is no file or folder nowhere"):
        load_encoder_weights(build_backbone(1, absent), absent)


def test_timm_is_not_believed_where_it_passes_over_missing_weights(tmp_path, stand_ins):
    save_file({"other": torch.zeros(1)}, tmp_path / "w.safetensors")
    source = str(tmp_path / "w.safetensors")
    settings = UNetSettings(kind="timm:halving", encoder=EncoderSettings(weights=source))
    with pytest.raises(AmbisegError, match=r"w.safetensors has 0 of the 3 weights of timm:halving"):
        load_encoder_weights(build_backbone(1, settings), settings)
    download = UNetSettings(kind="timm:halving", encoder=EncoderSettings(weights="download"))
    with pytest.raises(
        AmbisegError, match="the weights of timm:halving cannot be read .OSError: no connection."
    ):
        load_encoder_weights(build_backbone(1, download), download)


# -- checkpoints of transformers -----------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """A folder as `save_pretrained` writes it, of a classifier, and its model."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    model = transformers.Dinov2Model(transformers.Dinov2Config(**DINO))
    model.save_pretrained(tmp_path / "dino")
    return tmp_path / "dino", model


@pytest.mark.parametrize("by_name", [True, False])
def test_a_folder_of_transformers_gives_type_options_and_weights(checkpoint, by_name):
    folder, model = checkpoint
    weights = EncoderSettings() if by_name else EncoderSettings(weights=str(folder), options=DINO)
    given = UNetSettings(kind=f"transformers:{folder if by_name else 'dinov2'}", width=8, encoder=weights)
    settings = resolved(given)
    assert settings.kind == "transformers:dinov2" and settings.depth == 5 and resolved(settings) == settings
    assert settings.encoder.weights == str(folder) and settings.encoder.options["hidden_size"] == 16
    net = build_backbone(1, settings)
    assert "fitted from 3 to 1 channel(s)" in load_encoder_weights(net, settings)
    ours, theirs = net.encoder.model, model
    assert torch.equal(ours.encoder.layer[2].mlp.fc1.weight, theirs.encoder.layer[2].mlp.fc1.weight)
    torch.testing.assert_close(
        ours.embeddings.patch_embeddings.projection.weight,
        theirs.embeddings.patch_embeddings.projection.weight.sum(1, keepdim=True),
    )
    assert stored(settings).encoder.weights == ""


def test_a_file_of_transformers_is_read_as_any_other(checkpoint):
    folder, model = checkpoint
    source = EncoderSettings(weights=str(folder / "model.safetensors"), options=DINO)
    settings = UNetSettings(kind="transformers:dinov2", width=8, encoder=source)
    net = build_backbone(3, settings)
    assert "has the weights of" in load_encoder_weights(net, settings)
    assert torch.equal(net.encoder.model.embeddings.cls_token, model.embeddings.cls_token)


def test_a_folder_of_another_type_is_refused(checkpoint):
    folder, _ = checkpoint
    source = EncoderSettings(weights=str(folder), options=OPTIONS["transformers:resnet"])
    settings = UNetSettings(kind="transformers:resnet", width=8, encoder=source)
    with pytest.raises(AmbisegError, match="dino has 0 of the .* tensors of transformers:resnet, not "):
        load_encoder_weights(build_backbone(3, settings), settings)


def test_checkpoints_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    for kind, message in (
        (
            f"transformers:{tmp_path / 'empty'}",
            "is no checkpoint of transformers .*give a folder with config.json",
        ),
        (f"transformers:{tmp_path / 'absent'}", "is neither a folder nor a name on Hugging Face"),
        ("transformers:nobody/nothing", "nobody/nothing cannot be read from Hugging Face"),
    ):
        with pytest.raises(AmbisegError, match=message):
            resolved(UNetSettings(kind=kind))
    typed = UNetSettings(
        kind="transformers:dinov2", encoder=EncoderSettings(weights="download", options=DINO)
    )
    with pytest.raises(AmbisegError, match="a type of network without weights of its own: name a checkpoint"):
        load_encoder_weights(build_backbone(1, typed), typed)


# -- what may be said ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("torchhub:resnet18", "unknown package of networks 'torchhub'"),
        ("timm:", "is PACKAGE:NAME, such as transformers:convnext, received 'timm:'"),
        ("timm:hf-hub:me/model", "is PACKAGE:NAME"),
        ("transformers:convnet", "unknown encoder of transformers 'convnet': did you mean 'convnext'"),
        ("timm:halvin", "unknown model of timm 'halvin': did you mean 'halving'"),
        ("smp:halve", "unknown encoder of smp 'halve': did you mean 'halving'"),
        ("monai:SegResnet", "unknown network of monai 'SegResnet': did you mean 'SegResNet'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_one(kind, message, stand_ins):
    if kind.startswith("transformers"):
        pytest.importorskip("transformers")
    with pytest.raises(AmbisegError, match=message):
        build_backbone(1, UNetSettings(kind=kind))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "transformers:convnext",
            {"hidden_size": [8]},
            "unknown option of transformers:convnext 'hidden_size'",
        ),
        ("transformers:convnext", {"num_channels": 3}, "num_channels is chosen by the library"),
        ("transformers:convnext", {"attn_implementation": "me/kernel"}, "attn_implementation is not allowed"),
        (
            "transformers:convnext",
            {"depths": "many", "hidden_sizes": [8]},
            "transformers:convnext cannot be built",
        ),
        ("transformers:dinov2", {"num_hidden_layers": 10**6}, "num_hidden_layers is a number of at most 256"),
        ("transformers:dinov2", {"hidden_size": 10**9}, "hidden_size is a number of at most 1000000"),
        ("transformers:convnext", {"hidden_sizes": [8] * 65}, "a list of up to 64"),
        ("timm:halving", {"checkpoint_path": "x.pth"}, "checkpoint_path is not allowed"),
        ("timm:halving", {"in_chans": 3}, "in_chans is chosen by the library"),
        ("smp:halving", {"weights": "imagenet"}, "unknown option of smp:halving 'weights'"),
        (
            "monai:SegResNet",
            {"filters": 8},
            "monai:SegResNet cannot be built .*correct backbone.encoder.options",
        ),
    ],
)
def test_options_that_are_unknown_dangerous_or_huge_are_refused(kind, options, message, stand_ins):
    if kind.startswith(("transformers", "monai")):
        pytest.importorskip(kind.partition(":")[0])
    with pytest.raises(AmbisegError, match=message):
        build_backbone(1, UNetSettings(kind=kind, encoder=EncoderSettings(options=options)))


@pytest.mark.parametrize("package", ["transformers", "timm", "smp", "monai"])
def test_a_package_that_is_missing_is_named_with_its_extra(package, monkeypatch):
    module = {"smp": "segmentation_models_pytorch"}.get(package, package)
    monkeypatch.setitem(sys.modules, module, None)
    if package == "monai":
        monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(
        AmbisegError, match=rf"networks of {package} need .*pip install 'ambiseg\[{package}\]'"
    ):
        build_backbone(1, UNetSettings(kind=f"{package}:SegResNet"))


def test_settings_of_an_encoder_belong_to_one():
    with pytest.raises(
        AmbisegError, match="backbone.encoder belongs to networks of other packages, received it for unet"
    ):
        build_backbone(1, UNetSettings(encoder=EncoderSettings(weights="x")))


def test_names_are_taken_apart():
    assert foreign_name("timm:resnet18.a1_in1k") == ForeignName("timm", "resnet18.a1_in1k")
    assert foreign_name("transformers:facebook/dinov2-small").is_checkpoint
    assert not foreign_name("transformers:dinov2_with_registers").is_checkpoint
    with pytest.raises(AmbisegError, match="of a run names a checkpoint"):
        stored(UNetSettings(kind="transformers:me/model"))
    with pytest.raises(AmbisegError, match="ambiseg.build"):
        build_backbone(1, UNetSettings(kind="transformers:me/model"))
    with pytest.raises(UnknownNameError):
        foreign_name("http://elsewhere")
    check_options(ForeignName("timm", "x"), {"a": 1, "b": [1.5, None], "c": "word", "d": True})


def test_options_are_set_whole_or_one_by_one():
    words = ["encoder.options.depths=[1, 1]", "encoder.options.hidden_act=relu", "encoder.weights=w.pth"]
    found = from_values(UNetSettings, parse_assignments(words), "backbone")
    assert found.encoder == EncoderSettings("w.pth", {"depths": [1, 1], "hidden_act": "relu"})
    with pytest.raises(AmbisegError, match="options is mapping of values by names, received 3"):
        from_values(EncoderSettings, {"options": 3}, "encoder")
