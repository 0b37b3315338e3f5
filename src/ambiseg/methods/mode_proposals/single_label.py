"""Single labels: which proposals learn from the one mask of an image, and how much it counts.

Gerard and Sullivan, section 3.1.2: the closest proposal ``k* = argmin_k loss(m_k, y)`` learns. Beyond the
paper: other proposals learn as well (`shares`), near-duplicates compete by their probabilities (`winner`),
and rare modes count for more (`importance`).
"""

from __future__ import annotations

from torch import Tensor

from ambiseg.methods.mode_proposals import (
    AnnealedAssignment,
    ClosestAssignment,
    CompetitionSettings,
    RelaxedAssignment,
)

LEAST_COUNTED_PROBABILITY = 1e-3
"""Proposals whose estimated probability is smaller count as if it were this."""


def log_joint(cost: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """``log p^_k - loss_k / tau``, ``(B, M)``: log-probability of proposal k together with this mask, up to a
    constant."""
    return probabilities.clamp(min=LEAST_COUNTED_PROBABILITY).log() - cost / temperature


def winner(cost: Tensor, probabilities: Tensor | None, competition: CompetitionSettings | None) -> Tensor:
    """The proposal that learns from each mask, ``(B, 1)``: the closest; in a competition, by probability as
    well.

        k* = argmin_k loss(m_k, y) - tau log p^_k

    This is the assignment of classification EM (Celeux and Govaert 1992) for a mixture with density
    ``exp(-loss / tau)``. A duplicate wins only what it draws better by more than tau times the log of how
    much more probable the other one is, so it wins less and less, and falls behind.

    Args:
        cost: loss of every proposal against the mask, ``(B, M)``.
        probabilities: as estimated, ``(B, M)``; None without a probability head.
        competition: its settings; None where there is none, or not yet.
    """
    if probabilities is None or competition is None:
        return cost.min(1, keepdim=True).indices
    return log_joint(cost, probabilities, competition.temperature).argmax(1, keepdim=True)


def probability_target(
    cost: Tensor, won: Tensor, probabilities: Tensor | None, competition: CompetitionSettings | None
) -> Tensor:
    """What the probability head learns from a mask, ``(B, M)``: the winner, or the posterior ``p^_k
    exp(-loss_k / tau) / sum``."""
    if probabilities is None or competition is None or competition.probability_target == "winner":
        return won
    return log_joint(cost, probabilities, competition.temperature).softmax(1)


def shares(
    cost: Tensor,
    won: Tensor,
    assignment: ClosestAssignment | RelaxedAssignment | AnnealedAssignment,
    progress: float,
) -> Tensor:
    """How much each proposal learns from the mask, ``(B, M)``, rows of sum 1.

    The winner alone; or the others share epsilon (Rupprecht et al. 2017, relaxed winner-takes-all); or
    ``softmax(-loss / T)`` with T falling to 0 (Perera et al. 2024, annealed multiple choice learning).
    """
    proposals = cost.shape[1]
    if isinstance(assignment, RelaxedAssignment) and proposals > 1:
        epsilon = assignment.share_of_others
        return won * (1 - epsilon) + (1 - won) * epsilon / (proposals - 1)
    if isinstance(assignment, AnnealedAssignment):
        temperature = assignment.temperature * max(0.0, 1 - 2 * progress)
        if temperature > 1e-6:
            return (-cost / temperature).softmax(1)
    return won


def propensity(winners: Tensor, probabilities: Tensor | None, power: float) -> Tensor | None:
    """How probable the draw of each winner was, ``(B, 1)``; None where nothing is weighted by it."""
    if probabilities is None or power == 0:
        return None
    return probabilities.gather(1, winners).clamp(min=LEAST_COUNTED_PROBABILITY)


def importance(propensities: Tensor | None, power: float) -> Tensor | float:
    """Weight of every mask, ``e^-b`` over its mean in the batch, ``(B, 1)``; 1 without propensities.

    A mode of probability p is drawn in a share p of the samples. Weighted by 1 / p (b = 1) the expected loss
    is that of equation (6), in which all modes count alike.
    """
    if propensities is None:
        return 1.0
    weight = propensities**-power
    return weight / weight.mean()
