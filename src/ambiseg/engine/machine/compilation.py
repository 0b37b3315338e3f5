"""``torch.compile`` for the networks of a model, where a compiler is there."""

from __future__ import annotations

import torch
from torch import nn

from ambiseg.networks.base import Backbone


def compile_networks(model: nn.Module, device: str) -> str:
    """Compile the networks of a model in place, at their first step; names and values of weights stay.

    Args:
        model: whose networks (`Backbone`) are compiled.
        device: where they run.

    Returns:
        Why they are not compiled, in one sentence; empty if they are.
    """
    problem = _compiler_problem(device)
    if problem:
        return (
            f"the network is not compiled, since torch.compile fails here ({problem}): install a C++ compiler such as g++,"
            " or leave --compile out"
        )
    for network in [part for part in model.modules() if isinstance(part, Backbone)]:
        network.compile()
    return ""


def _compiler_problem(device: str) -> str:
    """What ``torch.compile`` says when it compiles a small function; empty if it works."""
    value = torch.ones(8, device=device)
    try:
        torch.compile(_small)(value)
    except Exception as error:  # of the compiler, the driver, or a missing package
        return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
    return ""


def _small(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) + 1
