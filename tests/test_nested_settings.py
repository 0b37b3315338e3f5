"""Plain values, as YAML and the command line give them, become values of the kinds that settings declare."""

from __future__ import annotations

import pytest

from ambiseg.engine.presets import resolve
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods import METHODS
from ambiseg.methods.atfm import ATFMSettings
from ambiseg.nested_settings import from_values, parse_assignments


def train(*words: str) -> TrainSettings:
    return from_values(TrainSettings, parse_assignments(words), "train")


def test_a_whole_number_is_a_fraction_where_one_is_declared():
    """Also 0, which is no count then, and also in complete settings."""
    settings = resolve(METHODS["mode-proposals"], settings={"flow_time": 0, "assignment": {"start": 0}})[2]
    for value in (settings.flow_time, settings.assignment.start, train("ema=0").ema):
        assert value == 0 and type(value) is float
    assert resolve(METHODS["atfm"], settings=ATFMSettings(alpha=0))[2].alpha == 0
    assert type(train("epochs=3").epochs) is int
    with pytest.raises(AmbisegError, match="flow_time is float or none, received True"):
        resolve(METHODS["mode-proposals"], settings={"flow_time": True})


def test_yes_and_no_are_words_where_they_are_choices():
    assert (train("channels_last=yes").channels_last, train("channels_last=no").channels_last) == (
        "yes",
        "no",
    )
    assert train("augment=no").augment is False
    with pytest.raises(AmbisegError, match="precision is 'auto' or '32' or 'bf16', received True"):
        train("precision=yes")
