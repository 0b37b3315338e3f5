"""Every method passes every check of `ambiseg.testing`, and faulty methods do not."""

from __future__ import annotations

import pytest
import torch

from ambiseg.labels import LabelSpace
from ambiseg.methods import METHODS
from ambiseg.testing import CHECKS, trials

TRIALS = {place: (name, place) for name, spec in METHODS.items() for place in trials(spec)}
TWO_CHANNELS = {"two-channel": LabelSpace(softmax=True)}
QUICK = (
    "valid_predictions",
    "finite_losses",
    "gradients_reach_every_parameter",
    "a_run_folder_gives_the_model_back",
    "void_is_only_a_mark",
    "extreme_inputs_give_finite_gradients",
)
"""Checks of a second or less, for all methods together."""


LEARNS = "learns_one_batch"
"""The check that takes longest: in the quick run of one kind of masks for each method, in its default form."""
LEARNS_SLOWLY = ("atfm",)
"""Methods whose check of that kind takes longer than all others together."""


def slow(place: str) -> bool:
    """Whether a trial learns only among the slow tests."""
    return "+" in place or place.endswith("multi-class") or place.startswith(LEARNS_SLOWLY)


ALL = [
    pytest.param(
        place,
        check,
        marks=[pytest.mark.slow]
        if check == LEARNS and ("+" in place or place.endswith("multi-class"))
        else [],
        id=f"{place}-{check}",
    )
    for place in TRIALS
    for check in CHECKS
]


@pytest.mark.parametrize(("place", "check"), ALL)
def test_method(place, check, seed):
    name, _ = TRIALS[place]
    torch.manual_seed(seed)
    CHECKS[check](trials(METHODS[name], seed)[place])


@pytest.mark.parametrize("name", METHODS)
def test_binary_masks_may_have_two_channels(name, seed):
    for trial in trials(METHODS[name], seed, TWO_CHANNELS).values():
        assert trial.model().labels.channels == 2
        for check in QUICK:
            torch.manual_seed(seed)
            CHECKS[check](trial)
