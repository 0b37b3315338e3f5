"""Modes that are independent flips of classes: one probability per class instead of one per mode.

Gerard and Sullivan, "Deterministic Mode Proposals", appendix B.2. Notation as there: class c covers the
template ``T_c``, a binary mask, and is switched on with probability ``q_c``; mode j has the flips ``b_jc``.

    m_j = sum_c b_jc T_c                                                                                 (24)
    p_j = prod_c q_c^b_jc (1 - q_c)^(1 - b_jc)                                                           (25)
    min_q KL(p^ || p(q)) = sum_j p^_j log p^_j - sum_j p^_j log p_j(q)                                   (26 to 32)
    b_jc = [ |m_j and T_c| / |T_c| >= 1/2 ]                                                              (33)

The 2^P modes of P flips span P + 1 dimensions only, so their pixel-wise mean leaves p open
(`decomposition.decompose_mean` gives its most even choice), but not q: every p with that mean has the
marginals ``q_c = sum_j p_j b_jc``, the mean inside ``T_c``.

Templates from proposals alone (`find_templates`). The paper takes principal components and thresholds them by
hand, because the automatic threshold mixed classes up. ``pca`` is that with the automatic one. ``atoms``
(default) needs no hand: pixels of one class are on and off in the same proposals, so the M-bit patterns of
the pixels are clustered, with the pattern of the background fixed at 0 (Ward 1963). In the eight rendered
street scenes of ``tests/mode_probabilities/test_class_flips.py`` (24 proposals of 13 of the 16 modes, all
borders moved by about a pixel) the worst of the four templates has an IoU of 0.99 or 1.00 with ``atoms`` and
of 0.27 to 0.95 with ``pca``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.maskset import MaskSet

WAYS = ("atoms", "pca")
"""How `find_templates` finds templates."""
PATTERNS = 512
"""The most frequent patterns of pixels, which are clustered; rarer ones join the cluster that is nearest."""
BINS = 256
"""Bins of the histogram in Otsu's threshold."""
LEAST = 1e-12
"""Flip probabilities are kept this far from 0 and 1 in products."""

Array = NDArray[np.float64]


def flip_states(modes: MaskSet, templates: Tensor) -> Tensor:
    """Which classes a mode switches on: at least half of the template's pixels are not background.

        b_jc = [ |m_j and T_c| / |T_c| >= 1/2 ]                                    (mode proposals, 33)

    Args:
        modes: ``(B, M, *S)``; void counts as background.
        templates: ``(B, P, *S)`` bool or 0 and 1; an empty one is never on.

    Returns:
        ``(B, M, P)`` bool.

    Raises:
        AmbisegError: templates of other images.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> modes = MaskSet.uniform(torch.tensor([[[1, 1, 0, 0], [0, 1, 1, 1]]]), LabelSpace.binary())
        >>> flip_states(modes, torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 1]]])).tolist()
        [[[True, False], [True, True]]]
    """
    space = (len(modes), *modes.masks.shape[2:])
    if templates.dim() != modes.masks.dim() or (templates.shape[0], *templates.shape[2:]) != space:
        raise AmbisegError(
            f"templates of shape {tuple(templates.shape)} do not fit modes of shape {tuple(modes.masks.shape)}:"
            " pass (B, P, *S)"
        )
    on = _on(modes).flatten(2).float()
    there = (templates.flatten(2) > 0).float()
    with torch.autocast(on.device.type, enabled=False):
        common = torch.einsum("bms,bps->bmp", on, there)
    size = there.sum(2)[:, None]
    return (2 * common >= size) & (size > 0)


def flip_probabilities(probabilities: Tensor, states: Tensor) -> Tensor:
    """The class-flip probabilities that explain mode probabilities best.

        q = argmin_q KL(p^ || p(q)),    q_c = sum_j p^_j b_jc                      (mode proposals, 26 to 32)

    The paper minimises numerically, but by (25) ``-sum_j p^_j log p_j(q)`` is ``-sum_c [a_c log q_c + (1 -
    a_c) log(1 - q_c)]`` with ``a_c = sum_j p^_j b_jc``: for each class the cross-entropy of two Bernoulli
    distributions, least at ``q_c = a_c``.

    Args:
        probabilities: ``(B, M)`` p^, sum 1.
        states: ``(B, M, P)`` b.

    Returns:
        ``(B, P)`` q in [0, 1], in the precision of ``probabilities``.

    Raises:
        AmbisegError: shapes that do not belong together.

    Example:
        >>> states = torch.tensor([[[False, True], [True, True], [False, False]]])
        >>> flip_probabilities(torch.tensor([[0.5, 0.3, 0.2]]), states)
        tensor([[0.3000, 0.8000]])
    """
    if probabilities.shape != states.shape[:2]:
        raise AmbisegError(
            f"probabilities of shape {tuple(probabilities.shape)} do not fit states of shape {tuple(states.shape)}:"
            " pass (B, M) and (B, M, P)"
        )
    q: Tensor = (probabilities[:, :, None] * states.to(probabilities)).sum(1)
    return q.clamp(0, 1)


def product_probabilities(q: Tensor, states: Tensor, present: Tensor | None = None) -> Tensor:
    """Mode probabilities of independent flips, over the given modes.

        p_j = prod_c q_c^b_jc (1 - q_c)^(1 - b_jc) / Z                             (mode proposals, 25)

    Z makes them sum to 1 where some of the 2^P combinations are not among the modes (and is 1 where all are);
    modes with the same flips share the probability of these flips evenly.

    Args:
        q: ``(B, P)`` in [0, 1].
        states: ``(B, M, P)`` b.
        present: ``(B, M)`` bool, which modes are there; None for all. The others get 0.

    Returns:
        ``(B, M)`` float64.

    Raises:
        AmbisegError: shapes that do not belong together, or q outside [0, 1].

    Example:
        >>> states = torch.tensor([[[False, True], [True, True], [False, False], [True, False]]])
        >>> product_probabilities(torch.tensor([[0.25, 0.8]]), states)
        tensor([[0.6000, 0.2000, 0.1500, 0.0500]], dtype=torch.float64)
    """
    if q.shape != (states.shape[0], states.shape[2]):
        raise AmbisegError(
            f"q of shape {tuple(q.shape)} does not fit states of shape {tuple(states.shape)}: pass (B, P) and (B, M, P)"
        )
    if not bool(((q >= -LEAST) & (q <= 1 + LEAST)).all()):
        raise AmbisegError("flip probabilities lie in [0, 1]")
    there = (
        torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if present is None else present
    )
    inside = q.double().clamp(LEAST, 1 - LEAST)[:, None].to(states.device)
    log = torch.where(states, inside.log(), (-inside).log1p()).sum(2)
    alike = (states[:, :, None] == states[:, None]).all(3) & there[:, None]
    log = log - alike.sum(2).clamp(min=1).double().log()
    return log.masked_fill(~there, -torch.inf).softmax(1)


def find_templates(
    modes: MaskSet, weights: Tensor | None = None, count: int = 4, how: str = "atoms"
) -> Tensor:
    """The areas that proposals switch on and off as a whole, from the proposals alone.

    ``atoms``: pixels are clustered by the pattern of the proposals in which they are on, into ``count``
    clusters and the background, whose centre stays at 0. Two clusters of n and n' pixels at distance d merge
    where ``n n' / (n + n') d^2`` is least (Ward 1963). Templates do not overlap. ``pca``: the paper's
    (B.2.1), the first components, each thresholded by Otsu's method; templates may overlap.

    Args:
        modes: ``(B, M, *S)`` proposals, best without low scores (`ambiseg.engine.postprocess.drop_low_scores`).
        weights: ``(B, M)`` how much each proposal counts, or None for all that are there alike.
        count: templates P.
        how: ``atoms`` or ``pca``.

    Returns:
        ``(B, P, *S)`` bool, by falling area; empty ones at the end where the proposals hold fewer areas.

    Raises:
        AmbisegError: an unknown way, ``count`` below 1 or above the number of pixels or `PATTERNS`, or
            weights of another shape, negative, or all 0.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> modes = torch.tensor([[[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 1, 0]]])
        >>> find_templates(MaskSet.uniform(modes, LabelSpace.binary()), count=2).int().tolist()
        [[[1, 1, 1, 0, 0], [0, 0, 0, 1, 0]]]
    """
    if how not in WAYS:
        raise UnknownNameError("way to find templates", how, WAYS)
    most = min(PATTERNS, modes.masks[0, 0].numel())
    if not 1 <= count <= most:
        raise AmbisegError(f"count of templates is 1 to {most} for masks of this size, received {count}")
    share = modes.present.double().cpu() if weights is None else weights.detach().double().cpu()
    if share.shape != modes.weights.shape or not bool(((share >= 0).all(1) & (share.sum(1) > 0)).all()):
        raise AmbisegError(
            f"weights of shape {tuple(share.shape)} must be {tuple(modes.weights.shape)}, not negative and not all 0"
        )
    share = share / share.sum(1, keepdim=True)
    find = _atoms if how == "atoms" else _components
    found = []
    for on, w in zip(_on(modes).flatten(2).cpu().numpy(), share.numpy(), strict=True):
        areas = find(on[w > 0], w[w > 0], count)
        found.append(areas[np.argsort(-areas.sum(1), kind="stable")])
    templates = torch.from_numpy(np.stack(found)).to(modes.masks.device)
    return templates.view(len(modes), count, *modes.masks.shape[2:])


def structured_decomposition(
    modes: MaskSet,
    probabilities: Tensor,
    templates: Tensor | None = None,
    count: int = 4,
    how: str = "atoms",
) -> Tensor:
    """Mode probabilities under the assumption that modes are independent flips of classes (mode proposals,
    B.2).

    Flips of each mode by (33), flip probabilities of the first estimate by (26 to 32), their product by (25).

    Args:
        modes: ``(B, M, *S)``.
        probabilities: ``(B, M)`` of a first estimate, such as `decomposition.velocity_decomposition`.
        templates: ``(B, P, *S)``, or None to find them in the modes (`find_templates`).
        count: how many to find.
        how: how to find them.

    Returns:
        ``(B, M)`` float64, sum 1; 0 for modes that are not there.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> modes = MaskSet.uniform(torch.tensor([[[0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]]]), LabelSpace.binary())
        >>> first = torch.tensor([[0.1, 0.7, 0.2, 0.0]])  # the marginals are right: 0.7 and 0.2
        >>> structured_decomposition(modes, first, count=2).round(decimals=4)
        tensor([[0.2400, 0.5600, 0.0600, 0.1400]], dtype=torch.float64)
    """
    if templates is None:
        templates = find_templates(modes, count=count, how=how)
    states = flip_states(modes, templates)
    q = flip_probabilities(probabilities.double().to(states.device), states)
    return product_probabilities(q, states, modes.present)


def _on(modes: MaskSet) -> Tensor:
    """Where masks show something: neither background nor void, ``(B, M, *S)`` bool."""
    background = 0 if modes.labels.background is None else modes.labels.background
    return (modes.masks != background) & modes.labels.valid(modes.masks)


def _atoms(on: NDArray[np.bool_], share: Array, count: int) -> NDArray[np.bool_]:
    """Clusters of the pixels of ``on (M, P)`` by their patterns, ``(count, P)``."""
    patterns, inverse, pixels = np.unique(
        np.packbits(on.T, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    known = np.unpackbits(patterns, axis=1, count=len(on)).astype(np.float64) * np.sqrt(share)
    frequent = np.argsort(-pixels, kind="stable")
    frequent = frequent[known[frequent].any(1)][:PATTERNS]
    centres = _ward(known[frequent], pixels[frequent].astype(float), count)
    centres = np.concatenate([np.zeros((1, len(on))), centres])
    far = (known**2).sum(1)[:, None] - 2 * known @ centres.T + (centres**2).sum(1)
    nearest = far.argmin(1)[inverse.reshape(-1)]
    areas: NDArray[np.bool_] = nearest[None] == np.arange(1, count + 1)[:, None]
    return areas


def _ward(points: Array, sizes: Array, count: int) -> Array:
    """Centres ``(<= count, M)`` of Ward's clusters of weighted points, beside one cluster whose centre stays
    at 0."""
    centres = np.concatenate([np.zeros((1, points.shape[1])), points])
    # A size that nothing moves; the cost of joining it is the other's size times its squared distance.
    sizes = np.append(1e9 * max(1.0, sizes.sum()), sizes)
    open_ = np.ones(len(sizes), dtype=bool)

    def costs(i: int) -> Array:
        cost: Array = ((centres - centres[i]) ** 2).sum(1) * (sizes * sizes[i] / (sizes + sizes[i]))
        cost[~open_] = np.inf
        cost[i] = np.inf
        return cost

    cost = np.stack([costs(i) for i in range(len(sizes))])
    for _ in range(len(sizes) - 1 - count):
        i, j = sorted(divmod(int(cost.argmin()), len(sizes)))
        if i > 0:
            total = sizes[i] + sizes[j]
            centres[i] = (sizes[i] * centres[i] + sizes[j] * centres[j]) / total
            sizes[i] = total
        open_[j] = False
        cost[j] = cost[:, j] = np.inf
        cost[i] = cost[:, i] = costs(i)
    found: Array = centres[1:][open_[1:]]
    return found


def _components(on: NDArray[np.bool_], share: Array, count: int) -> NDArray[np.bool_]:
    """The first principal components of ``on (M, P)``, each cut by Otsu's threshold, ``(count, P)``."""
    centred = (on - (share[:, None] * on).sum(0)) * np.sqrt(share)[:, None]
    _, strength, components = np.linalg.svd(centred, full_matrices=False)
    areas = np.zeros((count, on.shape[1]), dtype=bool)
    for c, component in enumerate(components[:count]):
        if strength[c] > 1e-9 * max(1.0, strength[0]):
            # Pixels of one pattern differ by rounding alone, and all may be of one pattern.
            values = (component / np.abs(component).max()).round(9)
            # A component's sign is arbitrary: its heavier tail is where the class is.
            upright = values if (values**3).sum() >= 0 else -values
            areas[c] = upright > _otsu(upright)
    return areas


def _otsu(values: Array) -> float:
    """The threshold with the largest variance between the two sides (Otsu 1979)."""
    pixels, edges = np.histogram(values, BINS)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(pixels)[:-1]
    above = pixels.sum() - below
    total = np.cumsum(pixels * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total[:-1] / below - (total[-1] - total[:-1]) / above) ** 2
    return float(edges[1:][int(np.nan_to_num(between, nan=-1.0).argmax())])
