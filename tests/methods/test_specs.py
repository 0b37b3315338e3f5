"""Specs: what registers, what is refused, and classes without a spec."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch

from ambiseg.engine.run import load
from ambiseg.engine.train import fit
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, MethodSpec, Preset, build, register, spec_of
from ambiseg.methods.m_heads.model import MHeads
from ambiseg.methods.ssn.model import SSN
from ambiseg.testing import CHECKS, check_method


@dataclass(frozen=True)
class OwnSettings:
    """Settings of a method of one's own."""

    samples: int = 4
    """Number of masks."""


@dataclass(frozen=True)
class Bare:
    """Settings that need an argument."""

    size: int


class MyOwnMethod(SSN):
    """An SSN under another name."""

    settings: OwnSettings

    def __init__(self, in_channels, labels, backbone=None, settings=None):
        from ambiseg.methods.ssn import SSNSettings

        super().__init__(in_channels, labels, backbone, SSNSettings(rank=2, samples=settings.samples))
        self.settings = SSNSettings(rank=2, samples=settings.samples)


@pytest.fixture(autouse=True)
def methods():
    """What a test registers is gone after it."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


def test_specs_need_no_torch():
    code = "import sys, ambiseg.methods; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


OURS = [spec for spec in METHODS.values() if str(spec.model).startswith("ambiseg.")]


@pytest.mark.parametrize("spec", OURS, ids=lambda spec: spec.name)
def test_names_lead_to_folders_and_classes_to_specs(spec):
    assert spec.model_class().__module__ == f"ambiseg.methods.{spec.name.replace('-', '_')}.model"
    assert spec_of(spec.name) is spec and spec_of(spec) is spec and spec_of(spec.model_class()) is spec


def test_a_class_of_ones_own_is_trained(fires, tmp_path):
    tiny = {"epochs": 1, "batch_size": 4, "validations": 1, "warmup": 2, "precision": "32"}
    small = {"width": 8, "depth": 2}
    run = fit(MyOwnMethod, fires, tmp_path / "run", train=tiny, backbone=small, quiet=True).run
    assert METHODS["my-own-method"].settings is OwnSettings
    METHODS.pop("my-own-method")
    with pytest.raises(AmbisegError, match="unknown method 'my-own-method' .*call ambiseg.register before"):
        load(run)
    assert register(MyOwnMethod) is METHODS["my-own-method"]
    assert load(run).config.settings == OwnSettings()


def test_a_class_that_is_defined_again_takes_the_place_of_the_former():
    def define():
        class Draft(MyOwnMethod):
            """A draft."""

        return Draft

    first, second = define(), define()
    assert spec_of(first).model is first and spec_of(second).model is second
    assert METHODS["draft"].model is second


def test_what_is_no_method():
    for wrong in (torch.nn.Linear, 3, object()):
        with pytest.raises(AmbisegError, match="MethodSpec"):
            spec_of(wrong)
    with pytest.raises(UnknownNameError, match="did you mean 'ssn'"):
        spec_of("snn")


def test_registering():
    spec = METHODS["ssn"]
    assert register(spec) is spec
    with pytest.raises(AmbisegError, match="there is a method 'ssn' already"):
        register(replace(spec, summary="mine"))
    with pytest.raises(AmbisegError, match="takes a MethodSpec or a Segmenter class, received str"):
        register("ssn")
    with pytest.raises(
        AmbisegError, match="lower case with hyphens, such as 'my-method', received 'My Method'"
    ):
        replace(spec, name="My Method")
    with pytest.raises(AmbisegError, match="frozen dataclass"):
        replace(spec, settings=dict)
    lost = register(replace(spec, name="lost", model="nowhere.model:Lost"))
    with pytest.raises(AmbisegError, match=r"nowhere.model:Lost.*cannot be imported"):
        build(lost.name, 3, LabelSpace.binary())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": 3}, "lower case with hyphens, such as 'my-method', received 3"),
        ({"summary": None}, "summary of ssn is a text, received None"),
        ({"model": 3}, "model of ssn is a subclass of ambiseg.Segmenter"),
        ({"validation": 3}, "validation of ssn is the name of a metric, or 'loss', received 3"),
        ({"masks": None}, "masks of ssn is the name of a setting, received None"),
        ({"masks": "sample"}, "unknown setting of ssn that masks names 'sample': did you mean 'samples'"),
        ({"presets": ["fast"]}, "presets of ssn is a mapping"),
        ({"presets": {"fast": {"rank": 3}}}, r"presets of ssn are Preset\(...\) by names, received 'fast'"),
        ({"presets": {3: Preset()}}, r"presets of ssn are Preset\(...\) by names, received 3"),
        ({"presets": {"fast": Preset(settings={"rnk": 3})}}, "'rnk': did you mean 'rank'"),
        ({"presets": {"fast": Preset(single={"rnk": 3})}}, "key of single of the preset 'fast' of ssn 'rnk'"),
        ({"presets": {"fast": Preset(backbone={"widht": 3})}}, "'widht': did you mean 'width'"),
        ({"presets": {"fast": Preset(train=[3])}}, "train of the preset 'fast' of ssn is a mapping"),
        ({"starts_from": {"ssn": "mose"}}, "starts_from of ssn are functions"),
        ({"settings": Bare}, "the settings of ssn have no default for size"),
    ],
)
def test_a_spec_is_checked_when_it_is_made(wrong, message):
    with pytest.raises(AmbisegError, match=message):
        replace(METHODS["ssn"], **wrong)


TINY = {"epochs": 1, "batch_size": 4, "validations": 1, "warmup": 2, "precision": "32"}


def _losing(value):
    return type("Losing", (MyOwnMethod,), {"loss": lambda self, images, annotations: value})


def _predicting(value):
    return type("Predicting", (MyOwnMethod,), {"predict": lambda self, *args: value})


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (
            _losing({"mask": torch.ones(())}),
            r"Losing.loss returned \['mask'\]: put the tensor to minimise under 'loss'",
        ),
        (_losing(torch.ones(())), r"Losing.loss returned Tensor of shape \(\): return a dict of tensors"),
        (_losing({"loss": 3.0}), "Losing.loss returned float under 'loss': return a tensor of one number"),
        (_losing({"loss": torch.ones(2)}), r"returned Tensor of shape \(2,\) under 'loss'"),
        (_losing({"loss": torch.ones(())}), "a 'loss' without a gradient"),
        (_predicting(None), "Predicting.predict returned NoneType: return an ambiseg.MaskSet"),
        (
            _predicting(MaskSet.uniform(torch.zeros(1, 2, 8, 8, dtype=torch.uint8), LabelSpace.binary())),
            r"returned masks of shape \(1, 2, 8, 8\) for images of shape \(1, 7, 16, 16\)",
        ),
    ],
)
def test_what_a_class_of_ones_own_returns_is_checked(fires, tmp_path, cls, message):
    spec = MethodSpec("own", "", "", cls, OwnSettings, validation="loss")
    with pytest.raises(AmbisegError, match=message):
        fit(spec, fires, tmp_path / "run", train=TINY, backbone={"width": 8, "depth": 2}, quiet=True)


def test_a_spec_that_names_nothing_is_no_matter_of_settings(fires, tmp_path):
    lost = replace(METHODS["ssn"], name="lost", model="nowhere.model:Lost")
    with pytest.raises(AmbisegError, match="nowhere.model:Lost.*correct its spec") as caught:
        fit(lost, fires, tmp_path / "run", train=TINY, quiet=True)
    assert "with these settings" not in str(caught.value)
    with pytest.raises(AmbisegError, match="did you mean 'ged'"):
        fit(replace(METHODS["ssn"], name="other", validation="gedd"), fires, tmp_path / "run", quiet=True)


class Unsure(MHeads):
    """A planted fault: weights that sum to one half."""

    def predict(self, images, samples=None, generator=None):
        found = super().predict(images, samples, generator)
        return MaskSet(found.masks, found.weights / 2, found.labels, found.scores, found.probabilities)


class Leaking(MHeads):
    """A planted fault: an image's masks depend on the rest of its batch."""

    def predict(self, images, samples=None, generator=None):
        return super().predict(images - images.mean(0, keepdim=True), samples, generator)


class Frozen(MHeads):
    """A planted fault: a layer that no loss reaches."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.spare = torch.nn.Linear(2, 2)


class Voracious(MHeads):
    """A planted fault: more masks than were asked for."""

    def predict(self, images, samples=None, generator=None):
        return super().predict(images, None, generator)


class Negligent(MHeads):
    """A planted fault: void pixels of value 200 count as a class of their own."""

    def loss(self, images, annotations):
        found = super().loss(images, annotations)
        found["loss"] = found["loss"] + (annotations.masks == 200).float().mean()
        return found


class Undefined(MHeads):
    """A planted fault: the loss over the valid pixels is 0 / 0 where there are none."""

    def loss(self, images, annotations):
        found = super().loss(images, annotations)
        valid = annotations.labels.valid(annotations.masks).float()
        found["loss"] = found["loss"] * valid.sum() / valid.sum()
        return found


@pytest.mark.parametrize(
    ("model", "check"),
    [
        (Unsure, "valid_predictions"),
        (Leaking, "images_of_a_batch_do_not_see_each_other"),
        (Frozen, "gradients_reach_every_parameter"),
        (Voracious, "as_many_masks_as_asked_for"),
        (Negligent, "void_is_only_a_mark"),
        (Undefined, "extreme_data_can_be_trained_on"),
    ],
)
def test_a_planted_fault_is_found(model, check):
    spec: MethodSpec = replace(METHODS["m-heads"], name="faulty", model=model)
    check_method(METHODS["m-heads"], [check])
    with pytest.raises((AssertionError, AmbisegError)):
        check_method(spec, [check])
    assert check in CHECKS


def test_an_unknown_check_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'valid_predictions'"):
        check_method(METHODS["ssn"], ["valid_prediction"])
