"""`torch.compile` of the networks of a model: same values, same names; where it fails, one sentence."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from ambiseg.engine.machine.compilation import compile_networks
from ambiseg.errors import TrainingWarning
from ambiseg.labels import LabelSpace
from ambiseg.methods import build
from ambiseg.networks.settings import UNetSettings


def test_a_compiled_network_computes_the_same(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.manual_seed(0)
    model = build("m-heads", 1, LabelSpace.binary(), UNetSettings(width=8, depth=1)).eval()
    images, plain = torch.randn(2, 1, 8, 8), copy.deepcopy(model)
    assert compile_networks(model, "cpu") == ""
    assert model.state_dict().keys() == plain.state_dict().keys()
    expected, found = plain.predict(images), model.predict(images)
    torch.testing.assert_close(found.probabilities, expected.probabilities)
    torch.testing.assert_close(copy.deepcopy(model).predict(images).probabilities, expected.probabilities)


def test_without_a_compiler_it_trains_uncompiled(monkeypatch, train_tiny, tmp_path):
    def fails(function, *args, **kwargs):
        def call(*inputs):
            raise RuntimeError("no compiler found\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.warns(
        TrainingWarning, match=r"fails here \(RuntimeError: no compiler found\): install a C\+\+"
    ):
        result = train_tiny(tmp_path / "run", epochs=None, updates=1, compile="yes")
    assert result.steps == 1
