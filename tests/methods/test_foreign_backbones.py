"""Every method trains and predicts with an encoder of another package, and its run needs nothing but its folder."""

from __future__ import annotations

import shutil
from contextlib import redirect_stderr
from io import StringIO

import pytest
import torch

import ambiseg
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.module import TrainingModule
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.settings import Adam, AdamW, Cosine, Steps, TrainSettings
from ambiseg.engine.train import fit, resume
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build
from ambiseg.nested_settings import merged, replaced
from ambiseg.networks.foreign.channels import adapted_weight
from ambiseg.networks.foreign.pyramid import EncoderBackbone
from ambiseg.networks.settings import EncoderSettings, UNetSettings
from ambiseg.testing import prediction_of

pytest.importorskip("transformers")

OWN = [spec for spec in METHODS.values() if str(spec.model).startswith("ambiseg.")]
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
DINO = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56}
ENCODERS = {"transformers:convnext": CONVNEXT, "transformers:dinov2": DINO}


def settings_of(kind):
    return UNetSettings(kind=kind, width=8, max_width=16, encoder=EncoderSettings(options=ENCODERS[kind]))


def images_and_masks(channels=2, size=32):
    g = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, size, size, generator=g)
    masks = (images[:, :1] > torch.tensor([0.0, 0.5]).view(1, 2, 1, 1)).to(torch.uint8)
    return images, MaskSet.uniform(masks, LabelSpace.binary())


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("spec", OWN, ids=[spec.name for spec in OWN])
def test_every_method_learns_and_predicts(spec, kind):
    torch.manual_seed(0)
    case = merged(spec.test.settings, {"samples": 2} if spec.masks == "samples" else {})
    model = build(
        spec.name, 2, LabelSpace.binary(), settings_of(kind), replaced(spec.settings(), case, "settings")
    )
    networks = [part for part in model.modules() if isinstance(part, EncoderBackbone)]
    assert networks and all(network.depth == model.backbone.depth for network in networks)
    images, masks = images_and_masks()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(2):  # the last layers of blocks start at zero
        optimiser.zero_grad()
        model.train().loss(images, masks)["loss"].backward()
        optimiser.step()
    first = [name for name in before if ".encoder.model." in name and "patch_embeddings" in name]
    state = dict(model.named_parameters())
    assert first and any(not torch.equal(state[name], before[name]) for name in first)
    found = prediction_of(model, images).validate()
    assert found.masks.shape[2:] == (32, 32)
    odd = prediction_of(model, images[..., :13, :21]).validate()
    assert odd.masks.shape[2:] == (13, 21)


# -- runs ----------------------------------------------------------------------------------------------------

TRAIN = {"updates": 4, "batch_size": 4, "warmup": 1, "validations": 1, "precision": "32", "augment": False}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A folder of transformers with an encoder for three channels."""
    from transformers import ConvNextConfig, ConvNextModel

    torch.manual_seed(5)
    model = ConvNextModel(ConvNextConfig(**CONVNEXT))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("hub") / "convnext"
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def frozen_run(fires, pretrained, tmp_path_factory):
    """A run on seven channels whose encoder kept its pretrained weights, whose folder is gone since."""
    source, model = pretrained
    folder = shutil.copytree(source, tmp_path_factory.mktemp("copy") / "convnext")
    out = tmp_path_factory.mktemp("runs") / "frozen"
    with redirect_stderr(StringIO()) as said:
        fit(
            "ssn",
            fires,
            out,
            train={**TRAIN, "freeze": "encoder", "ema": 0.0, "select": "last"},
            backbone={"kind": f"transformers:{folder}", "width": 8, "max_width": 16},
            fit_filter=False,
        )
    shutil.rmtree(folder)
    return out, model, said.getvalue()


def test_a_run_holds_all_that_its_model_is_made_of(frozen_run):
    run, model, _ = frozen_run
    config = RunConfig.load(run)
    assert config.backbone.kind == "transformers:convnext" and config.backbone.depth == 4
    assert config.backbone.encoder.options["hidden_sizes"] == [8, 16]
    loaded = ambiseg.load(run, precision="32").model
    theirs = model.embeddings.patch_embeddings.weight
    fitted = adapted_weight(theirs, config.in_channels)
    torch.testing.assert_close(loaded.g.encoder.model.embeddings.patch_embeddings.weight, fitted)
    block = loaded.g.encoder.model.encoder.stages[1].layers[0]
    assert torch.equal(block.dwconv.weight, model.encoder.stages[1].layers[0].dwconv.weight)


def test_a_frozen_run_goes_on_without_the_weights_that_it_began_with(frozen_run):
    run = frozen_run[0]
    before = ambiseg.load(run, precision="32").model.state_dict()
    resume(run, updates=2, quiet=True, fit_filter=False)
    after = ambiseg.load(run, precision="32").model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith("g.encoder.") for name in changed)


def test_the_first_line_of_a_training_says_how_the_channels_were_fitted(frozen_run):
    said = frozen_run[2]
    assert "transformers:convnext has the weights of " in said
    assert (
        "its first convolution was fitted from 3 to 7 channel(s), with the weights repeated and scaled"
        in said
    )


def test_a_run_whose_settings_name_a_checkpoint_is_refused(frozen_run, tmp_path):
    text = (frozen_run[0] / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("transformers:convnext", "transformers:me/model"))
    with pytest.raises(AmbisegError, match="names a checkpoint"):
        RunConfig.load(tmp_path).build()


def test_frozen_batch_normalisation_keeps_its_statistics():
    options = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    network = UNetSettings(kind="transformers:resnet", width=8, encoder=EncoderSettings(options=options))
    images, masks = images_and_masks()
    for part, same in (("nothing", False), ("encoder", True)):
        model = build("ssn", 2, LabelSpace.binary(), network)
        model.train().freeze(part)
        before = {k: v.clone() for k, v in model.g.encoder.state_dict().items()}
        model.train().loss(images, masks)["loss"].backward()
        after = model.g.encoder.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items()) is same
        assert model.training and model.g.decoder.training


# -- a lower rate for the encoder ----------------------------------------------------------------------------


def module_of(**train):
    settings = TrainSettings(**{"updates": 4, "warmup": 0, **train})
    model = build("ssn", 2, LabelSpace.binary(), settings_of("transformers:convnext"))
    return TrainingModule(model, settings, Hardware.choose("32"), "loss")


@pytest.mark.parametrize("optimiser", [AdamW(), Adam(weight_decay=0.1)])
def test_every_parameter_is_in_one_group_and_those_of_the_encoder_in_slow_ones(optimiser):
    for rate in (1.0, 0.1):
        module = module_of(optimiser=optimiser, encoder_rate=rate)
        groups = module.configure_optimizers().param_groups
        ids = [id(p) for group in groups for p in group["params"]]
        assert sorted(ids) == sorted(map(id, module.segmenter.parameters()))
        slow = {id(p) for group in groups if group.get("rate_factor", 1) == 0.1 for p in group["params"]}
        assert slow == ({id(p) for p in module.segmenter.g.encoder.parameters()} if rate < 1 else set())
        decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert decays == {
            id(p): optimiser.weight_decay if isinstance(optimiser, Adam) or p.dim() > 1 else 0.0
            for p in module.segmenter.parameters()
        }
        assert len(groups) == (1 if isinstance(optimiser, Adam) else 2) * (1 if rate == 1 else 2)


@pytest.mark.parametrize("schedule", [Cosine(), Steps(shares=(0.5,), factors=(0.1,))])
def test_the_rate_of_the_encoder_is_its_share_of_the_schedule_at_every_step(schedule, monkeypatch):
    module = module_of(encoder_rate=0.1, schedule=schedule)
    optimiser = module.configure_optimizers()
    monkeypatch.setattr(module, "optimizers", lambda: optimiser)
    for fraction in (0.0, 0.3, 0.6, 0.9):
        module.fraction = fraction
        module._set_learning_rate()
        rates = {group.get("rate_factor", 1.0): group["lr"] for group in optimiser.param_groups}
        expected = module.rate(0, fraction)
        assert rates == {1.0: expected, 0.1: pytest.approx(0.1 * expected)}


def test_the_first_step_moves_the_encoder_by_its_share_of_the_rate(monkeypatch):
    torch.manual_seed(0)
    module = module_of(encoder_rate=0.1, lr=1e-3, optimiser=Adam())
    optimiser = module.configure_optimizers()
    monkeypatch.setattr(module, "optimizers", lambda: optimiser)
    module._set_learning_rate()
    before = {name: value.clone() for name, value in module.segmenter.state_dict().items()}
    for parameter in module.segmenter.parameters():
        parameter.grad = torch.ones_like(parameter)  # so that Adam moves each by the rate
    optimiser.step()
    for name, value in module.segmenter.state_dict().items():
        rate = 1e-4 if name.startswith("g.encoder.") else 1e-3
        torch.testing.assert_close(before[name] - value, torch.full_like(value, rate), rtol=1e-2, atol=1e-7)


def test_a_run_with_a_slow_encoder_resumes_as_if_never_interrupted(fires, tmp_path):
    train = {**TRAIN, "schedule": "constant", "warmup": 0, "encoder_rate": 0.1, "select": "last"}
    network = {"kind": "transformers:convnext", "width": 8, "max_width": 16, "encoder": {"options": CONVNEXT}}
    for name, updates in (("whole", 3), ("part", 2)):
        fit(
            "ssn",
            fires,
            tmp_path / name,
            train={**train, "updates": updates},
            backbone=network,
            quiet=True,
            fit_filter=False,
        )
    resume(tmp_path / "part", updates=1, quiet=True, fit_filter=False)
    whole, part = (ambiseg.load(tmp_path / n, precision="32").model.state_dict() for n in ("whole", "part"))
    assert all(torch.equal(value, whole[name]) for name, value in part.items())


def test_a_lower_rate_needs_an_encoder_that_learns(fires, tmp_path):
    assert TrainSettings(encoder_rate=0.1, freeze="encoder").problems() == [
        "encoder_rate 0.1 has no effect with freeze=encoder, which keeps the encoder: leave one of them out"
    ]
    assert TrainSettings(encoder_rate=0).problems() == ["encoder_rate must be above 0, received 0"]
    with pytest.raises(AmbisegError, match="train.encoder_rate needs a network that names its encoder"):
        fit(
            "ssn",
            fires,
            tmp_path / "run",
            train={**TRAIN, "encoder_rate": 0.1},
            backbone={"kind": "phiseg", "width": 4, "depth": 2},
            quiet=True,
        )
    assert not (tmp_path / "run").exists()


def test_images_smaller_than_the_coarsest_map_are_refused(fires, tmp_path):
    options = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    network = {"kind": "transformers:convnext", "width": 8, "encoder": {"options": options}}
    with pytest.raises(
        AmbisegError, match="has maps of 1/32 of an image, but these images have 16x16 pixels"
    ):
        fit("ssn", fires, tmp_path / "run", train=TRAIN, backbone=network, quiet=True)


@pytest.mark.parametrize("kind", ENCODERS)
def test_half_precision_and_memory_order_change_little(kind):
    torch.manual_seed(0)
    model = build("ssn", 2, LabelSpace.binary(), settings_of(kind)).eval()
    images, masks = images_and_masks()
    torch.manual_seed(1)
    full = model.loss(images, masks)["loss"]
    model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(1)
        half = model.loss(images.contiguous(memory_format=torch.channels_last), masks)["loss"]
    half.backward()
    torch.testing.assert_close(half, full, rtol=0.03, atol=0.0)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
