"""`ambiseg.simulate` writes every scene as a data set, and refuses senseless numbers before it writes."""

from __future__ import annotations

import numpy as np
import pytest

import ambiseg
from ambiseg.data.augmentation_kinds import KINDS, allowed
from ambiseg.data.check import check_dataset
from ambiseg.data.simulators.dataset import DEFAULTS, check_simulation
from ambiseg.data.simulators.lesions import simulate_lesion


@pytest.mark.parametrize("scene", DEFAULTS)
@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_splits_are_by_number_and_can_be_trained_on(tmp_path, scene, suffix):
    out = ambiseg.simulate(scene, tmp_path / f"data{suffix}", 13, size=20)
    assert out == tmp_path / f"data{suffix}" and check_dataset(out).ok
    splits = {name: ambiseg.open_split(out, name) for name in ("train", "val", "test")}
    assert [len(split) for split in splits.values()] == [11, 1, 1]
    assert [int(name[-5:]) for split in splits.values() for name in split.ids] == list(range(13))
    info = splits["train"].info
    assert info.name == scene and info.licence == "CC0-1.0"
    assert info.source.startswith(f"ambiseg data simulate {scene} --scenarios 13 --size 20")


def test_lesions_are_those_of_the_seed(tmp_path):
    told = []
    out = ambiseg.simulate(
        "lesions", tmp_path / "data", 10, seed=4, progress=lambda *words: told.append(words)
    )
    test = ambiseg.open_split(out, "test")
    np.testing.assert_array_equal(test[0].image, simulate_lesion(4, 9).image)
    assert test.info.labels.names == ("background", "lesion")
    said = {kind: allowed(test.info.augment, kind) for kind in KINDS}
    assert {kind for kind, may in said.items() if may} == {"flip", "flip-vertical", "quarter-turns", "rotate"}
    assert {kind for kind, may in said.items() if may is None} == {"shear", "elastic", "crop", "resized-crop"}
    assert told[-1] == ("test", 1, 1)


@pytest.mark.parametrize(
    ("scene", "words", "complaint"),
    [
        ("wildfires", {}, "did you mean 'wildfire'"),
        ("lesions", {"scenarios": 9}, "at least 10, received 9"),
        ("lesions", {"size": 8}, "too small"),
        ("lesions", {"workers": 2}, "workers is of use with wildfire only"),
        ("markov-shapes", {"probabilities": "uniform"}, "probabilities is of use with wildfire only"),
        ("wildfire", {"seed": -1}, "must not be negative"),
    ],
)
def test_senseless_numbers_are_refused_before_anything_is_written(tmp_path, scene, words, complaint):
    with pytest.raises(ambiseg.AmbisegError, match=complaint):
        ambiseg.simulate(scene, tmp_path / "data", **words)
    assert not list(tmp_path.iterdir())


def test_a_simulation_can_be_checked_beforehand():
    check_simulation("wildfire", 10, 16)
    with pytest.raises(ambiseg.AmbisegError, match="received 9"):
        check_simulation("wildfire", 9)
