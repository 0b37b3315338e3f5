"""What is left to learn for the flow of a continuous Flow-SSN at each time, with one channel and with two: the
cross-entropy of Bayes' rule for one pixel.

    python benchmarks/flow_ssn_channels.py --probability 0.2 --draws 1000000

A pixel is foreground with probability p, its base variables are ``u ~ N(mu, I)``, and the flow sees ``y_t = (1 - t) u + t y``
with the one-hot form y. The log-odds of foreground given ``y_t`` are then normal, with opposite means for the two labels:

    l | y ~ N(log p / (1 - p) +- r^2 / 2, r^2),      r = sqrt(C) t / (1 - t),
    CE(t) = p E[log(1 + exp(-l)) | 1] + (1 - p) E[log(1 + exp(l)) | 0],

whatever mu is, so two channels are one channel at a later time t', ``t' / (1 - t') = sqrt(2) t / (1 - t)``. The expectations
are computed by quadrature and drawn by Monte Carlo.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from torch.nn import functional

from ambiseg.labels import LabelSpace

NODES = 200
"""Of the Gauss-Hermite quadrature."""
TIMES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def exact(time: float, channels: int, p: float) -> float:
    """CE(t) in nats by quadrature."""
    ratio = math.sqrt(channels) * time / (1 - time)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    evidence, odds = ratio**2 / 2 + ratio * nodes, math.log(p / (1 - p))
    losses = p * np.logaddexp(0, -(odds + evidence)) + (1 - p) * np.logaddexp(0, odds - evidence)
    return float(weights @ losses / weights.sum())


def drawn(time: float, labels: LabelSpace, p: float, draws: int, seed: int = 0, mu: float = 0.3) -> float:
    """CE(t) in nats from draws of ``y_t`` and Bayes' rule, with the one-hot form of a label space."""
    g = torch.Generator().manual_seed(seed)
    masks = (torch.rand(draws, generator=g) < p).long()
    both = labels.one_hot(torch.tensor([0, 1]), dim=1).double()
    u = mu + torch.randn(draws, labels.channels, generator=g, dtype=torch.float64)
    state, means = (1 - time) * u + time * both[masks], (1 - time) * mu + time * both
    distances = (state[:, None] - means).square().sum(2) / (2 * (1 - time) ** 2)
    prior = torch.tensor([1 - p, p], dtype=torch.float64).log()
    return float(functional.cross_entropy(prior - distances, masks))


def main() -> None:
    """Print CE(t) of both forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--probability", type=float, default=0.2, help="of foreground")
    parser.add_argument("--draws", type=int, default=1_000_000)
    given = parser.parse_args()
    print("| t | one channel | drawn | two channels | drawn |\n|---|---|---|---|---|")
    for time in TIMES:
        cells = [f"{time:.1f}"]
        for channels in (1, 2):
            labels = LabelSpace.binary().with_binary_channels(channels)
            cells += [f"{exact(time, channels, given.probability):.3f}"]
            cells += [f"{drawn(time, labels, given.probability, given.draws):.3f}"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
