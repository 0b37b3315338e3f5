"""Draw the schematic of every method: docs/figures/<method>.png.

    python docs/figures/draw.py

All figures share one visual language. Blue: networks. Orange: random numbers. Violet: annotations. Green: masks
with their weights below. Dashed: only in training. The scene and its masks come from the wildfire simulator.
Masks of methods are made by hand from these, so a figure shows how a method works, not how well.
"""

from __future__ import annotations

import argparse
import io
import textwrap
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Line
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from ambiseg.data.simulators.wildfire import simulate_wildfire

Array = NDArray[np.float64]
Share = Array | int
WIDTH, HEIGHT, FONT, LEADING = 1400, 450, 15.0, 26
NETWORK, RANDOM, ANNOTATION, MASK = "#2b6cb0", "#c8640c", "#7a4bb0", "#23824f"
INK, GREY, PALE = "#1f2328", "#5a6270", "#98a0aa"
FILL = {NETWORK: "#dceafa", RANDOM: "#fdebd8"}
DASHES = (0, (4, 3))
PROBABILITIES = (8 / 15, 4 / 15, 2 / 15, 1 / 15)
WEIGHTS = ("53 %", "27 %", "13 %", "7 %")


class Part(NamedTuple):
    """A rectangle of the drawing in pixels, from its upper left corner; of size 0 a point."""

    x: float
    y: float
    w: float = 0
    h: float = 0


def touch(a: Part, b: Part) -> tuple[float, float]:
    """Where a line from ``a`` to ``b`` leaves ``a``: level or upright where the two allow it."""
    low, high = max(a.y, b.y), min(a.y + a.h, b.y + b.h)
    start, end = max(a.x, b.x), min(a.x + a.w, b.x + b.w)
    if low > high and start <= end:
        return (start + end) / 2, a.y + a.h if b.y > a.y else a.y
    return a.x + a.w if b.x > a.x else a.x, (low + high) / 2 if low <= high else a.y + a.h / 2


def rgb(colour: str) -> Array:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def noise(seed: int) -> Array:
    """Normal numbers in shades of orange."""
    value = np.random.default_rng(seed).standard_normal((32, 32, 1)).clip(-2, 2) / 4 + 0.5
    return np.asarray(np.kron(1 - value * (1 - rgb(RANDOM)), np.ones((2, 2, 1))), np.float64)


class Scene:
    """Four outcomes of a simulated fire, ``(4, 64, 64)``, and pictures of it, ``(64, 64, 3)``."""

    def __init__(self, index: int) -> None:
        sample = simulate_wildfire(seed=0, index=index)
        ground = sample.image[2, :, :, None].astype(np.float64)
        self.grey = 0.35 + 0.55 * (ground - ground.min()) / np.ptp(ground)
        self.image = np.where(sample.image[6, :, :, None] == 1, [0.75, 0.13, 0.10], self.grey)
        self.truth = sample.masks[[5, 1, 7, 3]].astype(np.float64)
        self.mean: Array = np.tensordot(PROBABILITIES, self.truth, 1)
        self.factors = np.sqrt(PROBABILITIES)[:, None, None] * (self.truth - self.mean)

    def mask(self, share: Share, colour: str = MASK) -> Array:
        """An outcome, a mask, or the probability of every pixel, over pale ground."""
        share = self.truth[share] if isinstance(share, int) else share
        ground = 0.84 + 0.14 * self.grey
        return np.asarray(ground + share[..., None] * (rgb(colour) - ground))

    def varied(self, share: Array, seed: int, amount: float, width: float = 3) -> Array:
        """A mask of these probabilities, thresholded after smooth noise near the object."""
        field = gaussian_filter(np.random.default_rng(seed).standard_normal(share.shape), width)
        near = gaussian_filter(share, 3) > 0.1
        return np.asarray(gaussian_filter(share, 1) + amount * near * field / field.std() > 0.5, np.float64)


FIRE = Scene(81)


class Sheet:
    """One figure; most calls draw a part and return its rectangle."""

    def __init__(self) -> None:
        self.figure = Figure((WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="none")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), autoscale_on=False)
        self.axes.axis("off")
        self.frame(Part(2, 2, WIDTH - 4, HEIGHT - 4), "white", "#d0d7de", 22)

    def frame(self, p: Part, fill: str, edge: str, radius: float, dashed: bool = False) -> Part:
        style, line = f"round,pad=0,rounding_size={radius}", DASHES if dashed else "-"
        self.axes.add_patch(FancyBboxPatch((p.x, p.y), p.w, p.h, style, fc=fill, ec=edge, lw=2, ls=line))
        return p

    def text(self, x: float, y: float, words: str, colour: str = INK, at: str = "center") -> None:
        for i, line in enumerate(lines := words.split("\n")):
            down = y + LEADING * (i - (len(lines) - 1) / 2)
            self.axes.text(x, down, line, color=colour, fontsize=FONT, ha=at, va="center_baseline", zorder=3)

    def caption(self, part: Part, words: str) -> Part:
        self.text(part.x + part.w / 2, part.y + part.h + 15 + LEADING / 2 * words.count("\n"), words)
        return part

    def box(self, x: float, y: float, w: float, h: float, words: str, dashed: bool = False) -> Part:
        colour = RANDOM if words == "z" else NETWORK
        self.text(x + w / 2, y + h / 2, words)
        return self.frame(Part(x, y, w, h), FILL[colour], colour, 12, dashed)

    def training(
        self, y: float, note: str, width: int, x: float = 25, w: float = 1350, inset: float = 16
    ) -> None:
        """The frame of what happens only in training, down to the lower edge, and a note in lines of so many letters."""
        self.frame(Part(x, y, w, HEIGHT - 18 - y), "#fafafa", GREY, 14, True)
        self.text(x + 16, y + 22, "training only", GREY, "left")
        lines = textwrap.fill(note, width, break_on_hyphens=False)
        self.text(x + inset, (y + HEIGHT) / 2 + (8 if inset == 16 else -9), lines, at="left")

    def picture(
        self, x: float, y: float, size: float, shown: Array, words: str = "", edge: str = GREY
    ) -> Part:
        extent = (x, x + size, y + size, y)
        self.axes.imshow(shown.clip(0, 1), extent=extent, aspect="auto", interpolation="nearest", zorder=1)
        return self.caption(self.frame(Part(x, y, size, size), "none", edge, 0.1), words)

    def image(self, x: float, y: float, words: str = "image") -> Part:
        return self.picture(x, y, 110, FIRE.image, words)

    def mask(self, x: float, y: float, size: float, share: Share, words: str = "", colour: str = MASK,
             scene: Scene = FIRE) -> Part:  # fmt: skip
        return self.picture(x, y, size, scene.mask(share, colour), words, colour)

    def samples(self, source: Part, y: float, words: str, shown: Sequence[Share] = (0, 1, 0, 2)) -> None:
        """Four masks of equal weight at the right, and the arrow to them."""
        for i, share in enumerate(shown):
            self.mask(1110 + i % 2 * 108, 15 + i // 2 * 130, 96, share, "1/K")
        self.arrow(Part(source.x + source.w, y), Part(1095, y), words=words)

    def normal(self, x: float, y: float, w: float, h: float, words: str = "", dashed: bool = False) -> Part:
        """A normal distribution."""
        t = np.linspace(-3, 3, 60)
        curve = y + h - 8 - (h - 18) * np.exp(-(t**2))
        self.axes.plot(x + w * (t + 3) / 6, curve, color=RANDOM, lw=2, ls="--" if dashed else "-")
        return self.caption(self.frame(Part(x, y, w, h), FILL[RANDOM], RANDOM, 8, dashed), words)

    def arrow(self, *stops: Part, words: str = "", training: bool = False, style: str = "-|>", width: float = 2,
              colour: str = "") -> None:  # fmt: skip
        """From part to part, over points between; words stand above the middle of its first piece."""
        points = [touch(*stops[:2]), *((p.x, p.y) for p in stops[1:-1]), touch(stops[-1], stops[-2])]
        colour = colour or (GREY if training else INK)
        line = FancyArrowPatch(path=Line(points), arrowstyle=style, mutation_scale=18, lw=width, color=colour,
                               ls=DASHES if training else "-", capstyle="butt")  # fmt: skip
        self.axes.add_patch(line)
        (x0, y0), (x1, y1) = points[:2]
        self.text((x0 + x1) / 2, (y0 + y1) / 2 - 15, words, colour)

    def chain(self, *parts: Part, training: bool = False) -> None:
        for a, b in pairwise(parts):
            self.arrow(a, b, training=training)

    def flows(self, x: float, step: float, starts: Sequence[Array], words: Sequence[str]) -> None:
        """From two random starts to two masks, with the arrows of the network below."""
        last = len(words) - 1
        for row, start in enumerate(starts):
            y, edges, ends = 15 + 97 * row, (RANDOM, *[GREY] * (last - 1), MASK), FIRE.mask(row)
            states = [start + i / last * (ends - start) for i in range(last + 1)]
            drawn = zip(states, words if row else [""] * len(words), edges, strict=True)
            self.chain(*(self.picture(x + step * i, y, 84, *parts) for i, parts in enumerate(drawn)))
            self.text(x + step * last + 104, y + 42, "weight 1/K", at="left")
        for i in range(last):
            self.arrow(Part(at := x + 42 + step * (i + 0.5), 240), Part(at, 160))

    def straight(self, note: str, start: Array, words: str, network: str, learns: str) -> None:
        """How a flow learns from states on a straight line."""
        self.training(305, note, 38)
        self.picture(490, 320, 76, start, words, RANDOM)
        truth = self.mask(615, 320, 76, 1, "annotation", ANNOTATION)
        state = self.picture(765, 320, 76, (start + FIRE.mask(1, ANNOTATION)) / 2, "state")
        self.text(590, 358, "+")
        net = self.box(895, 335, 110, 46, network, dashed=True)
        self.chain(truth, state, net, Part(1060, 358), training=True)
        self.text(1072, 358, learns, at="left")

    def latent(self, words: str, inputs: Sequence[Array], note: str) -> tuple[Part, Part]:
        """A normal distribution and z, in training of the posterior net."""
        self.training(305, note, 52, inset=765)
        normal, z = self.normal(430, 165, 120, 70, words), self.box(640, 177, 60, 46, "z")
        self.arrow(normal, z, words="draw")
        for i, shown in enumerate(inputs):
            self.picture(114 - 74 * i, 348, 66, shown, "", GREY if i else ANNOTATION)
        net = self.box(210, 346, 150, 70, "posterior net", dashed=True)
        posterior = self.normal(430, 346, 120, 70, dashed=True)
        self.chain(Part(180, 381), net, posterior, training=True)
        self.arrow(posterior, Part(670, 381), z, training=True, words="draw")
        self.arrow(Part(490, 266), posterior, training=True, style="<|-|>")
        self.text(515, 290, "KL", GREY)
        return normal, z

    def rows(
        self, a: Part, boxes: Sequence[Part], x: float, shown: Sequence[Share], words: str
    ) -> list[Part]:
        """A network for every mask: arrows from a part to boxes that lie below each other, and their masks."""
        found = []
        for box, share in zip(boxes, shown, strict=True):
            y = box.y + box.h / 2
            self.arrow(a, Part(boxes[0].x - 40, a.y + a.h / 2), Part(boxes[0].x - 40, y), box)
            found.append(self.mask(x, y - 42, 84, share))
            self.arrow(box, found[-1])
            self.text(x + 100, y, words, at="left")
        return found

    def save(self, path: Path) -> None:
        """With a palette, so that the file is small; its last colour is that of the transparent corners."""
        self.figure.savefig(buffer := io.BytesIO(), format="rgba")
        pixels = np.frombuffer(buffer.getvalue(), np.uint8).reshape(HEIGHT, WIDTH, 4)
        drawn = Image.fromarray(pixels[..., :3]).quantize(255, Image.Quantize.MAXCOVERAGE, kmeans=3)
        drawn.putpalette([*(drawn.getpalette() or []), 255, 255, 255])
        drawn.paste(255, mask=Image.fromarray(pixels[..., 3] < 128))
        drawn.save(path, optimize=True, transparency=255)


# fmt: off
def mode_proposals(s: Sheet) -> None:
    shown: list[Share] = [0, 1, 2, 3, FIRE.varied(FIRE.truth[0], 3, 0.14)]
    found = [s.mask(490 + 108 * k, 45, 96, share) for k, share in enumerate(shown)]
    s.chain(s.image(30, 45), s.box(180, 50, 120, 100, "U-Net,\none pass"), s.box(340, 50, 110, 100, "M heads"), found[0])
    s.chain(found[-1], s.box(1085, 45, 285, 96, "selection head\nsees all masks at once"), Part(1228, 170))
    for k, words in enumerate(("1.0\n53 %", "1.0\n27 %", "0.9\n13 %", "1.0\n7 %", "0.0\n0 %")):
        s.text(538 + 108 * k, 174, words, GREY if k == 4 else INK)
    s.text(1040, 187, "selection score,\nprobability", at="left")
    s.training(225, "Hungarian matching pairs each annotation with one mask. The mask loss compares pairs.", 31)
    for i, k in enumerate((1, 0, 3, 2)):
        truth = s.mask(490 + 108 * i, 310, 96, k, "", ANNOTATION)
        s.arrow(Part(truth.x + 48, 310), Part(538 + 108 * k, 206), training=True, style="<|-|>")
    s.text(985, 277, "no partner:\nscore 0", GREY)
    s.arrow(Part(970, 245), Part(970, 206), training=True)
    s.text(1045, 355, "Scores learn which masks\nhave a partner, probabilities\nthe weight of the partner.", at="left")


def energy_score(s: Sheet) -> None:
    s.chain(s.image(30, 145), s.box(180, 150, 130, 100, "U-Net,\none pass"), Part(385, 200))
    found = [s.mask(400 + k % 2 * 260, 30 + k // 2 * 225, 120, k, WEIGHTS[k]) for k in range(4)]
    for a, b in ((0, 1), (2, 3), (0, 2), (1, 3)):
        start = found[a] if b == a + 1 else Part(found[a].x + 60, 182)
        s.arrow(start, found[b], training=True, style="<|-|>", colour=RANDOM)
    s.text(590, 202, "apart", RANDOM)
    note = "The energy score: twice the mean distance to the annotations minus the mean distance between two masks." \
        " Both means count masks by probability."
    s.training(15, note, 22, 930, 445, 180)
    truth = s.mask(960, 145, 120, 0, "annotation", ANNOTATION)
    for y in (90, 315):
        s.arrow(Part(780, y), truth, training=True, colour=ANNOTATION)
        s.text(865, 90 if y == 90 else 315, "towards", ANNOTATION)


def flow_matching(s: Sheet) -> None:
    field = s.box(200, 240, 1010, 46, "U-Net: velocity of the state at time t, given the image; run in every step")
    s.arrow(s.image(30, 148), field)
    s.flows(205, 230, [noise(0), noise(1)], ("noise, t = 0", "t = 0.25", "t = 0.5", "t = 0.75", "mask, t = 1"))
    note = "An annotation is drawn by its weight, noise and time at random."
    s.straight(note, noise(5), "noise", "U-Net", "learns the velocity\nannotation − noise")


def probabilistic_unet(s: Sheet, words: str = "p(z | image)", seen: str = "image and annotation") -> None:
    image, prior = s.image(30, 70), s.box(210, 160, 150, 80, "prior net")
    net, last = s.box(210, 25, 150, 80, "U-Net,\none pass"), s.box(720, 25, 220, 80, "last layers:\n1 × 1 convolutions")
    note = f"The posterior net sees {seen}. Its z must give the annotation (cross-entropy). KL keeps" \
        " prior and posterior close."
    normal, z = s.latent(words, [FIRE.mask(1, ANNOTATION), FIRE.image], note)
    for box in (net, prior):
        s.arrow(image, Part(175, 125), Part(175, box.y + 40), box)
    s.arrow(net, last, words="features of the image")
    s.arrow(prior, normal)
    s.arrow(z, Part(830, 200), last)
    s.samples(last, 65, "K masks")


def c_probabilistic_unet(s: Sheet) -> None:
    probabilistic_unet(s, "p(z | image, A)", "image, annotation and annotator A")
    s.arrow(s.box(20, 214, 145, 42, "annotator A"), Part(210, 225, 150, 10))


def ssn(s: Sheet, note: str = "Maximised: how probable the annotations are under the distribution, estimated from many"
        " draws.") -> None:
    net, mean = s.box(180, 105, 120, 100, "U-Net,\none pass"), s.picture(360, 15, 96, FIRE.mask(FIRE.mean), "mean")
    normal, factors = s.normal(750, 75, 160, 100, "normal distribution\nof all logits"), []
    for i, field in enumerate(FIRE.factors[:3, :, :, None] / 0.7):
        shown = 1 - abs(field) * (1 - np.where(field > 0, rgb(MASK), rgb(GREY)))
        factors.append(s.picture(360 + 108 * i, 165, 96, shown))
    s.text(516, 276, "low-rank factor, and a variance per pixel")
    s.chain(s.image(30, 100), net, mean, normal)
    s.chain(net, factors[0])
    s.chain(factors[-1], normal)
    numbers = (np.random.default_rng(seed).standard_normal(4) for seed in (3, 11, 4, 7))
    draws = [np.asarray(FIRE.mean + np.tensordot(e, FIRE.factors, 1) > 0.5, np.float64) for e in numbers]
    s.samples(normal, 125, "draw K times", draws)
    s.training(310, note, 52)
    truth = [s.mask(756 + 108 * k, 324, 96, k, "", ANNOTATION) for k in range(4)]
    s.arrow(truth[0], Part(804, 240), training=True)


def c_ssn(s: Sheet) -> None:
    ssn(s, "Maximised: how probable each annotation is under the distribution of its annotator.")
    box = s.box(150, 232, 145, 42, "annotator A")
    for y in (188, 111):
        s.arrow(box, Part(330, 253), Part(330, y))


def flow_ssn(s: Sheet) -> None:
    base, mean = s.box(165, 55, 170, 100, "base network:\nlarge U-Net,\none pass"), FIRE.mask(FIRE.mean)
    s.chain(s.image(30, 50), base, s.picture(370, 57, 96, mean, "mean"))
    s.box(640, 240, 560, 46, "flow: small U-Net, does not see the image")
    for row in (0, 1):
        s.picture(516, 15 + 97 * row, 84, noise(row), "noise" if row else "", RANDOM)
        s.text(620, 57 + 97 * row, "=")
    s.text(491, 105, "+")
    start = [(mean + noise(row)) / 2 for row in (0, 1)]
    s.flows(640, 238, start, ("prior, t = 0", "t = 0.5", "mask, t = 1"))
    note = "An annotation is drawn by its weight. Both networks learn together."
    s.straight(note, start[1], "prior", "flow", "predicts the annotation\n(cross-entropy)")


def mose(s: Sheet) -> None:
    net, gate = s.box(175, 85, 110, 100, "U-Net,\none pass"), s.box(175, 250, 110, 60, "gate")
    last = s.box(560, 45, 90, 305, "last\nlayers")
    s.chain(s.image(30, 80), net, gate)
    s.text(315, 330, "weights")
    s.arrow(net, Part(230, 25), Part(605, 25), last)
    note = "Optimal transport couples masks with annotations. The loss is the cost of this coupling. The gate learns" \
        " how much each expert received."
    s.training(10, note, 26, 900, 475, 185)
    for k, (weight, half) in enumerate((("60 %", "30 %"), ("30 %", "15 %"), ("10 %", "5 %"))):
        y, masks = 54 + 102 * k, [FIRE.varied(FIRE.truth[k], k + 9 * i, 0.15) for i in (0, 1)]
        normal = s.normal(390, y, 120, 60, f"expert {k + 1}: {weight}")
        s.arrow(gate, Part(335, 280), Part(335, y + 30), normal)
        s.arrow(normal, Part(560, y + 30))
        found = [s.mask(690 + 82 * i, y, 70, mask, half) for i, mask in enumerate(masks)]
        s.arrow(Part(650, y + 35), found[0])
        s.arrow(found[1], s.mask(990, y, 70, k, weight, ANNOTATION), training=True)
    s.text(30, 400, "Every expert draws its own z, which changes the features before the last layers.", at="left")


def atfm(s: Sheet) -> None:
    image, field = s.image(30, 15), s.box(690, 240, 515, 46, "flow: U-Net sees image, state and time")
    normal = s.normal(345, 37, 130, 76, "distribution\nof logits")
    s.chain(image, s.box(175, 35, 130, 80, "prior: SSN,\none pass"), normal)
    s.arrow(Part(85, 152), Part(85, 263), field)
    soft = [FIRE.mask(gaussian_filter(0.75 * FIRE.truth[k] + 0.25 * FIRE.mean, 3)) for k in (0, 1)]
    s.flows(690, 215, soft, ("start, t = 0", "t = 0.5", "mask, t = 1"))
    s.arrow(normal, Part(680, 75), words="draw")
    s.picture(500, 112, 84, 0.5 + noise(0) / 2, "noise", PALE)
    s.arrow(Part(588, 154), Part(684, 154), words="skipped", colour=PALE)
    note = "First the prior learns, as an SSN. Then it is frozen and the flow learns."
    s.straight(note, soft[1], "start", "flow", "learns the velocity\nannotation − start")


def dropout_unet(s: Sheet) -> None:
    boxes, drops = [s.box(240, 15 + 97 * row, 300, 86, "") for row in range(3)], np.random.default_rng(0)
    for box in boxes:
        for i, count in enumerate((6, 5, 4, 3, 2, 3, 4, 5, 6)):
            for j in range(count):
                fill, edge = ("white", RANDOM) if 0 < i < 8 and drops.random() < 0.5 else (NETWORK, NETWORK)
                at = (box.x + 30 * (i + 1), box.y + 43 + 13 * (j - (count - 1) / 2))
                s.axes.add_patch(Circle(at, 4.5, fc=fill, ec=edge, lw=1.5, zorder=2))
    masks = [FIRE.varied(FIRE.mean, seed, 0.2, 2) for seed in range(3)]
    s.rows(s.image(30, 100), boxes, 660, masks, "weight 1/K")
    s.text(940, 155, "One pass per mask. Every pass drops\nother activations (orange), half of\nthose of the inner levels.",
           at="left")
    s.training(315, "An annotation is drawn by its weight. Cross-entropy, with dropout.", 37)
    s.arrow(s.mask(660, 333, 84, 1, "", ANNOTATION), Part(702, 302), training=True)


def unet_ensemble(s: Sheet) -> None:
    note = "Every U-Net starts from other random weights and draws its own annotation of every image (cross-entropy)."
    s.training(12, note, 28, 740, 635, 280)
    boxes = [s.box(240, 31 + 103 * row, 150, 70, f"U-Net {row + 1}") for row in range(4)]
    masks = [FIRE.varied(FIRE.mean, seed, 0.1) for seed in range(4)]
    for mask, k in zip(s.rows(s.image(30, 150), boxes, 490, masks, "weight 1/4"), (0, 1, 0, 2), strict=True):
        s.arrow(s.mask(905, mask.y, 84, k, "", ANNOTATION), Part(715, mask.y + 42), training=True)


def m_heads(s: Sheet) -> None:
    note = "An annotation is drawn by its weight. The nearest mask learns with weight 1 − ε, all others share ε" \
        " (cross-entropy)."
    s.training(12, note, 31, 740, 635, 275)
    truth, net = s.mask(900, 158, 84, 1, "annotation", ANNOTATION), s.box(180, 150, 120, 100, "U-Net,\none pass")
    s.chain(s.image(30, 145), net)
    boxes = [s.box(370, 41 + 103 * row, 110, 50, f"head {row + 1}") for row in range(4)]
    for row, mask in enumerate(s.rows(net, boxes, 540, [0, 1, 2, 3], "1/M")):
        width, colour = (4.0, ANNOTATION) if row == 1 else (1.5, "")
        s.arrow(truth, Part(700, mask.y + 42), training=True, width=width, colour=colour)
    s.text(780, 193, "1 − ε", ANNOTATION)


def image2image_vae(s: Sheet) -> None:
    net = s.box(790, 25, 190, 215, "U-Net,\none pass\nper mask")
    s.arrow(s.image(30, 20), net)
    s.text(200, 205, "z fills further channels\nbeside those of the image")
    note = "The posterior net sees the annotation alone. Its z must give the annotation (cross-entropy). KL keeps the" \
        " posterior near N(0, I)."
    _, z = s.latent("fixed: N(0, I)", [FIRE.mask(1, ANNOTATION)], note)
    s.arrow(z, net)
    s.samples(net, 132, "K masks")


def overview(s: Sheet) -> None:
    s.training(15, "", 9, w=600)
    for row, index in enumerate((117, 123)):
        scene, y = Scene(index), 75 + 150 * row
        s.picture(45, y, 100, scene.image, "image" if row else "")
        for k in range(4):
            s.mask(165 + 112 * k, y, 100, k, "", ANNOTATION, scene)
    s.text(383, 340, "masks of the annotators")
    s.text(325, 395, "One mask per image also works.", GREY)
    model = s.box(690, 80, 150, 100, "model")
    s.arrow(Part(625, 130), model, training=True)
    s.arrow(s.image(710, 270, "new image"), model)
    for k in range(4):
        s.mask(960 + k % 2 * 180, 25 + k // 2 * 180, 140, k, WEIGHTS[k])
    s.arrow(model, Part(945, 130))
    s.text(1120, 410, "all plausible masks, with their probabilities")


FIGURES: dict[str, Callable[[Sheet], None]] = {
    drawing.__name__.replace("_", "-"): drawing
    for drawing in (
        mode_proposals, energy_score, flow_matching, probabilistic_unet, c_probabilistic_unet, ssn, c_ssn, flow_ssn,
        mose, atfm, dropout_unet, unet_ensemble, m_heads, image2image_vae, overview,
    )
}
# fmt: on
"""The figures by their file names."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the schematics of the methods.")
    parser.add_argument("names", nargs="*", help="which; all if left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    chosen = parser.parse_args(arguments)
    for name in chosen.names or FIGURES:
        FIGURES[name](sheet := Sheet())
        sheet.save(chosen.out / f"{name}.png")


if __name__ == "__main__":
    main()
