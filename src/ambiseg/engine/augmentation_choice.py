r"""Which augmentation a run uses, and who decided it: the user, the data set, or a test on validation images.

The test. A small network f is trained without augmentation on coarse images x and their mean masks: f(x) are
the probabilities of the classes at each pixel. Let T be a random transformation of one kind of augmentation
and g its predictions averaged over T, the identity included,

    g(x) = E_T[ T^-1 f(T x) ].

For an image with masks y, S is the cross-entropy of predictions and mean mask, a proper score of the
probabilities at the pixels. If images and masks have the same distribution as transformed ones, then E S(T^-1
f(T x), y) = E S(f(x), y), and since S is convex, E S(g(x), y) <= E S(f(x), y): averaging never harms,
*whatever f has learnt*. So a g that is worse on validation images shows that the masks do not survive T, and
luck in training f cannot. The reverse costs power alone: an f that has learnt nothing shows nothing. A kind
is used where

    the paired test over images does not find g worse (level 20 %), and
    the upper bound of the harm (95 %) is below 1 % of what f has learnt, S(constant) - S(f).

The level is high on purpose: a harmless kind that is left out costs little, a harmful one that is used makes
probabilities wrong.

It cannot see masks whose joint distribution changes where the probabilities at all pixels stay, and it
refuses kinds whose transformed images look unlike any other (street scenes upside down), even where training
would get used to them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ambiseg.data.augmentation_kinds import (
    TESTED,
    Flip,
    Intensity,
    Kind,
    QuarterTurns,
    Scale,
    allowed,
    described,
)
from ambiseg.data.batches import BatchOrder, LabelView, Normalization
from ambiseg.data.source import SpreadSplit
from ambiseg.data.split import Split
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.nested_settings import from_values, to_values
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import UNet

SIDE, WIDTH, DEPTH = 24, 8, 3
"""Pixels of the shorter side that the pilot sees; its channels and resolutions."""
PILOT_UPDATES, WARMUP, BATCH, RATE = 200, 20, 16, 4e-3
TRAIN_IMAGES, VAL_IMAGES = 1000, 400
"""At most so many images are read for the test, evenly spread over the split."""
LEAST_UPDATES, LEAST_MINUTES, LEAST_IMAGES = 500, 2.0, 20
"""In a shorter run, or with fewer images of either split, nothing is tested and nothing is used."""
VIEWS = 9
"""Predictions of a validation image: as it is, and under all transformations of the four kinds."""
SHARE = 0.1
"""Largest share of the training that the test may take."""
SLOWNESS = 4
"""How many times longer an operation takes in the pilot than in the model, whose tensors are larger."""
LEVEL, MARGIN, OUTSIDE = 0.2, 0.01, 0.05
"""Level of the test; largest harm; how probable it is that the harm lies above its upper bound."""
NEAR = 1e-4
"""Probabilities are kept this far from 0 and 1."""

Pixels = tuple[Tensor, Tensor, Tensor]
"""Coarse images ``(n, C, h, w)``, the mean masks ``(n, K, h, w)`` and how much of a pixel is labelled ``(n, 1,
h, w)``."""


@dataclass(frozen=True)
class PairedTest:
    """One kind of augmentation in the test.

    Attributes:
        kind: which.
        harm: loss of score by averaging over it, as a share of what the pilot had learnt.
        upper: upper bound of the harm at 95 %.
        p: how probable so much harm is where there is none.
    """

    kind: str
    harm: float
    upper: float
    p: float

    @classmethod
    def of(cls, kind: str, differences: np.ndarray[Any, Any], learnt: float) -> PairedTest:
        """Student's test that the mean of paired differences ``(images,)`` is above 0; nothing passes where
        nothing was learnt.

        Example:
            >>> PairedTest.of("flip", np.array([0.1, 0.3, 0.2, 0.2]), 2.0)
            PairedTest(kind='flip', harm=0.1, upper=0.148, p=0.0081)
        """
        p, _, upper = _student(differences)
        if learnt <= 0:
            return cls(kind, math.inf, math.inf, round(p, 4))
        return cls(kind, round(float(differences.mean()) / learnt, 4), round(upper / learnt, 4), round(p, 4))

    @property
    def passed(self) -> bool:
        """Whether this kind may be used."""
        return self.p >= LEVEL and self.upper < MARGIN


def _student(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """p of a mean so high where it is 0 or less, and its one-sided bounds below and above."""
    count, mean = len(values), float(values.mean())
    if count < 2:
        return 1.0, -math.inf, math.inf
    error = float(values.std(ddof=1)) / math.sqrt(count)
    bound = error * float(stats.t.ppf(1 - OUTSIDE, count - 1))
    p = float(stats.t.sf(mean / error, count - 1)) if error > 0 else float(mean <= 0)
    return p, mean - bound, mean + bound


@dataclass(frozen=True)
class AugmentationChoice:
    """The kinds of augmentation of a run and the reason.

    Attributes:
        kinds: what is done to the samples.
        reason: who decided.
        tests: what was measured of the kinds that the data set does not name.
        images: validation images of the test.
        updates: steps of the pilot.
        share: cost of the test as a share of the training, estimated from counted operations; 0 where the
            length of the training is a time.
    """

    kinds: tuple[Kind, ...]
    reason: str
    tests: tuple[PairedTest, ...] = ()
    images: int = 0
    updates: int = 0
    share: float = 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AugmentationChoice:
        """The inverse of `to_dict`; `AmbisegError` for other values."""
        return from_values(cls, values, "augmentation")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the run folder; what is empty is left out."""
        return {key: v for key, v in to_values(self).items() if v or key == "kinds"}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the kinds."""
        return tuple(kind.kind for kind in self.kinds)

    def __str__(self) -> str:
        """One line: what is used, who decided, and the figures.

        Example:
            >>> print(AugmentationChoice((Flip(),), "dataset.yaml"))
            flip (dataset.yaml)
        """
        used = ", ".join(map(described, self.kinds)) or "none"
        measured = ", ".join(f"{t.kind} {100 * t.harm:+.1f} %, p {t.p:.2g}" for t in self.tests)
        return f"{used} ({self.reason}{': harm ' + measured if measured else ''})"


def told(choice: AugmentationChoice) -> str:
    """What training says about its augmentation, and how to forbid it.

    Example:
        >>> print(told(AugmentationChoice((), "settings")))
        augmentation: none (settings)
    """
    used = choice.names
    forbid = f"; --no-augment, or 'augment: {{{used[0]}: false}}' in dataset.yaml, forbids it" if used else ""
    return f"augmentation: {choice}{forbid}"


def choose_augmentation(
    train: TrainSettings,
    split: Split,
    val: Split,
    normalization: Normalization,
    steps: int | None,
    operations: float,
    where: str = "the data set",
) -> AugmentationChoice:
    """The augmentation of a run: as the settings say, else as ``dataset.yaml`` says, else by validation.

    Args:
        train: settings; ``augment`` says who decides.
        split, val: training and validation images.
        normalization: of the images.
        steps: length of the training, None where it is a time.
        operations: floating-point operations of one step.
        where: what to call the data set in messages.

    Raises:
        AmbisegError: the settings ask for a kind that the data set forbids.
    """
    info = split.info
    if isinstance(train.augment, tuple):
        for kind in train.augment:
            if allowed(info.augment, kind.kind) is False:
                raise AmbisegError(
                    f"augment: {kind.kind} is forbidden by dataset.yaml of {where}: leave it out, or correct"
                    " that file"
                )
        return AugmentationChoice(train.augment, "settings")
    if train.augment is not True and train.augment != "auto":
        return AugmentationChoice((), "settings")
    says = {kind: allowed(info.augment, kind.kind) for kind in TESTED}
    open_kinds = [kind for kind in TESTED if says[kind] is None]
    chosen = tuple(kind for kind in TESTED if says[kind])
    if not open_kinds:
        return AugmentationChoice(chosen, "dataset.yaml")
    if train.augment is True:
        flips = tuple(kind for kind in open_kinds if kind == Flip())
        return AugmentationChoice(flips + chosen, "dataset.yaml and defaults")
    named = (
        f"{'dataset.yaml; ' if len(open_kinds) < len(TESTED) else ''}{', '.join(k.kind for k in open_kinds)}"
    )
    if steps is None:
        assert train.minutes is not None
        too_short = train.minutes < LEAST_MINUTES
        deadline = time.monotonic() + SHARE * 60 * train.minutes
    else:
        too_short, deadline = steps < LEAST_UPDATES, math.inf
    lacking = [
        f"{LEAST_IMAGES} images in the split {name!r}, which has {len(images)}"
        for name, images in (("train", split), ("val", val))
        if len(images) < LEAST_IMAGES
    ]
    if too_short:
        lacking.insert(0, f"{LEAST_UPDATES} updates or {LEAST_MINUTES:g} minutes of training")
    if lacking:
        return AugmentationChoice(chosen, f"{named} not tested: that takes {' and '.join(lacking)}")
    pilot = _Pilot(split, val, normalization, train)
    share = 0.0 if steps is None else round(pilot.operations / (operations * steps), 3)
    if share > SHARE:
        return AugmentationChoice(chosen, f"{named} not tested: that is {100 * share:.0f} % of the training")
    if not pilot.trained(deadline):
        return AugmentationChoice(
            chosen, f"{named} not tested: that takes over {100 * SHARE:g} % of the time"
        )
    tests = pilot.tests(open_kinds)
    passed = tuple(kind for kind, test in zip(open_kinds, tests, strict=True) if test.passed)
    return AugmentationChoice(
        tuple(kind for kind in TESTED if kind in chosen + passed),
        f"{named} tested on {len(pilot.val[0])} validation images",
        tests=tests,
        images=len(pilot.val[0]),
        updates=PILOT_UPDATES,
        share=share,
    )


class _Pilot:
    """The small network f, which reads its images when it is trained."""

    def __init__(self, split: Split, val: Split, normalization: Normalization, train: TrainSettings) -> None:
        self.seed, self.labels = train.seed, split.info.labels
        self.views = (
            LabelView(SpreadSplit(split, TRAIN_IMAGES), normalization, train.labels, seed=train.seed),
            LabelView(SpreadSplit(val, VAL_IMAGES), normalization),
        )
        image = self.views[0][0].image
        factor = min(1.0, SIDE / min(image.shape[1:]))
        self.size = (round(image.shape[1] * factor), round(image.shape[2] * factor))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.head = nn.Conv2d(WIDTH, self.labels.channels, 1)
            network = nn.Sequential(UNet(len(image), UNetSettings(width=WIDTH, depth=DEPTH)), self.head)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.network(image.new_zeros(1, len(image), *self.size))
        samples = 3 * BATCH * PILOT_UPDATES + VIEWS * len(self.views[1])
        self.operations = SLOWNESS * counter.get_total_flops() * samples

    def trained(self, deadline: float) -> bool:
        """Train it from the constant prediction on; False where time ran out."""
        (images, target, labelled), self.val = (_coarse(view, self.size) for view in self.views)
        self.rate = (target.sum((0, 2, 3)) / labelled.sum().clamp(min=1)).clamp(NEAR, 1 - NEAR)
        nn.init.zeros_(self.head.weight)
        self.head.bias = nn.Parameter(self.rate.logit() if self.labels.is_binary else self.rate.log())
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=RATE, weight_decay=0.01)
        order = iter(BatchOrder(len(images), BATCH, self.seed))
        for step in range(PILOT_UPDATES):
            if time.monotonic() > deadline:
                return False
            rise, fall = min(1.0, (step + 1) / WARMUP), (1 + math.cos(math.pi * step / PILOT_UPDATES)) / 2
            optimizer.param_groups[0]["lr"] = RATE * rise * fall
            chosen = [index for _, index in next(order)]
            loss = _score(self._predict(images[chosen]), target[chosen], labelled[chosen], self.labels).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
        return True

    @torch.no_grad()
    def tests(self, kinds: Sequence[Kind]) -> tuple[PairedTest, ...]:
        """The test of each kind on the validation images."""
        images, target, labelled = self.val
        own = self._predict(images)
        constant = self.rate.view(1, -1, 1, 1).expand_as(own)
        score, of_constant = (_score(q, target, labelled, self.labels) for q in (own, constant))
        gain = (of_constant - score).double().numpy()
        learnt = float(gain.mean()) if _student(gain)[1] > 0 else 0.0
        found = []
        for kind in kinds:
            total, count = own.clone(), torch.ones_like(labelled)
            for moved, back in _views(kind, images, np.random.default_rng(self.seed)):
                total += back(self._predict(moved))
                count += back(torch.ones_like(labelled))
            worse = _score(total / count, target, labelled, self.labels) - score
            found.append(PairedTest.of(kind.kind, worse.double().numpy(), learnt))
        return tuple(found)

    def _predict(self, images: Tensor) -> Tensor:
        logits = [self.network(part) for part in torch.split(images, 64)]
        return self.labels.probabilities(torch.cat(logits))


def _coarse(view: LabelView, size: tuple[int, int]) -> Pixels:
    """Images and mean masks, averaged over blocks of pixels."""
    found = []
    for index in range(len(view)):
        item = view[index]
        masks, labels = item.annotations, view.labels
        target = sum(
            weight * labels.one_hot(mask, dim=0)
            for mask, weight in zip(masks.masks[0], masks.weights[0], strict=True)
        )
        labelled = torch.einsum("n,nhw->hw", masks.weights[0], labels.valid(masks.masks[0]).float())
        parts = (item.image, target, labelled[None])
        found.append([functional.adaptive_avg_pool2d(part, size) for part in parts])
    images, targets, counts = map(torch.stack, zip(*found, strict=True))
    return images.contiguous(memory_format=torch.channels_last), targets, counts


def _score(probabilities: Tensor, target: Tensor, labelled: Tensor, labels: LabelSpace) -> Tensor:
    """Cross-entropy of predictions and mean masks, the mean over labelled pixels, ``(n,)``."""
    q = labels.all_classes(probabilities.clamp(NEAR, 1 - NEAR), 1)
    p = torch.cat([labelled - target, target], 1) if labels.is_binary else target
    return -(p * q.log()).sum((1, 2, 3)) / labelled.sum((1, 2, 3)).clamp(min=NEAR)


def _views(
    kind: Kind, images: Tensor, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Transformed images ``T x``, each with the inverse of T for predictions; what T moved outside is 0."""
    if isinstance(kind, Flip):
        yield images.flip(-1), lambda q: q.flip(-1)
    elif isinstance(kind, QuarterTurns):
        square = images.shape[-1] == images.shape[-2]
        for turns in (1, 2, 3) if square else (2,):
            yield images.rot90(turns, (-2, -1)), partial(torch.rot90, k=-turns, dims=(-2, -1))
    elif isinstance(kind, Scale):
        half = math.sqrt(kind.high)
        for factor in (half, 1 / half):
            yield _zoomed(images, factor, "border"), partial(_zoomed, factor=1 / factor, outside="zeros")
    elif isinstance(kind, Intensity):
        limit, shape = kind.range, (len(images), images.shape[1], 1, 1)
        for _ in range(2):
            gain, offset = (torch.from_numpy(rng.uniform(-limit, limit, shape)).to(images) for _ in range(2))
            yield images * (1 + gain) + offset, lambda q: q


def _zoomed(images: Tensor, factor: float, outside: str) -> Tensor:
    theta = torch.tensor([[[1 / factor, 0, 0], [0, 1 / factor, 0]]]).expand(len(images), -1, -1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode=outside, align_corners=False)
