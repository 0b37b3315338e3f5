"""Random numbers of tests: every test starts from one seed, 0 unless ``--seed`` says otherwise.

``make seeds`` runs the tests that draw their cases with thirty seeds.
"""

from __future__ import annotations

import random

import hypothesis
import numpy as np
import pytest
import torch

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)
hypothesis.settings.load_profile("fixed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="seed of the random numbers of every test")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run."""
    value: int = request.config.getoption("--seed")
    return value


@pytest.fixture(autouse=True)
def seeded(seed: int) -> None:
    """Global generators start from the seed, whatever ran before."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
