"""Draw the schematic of every method: docs/figures/<method>.png.

    python docs/figures/draw.py

All figures share one visual language. Blue: networks. Orange: random numbers. Violet: annotations. Green: masks
with their weights below. Dashed: only in training. The scene and its masks come from the wildfire simulator.
Masks of methods are drawn by hand from these, so a figure shows how a method works, not how well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Line
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

from ambiseg.data.simulators.wildfire import simulate_wildfire

Array = NDArray[np.float64]
WIDTH, HEIGHT, FONT, LEADING = 1400, 450, 15.0, 26
NETWORK, RANDOM, ANNOTATION, MASK, GREY, INK = (
    "#2b6cb0", "#c8640c", "#7a4bb0", "#23824f", "#5a6270", "#1f2328"
)
FILL = {NETWORK: "#dceafa", RANDOM: "#fdebd8", ANNOTATION: "#efe6fa", MASK: "#e0f3e8", GREY: "#f3f4f6"}
PROBABILITIES = (8 / 15, 4 / 15, 2 / 15, 1 / 15)
WEIGHTS = ("53 %", "27 %", "13 %", "7 %")


class Part(NamedTuple):
    """A rectangle of the drawing in pixels, from its upper left corner; of size 0 a point."""

    x: float
    y: float
    w: float = 0
    h: float = 0


def touch(a: Part, b: Part) -> tuple[float, float]:
    """Where a straight line from ``a`` to ``b`` leaves ``a``: level or upright where the two allow it."""
    low, high = max(a.y, b.y), min(a.y + a.h, b.y + b.h)
    start, end = max(a.x, b.x), min(a.x + a.w, b.x + b.w)
    if low > high and start <= end:
        return (start + end) / 2, a.y + a.h if b.y > a.y else a.y
    y = (low + high) / 2 if low <= high else a.y + a.h / 2
    return a.x + a.w if b.x > a.x else a.x, y


class Scene:
    """Four outcomes of a simulated fire as pictures: colours ``(n, n, 3)`` from 0 to 1."""

    def __init__(self, index: int, outcomes: Sequence[int] = (5, 1, 7, 3)) -> None:
        sample = simulate_wildfire(seed=0, index=index)
        ground = sample.image[2].astype(np.float64)
        self.grey = 0.35 + 0.55 * (ground - ground.min()) / np.ptp(ground)
        self.fire = sample.image[6] > 0.5
        self.truth = sample.masks[list(outcomes)].astype(np.float64)

    def image(self) -> Array:
        return np.where(self.fire[..., None], np.array([0.75, 0.13, 0.10]), self.grey[..., None])

    def mask(self, share: Array | int, colour: str = MASK) -> Array:
        """A mask, or a probability of each pixel, over the pale ground."""
        share = self.truth[share] if isinstance(share, int) else share
        ground = 0.84 + 0.14 * self.grey[..., None]
        return np.asarray(ground + share[..., None] * (rgb(colour) - ground))

    def varied(self, share: Array | int, seed: int, amount: float, width: float = 3) -> Array:
        """A mask like this one: thresholded anew after smooth noise."""
        share = self.truth[share] if isinstance(share, int) else share
        noise = gaussian_filter(np.random.default_rng(seed).standard_normal(share.shape), width)
        return np.asarray(gaussian_filter(share, 1) + amount * noise / noise.std() > 0.5, np.float64)

    def mean(self) -> Array:
        return np.asarray(np.tensordot(PROBABILITIES, self.truth, 1))

    def factors(self) -> list[Array]:
        """Three fields whose products with normal numbers have the covariance of the outcomes."""
        apart = (self.truth - self.mean()) * np.sqrt(np.array(PROBABILITIES))[:, None, None]
        _, sizes, fields = np.linalg.svd(apart.reshape(4, -1), full_matrices=False)
        return [(size * field).reshape(64, 64) for size, field in zip(sizes[:3], fields[:3], strict=True)]

    def normal_draws(self, seeds: Sequence[int]) -> list[Array]:
        """Draws of the normal distribution with the mean and the covariance of the outcomes, thresholded."""
        numbers = [np.random.default_rng(seed).standard_normal(3) for seed in seeds]
        return [(self.mean() + np.tensordot(e, self.factors(), 1) > 0.5).astype(np.float64) for e in numbers]

    def signed(self, field: Array) -> Array:
        """Positive green, negative grey."""
        size = (np.abs(field) / np.abs(field).max())[..., None]
        return np.asarray(1 - size * np.where(field[..., None] > 0, 1 - rgb(MASK), 1 - rgb(GREY)))

    def soft(self, k: int) -> Array:
        return np.asarray(0.75 * gaussian_filter(self.truth[k], 3) + 0.25 * gaussian_filter(self.mean(), 2))

    def towards(self, start: Array, share: Array | int, time: float, colour: str = MASK) -> Array:
        """On the straight line from a picture to a mask."""
        return (1 - time) * start + time * self.mask(share, colour)


def rgb(colour: str) -> Array:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def noise(seed: int, size: int = 32) -> Array:
    """Independent normal numbers in shades of orange."""
    value = np.random.default_rng(seed).standard_normal((size, size, 1)).clip(-2, 2) / 4 + 0.5
    return np.kron(1 - value * (1 - rgb(RANDOM)), np.ones((64 // size, 64 // size, 1)))


FIRE = Scene(81)


class Sheet:
    """One figure; every call draws a part and returns its rectangle."""

    def __init__(self) -> None:
        self.figure = Figure((WIDTH / 100, HEIGHT / 100), dpi=100)
        self.figure.patch.set_alpha(0)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), autoscale_on=False)
        self.axes.axis("off")
        self._rectangle(Part(2, 2, WIDTH - 4, HEIGHT - 4), "white", "#d0d7de", 22)

    def _rectangle(self, p: Part, fill: str, edge: str, radius: float, dashed: bool = False) -> None:
        style = f"round,pad=0,rounding_size={radius}"
        line = (0, (4, 3)) if dashed else "-"
        patch = FancyBboxPatch((p.x, p.y), p.w, p.h, style, fc=fill, ec=edge, lw=2, ls=line)
        self.axes.add_patch(patch)

    def text(self, x: float, y: float, words: str, colour: str = INK, at: str = "center") -> None:
        lines = words.split("\n")
        for i, line in enumerate(lines):
            down = y + LEADING * (i - (len(lines) - 1) / 2)
            self.axes.text(x, down, line, color=colour, fontsize=FONT, ha=at, va="center_baseline", zorder=3)

    def box(self, x: float, y: float, w: float, h: float, words: str, colour: str = NETWORK, dashed: bool = False) -> Part:
        self._rectangle(part := Part(x, y, w, h), FILL[colour], colour, 12, dashed)
        self.text(x + w / 2, y + h / 2, words)
        return part

    def training(self, y: float, words: str, x: float = 25) -> None:
        """The frame of what happens in training alone, down to the lower edge."""
        self._rectangle(Part(x, y, WIDTH - 25 - x, HEIGHT - 18 - y), "#fafafa", GREY, 14, True)
        self.text(x + 16, y + 22, "training only", GREY, "left")
        self.text(x + 16, (y + HEIGHT) / 2 + 10, words, at="left")

    def picture(self, x: float, y: float, size: float, colours: Array, words: str = "", frame: str = MASK) -> Part:
        self.axes.imshow(colours.clip(0, 1), extent=(x, x + size, y + size, y), aspect="auto", interpolation="nearest", zorder=1)
        self._rectangle(part := Part(x, y, size, size), "none", frame, 0.1)
        if words:
            self.text(x + size / 2, y + size + 15, words)
        return part

    def image(self, x: float, y: float, words: str = "image", scene: Scene = FIRE) -> Part:
        return self.picture(x, y, 110, scene.image(), words, GREY)

    def masks(self, x: float, y: float, size: float, shown: Sequence[Array | int], words: Sequence[str],
              columns: int = 2, colour: str = MASK, scene: Scene = FIRE) -> list[Part]:  # fmt: skip
        """Masks in rows, with their weights below; of annotations in their colour."""
        high = size + (34 if any(words) else 12)
        pairs = enumerate(zip(shown, words, strict=True))
        return [
            self.picture(x + (i % columns) * (size + 12), y + (i // columns) * high, size, scene.mask(m, colour), w, colour)
            for i, (m, w) in pairs
        ]  # fmt: skip

    def normal(self, x: float, y: float, w: float, h: float, words: str = "", dashed: bool = False) -> Part:
        """A normal distribution."""
        self._rectangle(part := Part(x, y, w, h), FILL[RANDOM], RANDOM, 8, dashed)
        t = np.linspace(-3, 3, 60)
        line = "--" if dashed else "-"
        self.axes.plot(x + w * (t + 3) / 6, y + h - 8 - (h - 18) * np.exp(-(t**2)), color=RANDOM, lw=2, ls=line)
        self.text(x + w / 2, y + h + 15, words)
        return part

    def arrow(self, *stops: Part, words: str = "", training: bool = False, style: str = "-|>", width: float = 2,
              colour: str = "") -> None:  # fmt: skip
        """From part to part, over points between them; the words stand above the middle of the first piece."""
        first, last = touch(stops[0], stops[1]), touch(stops[-1], stops[-2])
        points = [first, *((p.x, p.y) for p in stops[1:-1]), last]
        line = (0, (4, 3)) if training else "-"
        colour = colour or (GREY if training else INK)
        patch = FancyArrowPatch(path=Line(points), arrowstyle=style, mutation_scale=18, lw=width, ls=line, color=colour,
                                joinstyle="round", capstyle="butt", shrinkA=0, shrinkB=0)  # fmt: skip
        self.axes.add_patch(patch)
        if words:
            (x0, y0), (x1, y1) = points[:2]
            self.text((x0 + x1) / 2, (y0 + y1) / 2 - 15, words, colour)

    def flow(self, x: float, y: float, step: float, start: Array, k: int, times: Sequence[float]) -> None:
        """From a random start to a mask."""
        frames = (RANDOM, *[GREY] * (len(times) - 2), MASK)
        states = (FIRE.towards(start, k, time) for time in times)
        pairs = enumerate(zip(states, frames, strict=True))
        self.chain(*(self.picture(x + step * i, y, 84, state, "", frame) for i, (state, frame) in pairs))
        self.text(x + step * (len(times) - 1) + 104, y + 42, "weight 1/K", at="left")

    def straight(self, start: Array, words: str, network: str, learns: str) -> None:
        """How a flow learns from states on a straight line."""
        self.picture(490, 320, 76, start, words, RANDOM)
        truth = self.picture(615, 320, 76, FIRE.mask(1, ANNOTATION), "annotation", ANNOTATION)
        state = self.picture(765, 320, 76, FIRE.towards(start, 1, 0.5, ANNOTATION), "state", GREY)
        net = self.box(895, 335, 110, 46, network, dashed=True)
        self.text(590, 358, "+")
        for a, b in pairwise((truth, state, net, Part(1060, 358))):
            self.arrow(a, b, training=True)
        self.text(1072, 358, learns, at="left")

    def units(self, part: Part, seed: int) -> None:
        """Activations of a U-Net; half of those inside are dropped."""
        drops = np.random.default_rng(seed)
        for i, count in enumerate((6, 5, 4, 3, 2, 3, 4, 5, 6)):
            for j in range(count):
                off = 0 < i < 8 and drops.random() < 0.5
                at = (part.x + part.w * (i + 1) / 10, part.y + part.h / 2 + 13 * (j - (count - 1) / 2))
                fill, edge = ("white", RANDOM) if off else (NETWORK, NETWORK)
                self.axes.add_patch(Circle(at, 4.5, fc=fill, ec=edge, lw=1.5, zorder=2))

    def chain(self, *parts: Part) -> None:
        for a, b in pairwise(parts):
            self.arrow(a, b)

    def save(self, path: Path) -> None:
        """With a palette, so that the file is small."""
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())
        palette = Image.fromarray(pixels[..., :3]).quantize(255, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        palette.paste(255, mask=Image.fromarray(pixels[..., 3] < 128))
        palette.save(path, optimize=True, transparency=255)


def mode_proposals(s: Sheet) -> None:
    image, net = s.image(30, 45), s.box(180, 50, 120, 100, "U-Net,\none pass")
    heads = s.box(340, 50, 110, 100, "M heads")
    found = s.masks(490, 45, 96, [0, 1, 2, 3, FIRE.varied(0, 3, 0.14)], [""] * 5, 5)
    select = s.box(1085, 45, 285, 96, "selection head\nsees all masks at once")
    s.chain(image, net, heads, found[0])
    s.chain(found[-1], select, Part(1228, 170))
    for part, score, weight in zip(found, ("1.0", "1.0", "0.9", "1.0", "0.0"), (*WEIGHTS, "0 %"), strict=True):
        s.text(part.x + 48, 174, f"{score}\n{weight}", GREY if score == "0.0" else INK)
    s.text(1040, 187, "selection score,\nprobability", at="left")
    s.training(225, "Hungarian matching pairs each\nannotation with one mask.\nThe mask loss compares pairs.")
    order = [1, 0, 3, 2]
    for part, k in zip(s.masks(490, 310, 96, order, [""] * 4, 4, ANNOTATION), order, strict=True):
        s.arrow(Part(part.x + 48, 310), Part(found[k].x + 48, 206), training=True, style="<|-|>")
    s.text(985, 270, "no partner:\nscore 0", GREY)
    s.arrow(Part(970, 245), Part(970, 206), training=True)
    s.text(1045, 350, "Scores learn which masks\nhave a partner, probabilities\nthe weight of the partner.", at="left")


def energy_score(s: Sheet) -> None:
    net = s.box(180, 150, 130, 100, "U-Net,\none pass")
    s.chain(s.image(30, 145), net, Part(385, 200))
    places = ((400, 30), (660, 30), (400, 255), (660, 255))
    found = [s.masks(x, y, 120, [k], [WEIGHTS[k]])[0] for k, (x, y) in enumerate(places)]
    for a, b in ((0, 1), (2, 3)):
        s.arrow(found[a], found[b], training=True, style="<|-|>", colour=RANDOM)
    for a in (0, 1):
        s.arrow(Part(found[a].x + 60, 182), found[a + 2], training=True, style="<|-|>", colour=RANDOM)
    s.text(590, 202, "apart", RANDOM)
    truth = s.masks(960, 145, 120, [0], ["annotation"], 1, ANNOTATION)[0]
    for part in found[1::2]:
        s.arrow(Part(780, part.y + 60), truth, training=True, colour=ANNOTATION)
    s.text(905, 100, "towards", ANNOTATION)
    s.text(905, 300, "towards", ANNOTATION)
    s.text(1110, 95, "training only", GREY, "left")
    words = ("The energy score:", "2 × mean distance to", "the annotations minus", "the mean distance of", "two masks, both means", "by probability.")
    s.text(1110, 215, "\n".join(words), at="left")


def flow_matching(s: Sheet) -> None:
    field = s.box(200, 240, 1010, 46, "U-Net: velocity of the state at time t, given the image; run in every step")
    s.arrow(s.image(30, 148), field)
    for row in (0, 1):
        s.flow(205, 15 + 97 * row, 230, noise(row), row, (0, 0.25, 0.5, 0.75, 1))
    for i, words in enumerate(("noise, t = 0", "t = 0.25", "t = 0.5", "t = 0.75", "mask, t = 1")):
        s.text(247 + 230 * i, 213, words)
        if i:
            s.arrow(Part(120 + 230 * i, 240), Part(120 + 230 * i, 160))
    s.training(305, "An annotation is drawn by its\nweight, noise and time at random.")
    s.straight(noise(5), "noise", "U-Net", "learns the velocity\nannotation − noise")


def ssn(s: Sheet) -> None:
    net = s.box(180, 105, 120, 100, "U-Net,\none pass")
    s.chain(s.image(30, 100), net)
    mean = s.picture(360, 15, 96, FIRE.mask(FIRE.mean()), "mean", GREY)
    factors = [s.picture(360 + 108 * i, 165, 96, FIRE.signed(f), "", GREY) for i, f in enumerate(FIRE.factors())]
    s.text(516, 276, "low-rank factor, and a variance per pixel")
    normal = s.normal(750, 75, 160, 100, "normal distribution\nof all logits")
    s.chain(net, mean, normal)
    s.arrow(net, factors[0])
    s.arrow(factors[-1], normal)
    s.masks(1110, 15, 96, FIRE.normal_draws((1, 4, 3, 20)), ["1/K"] * 4)
    s.arrow(Part(910, 125), Part(1100, 125), words="draw K times")
    s.training(310, "Maximised: how probable the annotations are under the\ndistribution, estimated from many draws.")
    truth = s.masks(756, 324, 96, [0, 1, 2, 3], [""] * 4, 4, ANNOTATION)
    s.arrow(truth[0], Part(804, 240), training=True)


def flow_ssn(s: Sheet) -> None:
    base = s.box(170, 55, 160, 100, "base network:\nlarge U-Net,\none pass")
    mean = s.picture(370, 57, 96, FIRE.mask(FIRE.mean()), "mean", GREY)
    s.chain(s.image(30, 50), base, mean)
    s.box(640, 240, 560, 46, "flow: small U-Net, does not see the image")
    start = [FIRE.mask(FIRE.mean()) / 2 + noise(row) / 2 for row in (0, 1)]
    for row in (0, 1):
        s.picture(516, 15 + 97 * row, 84, noise(row), "", RANDOM)
        s.text(620, 57 + 97 * row, "=")
        s.flow(640, 15 + 97 * row, 238, start[row], row, (0, 0.5, 1))
    for i, words in enumerate(("prior, t = 0", "t = 0.5", "mask, t = 1")):
        s.text(682 + 238 * i, 213, words)
        if i:
            s.arrow(Part(563 + 238 * i, 240), Part(563 + 238 * i, 160))
    s.text(491, 105, "+")
    s.text(558, 213, "noise")
    s.training(305, "An annotation is drawn by its weight.\nBoth networks learn together.")
    s.straight(start[1], "prior", "flow", "predicts the annotation\n(cross-entropy)")


def atfm(s: Sheet) -> None:
    prior = s.box(170, 40, 150, 80, "prior: SSN,\none pass")
    image = s.image(30, 15)
    normal = s.normal(360, 40, 110, 80, "logits")
    s.chain(image, prior, normal)
    field = s.box(690, 240, 515, 46, "flow: U-Net sees image, state and time")
    s.arrow(image, Part(85, 263), field)
    for row in (0, 1):
        s.flow(690, 15 + 97 * row, 215, FIRE.mask(FIRE.soft(row)), row, (0, 0.5, 1))
    for i, words in enumerate(("start, t = 0", "t = 0.5", "mask, t = 1")):
        s.text(732 + 215 * i, 213, words)
        if i:
            s.arrow(Part(625 + 215 * i, 240), Part(625 + 215 * i, 160))
    s.arrow(normal, Part(680, 80), words="draw")
    s.training(305, "1. The prior learns alone, as an SSN.\n2. The prior is frozen, the flow learns.")
    s.straight(FIRE.mask(FIRE.soft(1)), "start", "flow", "learns the velocity\nannotation − start")


def probabilistic_unet(s: Sheet) -> None:
    image = s.image(30, 70)
    net, prior = s.box(210, 25, 150, 80, "U-Net,\none pass"), s.box(210, 160, 150, 80, "prior net")
    last = s.box(720, 25, 190, 80, "last layers:\n1 × 1 convolutions")
    normal = s.normal(430, 165, 120, 70, "p(z | image)")
    s.arrow(image, Part(175, 125), Part(175, 65), net)
    s.arrow(image, Part(175, 125), Part(175, 200), prior)
    s.arrow(net, last, words="features of the image")
    s.arrow(prior, normal)
    z = s.box(640, 177, 60, 46, "z", RANDOM)
    s.arrow(normal, z, words="draw")
    s.arrow(z, Part(770, 200), last)
    s.masks(1090, 15, 96, [0, 1, 0, 2], ["1/K"] * 4)
    s.arrow(last, Part(1080, 65), words="K masks")
    s.training(310, "")
    truth = s.masks(60, 345, 76, [1], [""], 1, ANNOTATION)[0]
    posterior = s.box(210, 345, 150, 76, "posterior net", dashed=True)
    found = s.normal(430, 345, 120, 76, "", True)
    s.arrow(truth, posterior, training=True)
    s.arrow(posterior, found, training=True)
    s.arrow(found, Part(670, 383), z, training=True, words="z")
    s.arrow(Part(490, 270), Part(490, 340), training=True, style="<|-|>")
    s.text(520, 292, "KL", GREY)
    s.text(820, 375, "The posterior net sees image and annotation.\nz comes from it; the mask must be the annotation\n(cross-entropy). KL: the prior learns to do without.", at="left")


def image2image_vae(s: Sheet) -> None:
    image = s.image(60, 20)
    normal = s.normal(55, 185, 120, 70, "fixed: N(0, I)")
    z = s.box(300, 197, 60, 46, "z", RANDOM)
    net = s.box(470, 60, 230, 150, "U-Net,\none pass per mask")
    s.arrow(image, Part(470, 75), style="-|>")
    s.arrow(normal, z, words="draw")
    s.arrow(z, Part(410, 220), Part(410, 180), net)
    s.masks(900, 15, 96, [0, 1, 0, 2], ["1/K"] * 4)
    s.arrow(net, Part(890, 135), words="K passes, K masks")
    s.training(310, "")


def mose(s: Sheet) -> None:
    image, net = s.image(30, 70), s.box(175, 75, 110, 100, "U-Net,\none pass")
    gate = s.box(175, 250, 110, 60, "gate")
    s.chain(image, net, gate)
    last = s.box(560, 20, 110, 310, "last\nlayers")
    s.arrow(net, Part(330, 125), Part(330, 20))
    for k, weight in enumerate(("60 %", "30 %", "10 %")):
        y = 20 + 110 * k
        s.normal(400, y, 110, 60, f"expert {k + 1}")
        s.arrow(Part(510, y + 30), last)
        s.masks(720, y, 76, [FIRE.varied(k, k, 0.1), FIRE.varied(k, 9 + k, 0.1)], [weight] * 2)
    del gate


def dropout_unet(s: Sheet) -> None:
    image = s.image(30, 100)
    for row in range(3):
        y = 18 + 97 * row
        net = s.box(240, y, 300, 84, "")
        s.units(net, row)
        s.arrow(image, Part(190, 155), Part(190, y + 42), net)
        mask = s.masks(640, y, 84, [FIRE.varied(FIRE.mean(), row, 0.25, 2)], [""])[0]
        s.arrow(net, mask)
        s.text(745, y + 42, "1/K", at="left")
    s.training(315, "")


def unet_ensemble(s: Sheet) -> None:
    image = s.image(30, 150)
    for row in range(4):
        y = 18 + 105 * row
        net = s.box(240, y + 7, 150, 70, f"U-Net {row + 1}")
        s.arrow(image, Part(190, 205), Part(190, y + 42), net)
        mask = s.masks(480, y, 84, [FIRE.varied(FIRE.mean(), row, 0.1)], [""])[0]
        s.arrow(net, mask)
        s.text(585, y + 42, "1/4", at="left")


def m_heads(s: Sheet) -> None:
    net = s.box(180, 150, 120, 100, "U-Net,\none pass")
    s.chain(s.image(30, 145), net)
    for row in range(4):
        y = 18 + 105 * row
        head = s.box(370, y + 17, 120, 50, f"head {row + 1}")
        s.arrow(net, Part(335, 200), Part(335, y + 42), head)
        mask = s.masks(560, y, 84, [row], [""])[0]
        s.arrow(head, mask)
        s.text(665, y + 42, "1/M", at="left")


def overview(s: Sheet) -> None:
    s.image(40, 50)


FIGURES: dict[str, Callable[[Sheet], None]] = {
    drawing.__name__.replace("_", "-"): drawing
    for drawing in (
        mode_proposals, energy_score, flow_matching, probabilistic_unet, ssn, flow_ssn, mose, atfm,
        dropout_unet, unet_ensemble, m_heads, image2image_vae, overview,
    )
}  # fmt: skip
"""The figures by their file names."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the schematics of the methods.")
    parser.add_argument("names", nargs="*", help="which; all if left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    chosen = parser.parse_args(arguments)
    for name in chosen.names or FIGURES:
        sheet = Sheet()
        FIGURES[name](sheet)
        sheet.save(chosen.out / f"{name}.png")


if __name__ == "__main__":
    main()
