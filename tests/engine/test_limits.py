"""Settings that suit neither images nor memory are refused before a model is built."""

from __future__ import annotations

import pytest
import torch

from ambiseg.engine import limits
from ambiseg.engine.limits import check_depth, check_memory, outline
from ambiseg.engine.train import fit
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.methods import METHODS, build
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import UNet


def model(name, **backbone):
    return build(name, 3, LabelSpace.binary(), UNetSettings(**{"width": 8, "depth": 2, **backbone}))


@pytest.mark.parametrize("name", [spec.name for spec in METHODS.values() if "ambiseg" in str(spec.model)])
def test_an_outline_has_the_shapes_of_the_model_and_no_memory(name):
    planned, real = outline(lambda: model(name)), model(name)
    assert planned is not None
    shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (planned, real)]
    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in planned.parameters())


@pytest.mark.parametrize(
    ("size", "most"), [((16, 16), 5), ((17, 5), 5), ((31, 31), 5), ((32, 8), 6), ((1, 1), 1)]
)
def test_the_largest_depth_leaves_one_pixel(size, most):
    assert 2 ** (most - 1) <= max(size) < 2**most
    check_depth(model("m-heads", depth=most), size)
    with pytest.raises(AmbisegError, match=f"less than a pixel: set depth to {most} at most"):
        check_depth(model("m-heads", depth=most + 1), size)


def test_memory_is_counted_by_its_parts(monkeypatch):
    planned = model("m-heads")
    weights = sum(p.numel() for p in planned.parameters())
    monkeypatch.setattr(limits, "memory", lambda: limits.BYTES_PER_WEIGHT * weights)
    check_memory(planned)
    with pytest.raises(AmbisegError, match=f"{weights:,} parameters .* lower these settings"):
        check_memory(planned, (1, 1), 1, 1)
    with pytest.raises(AmbisegError, match="900 masks of 64 images .--masks, --batch-size. take 0.7 GiB"):
        check_memory(planned, (32, 32), 64, 900)
    with pytest.raises(AmbisegError, match="layers for 512 images"):
        check_memory(planned, (64, 64), 512, 1)
    monkeypatch.setattr(limits, "memory", lambda: None)
    check_memory(planned, (10**4, 10**4), 10**4, 10**4)


def test_layers_are_counted_without_computing_them():
    counted = limits._activations(outline(lambda: model("m-heads", depth=1, blocks=1)), (16, 16))
    network = UNet(3, UNetSettings(width=8, depth=1, blocks=1))
    seen = []
    for part in network.modules():
        if not any(part.children()):
            part.register_forward_hook(lambda module, inputs, output: seen.append(output.numel()))
    network(torch.zeros(1, 3, 16, 16))
    assert counted == sum(seen) > 0


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("m-heads", {"backbone": {"depth": 6}}, "images of 16x16 pixels 5 times"),
        ("flow-ssn", {"settings": {"flow": {"depth": 6}}}, "set depth to 5 at most"),
        (
            "flow-ssn",
            {"settings": {"flow": {"kind": "autoregressive", "pushforward": "log-softmax"}}},
            "'pushforward': autoregressive has no such setting",
        ),
        ("flow-ssn", {"settings": {"flow": {"draws": 4}}}, "'draws': continuous has no such setting"),
        ("flow-ssn", {"settings": {"flow": {"prior": "fixed", "width": 8}}}, "flow.width=8 has no effect"),
        (
            "atfm",
            {"settings": {"prior_share": 0.0}},
            "prior_share=0 trains no prior: start from a trained run",
        ),
        ("m-heads", {"backbone": {"depth": 14}}, "backbone.depth must be at most 12, received 14"),
        ("m-heads", {"backbone": {"width": 256}}, "backbone.width 256 is above backbone.max_width 128"),
        ("m-heads", {"backbone": {"width": 999_999, "max_width": 999_999}}, "parameters"),
        ("mode-proposals", {"settings": {"proposals": 10**6}}, "proposals must be at most 4096"),
        ("ssn", {"settings": {"samples": 10**6}}, "1000000 masks of 16 images"),
        ("m-heads", {"train": {"batch_size": 10**6}}, "layers for 1000000 images"),
        ("m-heads", {"train": {"seed": 2**64}}, "seed must be at most"),
    ],
)
def test_a_training_that_cannot_be_is_refused_at_once(fires, tmp_path, monkeypatch, method, words, message):
    monkeypatch.setattr(limits, "memory", lambda: 8 * 2**30)
    with pytest.raises(AmbisegError, match=message):
        fit(method, fires, tmp_path / "run", **words, quiet=True)
    assert not (tmp_path / "run").exists()


def test_small_images_do_not_become_huge():
    """A deep network extends small images to at most 64 pixels, or less than twice their side."""
    network = UNet(1, UNetSettings(width=2, max_width=2, depth=7))
    assert network(torch.zeros(1, 1, 5, 70)).shape == (1, 2, 5, 70)
    deep = UNet(1, UNetSettings(width=2, max_width=2, depth=12))
    with pytest.raises(
        AmbisegError, match="images of 5x70 pixels are too small for a network that halves them 11 times"
    ):
        deep(torch.zeros(1, 1, 5, 70))


@pytest.mark.parametrize("name", [spec.name for spec in METHODS.values() if "ambiseg" in str(spec.model)])
def test_the_layers_of_every_method_are_counted(name):
    counts = [limits._activations(outline(lambda: model(name)), (side, side)) for side in (16, 32)]
    assert counts[1] > 3 * counts[0] > 0
