"""The method passes the checks of every method, is found by its entry point, and does what its equations say."""

import pytest
import torch
from ambiseg_level_sets import SPEC, LevelSetsSettings
from ambiseg_level_sets.model import LevelSets

from ambiseg import METHODS, LabelSpace, UNetSettings
from ambiseg.testing import CHECKS, check_method


def test_the_library_knows_it_by_its_entry_point():
    assert METHODS["level-sets"] is SPEC


@pytest.mark.parametrize("check", CHECKS)
def test_it_passes_the_checks_of_every_method(check):
    check_method(SPEC, [check])


def test_binary_masks_are_nested_and_as_frequent_as_the_map_says():
    model = LevelSets(1, LabelSpace.binary(), UNetSettings(width=8, depth=2), LevelSetsSettings())
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.predict(image, 4000, torch.Generator().manual_seed(0))
        expected = model.h(model.g(image)).sigmoid()
    masks = found.masks[0].flatten(1).bool()
    order = masks[masks.sum(1).argsort()]
    assert bool((order[:-1] <= order[1:]).all())
    torch.testing.assert_close(found.mean(), expected, atol=0.03, rtol=0)
