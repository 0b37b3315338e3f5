"""Nested settings: plain values and dataclasses are two forms of one thing, and every mistake names its
place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ambiseg.data.augmentation_kinds import Flip, Rotate
from ambiseg.engine.presets import resolve
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.methods import METHODS
from ambiseg.methods.atfm import ATFMSettings
from ambiseg.nested_settings import (
    differences,
    flat,
    from_values,
    merged,
    number_problems,
    options_of,
    parse_assignments,
    replaced,
    shown,
    to_values,
)
from ambiseg.networks.settings import UNetSettings


@dataclass(frozen=True)
class Euler:
    steps: int = 10
    kind: Literal["euler"] = "euler"


@dataclass(frozen=True)
class Adaptive:
    kind: Literal["adaptive"] = "adaptive"
    tolerance: float = 1e-6


@dataclass(frozen=True)
class Extra:
    weight: float = 1.0


@dataclass(frozen=True)
class Needed:
    height: int
    width: int
    weight: float = 1.0


@dataclass(frozen=True)
class Sampling:
    solver: Euler | Adaptive = Euler()
    choice: Euler | Adaptive | None = None
    extra: Extra | None = None
    count: int | None = None
    precision: Literal["auto", "32"] = "auto"
    needed: Needed | None = None


EVERY = [*(spec.settings for spec in METHODS.values()), TrainSettings, UNetSettings, Sampling]


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_values_give_the_settings_back(cls):
    text = yaml.safe_dump(to_values(cls()))
    assert from_values(cls, yaml.safe_load(text), "settings") == cls()
    assert {option.path for option in options_of(cls)} >= flat(cls()).keys() - {"extra", "choice"}
    assert not number_problems(cls())


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_option_has_a_help_text(cls):
    if cls is not Sampling:
        assert [option.path for option in options_of(cls) if not option.help] == []


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "solver": st.sampled_from([Euler(), Euler(steps=3), Adaptive(), Adaptive(tolerance=0.5)]),
            "extra": st.sampled_from([None, Extra(), Extra(2.5)]),
            "count": st.sampled_from([None, 1, 7]),
            "precision": st.sampled_from(["auto", "32"]),
        },
    ),
    st.sampled_from([Sampling(), Sampling(Adaptive(), Extra(3.0), 5, "32")]),
)
def test_differences_as_assignments_lead_from_one_to_the_other(changes, start):
    """What a run prints as ``--set`` words makes its settings from any others."""
    wanted = Sampling(**changes)
    words = [f"{path}={shown(value)}" for path, value in differences(wanted, start).items()]
    assert replaced(start, parse_assignments(words), "settings") == wanted


def test_parts_are_merged_key_by_key_and_another_kind_replaces_them():
    assert merged({"solver": {"kind": "euler", "steps": 3}}, {"solver": {"steps": 4}}) == {
        "solver": {"kind": "euler", "steps": 4}
    }
    assert merged({"solver": {"kind": "euler", "steps": 3}}, {"solver": {"kind": "adaptive"}}) == {
        "solver": {"kind": "adaptive"}
    }
    assert replaced(Sampling(), {"extra": {"weight": 2.0}}, "s").extra == Extra(2.0)
    assert replaced(Sampling(extra=Extra()), {"extra": None}, "s").extra is None


def test_numbers_that_yaml_takes_for_words_and_words_that_it_takes_for_numbers():
    assert parse_assignments(["a=1e-3", "b='1e-3'", "c=[1, 2]", "d=null"]) == {
        "a": 1e-3, "b": "1e-3", "c": [1, 2], "d": None
    }  # fmt: skip
    assert from_values(Sampling, parse_assignments(["precision=32"]), "s").precision == "32"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"solvr": {}}, "unknown key of s 'solvr': did you mean 'solver'"),
        ({"solver": {"kind": "eulr"}}, "did you mean 'euler'"),
        ({"choice": {"steps": 3}}, "say which kind: euler, adaptive"),
        (
            {"solver": {"kind": "euler", "tolerance": 0.1}},
            "unknown key of s: solver 'tolerance': euler has no such setting, adaptive has; choose kind: adaptive",
        ),
        ({"needed": {}}, "s: needed: height and width must be set, there is no default"),
        ({"needed": {"width": 3}}, "s: needed: height must be set"),
        ({"solver": {"kind": "euler", "steps": "many"}}, "s: solver: steps is int, received 'many'"),
        ({"extra": 3}, "s: extra: 'key: value' lines are expected, received 3"),
        ({"count": 1.5}, "count is int or none, received 1.5"),
        ({"count": True}, "count is int or none, received True"),
        ({"precision": "aut"}, "unknown value of s: precision 'aut': did you mean 'auto'"),
        ({"precision": 1.5}, "precision is 'auto' or '32', received 1.5"),
        ("text", "'key: value' lines are expected"),
    ],
)
def test_mistakes_name_their_place(values, message):
    with pytest.raises(AmbisegError) as caught:
        from_values(Sampling, values, "s")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr"], "NAME=VALUE"),
        (["=3"], "NAME=VALUE"),
        (["a..b=3"], "NAME=VALUE"),
        (["a=1", "a=2"], "given twice, as 1 and 2"),
        (["a=1", "a.b=2"], "contradicts --set a=1"),
        (["a=[1"], "no value"),
    ],
)
def test_assignments_that_make_no_sense(words, message):
    with pytest.raises(AmbisegError, match=message.replace("[", r"\[")):
        parse_assignments(words)


@pytest.mark.parametrize(
    "words", [["a.k=adam", "a.k.b=1"], ["a.k.b=1", "a.k=adam"], ["a.k.kind=adam", "a.k.b=1"]]
)
def test_a_choice_and_its_settings_in_any_order(words):
    assert parse_assignments(words) == {"a": {"k": {"kind": "adam", "b": 1}}}
    with pytest.raises(AmbisegError, match="given twice, as adam and adamw"):
        parse_assignments([*words, "a.k=adamw"])


def test_a_kind_that_is_not_said_is_that_of_the_default():
    assert from_values(Sampling, {"solver": {"steps": 3}}, "s").solver == Euler(steps=3)


def test_a_part_by_the_name_of_its_kind():
    assert from_values(Sampling, {"solver": "adaptive"}, "s").solver == Adaptive()
    assert from_values(Sampling, {"choice": "none", "extra": "none"}, "s") == Sampling()
    with pytest.raises(UnknownNameError, match="did you mean 'adaptive'"):
        from_values(Sampling, {"solver": "adaptve"}, "s")


def test_numbers_are_checked_inside_parts():
    assert number_problems(Sampling(solver=Euler(steps=0))) == ["solver.steps must be at least 1, received 0"]
    bad = Sampling(extra=Extra(float("nan")))
    assert number_problems(bad, "s.") == ["s.extra.weight must be 0 or more, received nan"]


def test_numbers_have_upper_bounds():
    assert number_problems(Sampling(count=1_000_001)) == ["count must be at most 1000000, received 1000001"]
    assert number_problems(UNetSettings(depth=13), "b.") == ["b.depth must be at most 12, received 13"]


def test_options_say_to_which_choice_they_belong_and_whether_it_is_made():
    options = list(options_of(Sampling, Sampling(extra=Extra(2.0))))
    found = {(one.path, one.owner): (one.default, one.active, one.required) for one in options}
    assert found["solver.steps", "solver=euler"] == (10, True, False)
    assert found["solver.tolerance", "solver=adaptive"] == (1e-6, False, False)
    assert found["choice.steps", "choice=euler"] == (10, False, False)
    assert found["extra.weight", ""] == (2.0, True, False)
    assert found["needed.height", "needed set"] == (None, False, True)
    assert found["needed.weight", "needed set"] == (1.0, False, False)


def test_unknown_names_are_their_own_error():
    with pytest.raises(UnknownNameError):
        from_values(UNetSettings, {"widht": 3}, "backbone")


def train(*words: str) -> TrainSettings:
    return from_values(TrainSettings, parse_assignments(words), "train")


def test_a_whole_number_is_a_fraction_where_one_is_declared():
    """Also 0, which is no count then, and also in complete settings."""
    settings = resolve(METHODS["mode-proposals"], settings={"flow_time": 0, "competition": {"start": 0}})[2]
    for value in (settings.flow_time, settings.competition.start, train("ema=0").ema):
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
    with pytest.raises(AmbisegError, match="binary_channels is 1 or 2, received 'two'"):
        train("binary_channels=two")
    with pytest.raises(AmbisegError, match="precision is 'auto' or '32' or 'tf32' or 'bf16', received True"):
        train("precision=yes")


@pytest.mark.parametrize("kinds", ["auto", True, (Flip(), Rotate(degrees=10)), ()])
def test_plain_values_are_what_json_gives_back(kinds):
    values = to_values(TrainSettings(augment=kinds))
    assert values == json.loads(json.dumps(values))
    assert from_values(TrainSettings, values, "train") == TrainSettings(augment=kinds)
