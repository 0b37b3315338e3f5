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
scores and probabilities. Files beside this one: `single_label` (which proposals learn from one mask),
`selection` (the head and its risk), `energy` (the energy score of the whole set). ``matching_score_weight``
mu turns the matching cost into ``loss(m_k, y_i) - mu s_k``, after DETR (Carion et al. 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.defaults import LEAST_PROBABILITY
from ambiseg.errors import AmbisegError
from ambiseg.flows.paths import path_named
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import pairwise_mask_loss
from ambiseg.maskset import MaskSet
from ambiseg.matching import match
from ambiseg.methods.base import Segmenter
from ambiseg.methods.flow_matching.model import FlowMatching
from ambiseg.methods.mode_proposals import ModeProposalsSettings, RelaxedAssignment, single_label
from ambiseg.methods.mode_proposals.energy import energy_loss
from ambiseg.methods.mode_proposals.selection import SelectionHead, positive_unlabelled_risk
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels
from ambiseg.ranking import descending

LEAST_SHARE = 1e-3
"""Proposals whose share of a mask is smaller do not learn from it."""


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
        >>> model = ModeProposals(
        ...     3, LabelSpace.binary(), UNetSettings(width=8, depth=2), ModeProposalsSettings(proposals=4)
        ... )
        >>> proposals = model.predict(torch.zeros(2, 3, 17, 23))
        >>> proposals.masks.shape, proposals.scores.shape
        (torch.Size([2, 4, 17, 23]), torch.Size([2, 4]))
    """

    settings: ModeProposalsSettings
    noise_seed: Tensor

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: ModeProposalsSettings
    ) -> None:
        s = settings
        _check(s)
        super().__init__(in_channels, labels, backbone, settings)
        self.unmatched = s.energy.reserved_proposals if s.energy else 0
        extra = labels.channels if s.flow_input else 0
        self.g = build_backbone(in_channels + extra, self.backbone, time=s.flow_input)
        if s.flow_input:
            self.register_buffer("noise_seed", torch.randint(2**62, ()))
        self.h = nn.Conv2d(self.g.out_channels, s.proposals * labels.channels, 3, padding=1)
        self._repeat_first_head()
        heads = 1 if s.probability is None else 2
        self.sel = SelectionHead(self.g.out_channels, in_channels, labels, s.proposals, heads, s.selection)

    @property
    def full_labels_reject_copies(self) -> bool:
        """Yes: with full labels each mask is matched with one proposal, and all others are rejected (section
        3.1)."""
        return self.settings.selection.weight > 0

    @property
    def export_obstacle(self) -> str:
        if self.settings.flow_input:
            return "it sees one fixed draw of noise, which depends on the image size (settings: flow_input)"
        return ""

    @torch.no_grad()
    def _repeat_first_head(self) -> None:
        """Start all heads as one convolution, each copy or weight scaled by a random factor near 1 (A.2).

        Those that the energy score alone trains keep a start of their own: copies would share its gradient,
        and none wins alone.
        """
        s, channels = self.settings, self.labels.channels
        any_wins = s.energy is None or s.energy.mask_loss_weight > 0 or s.energy.start > 0
        count = s.proposals - self.unmatched if any_wins else 0
        factor = 1 + s.head_init_jitter * (2 * torch.rand(count, 1) - 1)
        for parameter in self.h.parameters():
            copies, first = parameter[: count * channels], parameter[:channels].reshape(1, -1)
            if s.head_init_scales == "per-weight":
                factor = 1 + s.head_init_jitter * (2 * torch.rand(count, first.shape[1]) - 1)
            copies.copy_((first * factor).reshape(copies.shape))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mask logits ``(B, M, C, H, W)``, score logits ``(B, M)`` and probability logits ``(B, M)`` or
        None."""
        noise = self._noise(images) if self.settings.flow_input else None
        features = self._features(images, noise)
        logits = self.h(features).unflatten(1, (self.settings.proposals, self.labels.channels))
        if noise is not None and self.settings.flow_path is not None:
            logits = logits + self._noise_share(self.settings.flow_path) * noise
        output = self.sel(features, self._pixels(logits), images)
        if self.settings.probability is None:
            return logits, output, None
        scores, probabilities = output.chunk(2, dim=1)
        return logits, scores, probabilities

    def _pixels(self, logits: Tensor) -> Tensor:
        """Masks as probabilities of pixels, from what the heads give: logits, or with `signed-mse` values in
        [-1, 1]."""
        if self.settings.mask_loss == "signed-mse":
            return self.labels.normalized((logits.float() + 1) / 2, dim=2)
        return self.labels.probabilities(logits, dim=2)

    def _features(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """``g(x)``; the network of a flow model sees one fixed draw of noise and one fixed time (A.2)."""
        features: Tensor
        if noise is None:
            features = self.g(images)
            return features
        time = torch.full((images.shape[0],), self.settings.flow_time or 0.0, device=images.device)
        features = self.g(torch.cat([images, noise.expand(images.shape[0], -1, -1, -1)], 1), time)
        return features

    def _noise(self, images: Tensor) -> Tensor:
        """The draw of noise that the network of a flow model sees, the same for all images, ``(C, H, W)``."""
        check_channels(images, self.in_channels)
        draw = torch.Generator().manual_seed(int(self.noise_seed))
        return torch.randn(self.labels.channels, *images.shape[2:], generator=draw).to(images)

    def _noise_share(self, path: str) -> float:
        """``-sigma'/sigma``, the noise to add to a velocity for a multiple of the posterior mean (17); 1 at t = 0
        of the straight path."""
        schedule, time = path_named(path), torch.tensor(self.settings.flow_time or 0.0, dtype=torch.float64)
        return float(-schedule.d_sigma(time) / schedule.sigma(time))

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
        self._repeat_first_head()

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Equation (8) where images come with several masks, equation (12) where all come with one."""
        s = self.settings
        logits, scores, probability = self(images)
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                cost = pairwise_mask_loss(s.mask_loss, logits, annotations.masks, self.labels)
                cost[:, s.proposals - self.unmatched :] = torch.inf
            if annotations.masks.shape[1] == 1:
                parts = self._single_label_loss(cost[:, :, 0], logits, annotations.masks, scores, probability)
            else:
                parts = self._full_label_loss(cost, logits, annotations, scores, probability)
            weights = {"mask": 1.0, "selection": s.selection.weight}
            if s.probability is not None:
                weights["probability"] = s.probability.weight
            if s.energy is not None and self.progress >= s.energy.start:
                parts["energy"] = energy_loss(self._pixels(logits), annotations, probability, s.energy)
                weights |= {"mask": s.energy.mask_loss_weight, "energy": s.energy.weight}
            total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
            return {"loss": total, **{name: value.detach() for name, value in parts.items()}}

    def _full_label_loss(
        self, cost: Tensor, logits: Tensor, annotations: MaskSet, scores: Tensor, probability: Tensor | None
    ) -> dict[str, Tensor]:
        bonus = self.settings.matching_score_weight * scores.sigmoid()[:, :, None]
        chosen = match(cost - bonus, columns=annotations.present).rows
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
        s = self.settings
        competition = s.competition if s.competition and self.progress >= s.competition.start else None
        probabilities = None if probability is None else probability.detach().float().softmax(1)
        winners = single_label.winner(cost, probabilities, competition)
        won = torch.zeros_like(cost).scatter(1, winners, 1.0)
        propensities = single_label.propensity(winners, probabilities, s.inverse_propensity_power)
        shares = single_label.shares(cost, won, s.assignment, self.progress)
        shares = shares * single_label.importance(propensities, s.inverse_propensity_power)
        image, proposal = torch.nonzero(shares > LEAST_SHARE, as_tuple=True)
        pairs = self._pair_loss(logits[image, proposal], masks[image, 0])
        mask = (shares[image, proposal] * pairs).sum() / len(cost)
        selection = positive_unlabelled_risk(scores, won, s.selection, propensities)
        target = single_label.probability_target(cost, won, probabilities, competition)
        return _parts(mask, selection, probability, target)

    def _pair_loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Mask loss of L proposals ``(L, C, *S)``, each against its own mask ``(L, *S)``: ``(L,)``, with
        gradients."""
        loss = pairwise_mask_loss(self.settings.mask_loss, logits[:, None], masks[:, None], self.labels)
        return loss[:, 0, 0]

    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """All M proposals, or the ``samples`` with the highest scores; the same for every call."""
        logits, scores, probability = self(images)
        if probability is None:
            weights = torch.full_like(scores, 1.0 / scores.shape[1])
        else:
            weights = probability.softmax(1).clamp(min=LEAST_PROBABILITY)
        masks = self._pixels(logits)
        proposals = MaskSet.from_probabilities(masks, self.labels, weights, scores.sigmoid()).normalised()
        if samples is None or samples >= self.settings.proposals:
            return proposals
        return proposals.gather(descending(scores)[:, :samples]).normalised()


def _parts(mask: Tensor, selection: Tensor, probability: Tensor | None, share: Tensor) -> dict[str, Tensor]:
    """The terms of the loss: of masks, of scores, and the cross-entropy of probabilities towards shares ``(B,
    M)``."""
    parts = {"mask": mask, "selection": selection}
    if probability is not None:
        parts["probability"] = -(share * probability.log_softmax(1)).sum(1).mean()
    return parts


def _check(s: ModeProposalsSettings) -> None:
    """Raise `AmbisegError` where settings contradict each other."""
    if s.flow_time is not None and not s.flow_input:
        raise AmbisegError("flow_time has no effect without flow_input=true: set both, or leave it out")
    if s.probability is None:
        if s.competition is not None or s.inverse_propensity_power > 0:
            raise AmbisegError(
                "competition and inverse_propensity_power need the probability head: also set"
                " competition=none and inverse_propensity_power=0, or keep probability"
            )
        if s.energy is not None and s.energy.trains == "probabilities":
            raise AmbisegError(
                "energy.trains=probabilities needs the probability head: leave one of them out"
            )
    relaxed = s.assignment if isinstance(s.assignment, RelaxedAssignment) else None
    fractions = {
        "competition.start": s.competition.start if s.competition else 0.0,
        "assignment.share_of_others": relaxed.share_of_others if relaxed else 0.0,
        "energy.start": s.energy.start if s.energy else 0.0,
        "energy.uniform_share": s.energy.uniform_share if s.energy else 0.0,
    }
    for name, value in fractions.items():
        if not 0 <= value <= 1:
            raise AmbisegError(f"{name} is from 0 to 1, received {value}")
    if s.selection.expected_modes is not None and s.selection.expected_modes <= 0:
        raise AmbisegError(f"selection.expected_modes are above 0, received {s.selection.expected_modes}")
    if s.flow_path is not None and not s.flow_input:
        raise AmbisegError("flow_path has no effect without flow_input=true: set both, or leave it out")
    if s.flow_path is not None and not 0 <= (s.flow_time or 0.0) < 1:
        raise AmbisegError(f"flow_time of a velocity is from 0 up to 1, received {s.flow_time}")
    if s.competition is not None and s.competition.temperature <= 0:
        raise AmbisegError(
            f"competition.temperature is above 0, received {s.competition.temperature}: try 0.01"
        )
    if s.energy is None:
        return
    if not 0 <= s.energy.reserved_proposals < s.proposals:
        raise AmbisegError(
            f"energy.reserved_proposals are some of the {s.proposals} proposals, not all: received"
            f" {s.energy.reserved_proposals}"
        )
    if s.energy.reserved_proposals and relaxed:
        raise AmbisegError(
            "assignment=relaxed lets all proposals learn by the mask loss: leave it or"
            " energy.reserved_proposals out"
        )
