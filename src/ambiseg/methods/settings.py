"""Settings of every method: plain numbers with the paper's values as defaults, importable without torch.

The command line shows them (``ambiseg train METHOD --help``) and a run folder stores them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class ModeProposalsSettings:
    """Mode proposals: M masks with selection scores and probabilities from one forward pass."""

    proposals: int = 16
    """Number of proposals M; twice the number of modes you expect."""
    mask_loss: Literal["dice-focal", "dice", "mse"] = "dice-focal"
    """Loss of one proposal against one mask (table 6 of the paper)."""
    score_cost: float = 0.0
    """Full labels: weight of the score in the matching, as DETR has it; equally good copies do not change places then.
    0 matches by mask loss alone (the paper)."""
    selection_weight: float = 0.01
    """Weight lambda of the selection loss (equations 8 and 12); 0 trains no scores."""
    positive_prior: float = 0.5
    """Prior pi that a proposal is positive (single labels): modes / proposals."""
    pu_gradient: Literal["clamp", "kiryo"] = "clamp"
    """Where the estimated negative risk falls below 0: stop there (equation 11), or step back as Kiryo et al. do."""
    probability_head: bool = True
    """Predict the probability of every proposal (not in the paper); without it all are equally probable."""
    probability_weight: float = 0.1
    """Weight of the probability head's cross-entropy."""
    head_width: int = 32
    """Channels of the first layer of the selection and probability head; they double at each layer up to 4 times this."""
    image_cue: bool = True
    """Also show the selection and probability head the image (not in the paper): what tells how probable an outcome is, as a
    wind that prevails, need not be in features that were trained to draw masks."""
    duplicate_cue: bool = False
    """Also show the selection and probability head how alike every two proposals are (not in the paper), so that where
    outcomes coincide it keeps one of them."""
    head_spread: float = 0.1
    """Heads start as copies of one convolution, each scaled by a factor drawn from 1 +- this."""
    flow_input: bool = False
    """The network is that of a flow model and also sees one fixed noise and one fixed time (A.2); ``--init`` of a flow-matching
    run sets it."""
    flow_time: float | None = None
    """What that network is told of the time: t from 0 (noise) to 1, or, if it is of an EDM flow, log(sigma)/4 of the noise level.
    If left out, that all is noise."""
    settle: float = 1.0
    """Single labels: share of the training after which near-duplicates are settled, by `settle_prior` or by `settle_margin`. 1:
    never."""
    settle_prior: float = 0.0
    """Above 0 the proposal learns whose loss less this times the log of its probability is least, so that of copies the one
    that wins more often wins more and more; 0.01 suits dice-focal. 0: settle by the margin."""
    probability_target: Literal["winner", "posterior"] = "winner"
    """What the probability head learns of a mask that `settle_prior` has given away: that the winner won, or by how much, the
    posterior of every proposal (EM), which is fairer to modes that are nearly alike."""
    settle_margin: float = 0.2
    """Proposals whose loss is up to this share above the closest one's count as about as close: of them the most probable one
    learns a mask that is covered, the least probable one a mask that is not."""
    balance: float = 0.0
    """Single labels: weigh the mask loss by the winner's estimated probability to the power of minus this, so that rare
    modes count for more. 0: every visit counts the same (the paper); 1: every mode does, as with full labels. Above 0 the
    selection loss counts every mode alike. Needs the probability head, as `settle` does."""
    sharing: Literal["winner", "annealed", "relaxed"] = "winner"
    """Single labels: who learns from a mask. The closest proposal (the paper), also its near rivals at a falling
    temperature, or also all others with a small fixed share."""
    temperature: float = 0.1
    """Starting temperature of `annealed` sharing, in units of the mask loss; it falls to 0 over half the training."""
    relaxation: float = 0.05
    """Share of the losers together under `relaxed` sharing."""
    energy_weight: float = 0.0
    """Weight of the energy score of all proposals with their probabilities (not in the paper): a proper score, whose mean is the
    squared GED but for a constant. 0: none."""
    energy_start: float = 0.0
    """Share of the training after which the energy score counts."""
    energy_kernel: Literal["iou", "dice", "jensen-shannon", "scales"] = "iou"
    """Distance of masks in the energy score, soft: one minus the IoU or Dice, the root of the Jensen-Shannon divergence of
    pixels, or one minus the IoU at several scales."""
    energy_gradient: Literal["both", "masks", "probabilities"] = "both"
    """What the energy score trains."""
    energy_floor: float = 1.0
    """Share of the weight that is spread evenly over the proposals that the energy score trains, so that one of no probability
    learns too. 1: masks learn as if all were equally probable; 0: by their own probabilities."""
    energy_proposals: int = 0
    """Proposals that the energy score alone trains, and the only ones whose masks it trains; those of the others are left to the
    mask loss, their probabilities to both. 0: the energy score trains all masks, along with the mask loss."""
    winner_weight: float = 1.0
    """Weight of the mask loss once the energy score counts."""


@dataclass(frozen=True)
class FlowMatchingSettings:
    """Flow matching: samples of the distribution of masks by integrating a learnt velocity field."""

    path: Literal["linear", "cosine", "variance-preserving"] = "linear"
    """How noise turns into a mask (equation 16)."""
    parameterisation: Literal["velocity", "edm"] = "velocity"
    """What the network predicts: the velocity, or the mean mask as a preconditioned denoiser (Karras et al. 2022)."""
    sigma_data: float = 1.0
    """Standard deviation of mask values that the preconditioning of `edm` assumes."""
    target: Literal["sample", "posterior"] = "sample"
    """What the network learns from: the mask that was drawn, or (not in the paper) its mean given the noisy one, exact where all
    masks of an image and their probabilities are annotated: the same minimum from targets without chance."""
    times: Literal["uniform", "logit-normal"] = "uniform"
    """Distribution of training times; logit-normal prefers the middle."""
    time_shift: float = 1.0
    """Factor s of times ``t / (t + s (1 - t))``, in training and sampling (Esser et al. 2024): above 1 there are more of the
    early times, where it is decided which mask a noise becomes; the larger the masks, the earlier."""
    samples: int = 16
    """Number of masks drawn for an image."""
    sampler: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] = "heun"
    """Solver of the differential equation (13)."""
    steps: int = 10
    """Its steps from noise to mask; dopri5 chooses its own."""
    guidance: Literal["none", "particle", "spell"] = "none"
    """Push samples of one image apart: particle guidance (Corso et al. 2024) or SPELL (Kirchhof et al. 2025)."""
    guidance_strength: float = 1.0
    """Factor of the guidance."""
    guidance_radius: float = 20.0
    """SPELL: distance (L2 norm of masks in [-1, 1]) below which two samples are pushed apart."""


@dataclass(frozen=True)
class ProbabilisticUNetSettings:
    """Probabilistic U-Net: samples from one U-Net pass and a latent vector that says which mask to draw."""

    latent_size: int = 6
    """Dimensions N of the latent vector."""
    beta: float = 1.0
    """Weight of the KL between posterior and prior against the cross-entropy summed over pixels (equation 4)."""
    samples: int = 16
    """Number of masks drawn for an image."""
    combine_layers: int = 3
    """1x1 convolutions that combine features and latent."""
    kl_warmup: float = 0.0
    """Share of the training over which beta rises from 0 (not in the paper)."""
    free_bits: float = 0.0
    """KL of each latent dimension, in nats and as a mean over the batch, that costs nothing (not in the paper; Kingma et al.
    2016): dimensions that would fall idle stay in use."""
    log_variance_bound: float = 10.0
    """Log-variances stay within plus or minus this, smoothly (not in the paper); 0: no bound."""
    constraint: Literal["beta", "geco"] = "beta"
    """Weigh the KL by beta (the paper), or (Rezende and Viola 2018) minimise it under a bound on the cross-entropy; beta and its
    rise have no part in that."""
    geco_target: float = 0.05
    """Bound on the cross-entropy for `geco`, in nats per pixel."""
    likelihood_samples: int = 64
    """Latent samples for the likelihood of a mask."""


@dataclass(frozen=True)
class SSNSettings:
    """Stochastic segmentation networks: a joint normal law of all logits with a covariance of low rank."""

    rank: int = 10
    """Columns r of the covariance factor; at most the pixels times the channels of an image."""
    draws: int = 20
    """Monte-Carlo samples S of the likelihood in training."""
    antithetic: bool = False
    """Mirror half of the Monte-Carlo samples of a likelihood at the mean, as the authors' public code does."""
    mean_pretraining: float = 0.0
    """Share of the training in which only the mean is trained, by its cross-entropy, before the covariance joins; 0: none."""
    samples: int = 16
    """Number of masks drawn for an image."""
    temperature: float = 1.0
    """Factor on a sample's deviation from the mean: 0 draws the mean alone, below 1 there is less diversity."""
    sample_rank: int | None = None
    """Draw with only this many directions of the factor, those of the largest singular values; if left out, all."""
    likelihood_samples: int = 512
    """Monte-Carlo samples for the likelihood of a mask."""


@dataclass(frozen=True)
class FlowSSNSettings:
    """Flow-SSN: a learnt normal law of logits that a light flow turns into one with any covariance."""

    kind: Literal["continuous", "iaf", "dual"] = "continuous"
    """The flow: continuous in time (equation 19), an inverse autoregressive one (14), or that one with an entropy or a second
    model against collapse (15)."""
    prior: Literal["learned", "fixed"] = "learned"
    """The base of the flow: a network of the image, or N(0, I) under a flow that sees the image (continuous only)."""
    base_scale: Literal["auto", "learned", "one"] = "auto"
    """Standard deviations of the base: learnt, or 1; auto learns them for iaf and dual."""
    pushforward: Literal["identity", "log-softmax"] = "identity"
    """Continuous: what the base goes through first; log-softmax makes it log-logistic-normal."""
    flow_width: int = 16
    """Continuous: channels of the flow's own U-Net."""
    flow_depth: int = 3
    """Continuous: its number of resolutions."""
    drift: Literal["initial", "conditional"] = "initial"
    """Continuous: what the predicted mask is led away from: the draw that the flow began with (17), or (not in the paper) the
    mean of all draws that lead to the present state, which keeps the distribution at every time."""
    sampler: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] = "euler"
    """Continuous: solver of the differential equation (17)."""
    steps: int = 50
    """Continuous: its steps; dopri5 chooses its own."""
    tolerance: float = 1e-6
    """Continuous: relative and absolute tolerance of dopri5."""
    body: Literal["transformer", "linear"] = "transformer"
    """iaf, dual: causal transformer over strips of pixels, or one linear layer with MADE masks for images of one size."""
    strip_height: int = 1
    """Transformer: rows of a strip, whose pixels do not see each other."""
    strip_width: int = 8
    """Transformer: columns of a strip."""
    within_strip: bool = False
    """Transformer: a pixel also sees those before it in its own strip, through a linear map (not in the paper)."""
    layers: int = 1
    """Transformer: causal blocks."""
    body_width: int = 64
    """Transformer: channels."""
    heads: int = 4
    """Transformer: attention heads."""
    image_height: int | None = None
    """Linear: height of all images."""
    image_width: int | None = None
    """Linear: width of all images."""
    draws: int = 16
    """iaf, dual: Monte-Carlo samples S of the likelihood in training."""
    estimator: Literal["log-mean", "mean-log"] = "log-mean"
    """iaf, dual: the Monte-Carlo likelihood of an annotation (13), or the mean of its logarithm as (14) and (15) are printed,
    under which samples become one."""
    second: Literal["uniform", "maf"] = "uniform"
    """dual: the second model, improper uniform (15) or a masked autoregressive flow that is trained beside the first."""
    entropy_weight: float = 0.1
    """dual, uniform: weight beta of the entropy of the logits (15)."""
    samples: int = 16
    """Number of masks drawn for an image."""
    likelihood_samples: int = 512
    """Monte-Carlo samples for the likelihood of a mask."""


@dataclass(frozen=True)
class ATFMSettings:
    """ATFM: a normal law of logits, then a flow from its samples to masks."""

    prior_share: float = 0.5
    """Share of the training that is the prior's, before it is frozen and the flow's begins; 0 leaves the prior as it is, which is
    for one that is trained already: ``--init`` of an ssn run sets it."""
    rank: int = 10
    """Prior: columns of the covariance factor; at most the pixels times the channels of an image."""
    draws: int = 20
    """Prior: Monte-Carlo samples M of the likelihood in training (equation 5)."""
    estimator: Literal["log-mean", "mean-log"] = "log-mean"
    """Prior: the Monte-Carlo likelihood of an annotation, or the mean of its logarithm as (5) is printed, under which samples
    become one."""
    start: Literal["prior", "noise"] = "prior"
    """Where the flow begins: samples of the prior, or N(0, I) without any prior."""
    source: Literal["probabilities", "logits"] = "probabilities"
    """What of a sample of the prior the flow begins with: its sigmoid or softmax, or its logits as they are."""
    alpha: float = 1e-3
    """Weight of the Dice loss against the squared error of the velocity (algorithm 1); 0: none."""
    dice: Literal["soft", "hard"] = "soft"
    """The Dice loss of the mask that a state leads to as it is, or after a threshold, through which there is no gradient."""
    flow_width: int | None = None
    """Channels of the flow's network at full resolution; if left out, those of the backbone."""
    flow_depth: int | None = None
    """Its number of resolutions; if left out, that of the backbone."""
    flow_max_width: int | None = None
    """Its channels double up to this many; if left out, as in the backbone."""
    sampler: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] = "euler"
    """Solver of the flow."""
    steps: int = 25
    """Its steps; dopri5 chooses its own."""
    samples: int = 16
    """Number of masks drawn for an image."""


@dataclass(frozen=True)
class DropoutUNetSettings:
    """Dropout U-Net: dropout in the innermost levels of a U-Net, kept on when sampling."""

    dropout: float = 0.5
    """Share p of the activations that are dropped, 0 to below 1."""
    levels: int = 3
    """Dropout is in this many innermost levels of the encoder and of the decoder, or in all where there are fewer."""
    samples: int = 16
    """Number of masks drawn for an image; each is a full pass."""


@dataclass(frozen=True)
class UNetEnsembleSettings:
    """U-Net ensemble: U-Nets that differ in their initialisation and in the annotations they were shown."""

    members: int = 4
    """Number of U-Nets, each of which gives one mask; 1 is the plain U-Net."""


@dataclass(frozen=True)
class MHeadsSettings:
    """M-heads: M masks from one pass, trained so that the best of them explains each annotation."""

    heads: int = 16
    """Number of heads M, each of which gives one mask."""
    relaxation: float = 0.05
    """Weight epsilon of all heads but the best together, 0 to 1; 0 trains the best alone."""


@dataclass(frozen=True)
class Image2ImageVAESettings:
    """Image2Image VAE: a latent of a fixed prior goes into the U-Net beside the image."""

    latent_size: int = 6
    """Dimensions N of the latent space."""
    beta: float = 1.0
    """Weight of the Kullback-Leibler divergence against the cross-entropy of all pixels; 1 is the variational lower bound."""
    log_variance_bound: float = 10.0
    """The posterior's log-variances stay between minus and plus this."""
    samples: int = 16
    """Number of masks drawn for an image; each is a full pass."""


@dataclass(frozen=True)
class MoSESettings:
    """Mixture of stochastic experts: experts draw masks of one kind each, a gating network says how probable each kind is."""

    experts: int = 4
    """Number of experts K; the paper has 4 for lung nodules, 35 for 32 modes of street scenes."""
    latent_size: int = 1
    """Dimensions L of the experts' latents."""
    draws: int = 4
    """Samples S of each expert in training."""
    samples: int = 16
    """Number of masks for an image, of all experts together."""
    representation: Literal["compact", "standard"] = "compact"
    """Samples of every expert, weighted by its probability (equation 3), or of experts drawn by their probabilities, of equal
    weight (2)."""
    cost: Literal["auto", "iou", "cross-entropy"] = "auto"
    """Cost of a sample against an annotation: one minus the soft IoU, or the cross-entropy per pixel; auto is the IoU for binary
    masks and the cross-entropy for others, as in the paper."""
    coupling: Literal["greedy", "exact", "independent"] = "greedy"
    """Which sample learns from which annotation: optimal transport under a cap by the paper's greedy rule, by linear programming,
    or every sample from every annotation (the paper's ablation)."""
    cap: float = 0.5
    """Most mass gamma that one sample may take at the start of the training, 1 / (K S) to 1; it rises to 1."""
    cap_until: float = 0.5
    """Share of the training over which the cap rises to 1; 0: it is 1 from the start."""
    uniform_until: float = 0.0
    """Share of the training over which the annotations' weights go from uniform to their own; 0: their own from the start."""
    beta: float = 1.0
    """Weight of the gating network's loss; the paper has 10 with one annotation per image."""
    merge_threshold: float = 1.0
    """Experts whose mean masks overlap by this IoU share their gradient (algorithm 2); it falls from 1 to this over the
    training. 1 merges none."""
    expert_weights: Literal["gated", "uniform"] = "gated"
    """Experts' probabilities from the gating network, or all the same (the paper's ablation)."""
    stochastic: bool = True
    """Experts draw their latents; otherwise each gives one mask, of its mean (the paper's ablation)."""
    noise_layer: int | None = None
    """Layer of the decoder behind which the latent comes in, counted from 1 at the bottleneck; if left out, the last."""
    gating_layer: int | None = None
    """Layer of the encoder that the gating network reads, counted from 1 behind the first halving; if left out, the last."""
    gating_width: int = 192
    """Units of its two hidden layers."""
    energy_weight: float = 0.0
    """Weight of the energy score of the mixture of experts, from the samples of training (not in the paper). 0: none."""
    energy_kernel: Literal["iou", "dice", "jensen-shannon", "scales"] = "iou"
    """Distance of masks in the energy score, soft."""


EDM_NOISE = math.log(1e3) / 4
"""What an EDM flow is told where all is noise: `ambiseg.methods.paths.c_noise` at its greatest."""


def proposals_from_flow(settings: ModeProposalsSettings, flow: FlowMatchingSettings) -> ModeProposalsSettings:
    """Settings of proposals that start from the network of a flow model (Gerard and Sullivan, A.2).

    Example:
        >>> proposals_from_flow(ModeProposalsSettings(), FlowMatchingSettings()).flow_time
        0.0
    """
    noise = EDM_NOISE if flow.parameterisation == "edm" else 0.0
    time = noise if settings.flow_time is None else settings.flow_time
    return replace(settings, flow_input=True, flow_time=time)


def atfm_from_ssn(settings: ATFMSettings, ssn: SSNSettings) -> ATFMSettings:
    """Settings of a flow whose prior is an SSN that is trained already.

    Example:
        >>> chosen = atfm_from_ssn(ATFMSettings(), SSNSettings(rank=4))
        >>> chosen.prior_share, chosen.rank
        (0.0, 4)
    """
    return replace(settings, prior_share=0.0, rank=ssn.rank)
