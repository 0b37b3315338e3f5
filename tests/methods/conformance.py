"""What the conformance tests know of a method, and the small ambiguous problem on which they try it.

A method that is in `METHODS` is tested; it needs a line in `CASES` only where its defaults are too large
for a test or where it draws random numbers. A line ``name+kind`` tests one of its kinds more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build, method_info
from ambiseg.networks.settings import UNetSettings

BACKBONE = UNetSettings(width=8, depth=2)
SPACES = {"binary": LabelSpace.binary(), "multi-class": LabelSpace.of_classes(4)}
CHANNELS, SIZE = 3, 16


@dataclass(frozen=True)
class Case:
    """How a method is tested.

    Attributes:
        settings: values that replace its defaults.
        deterministic: predictions draw no random numbers, so images of a batch do not depend on each other.
        draws_labels: of several annotations the loss draws one, so only with one each is it the same at every call.
        learning: steps in which one batch is learnt, and the learning rate that they begin with; it falls to 0 along half a cosine, as
            in training. At a constant rate of 1e-2 an autoregressive flow never comes to rest, and chance decides where it is
            at the last step.
        gain: rise of HM IoU* in them; small where the pixels of a mask are drawn or decided one by one, for then patches that
            come and go as a whole cannot all be right.
        unused: beginnings of the names of parameters that no loss reaches, with good reason.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    deterministic: bool = True
    draws_labels: bool = False
    learning: tuple[int, float] = (150, 1e-2)
    gain: float = 0.3
    unused: tuple[str, ...] = ()


CASES: dict[str, Case] = {
    "mode-proposals": Case({"proposals": 5, "head_width": 8}),
    "flow-matching": Case({"samples": 24, "steps": 4}, deterministic=False, learning=(400, 4e-3)),
    "probabilistic-unet": Case({"samples": 24}, deterministic=False, learning=(450, 4e-3)),
    "ssn": Case({"rank": 1, "samples": 24}, deterministic=False),
    "flow-ssn": Case({"samples": 24, "steps": 10}, deterministic=False, learning=(400, 4e-3)),
    "flow-ssn+iaf": Case(
        {"kind": "iaf", "samples": 24, "body_width": 32}, deterministic=False, learning=(400, 4e-3)
    ),
    "flow-ssn+dual": Case(
        {"kind": "dual", "entropy_weight": 0.01, "samples": 24, "body_width": 32},
        deterministic=False,
        learning=(400, 4e-3),
    ),
    "atfm": Case({"rank": 1, "samples": 24}, deterministic=False, learning=(600, 4e-3)),
    "dropout-unet": Case({"samples": 40}, deterministic=False, gain=0.15),
    "unet-ensemble": Case({"members": 3}, draws_labels=True, gain=0.1),
    "m-heads": Case({"heads": 8}, draws_labels=True),
    "image2image-vae": Case({"samples": 24}, deterministic=False, learning=(400, 4e-3)),
    "mose": Case(
        # Untrained experts are all but equal, and which is nearest changes with the precision: beta keeps that small.
        {"latent_size": 2, "cap": 0.125, "cap_until": 0.1, "beta": 0.1, "gating_width": 16, "samples": 24},
        deterministic=False,
        learning=(250, 1e-2),
    ),
}


KINDS = [*METHODS, *(name for name in CASES if name not in METHODS)]
"""Everything that is tested."""


def name_of(kind: str) -> str:
    """The method of a kind."""
    return kind.partition("+")[0]


def case_of(method: str) -> Case:
    """The entry of a method; the defaults where it has none."""
    return CASES.get(method, Case())


def make(method: str, labels: LabelSpace, seed: int = 0, **settings: Any):
    """A small model of a method."""
    torch.manual_seed(seed)
    chosen = replace(method_info(name_of(method)).settings(), **{**case_of(method).settings, **settings})
    return build(name_of(method), CHANNELS, labels, BACKBONE, chosen)


def problem(
    labels: LabelSpace, mode: str = "full", seed: int = 0, count: int = 3
) -> tuple[torch.Tensor, MaskSet]:
    """Images of two patches on noise; each patch is annotated or not, independently: up to 4 modes per image.

    The last image has one mode fewer than the others. Single labels draw one of the modes.
    """
    g = torch.Generator().manual_seed(seed)
    classes = torch.arange(count * 2).view(count, 2) % (labels.classes - 1) + 1
    images = 0.3 * torch.randn(count, CHANNELS, SIZE, SIZE, generator=g)
    masks = torch.zeros(count, 4, SIZE, SIZE, dtype=torch.uint8)
    for b in range(count):
        for patch, where in enumerate([(slice(1, 7), slice(1 + b, 10)), (slice(9, 15), slice(3, 12 + b))]):
            images[b, patch % CHANNELS, where[0], where[1]] += 2.0 + float(classes[b, patch])
            masks[b, patch + 1, where[0], where[1]] = classes[b, patch].to(torch.uint8)
            masks[b, 3, where[0], where[1]] = classes[b, patch].to(torch.uint8)
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).repeat(count, 1)
    weights[-1] = torch.tensor([0.2, 0.3, 0.5, 0.0])
    modes = MaskSet(masks, weights, labels)
    return images, modes if mode == "full" else modes.draw(g)


def steps(model, labels: LabelSpace, mode: str, count: int, rate: float = 1e-2) -> None:
    """Train on the one problem, the rate falling to 0 along half a cosine; single labels are drawn anew at every step."""
    optimiser = torch.optim.Adam(model.parameters(), rate)
    for step in range(count):
        model.progress = step / count
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / count))
        images, annotations = problem(labels, mode)
        if mode == "single":
            annotations = problem(labels)[1].draw(torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        model.loss(images, annotations)["loss"].backward()
        optimiser.step()


def total(model, images, annotations, seed: int = 0) -> float:
    """The loss, with the same random numbers for every call."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return float(model.loss(images, annotations)["loss"])


def prediction(model, images, samples: int | None = None, seed: int = 0) -> MaskSet:
    """The prediction, with the same random numbers for every call."""
    with torch.no_grad():
        return model.eval().predict(images, samples, torch.Generator().manual_seed(seed))


def equal(one: MaskSet, other: MaskSet) -> bool:
    """Whether two predictions agree in every bit."""
    pairs = [(getattr(one, n), getattr(other, n)) for n in ("masks", "weights", "scores", "probabilities")]
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)
