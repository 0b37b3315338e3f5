"""Presets: complete settings from a name and what is said besides."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
import torch
from torch import nn

from ambiseg.cli.parsing import parse
from ambiseg.cli.train import TrainArguments, chosen_values, train_command
from ambiseg.data.batches import Normalization
from ambiseg.engine.presets import resolve
from ambiseg.engine.run import load
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import fit
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.methods import METHODS, build, register
from ambiseg.methods.mode_proposals import ModeProposalsSettings
from ambiseg.networks import backbone as networks
from ambiseg.networks.backbone import register_network
from ambiseg.networks.settings import UNetSettings
from ambiseg.version import __version__

PROPOSALS = METHODS["mode-proposals"]
OWN = [spec for spec in METHODS.values() if str(spec.model).startswith("ambiseg.")]
CASES = [(spec, name) for spec in OWN for name in spec.all_presets]
TINY = {"epochs": 1, "batch_size": 4, "validations": 1, "warmup": 2, "precision": "32"}


@pytest.mark.parametrize(("spec", "name"), CASES, ids=[f"{spec.name}-{name}" for spec, name in CASES])
@pytest.mark.parametrize("labels", ["full", "single"])
def test_every_preset_builds_its_model_and_says_where_it_is_from(spec, name, labels):
    train, backbone, settings = resolve(spec, name, {"labels": labels}, {"width": 8, "depth": 2})
    assert train.labels == labels and spec.preset(name).source
    if name == "paper":
        assert (
            re.search(r"et al\.|Gerard and Sullivan", spec.preset(name).source) and spec.preset(name).differs
        )
    spec.model_class()(3, LabelSpace.binary(), backbone, settings)


@pytest.mark.parametrize(("spec", "name"), CASES, ids=[f"{spec.name}-{name}" for spec, name in CASES])
def test_the_command_of_a_run_gives_its_settings_again(spec, name):
    said = {"labels": "single", "lr": 1e-4, "ema": 0.0, "minutes": 3.5}
    train, backbone, settings = resolve(spec, name, said, {"width": 8})
    plain = Normalization((0.0,), (1.0,))
    config = RunConfig(
        spec.name, 1, LabelSpace.binary(), plain, backbone, settings, train, "data dir", preset=name
    )
    words = shlex.split(train_command(config, "out"))
    assert words[:3] == ["ambiseg", "train", spec.name]
    preset, values = chosen_values(spec, parse(TrainArguments, words[3:], "ambiseg train"))
    assert preset == name and resolve(spec, preset, **values) == (train, backbone, settings)


def test_single_labels_get_theirs_without_further_words():
    full, single = (resolve(PROPOSALS, train={"labels": labels})[2] for labels in ("full", "single"))
    assert full.competition is None and single.competition.start == 0.15
    assert replace(single, competition=None, inverse_propensity_power=0.0) == full


def test_complete_settings_are_taken_as_they_are_and_values_go_over_the_preset():
    own = ModeProposalsSettings(proposals=3)
    assert resolve(PROPOSALS, settings=own)[2] is own
    assert resolve(PROPOSALS, settings={"proposals": 3})[2].matching_score_weight == 0.1
    assert resolve(PROPOSALS, train={"epochs": 3})[0].epochs == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--preset recomended", "did you mean 'recommended'"),
        ("--preset monteiro-lidc", "unknown preset of mode-proposals"),
        ("--set energy.wieght=1", "did you mean 'weight'"),
        ("--set backbone.widht=1", "did you mean 'width'"),
        ("--set settings.proposals=3", "say --set proposals=VALUE"),
        ("--set preset=paper", "say --preset paper"),
        ("--set lr=3", "say --set train.lr=VALUE"),
        ("--set width=3", "say --set backbone.width=VALUE"),
        ("--set flow_time=0.3", "flow_time has no effect without flow_input=true"),
        ("--set assignment.share_of_others=0.3", "closest has no such setting, relaxed has"),
        ("--set masks=3", "unknown key of settings 'masks'"),
        ("--masks 3 --set proposals=4", "contradicts --set proposals=4"),
        ("--lr 1e-3 --set train.lr=1e-4", "contradicts --set train.lr=0.0001"),
        ("--set train.ema=0 --set train.ema=0.5", "given twice"),
        ("--config missing.yaml", "does not exist"),
        ("--set competition.start=5", "competition.start is from 0 to 1"),
        ("--set selection.expected_modes=0", "selection.expected_modes are above 0"),
        ("--set flow_path=linear", "flow_path has no effect without flow_input=true"),
        ("--set energy.start=2", "energy.start is from 0 to 1"),
        ("--set probability=none --labels single", "also set competition=none"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(AmbisegError) as caught:
        given = parse(TrainArguments, ["--data", "d", "--out", "o", *words.split()], "ambiseg train")
        preset, values = chosen_values(PROPOSALS, given)
        build("mode-proposals", 3, LabelSpace.binary(), *resolve(PROPOSALS, preset, **values)[1:])
    assert message in str(caught.value)


def test_a_file_says_the_same_as_options_which_count_over_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "preset: energy\ntrain: {epochs: 7, lr: 1.0e-4}\nsettings: {energy: {reserved_proposals: 2}}\n"
    )
    words = ["--data", "d", "--out", "o", "--config", str(path), "--updates", "9"]
    preset, values = chosen_values(PROPOSALS, parse(TrainArguments, words, "ambiseg train"))
    train, _, settings = resolve(PROPOSALS, preset, **values)
    assert preset == "energy" and (train.updates, train.epochs, train.lr) == (9, None, 1e-4)
    assert settings.energy.reserved_proposals == 2 and settings.probability.weight == 0
    for text, message in (
        ("setings: {proposals: 3}\n", "did you mean 'settings'"),
        ("preset: 3\n", "unknown preset of mode-proposals '3'"),
        ("preset: [a]\n", "unknown preset of mode-proposals"),
    ):
        path.write_text(text)
        with pytest.raises(AmbisegError, match=message):
            preset, values = chosen_values(PROPOSALS, parse(TrainArguments, words, "ambiseg train"))
            resolve(PROPOSALS, preset, **values)
    path.write_text("preset: recommended\n")
    with pytest.raises(AmbisegError, match="--preset paper contradicts 'preset: recommended'"):
        chosen_values(PROPOSALS, parse(TrainArguments, [*words, "--preset", "paper"], "ambiseg train"))
    path.write_text("method: ssn\n")
    with pytest.raises(AmbisegError, match="is of the method ssn"):
        chosen_values(PROPOSALS, parse(TrainArguments, words, "ambiseg train"))


class TwoLayers(nn.Sequential):
    """A network of one's own."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU())


class Shrinking(nn.Conv2d):
    """A network that returns the wrong shape."""


def test_a_network_of_ones_own_is_trained_saved_and_loaded(fires, tmp_path):
    result = fit(
        "ssn", fires, tmp_path / "run", train=TINY, backbone=TwoLayers(7), settings={"rank": 2}, quiet=True
    )
    run = load(result.run, precision="32")
    assert run.config.backbone == UNetSettings(kind="TwoLayers")
    assert run.predict(fires / "test" / "images" / "fire-00016.npy").masks.shape[2:] == (16, 16)


def test_a_run_of_what_is_not_registered_says_to_register_it(fires, tmp_path, monkeypatch):
    run = fit("ssn", fires, tmp_path / "run", train=TINY, backbone=TwoLayers(7), quiet=True).run
    before = load(run, precision="32").model.state_dict()
    monkeypatch.delitem(networks._EXTERNAL, "TwoLayers")
    with pytest.raises(
        AmbisegError, match="unknown network 'TwoLayers'.*call ambiseg.register_network before .*or install"
    ):
        load(run)
    register_network("TwoLayers", TwoLayers(7))
    assert all(torch.equal(v, before[k]) for k, v in load(run, precision="32").model.state_dict().items())
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("method: ssn", "method: my-ssn"))
    with pytest.raises(
        AmbisegError, match="unknown method 'my-ssn': .*call ambiseg.register before"
    ) as found:
        load(run)
    assert str(path) in str(found.value) and "train again" not in str(found.value)
    register(replace(METHODS["ssn"], name="my-ssn"))
    try:
        assert load(run, precision="32").config.method == "my-ssn"
    finally:
        del METHODS["my-ssn"]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Shrinking(7, 8, 3), r"returned \(1, 8, 62, 62\) for images of shape \(1, 7, 64, 64\)"),
        (nn.Conv2d(3, 8, 1), r"does not take images of shape \(1, 7, 64, 64\)"),
        (nn.Flatten(), r"returned \(1, 28672\)"),
        (lambda channels, settings: None, "returned NoneType: return a torch.nn.Module"),
        (lambda channels, settings: "net", "returned str: return a torch.nn.Module"),
    ],
)
def test_a_network_with_another_shape_is_refused_in_one_sentence(fires, tmp_path, network, message):
    with pytest.raises(AmbisegError, match=message):
        fit("ssn", fires, tmp_path / "run", train=TINY, backbone=network, quiet=True)
    assert not (tmp_path / "run").exists()
    assert type(network).__name__ not in networks._EXTERNAL and "<lambda>" not in networks._EXTERNAL


@pytest.mark.parametrize("name", [None, "", 3])
def test_a_network_needs_a_name_and_a_way_to_make_it(name):
    with pytest.raises(AmbisegError, match=f"under a name, received {name!r}: give it a word"):
        register_network(name, TwoLayers(3))
    with pytest.raises(AmbisegError, match="the network 'mine' is a module, or a function .* received str"):
        register_network("mine", "resnet")


def test_a_network_without_time_is_refused_by_flow_methods(fires, tmp_path):
    with pytest.raises(AmbisegError, match="no place for a time"):
        fit("flow-matching", fires, tmp_path / "run", train=TINY, backbone=TwoLayers(8), quiet=True)


def test_a_run_of_the_former_layout_is_refused_with_what_to_do(fires, tmp_path, train_tiny):
    run = train_tiny(tmp_path / "run").run
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("matching_score_weight:", "score_cost:"))
    wrote = f"ambiseg {__version__} wrote it, .*CHANGELOG.md says which.*train again"
    with pytest.raises(AmbisegError, match=f"config.yaml cannot be read .*score_cost.*{wrote}"):
        load(run)


def test_train_settings_of_a_preset_count(monkeypatch):
    from ambiseg.methods.spec import Preset

    monkeypatch.setitem(
        METHODS,
        "ssn",
        replace(METHODS["ssn"], presets={"slow": Preset(source="x", train={"lr": 1e-5, "epochs": 7})}),
    )
    train, _, _ = resolve(METHODS["ssn"], "slow", {"minutes": 3.0})
    assert (train.lr, train.minutes, train.epochs) == (1e-5, 3.0, None)
    assert resolve(METHODS["ssn"], "slow")[0] == TrainSettings(lr=1e-5, epochs=7)


def test_weights_of_other_settings_are_named(fires, tmp_path, tiny_run):
    train = {**TINY, "init": str(tiny_run)}
    small = {"width": 8, "depth": 2}
    own = {
        "proposals": 3,
        "selection": {"head_width": 8, "duplicate_cue": False},
        "matching_score_weight": 0.0,
    }
    with pytest.raises(AmbisegError, match="it has proposals=6; set the same, or leave --init out"):
        fit("mode-proposals", fires, tmp_path / "run", train=train, backbone=small, settings=own, quiet=True)
