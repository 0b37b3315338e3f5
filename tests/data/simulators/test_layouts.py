"""Tiny data sets in the layout of public ones: channels, classes, masks, and what is there is never replaced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ambiseg.data.layouts import CITYSCAPES_PREDICTION, LAYOUTS, LIDC, MMFIRE
from ambiseg.data.simulators.layouts import IMAGES, simulate_layout
from ambiseg.data.simulators.lesions import simulate_lesions
from ambiseg.data.source import open_split, write_dataset
from ambiseg.errors import AmbisegError


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_data_have_the_layout(name, tmp_path):
    layout, path = LAYOUTS[name], simulate_layout(LAYOUTS[name], tmp_path / "tiny.h5")
    for split, count in IMAGES.items():
        found = open_split(path, split)
        assert len(found) == count and found.info.labels.classes == layout.classes
        assert (found.modes is not None) == bool(layout.flips)
        for sample in found:
            assert len(sample.image) == layout.channels and len(sample.masks) == layout.masks
            assert max(sample.image.shape[1:]) == 64
    if layout.prediction:
        stored = found.stored[0]
        np.testing.assert_array_equal(stored.image[-1], stored.masks[0])


def test_the_scene_is_that_of_the_layout_whatever_its_name(tmp_path):
    mine = simulate_layout(replace(MMFIRE, name="mine"), tmp_path / "mine.h5")
    theirs = simulate_layout(MMFIRE, tmp_path / "theirs.h5")
    assert open_split(mine, "test").digest() == open_split(theirs, "test").digest()


def test_what_is_there_is_kept_and_another_data_set_is_never_replaced(tmp_path):
    path = simulate_layout(LIDC, tmp_path / "tiny.h5")
    before = path.stat().st_mtime_ns
    assert simulate_layout(LIDC, path).stat().st_mtime_ns == before
    other = write_dataset(tmp_path / "mine.h5", {"train": simulate_lesions(2)}, open_split(path, "val").info)
    with pytest.raises(AmbisegError, match="is not a data set of a smoke run"):
        simulate_layout(CITYSCAPES_PREDICTION, other)


def test_the_way_to_get_data_is_a_command():
    assert LIDC.how_to_get("a b.h5").startswith(
        "'ambiseg data import lidc-crops SOURCE --split lidcv1 --out 'a b.h5'' makes it, SOURCE is the pickle"
    )
    assert "add the prediction of another network" in CITYSCAPES_PREDICTION.how_to_get("x.h5")
