"""What a text of a range means, which are refused, and the default spaces of all methods."""

from __future__ import annotations

import optuna
import pytest

from ambiseg.engine.presets import resolve
from ambiseg.engine.tuning.space import (
    NOT_COMPARABLE,
    Choices,
    Numbers,
    Space,
    default_space,
    parse_range,
    parse_search,
    read_space,
)
from ambiseg.errors import AmbisegError
from ambiseg.methods import METHODS, method_info
from ambiseg.nested_settings import options_of

NOTHING = {"train": {}, "backbone": {}, "settings": {}}
SSN = method_info("ssn")


def space(*words, said=NOTHING, spec=SSN):
    return Space.of(parse_search(words), spec, "recommended", said)


@pytest.mark.parametrize(
    ("text", "whole", "meaning"),
    [
        ("log:1e-4..3e-3", False, Numbers(1e-4, 3e-3, log=True)),
        ("1..3", True, Numbers(1, 3, whole=True)),
        ("1..3", False, Numbers(1, 3)),
        ("0.5..3", True, Numbers(0.5, 3)),
        (".5..1.0", False, Numbers(0.5, 1)),
        ("-2..-1", False, Numbers(-2, -1)),
        ("8..32/8", True, Numbers(8, 32, step=8, whole=True)),
        ("16| 32 |64", True, Choices(("16", "32", "64"))),
        ("[1, 2]|[2, 4]", True, Choices(("[1, 2]", "[2, 4]"))),
    ],
)
def test_a_text_means_a_range(text, whole, meaning):
    assert parse_range("x", text, whole) == meaning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a range is LOW..HIGH"),
        ("3", "a range is LOW..HIGH"),
        ("1...3", "from a lower number"),
        ("lin:1..3", "a range is LOW..HIGH"),
        ("1..nan", "a range is LOW..HIGH"),
        ("3..1", "from a lower number"),
        ("1..1", "from a lower number"),
        ("1..1e999", "from a lower number"),
        ("log:0..1", "begins above 0"),
        ("log:1..3/1", "goes with no log:"),
        ("1..3/0", "a step is above 0"),
        ("1..3/5", "a step is above 0"),
        ("a|", "different values"),
        ("a|a", "different values"),
    ],
)
def test_a_text_without_meaning_is_refused(text, words):
    with pytest.raises(AmbisegError, match=f"^--search lr={text.replace('|', '.')}.*{words}"):
        parse_range("lr", text)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("train.lrr=1..2", "did you mean 'lr'"),
        ("lr=1..2", "say --search train.lr=VALUE"),
        ("rank=0..3", "rank must be at least 1, received 0"),
        ("rank=1|few", "rank is int, received 'few'"),
        ("backbone.width=0.5..8.5", "width is int, received 0.5"),
        ("train.epochs=1..3", "trained equally long"),
        ("train.labels=full|single", "another one"),
        ("train.seed=1..3", "chance"),
        ("train.validations=2..8", "the best of more validations is better by chance"),
        ("train.early_stop=1..3", "trained equally long"),
        ("=1..3", "NAME=RANGE"),
        ("rank", "NAME=RANGE"),
    ],
)
def test_a_setting_is_checked_before_the_first_trial(word, words):
    with pytest.raises(AmbisegError, match=words):
        space(word)


def test_the_preset_is_found_among_choices_however_it_is_written():
    assert space("train.lr=2e-3|0.01", "rank=5|10").start() == {"train.lr": "2e-3", "rank": "10"}


def test_names_that_are_not_searched_are_settings():
    names = {f"train.{option.path}" for option in options_of(type(resolve(SSN)[0]))}
    assert set(NOT_COMPARABLE) <= names


def test_a_file_says_the_same_as_options(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "train: {lr: 'log:1e-4..3e-3', optimiser: [adam, adamw]}\nrank: 1..9\nbackbone.width: [8, 16]\n"
    )
    words = ("train.lr=log:1e-4..3e-3", "train.optimiser=adam|adamw", "rank=1..9", "backbone.width=8|16")
    assert read_space(path) == parse_search(words)
    for text, reason in (
        ("rank: 5", "a range"),
        ("", "names no setting"),
        ("rank: []", "a range"),
        ("- a", "lines"),
    ):
        path.write_text(text)
        with pytest.raises(AmbisegError, match=f"space.yaml.*{reason}"):
            read_space(path)


def test_values_of_a_trial_lie_in_the_ranges_and_reach_the_settings():
    searched = space(
        "train.lr=log:1e-4..3e-3",
        "rank=2..8/3",
        "train.optimiser=adam|adamw",
        "train.ema=0..0.5",
        "draws=4|8",
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        drawn = searched.suggest(study.ask())
        values = searched.values(drawn)
        train, _, own = resolve(SSN, "recommended", values["train"], values["backbone"], values["settings"])
        assert 1e-4 <= train.lr <= 3e-3 and train.lr == float(drawn["train.lr"])
        assert 0 <= train.ema <= 0.5 and own.draws in (4, 8)
        seen.add((own.rank, train.optimiser.kind))
    assert seen == {(rank, kind) for rank in (2, 5, 8) for kind in ("adam", "adamw")}


@pytest.mark.parametrize("name", METHODS)
def test_the_first_trial_of_a_default_space_is_the_preset(name):
    """Of every preset, each range holds the value of the preset, and its values give the settings of the preset."""
    spec = METHODS[name]
    for preset in spec.all_presets:
        texts = default_space(spec, preset, NOTHING)
        searched = Space.of(texts, spec, preset, NOTHING)
        start = searched.start()
        assert list(start) == list(texts) and "train.lr" in texts
        values = searched.values({key: str(value) for key, value in start.items()})
        assert resolve(spec, preset, values["train"], values["backbone"], values["settings"]) == resolve(
            spec, preset
        )


def test_a_setting_that_is_said_is_not_searched_by_default():
    said = {"train": {"lr": 0.1, "optimiser": {"weight_decay": 0}}, "backbone": {}, "settings": {"rank": 3}}
    assert list(default_space(SSN, "recommended", said)) == ["train.batch_size", "draws"]
    with pytest.raises(AmbisegError, match="nothing is left to search"):
        space()
