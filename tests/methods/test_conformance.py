"""Every method passes every check of `ambiseg.testing`, and faulty methods do not."""

from __future__ import annotations

import pytest
import torch

from ambiseg.methods import METHODS
from ambiseg.testing import CHECKS, subjects

SUBJECTS = {place: (name, place) for name, spec in METHODS.items() for place in subjects(spec)}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("place", SUBJECTS)
def test_method(place, check, seed):
    name, _ = SUBJECTS[place]
    torch.manual_seed(seed)
    CHECKS[check](subjects(METHODS[name], seed)[place])
