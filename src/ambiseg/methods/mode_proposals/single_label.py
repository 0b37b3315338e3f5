"""Single labels: which proposals learn from the one mask of an image, and how much it counts.

Gerard and Sullivan, section 3.1.2: the closest proposal ``k* = argmin_k loss(m_k, y)`` learns. Beyond the
paper: near rivals learn, too (`shares`), duplicates compete by their probabilities (`winner`), and rare modes
count for more (`importance`).
"""

from __future__ import annotations

from torch import Tensor

from ambiseg.methods.mode_proposals import AllLearn, AssignmentSettings, NearLearn

LEAST_CHANCE = 1e-3
"""Proposals whose estimated probability is smaller count as if it were this."""


def competes(settings: AssignmentSettings, progress: float) -> bool:
    """Whether duplicates compete at this fraction of training."""
    return settings.start < 1 and progress >= settings.start


def log_joint(cost: Tensor, chance: Tensor, temperature: float) -> Tensor:
    """``log p^_k - loss_k / tau``, ``(B, M)``: log-probability of proposal k together with this mask, up to a
    constant."""
    return chance.clamp(min=LEAST_CHANCE).log() - cost / temperature


def winner(cost: Tensor, chance: Tensor | None, settings: AssignmentSettings, progress: float) -> Tensor:
    """The proposal that learns from each mask, ``(B, 1)``: the closest; where duplicates compete, by
    probability as well.

        k* = argmin_k loss(m_k, y) - tau log p^_k

    This is the assignment of classification EM (Celeux and Govaert 1992) for a mixture with density
    ``exp(-loss / tau)``. A duplicate wins only what it draws better by more than tau times the log of how
    much more probable the other one is, so it wins less and less, and falls behind.

    Args:
        cost: loss of every proposal against the mask, ``(B, M)``.
        chance: estimated probabilities, ``(B, M)``; None without a probability head.
        settings: of the assignment.
        progress: fraction of training that is done.
    """
    if chance is None or not competes(settings, progress):
        return cost.min(1, keepdim=True).indices
    return log_joint(cost, chance, settings.temperature).argmax(1, keepdim=True)


def probability_target(
    cost: Tensor, won: Tensor, chance: Tensor | None, settings: AssignmentSettings, progress: float
) -> Tensor:
    """What the probabilities learn of a mask, ``(B, M)``: who won it, or the posterior ``p^_k exp(-loss_k /
    tau) / sum``."""
    if chance is None or settings.target == "winner" or not competes(settings, progress):
        return won
    return log_joint(cost, chance, settings.temperature).softmax(1)


def shares(cost: Tensor, won: Tensor, settings: AssignmentSettings, progress: float) -> Tensor:
    """How much each proposal learns from the mask, ``(B, M)``, rows of sum 1.

    The winner alone; or the others share epsilon (Rupprecht et al. 2017, relaxed winner-takes-all); or
    ``softmax(-loss / T)`` with T falling to 0 (Perera et al. 2024, annealed multiple choice learning).
    """
    rule, proposals = settings.sharing, cost.shape[1]
    if isinstance(rule, AllLearn) and proposals > 1:
        return won * (1 - rule.share) + (1 - won) * rule.share / (proposals - 1)
    if isinstance(rule, NearLearn):
        temperature = rule.temperature * max(0.0, 1 - 2 * progress)
        if temperature > 1e-6:
            return (-cost / temperature).softmax(1)
    return won


def propensity(winners: Tensor, chance: Tensor | None, settings: AssignmentSettings) -> Tensor | None:
    """How probable the draw of each winner was, ``(B, 1)``; None where nothing is weighted by it."""
    if chance is None or settings.inverse_propensity_power == 0:
        return None
    return chance.gather(1, winners).clamp(min=LEAST_CHANCE)


def importance(propensities: Tensor | None, power: float) -> Tensor | float:
    """Weight of every mask, ``e^-b`` over its mean in the batch, ``(B, 1)``; 1 without propensities.

    A mode of probability p is drawn in a share p of the samples. Weighted by 1 / p (b = 1) the expected loss
    is that of equation (6), in which all modes count alike.
    """
    if propensities is None:
        return 1.0
    weight = propensities**-power
    return weight / weight.mean()
