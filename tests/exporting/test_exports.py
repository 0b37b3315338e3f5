"""An exported file gives the masks of its run, for any batch and image size, with the same noise."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ambiseg.distributions.noise import GivenNoise
from ambiseg.engine.mixture import MixtureModel
from ambiseg.engine.postprocess import EstimateSettings, PredictSettings
from ambiseg.engine.run import Run, mixed
from ambiseg.errors import AmbisegError
from ambiseg.exporting.files import METADATA, differences, export, inference, traced
from ambiseg.exporting.graph import DeployedModel
from ambiseg.methods.base import Segmenter
from ambiseg.networks.settings import EncoderSettings, UNetSettings
from exporting_helpers import OWN, REFUSED, SMALL, run_of

onnxruntime = pytest.importorskip("onnxruntime")

SIZES = ((1, 16, 16), (2, 11, 19), (3, 24, 8))
"""Batch, height and width: one that needs no padding, and smaller ones than those that are traced."""
KEEP_ALL = PredictSettings(score_threshold=None, duplicate_iou=None)
PAGE = Path(__file__).parents[2] / "docs" / "export.md"
QUICK = ("ssn",)
"""Methods whose graphs are made in every test run; those of the others in the slow ones."""


def check_same(deployed, exported, sizes=SIZES):
    """Every pixel, and weights up to rounding, at all sizes; the graph has its full number of masks."""
    generator = torch.Generator().manual_seed(1)
    for size in sizes:
        image, noise = deployed.example(*size, generator)
        pixels, weights = differences(deployed, exported, image, noise)
        assert pixels < 1e-3 and weights < 1e-5, size
        masks, found, *scores = exported(image, noise)
        assert masks.shape == (size[0], deployed.masks, *size[1:]) and masks.dtype == np.uint8
        assert np.allclose(found.sum(1), 1, atol=1e-5) and (np.diff(found, axis=1) <= 1e-6).all()
        assert all(score.shape == found.shape for score in scores)


def check_page(session, folder):
    """The code of docs/export.md runs this file."""
    np.save(folder / "scan.npy", np.full((3, 13, 20), 90.0))
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[0]
    code = code.replace('"first.onnx"', repr(str(folder / "model.onnx"))).replace(
        '"scan.npy"', repr(str(folder / "scan.npy"))
    )
    found = {}
    exec(compile(code, str(PAGE), "exec"), found)
    assert (
        found["plausible"].shape[1:] == (13, 20)
        and len(found["plausible"]) == len(found["probabilities"]) > 0
    )
    assert found["inputs"].keys() == {value.name for value in session.get_inputs()}


def test_every_method_is_tried():
    assert list(SMALL) == OWN


class Unsized(torch.Tensor):
    """A tensor that does not tell its length as a plain number, which would make it a constant of the graph."""

    def __len__(self):
        raise AssertionError("len() of a tensor fixes the batch size of an exported graph: take its shape[0]")


@pytest.mark.parametrize("method", [name for name in SMALL if name not in REFUSED])
def test_no_method_asks_for_the_length_of_a_batch(method):
    images = torch.rand(2, 3, 16, 16)
    run_of(method).model.predict(images.as_subclass(Unsized), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in SMALL
        if name not in REFUSED
    ],
)
def test_onnx_is_the_run(method, tmp_path):
    run, path = run_of(method), tmp_path / "model.onnx"
    deployed = export(run, path, "onnx", KEEP_ALL, "CC BY 4.0")
    check_same(deployed, inference(path, "onnx", threads=1))
    session = onnxruntime.InferenceSession(str(path))
    check_page(session, tmp_path)
    facts = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    assert facts["licence"] == "CC BY 4.0" and facts["method"] == method
    assert {value.name: value.shape for value in session.get_inputs()} == facts["inputs"]
    assert [value.name for value in session.get_outputs()] == facts["outputs"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"flow": {"kind": "autoregressive"}}])
def test_onnx_of_autoregressive_flows(settings, tmp_path):
    path = tmp_path / "model.onnx"
    deployed = export(run_of("flow-ssn", **settings), path, "onnx", KEEP_ALL)
    check_same(deployed, inference(path, "onnx", threads=1))


def test_torch_program_is_the_run(tmp_path):
    run, path = run_of("m-heads", classes=3, heads=2), tmp_path / "model.pt2"
    deployed = export(run, path, "torch", KEEP_ALL)
    check_same(deployed, inference(path, "torch"))
    extra = {METADATA: ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra[METADATA])["classes"] == list(run.config.labels.names)


ENCODERS = {
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "dinov2": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
}


def run_with_encoder(name):
    pytest.importorskip("transformers")
    encoder = EncoderSettings(options=ENCODERS[name])
    network = UNetSettings(kind=f"transformers:{name}", width=8, max_width=16, encoder=encoder)
    run = run_of("m-heads", heads=2)
    config = replace(run.config, backbone=network)
    return Run(config, config.build().eval(), run.hardware)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize("name", ["convnext", "dinov2"])
def test_graphs_of_encoders_of_other_packages_are_the_run(name, kind, tmp_path):
    path = tmp_path / {"onnx": "model.onnx", "torch": "model.pt2"}[kind]
    deployed = export(run_with_encoder(name), path, kind, KEEP_ALL)
    larger = ((1, 16, 16), (2, 19, 33), (3, 24, 40))  # than the stride of the coarsest map
    check_same(deployed, inference(path, kind, threads=1), larger)


def test_an_encoder_that_no_graph_holds_is_refused():
    with pytest.raises(
        AmbisegError, match="cannot be exported: the windows of the encoder transformers:swin"
    ):
        DeployedModel(run_with_encoder("swin"), KEEP_ALL)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_filters_are_inside(kind, tmp_path):
    run, path = run_of("mode-proposals", classes=3, proposals=6), tmp_path / "model"
    settings = PredictSettings(duplicate_iou=0.6, score_threshold=0.5, top=3, temperature=1.3)
    deployed = export(run, path, kind, settings)
    check_same(deployed, inference(path, kind, threads=1))


def test_the_graph_module_is_what_predict_gives():
    run = run_of("ssn")
    deployed = DeployedModel(run, PredictSettings(probability_threshold=0.4, top=2))
    image, noise = deployed.example(1, 16, 16)
    masks, weights = deployed(image, *noise)
    settings = PredictSettings(probability_threshold=0.4, top=2)
    found = run.predict_batch([image[0].numpy()], settings, GivenNoise(noise)).masks
    assert torch.equal(masks, found.masks) and torch.equal(weights, found.weights)


@pytest.mark.parametrize(
    ("method", "axes"),
    [
        ("m-heads", []),
        ("ssn", [("batch", 3, 2), ("batch", 3, 1, "height", "width")]),
        ("probabilistic-unet", [("batch", 3, 6)]),
        ("flow-matching", [("batch", 3, 1, "height", "width")]),
        ("mose", [("batch", 3, 2)]),
    ],
)
def test_noise_is_found_by_asking(method, axes):
    deployed = DeployedModel(run_of(method), KEEP_ALL)
    assert [noise.axes for noise in deployed.noise] == axes
    image, noise = deployed.example(2, 12, 20)
    assert torch.equal(deployed(image, *noise)[0], deployed(image, *noise)[0])


@pytest.mark.parametrize(
    ("method", "settings", "word"),
    [
        ("dropout-unet", {}, "dropout patterns"),
        ("phiseg", {}, "maps at several resolutions"),
        ("flow-matching", {"sampler": "dopri5"}, "dopri5"),
        ("flow-matching", {"guidance": {"kind": "spell"}}, "guidance"),
        ("flow-ssn", {"flow": {"kind": "continuous", "sampler": "dopri5"}}, "dopri5"),
        (
            "flow-ssn",
            {"flow": {"kind": "autoregressive", "body": {"kind": "linear", "height": 8, "width": 8}}},
            "image size",
        ),
        ("atfm", {"sampler": "dopri5"}, "dopri5"),
        ("ssn", {"sample_rank": 1}, "sample_rank"),
        ("mose", {"representation": "standard"}, "experts"),
        ("mode-proposals", {"flow_input": True}, "flow_input"),
    ],
)
def test_what_cannot_be_exported_says_why(method, settings, word):
    with pytest.raises(AmbisegError, match=word) as caught:
        DeployedModel(run_of(method, **settings))
    assert str(caught.value).startswith(f"a {method} run with these settings cannot be exported: ")


def test_probabilities_of_a_flow_model_are_refused():
    with pytest.raises(AmbisegError, match="leave out those of a flow model"):
        DeployedModel(run_of("m-heads"), PredictSettings(estimate=EstimateSettings(flips=2)))


class Own(Segmenter):
    """Draws numbers that nobody can give."""

    def loss(self, images, annotations):
        raise NotImplementedError

    def predict(self, images, samples=None, generator=None):
        found = self.inner.predict(images + torch.rand_like(images), samples, generator)
        return found


def test_hidden_random_numbers_are_refused():
    run = run_of("m-heads")
    model = Own(3, run.config.labels, run.config.backbone, None)
    model.inner = run.model
    own = Run(run.config, model, run.hardware)
    with pytest.raises(AmbisegError, match="draws random numbers by itself"):
        traced(DeployedModel(own, KEEP_ALL), own)


def test_mixtures_give_the_union_of_their_masks():
    runs = [run_of("m-heads"), run_of("ssn")]
    assert isinstance(mixed(runs, [0.25, 0.75]).model, MixtureModel)
    deployed = DeployedModel(mixed(runs, [0.25, 0.75]), KEEP_ALL)
    image, noise = deployed.example(2, 16, 16)
    masks, weights = deployed(image, *noise)
    assert masks.shape[1] == 6 and len(noise) == 2
    assert torch.allclose(
        weights, torch.tensor([0.25] * 3 + [0.25 / 3] * 3).sort(descending=True).values, atol=1e-6
    )
    with pytest.raises(AmbisegError, match="dropout"):
        DeployedModel(mixed([run_of("m-heads"), run_of("dropout-unet")], [0.5, 0.5]))


def test_noise_that_is_missing_is_named():
    deployed = DeployedModel(run_of("ssn"), KEEP_ALL)
    image, noise = deployed.example(1, 8, 8)
    with pytest.raises(AmbisegError, match="more than 1 tensors of noise"):
        deployed(image, noise[0])
