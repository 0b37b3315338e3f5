"""Mode proposals: the set of plausible masks from one deterministic forward pass.

Gerard and Sullivan, "Deterministic Mode Proposals: An Efficient Alternative to Generative Sampling for
Ambiguous Segmentation". Notation as there: image x, N modes ``y_i`` with probabilities ``p_i``, M >= N
proposals ``m_k``, selection scores ``s_k``.

    m_k = h_k(g(x)),  k = 1..M                                                        (3)
    s = sel(g(x), m)                  sees all proposals at once                      (4)
    a = argmin_a sum_i loss(m_a(i), y_i)          Hungarian matching, A.3             (5)
    L_mask = 1/N sum_i loss(m_a(i), y_i)                                              (6)
    L_sel = 1/M sum_k BCE(s_k, [k matched])                                           (7)
    L = L_mask + lambda L_sel                                                         (8)

With one label y per image, the closest proposal k* = argmin_k loss(m_k, y) learns, and the scores learn from
positive and unlabelled proposals (9-11); L = loss(m_k*, y) + lambda L_PU (12).

Beyond the paper: a probability head, ``p^ = softmax(prob(g(x), m))``, trained with cross-entropy towards the
matched modes' probabilities (full labels) or towards the winner (single). One forward pass gives masks,
scores and probabilities. The selection and probability heads see detached inputs: they never bend the masks.
They also see the image (``image_cue``), since features that draw masks need not tell how probable a mask is.
Options, off by default: ``score_cost`` (matching cost ``loss(m_k, y_i) - mu s_k``, after DETR; Carion et al.
2020), ``duplicate_cue`` (the heads also see the IoU of every two proposals), ``settle``
(`ModeProposals._winner`) and ``energy_weight`` (`energy_score` of the whole weighted set, whose gradient does
reach masks and probabilities together).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.energy_score import trained_score
from ambiseg.losses.mask_losses import pairwise_mask_loss
from ambiseg.maskset import MaskSet
from ambiseg.matching import match
from ambiseg.methods.base import Segmenter
from ambiseg.methods.flow_matching.model import FlowMatching
from ambiseg.methods.mode_proposals import ModeProposalsSettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.discriminator import Discriminator
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels
from ambiseg.overlap import pairwise_overlap
from ambiseg.ranking import descending

UNCOVERED = 1.5
"""A mask is not covered if its closest proposal is this many times farther than is usual in its batch."""
NEARLY_ALIKE = 0.01
"""Differences of IoU below this are all the same to the selection head."""
LEAST_SHARE = 1e-3
"""Proposals whose share of a mask is smaller do not learn from it."""
LEAST_CHANCE = 1e-3
"""Proposals whose estimated probability is smaller are balanced and settled as if it were this."""
MOST_WEIGHT = 10.0
"""A balanced winner counts for no more than this many in the selection loss."""
LEAST_PROBABILITY = 1e-6
"""Probabilities of proposals are not given below this, so that none vanishes from the set."""


class ModeProposals(Segmenter):
    """M mask proposals with selection scores and probabilities (Gerard and Sullivan, sections 3.1 to 3.1.2).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of the U-Net g.
        settings: number of proposals, losses and their weights.

    Raises:
        AmbisegError: settings that contradict each other, such as what needs the probability head without it.

    Example:
        >>> model = ModeProposals(3, LabelSpace.binary(), UNetSettings(width=8, depth=2), ModeProposalsSettings(proposals=4))
        >>> proposals = model.predict(torch.zeros(2, 3, 17, 23))
        >>> proposals.masks.shape, proposals.scores.shape
        (torch.Size([2, 4, 17, 23]), torch.Size([2, 4]))
    """

    settings: ModeProposalsSettings
    noise_seed: Tensor

    def __init__(
        self,
        in_channels: int,
        labels: LabelSpace,
        backbone: UNetSettings | None = None,
        settings: ModeProposalsSettings | None = None,
    ) -> None:
        s = settings or ModeProposalsSettings()
        _check(s)
        super().__init__(in_channels, labels, backbone or UNetSettings(), s)
        extra = labels.channels if s.flow_input else 0
        self.g = build_backbone(in_channels + extra, self.backbone, time=s.flow_input)
        if s.flow_input:
            self.register_buffer("noise_seed", torch.randint(2**62, ()))
        self.h = nn.Conv2d(self.g.out_channels, s.proposals * labels.channels, 3, padding=1)
        self._repeat_first_head(s.head_spread)
        heads = 2 if s.probability_head else 1
        seen = self.g.out_channels + s.proposals * labels.channels + (in_channels if s.image_cue else 0)
        self.sel = Discriminator(seen, s.head_width, heads * s.proposals)
        self.alike = _Alike(s.proposals, heads * s.proposals) if s.duplicate_cue and s.proposals > 1 else None

    @property
    def full_labels_reject_copies(self) -> bool:
        """Yes: of full labels each mask is matched with one proposal, and all others are rejected (section
        3.1)."""
        return self.settings.selection_weight > 0

    @torch.no_grad()
    def _repeat_first_head(self, spread: float) -> None:
        """Start all heads as one convolution, each copy scaled by a random factor near 1 (A.2).

        Those that the energy score alone trains keep a start of their own: copies would share its gradient,
        and none wins alone.
        """
        s, channels = self.settings, self.labels.channels
        any_wins = s.winner_weight > 0 or s.energy_start > 0
        count = s.proposals - s.energy_proposals if any_wins else 0
        factor = 1 + spread * (2 * torch.rand(count, 1) - 1)
        for parameter in self.h.parameters():
            copies = parameter[: count * channels]
            copies.copy_((parameter[:channels].reshape(1, -1) * factor).reshape(copies.shape))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mask logits ``(B, M, C, H, W)``, score logits ``(B, M)`` and probability logits ``(B, M)`` or
        None."""
        features = self._features(images)
        logits = self.h(features).unflatten(1, (self.settings.proposals, self.labels.channels))
        masks = self.labels.probabilities(logits.detach(), dim=2)
        shown = [features.detach(), masks.flatten(1, 2), *([images] if self.settings.image_cue else [])]
        judged = self.sel(torch.cat([part.to(features.dtype) for part in shown], 1)).float()
        if self.alike is not None:
            judged = judged + self.alike(self._closeness(masks))
        if not self.settings.probability_head:
            return logits, judged, None
        scores, probabilities = judged.chunk(2, dim=1)
        return logits, scores, probabilities

    def _features(self, images: Tensor) -> Tensor:
        """``g(x)``; for the network of a flow model with its noise input fixed to one draw and its time
        constant (A.2)."""
        if not self.settings.flow_input:
            features: Tensor = self.g(images)
            return features
        check_channels(images, self.in_channels)
        draw = torch.Generator().manual_seed(int(self.noise_seed))
        noise = torch.randn(self.labels.channels, *images.shape[2:], generator=draw).to(images)
        time = torch.full((len(images),), self.settings.flow_time or 0.0, device=images.device)
        features = self.g(torch.cat([images, noise.expand(len(images), -1, -1, -1)], 1), time)
        return features

    @torch.no_grad()
    def start_from(self, other: Segmenter) -> None:
        """Another mode-proposal model, or a flow model: its network, and its last convolution as every head
        (A.2)."""
        if not isinstance(other, FlowMatching):
            super().start_from(other)
            return
        self.g.load_state_dict(other.g.state_dict())
        channels = self.labels.channels
        for ours, theirs in zip(self.h.parameters(), other.h.parameters(), strict=True):
            ours[:channels] = theirs
        self._repeat_first_head(self.settings.head_spread)

    @torch.no_grad()
    def _closeness(self, masks: Tensor) -> Tensor:
        """How alike every two decided proposals are, ``log(1 - IoU + eps) / log eps`` in about [0, 1], ``(B,
        M, M)``."""
        decided = self.labels.decide(masks, dim=2)
        iou = pairwise_overlap(decided, decided, self.labels).iou()
        return (1 - iou + NEARLY_ALIKE).log() / math.log(NEARLY_ALIKE)

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Equation (8) where images come with several masks, equation (12) where all come with one."""
        s = self.settings
        logits, scores, probability = self(images)
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                cost = pairwise_mask_loss(s.mask_loss, logits, annotations.masks, self.labels)
                cost[:, s.proposals - s.energy_proposals :] = torch.inf
            if annotations.masks.shape[1] == 1:
                parts = self._single_label_loss(cost[:, :, 0], logits, annotations.masks, scores, probability)
            else:
                parts = self._full_label_loss(cost, logits, annotations, scores, probability)
            if s.energy_weight == 0 or self.progress < s.energy_start:
                return self._total(parts)
            parts["energy"] = self._energy(logits, annotations, probability)
            return self._total(parts, s.winner_weight)

    def _energy(self, logits: Tensor, annotations: MaskSet, probability: Tensor | None) -> Tensor:
        """The mean energy score of all proposals; without probability head they are equally probable.

        Masks learn at the probabilities (1 - floor) p + floor / M. With floor 1 they become the best equally
        weighted masks (support points; Mak and Joseph 2018).
        """
        s = self.settings
        chance = torch.zeros_like(logits[:, :, 0, 0, 0]) if probability is None else probability
        weights, masks = chance.float().softmax(1), self.labels.probabilities(logits, dim=2)
        count = s.energy_proposals or s.proposals
        trained = torch.cat([masks[:, :-count].detach(), masks[:, -count:]], 1)
        shares = weights.detach() * (1 - s.energy_floor)
        shares[:, -count:] += s.energy_floor / count
        score = trained_score(
            trained.detach() if s.energy_gradient == "probabilities" else trained,
            weights.detach() if s.energy_gradient == "masks" else weights,
            shares,
            annotations,
            kernel=s.energy_kernel,
        )
        return score.mean()

    def _full_label_loss(
        self, cost: Tensor, logits: Tensor, annotations: MaskSet, scores: Tensor, probability: Tensor | None
    ) -> dict[str, Tensor]:
        costs = cost - self.settings.score_cost * scores.sigmoid()[:, :, None]
        chosen = match(costs, columns=annotations.present).rows
        image, mode = torch.nonzero(chosen >= 0, as_tuple=True)
        proposal = chosen[image, mode]
        pairs = self._pair_loss(logits[image, proposal], annotations.masks[image, mode])
        found = torch.bincount(image, minlength=len(cost))
        mask = (pairs / found[image]).sum() / len(cost)
        matched = torch.zeros_like(scores)
        matched[image, proposal] = 1.0
        selection = functional.binary_cross_entropy_with_logits(scores, matched)
        share = torch.zeros_like(scores)
        share[image, proposal] = annotations.weights[image, mode].to(share.dtype)
        share = share / share.sum(1, keepdim=True).clamp(min=1e-8)
        return _parts(mask, selection, probability, share)

    def _single_label_loss(
        self, cost: Tensor, logits: Tensor, masks: Tensor, scores: Tensor, probability: Tensor | None
    ) -> dict[str, Tensor]:
        winner = self._winner(cost, probability)
        won = torch.zeros_like(cost).scatter(1, winner, 1.0)
        propensity = self._propensity(winner, probability)
        shares = self._shares(cost, won) * _balanced(propensity, self.settings.balance)
        image, proposal = torch.nonzero(shares > LEAST_SHARE, as_tuple=True)
        pairs = self._pair_loss(logits[image, proposal], masks[image, 0])
        mask = (shares[image, proposal] * pairs).sum() / len(cost)
        target = self._probability_target(cost, won, probability)
        return _parts(mask, self._pu_loss(scores, won, propensity), probability, target)

    def _pair_loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Mask loss of ``L`` proposals ``(L, C, *S)``, each against its own mask ``(L, *S)``: ``(L,)``, with
        gradients."""
        return pairwise_mask_loss(self.settings.mask_loss, logits[:, None], masks[:, None], self.labels)[
            :, 0, 0
        ]

    def _winner(self, cost: Tensor, probability: Tensor | None) -> Tensor:
        """The proposal that answers for each mask, ``(B, 1)``: the closest; once settling, not one of its
        copies.

        By the prior: ``argmin_k loss(m_k, y) - tau log p^_k``, the assignment of classification EM (Celeux
        and Govaert 1992) for a mixture with density ``exp(-loss / tau)``. A copy wins only what it draws
        better by more than tau times the log of how much more probable the other is, so it wins less and
        less, and falls behind.

        By the margin: among proposals with ``cost <= (1 + margin) min cost``, a mask whose closest proposal
        is no farther than average (covered) goes to the most probable one, so that copies of a frequent mode
        fall idle; a mask that is farther goes to the least probable one, so that an idle copy, not the owner
        of the frequent mode, learns the rare one.
        """
        closest, winner = cost.min(1, keepdim=True)
        if probability is None or not self._settling:
            return winner
        chance = probability.detach().float().softmax(1)
        if self.settings.settle_prior > 0:
            return self._joint(cost, chance).argmax(1, keepdim=True)
        far = cost > closest * (1 + self.settings.settle_margin)
        owner = chance.masked_fill(far, -1.0).argmax(1, keepdim=True)
        idle = chance.masked_fill(far, 2.0).argmin(1, keepdim=True)
        return torch.where(closest <= UNCOVERED * closest.mean(), owner, idle)

    @property
    def _settling(self) -> bool:
        return self.settings.settle < 1 and self.progress >= self.settings.settle

    def _probability_target(self, cost: Tensor, won: Tensor, probability: Tensor | None) -> Tensor:
        """What the probabilities learn of a mask, ``(B, M)``: who won it, or the posterior ``p^_k exp(-loss_k
        / tau) / sum``."""
        s = self.settings
        if probability is None or s.probability_target == "winner" or not self._settling:
            return won
        return self._joint(cost, probability.detach().float().softmax(1)).softmax(1)

    def _joint(self, cost: Tensor, chance: Tensor) -> Tensor:
        """``log p^_k - loss_k / tau``, ``(B, M)``: log of how probable proposal k with this mask is, up to a
        constant."""
        return chance.clamp(min=LEAST_CHANCE).log() - cost / self.settings.settle_prior

    def _propensity(self, winner: Tensor, probability: Tensor | None) -> Tensor | None:
        """How probable each winner's draw was, by the probability head, ``(B, 1)``; None if nothing is
        balanced."""
        if probability is None or self.settings.balance == 0:
            return None
        return probability.detach().float().softmax(1).gather(1, winner).clamp(min=LEAST_CHANCE)

    def _shares(self, cost: Tensor, won: Tensor) -> Tensor:
        """How much each proposal learns from the one mask, ``(B, M)``, rows sum to 1.

        ``winner``: the closest alone. ``relaxed``: the losers share epsilon (Rupprecht et al. 2017, relaxed
        winner-takes-all). ``annealed``: ``softmax(-cost / T)``, T falling to 0 (Perera et al. 2024, annealed
        multiple choice learning).
        """
        s = self.settings
        if s.sharing == "relaxed" and s.proposals > 1:
            return won * (1 - s.relaxation) + (1 - won) * s.relaxation / (s.proposals - 1)
        temperature = s.temperature * max(0.0, 1 - 2 * self.progress)
        if s.sharing == "annealed" and temperature > 1e-6:
            return (-cost / temperature).softmax(1)
        return won

    def _pu_loss(self, scores: Tensor, won: Tensor, propensity: Tensor | None = None) -> Tensor:
        """Non-negative positive-unlabelled risk (9-11; Kiryo et al. 2017).

        ``R_p(+/-)``: mean BCE of the winners against 1 / 0; ``R_u(-)``: mean BCE of all others against 0;
        ``L_PU = pi R_p(+) + max(0, R_u(-) - pi R_p(-))``. That takes winners for a fair draw of all ``pi M``
        positives, which they are not where modes differ in probability. With propensities e they are weighed
        by ``1 / (e pi M)``, the unbiased mean over positives (Bekker, Robberechts and Davis 2019), up to
        MOST_WEIGHT (Ionides 2008).
        """
        pi = self.settings.positive_prior
        as_positive, as_negative = functional.softplus(-scores), functional.softplus(scores)
        weight = won / won.sum()
        if propensity is not None:
            weight = weight * (1 / (propensity * pi * self.settings.proposals)).clamp(max=MOST_WEIGHT)
        positive_risk = pi * (weight * as_positive).sum()
        unlabelled = ((1 - won) * as_negative).sum() / (1 - won).sum().clamp(min=1)
        negative_risk = unlabelled - pi * (weight * as_negative).sum()
        if self.settings.pu_gradient == "kiryo":
            return torch.where(negative_risk < 0, -negative_risk, positive_risk + negative_risk)
        return positive_risk + negative_risk.clamp(min=0)

    def _total(self, parts: dict[str, Tensor], winner_weight: float = 1.0) -> dict[str, Tensor]:
        """``loss``, the weighted sum of the parts, and the parts without gradients."""
        s = self.settings
        weights = {"mask": winner_weight, "selection": s.selection_weight, "energy": s.energy_weight}
        weights["probability"] = s.probability_weight
        total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return {"loss": total, **{name: value.detach() for name, value in parts.items()}}

    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """All M proposals, or the ``samples`` with the highest scores; the same for every call."""
        logits, scores, probability = self(images)
        if probability is None:
            weights = torch.full_like(scores, 1.0 / scores.shape[1])
        else:
            weights = probability.softmax(1).clamp(min=LEAST_PROBABILITY)
        masks = self.labels.probabilities(logits, dim=2)
        proposals = MaskSet.from_probabilities(masks, self.labels, weights, scores.sigmoid()).normalised()
        if samples is None or samples >= self.settings.proposals:
            return proposals
        return proposals.gather(descending(scores)[:, :samples]).normalised()


def _check(s: ModeProposalsSettings) -> None:
    """Raise `AmbisegError` where settings contradict each other."""
    if not s.probability_head and (s.balance > 0 or s.settle < 1):
        raise AmbisegError("--balance and --settle need the probability head: leave one of them out")
    if s.probability_target == "posterior" and s.settle_prior <= 0:
        raise AmbisegError(
            "--probability-target posterior is that of --settle-prior: give it too, such as 0.01"
        )
    if s.settle_prior > 0 and s.settle >= 1:
        raise AmbisegError("--settle-prior says how to settle: give --settle too, such as 0.15")
    if not s.probability_head and s.energy_weight > 0 and s.energy_gradient == "probabilities":
        raise AmbisegError(
            "--energy-gradient probabilities needs the probability head: leave one of them out"
        )
    if not 0 <= s.energy_proposals < s.proposals:
        raise AmbisegError(
            f"--energy-proposals are some of the {s.proposals} proposals, not all: received {s.energy_proposals}"
        )
    if not s.energy_floor <= 1:
        raise AmbisegError("--energy-floor is from 0 to 1")
    if s.energy_proposals and s.energy_weight <= 0:
        raise AmbisegError("--energy-proposals learn from the energy score: give --energy-weight too")
    if s.energy_proposals and s.sharing == "relaxed":
        raise AmbisegError("--sharing relaxed lets all proposals learn: leave it or --energy-proposals out")


def _parts(mask: Tensor, selection: Tensor, probability: Tensor | None, share: Tensor) -> dict[str, Tensor]:
    """The terms of the loss: of masks, of scores, and the cross-entropy of probabilities towards shares ``(B,
    M)``."""
    parts = {"mask": mask, "selection": selection}
    if probability is not None:
        parts["probability"] = -(share * probability.log_softmax(1)).sum(1).mean()
    return parts


def _balanced(propensity: Tensor | None, power: float) -> Tensor | float:
    """Weight of every mask, ``e^-b`` over its batch's mean, ``(B, 1)``; 1 without propensities.

    A mode of probability p is drawn in a share p of the visits. Weighed by 1 / p (b = 1) the expected loss is
    that of equation (6), in which all modes count alike.
    """
    if propensity is None:
        return 1.0
    weight = propensity**-power
    return weight / weight.mean()


class _Alike(nn.Module):
    """From the closeness of all pairs of proposals ``(B, M, M)`` to numbers per image: which proposals say
    the same."""

    def __init__(self, proposals: int, outputs: int, width: int = 128) -> None:
        super().__init__()
        self.rows, self.columns = torch.triu_indices(proposals, proposals, 1).unbind(0)
        self.hidden = nn.Linear(len(self.rows), width)
        self.out = nn.Linear(width, outputs)

    def forward(self, closeness: Tensor) -> Tensor:
        pairs = closeness[:, self.rows, self.columns]
        out: Tensor = self.out(functional.leaky_relu(self.hidden(pairs), 0.2)).float()
        return out
