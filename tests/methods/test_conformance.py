"""Every method passes every check of `ambiseg.testing`, and faulty methods do not."""

from __future__ import annotations

import pytest
import torch

from ambiseg.methods import METHODS
from ambiseg.testing import CHECKS, trials

TRIALS = {place: (name, place) for name, spec in METHODS.items() for place in trials(spec)}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("place", TRIALS)
def test_method(place, check, seed):
    name, _ = TRIALS[place]
    torch.manual_seed(seed)
    CHECKS[check](trials(METHODS[name], seed)[place])
