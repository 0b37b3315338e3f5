"""The parts of which the figures consist: the scene and its masks, pictures, boxes, arrows, frames."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
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


def noise(seed: int, cells: int = 32) -> Array:
    """Normal numbers in shades of orange, ``cells`` in a row."""
    value = np.random.default_rng(seed).standard_normal((cells, cells, 1)).clip(-2, 2) / 4 + 0.5
    shades = np.kron(1 - value * (1 - rgb(RANDOM)), np.ones((64 // cells, 64 // cells, 1)))
    return np.asarray(shades, np.float64)


def blocks(share: Array, size: int) -> Array:
    """The means of squares of so many pixels."""
    means = share.reshape(64 // size, size, -1, size).mean((1, 3))
    return np.asarray(np.kron(means, np.ones((size, size))), np.float64)


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

    def normal(self, x: float, y: float, w: float, h: float, words: str = "", dashed: bool = False,
               bent: bool = False) -> Part:  # fmt: skip
        """A normal distribution, or what a flow makes of it."""
        t = np.linspace(-3, 3, 60)
        height = np.exp(-2 * (t + 1.1) ** 2) + 0.6 * np.exp(-2 * (t - 1) ** 2) if bent else np.exp(-(t**2))
        curve = y + h - 8 - (h - 18) * height
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

    def posterior(self, inputs: Sequence[Array], note: str, width: int, inset: float) -> Part:
        """The posterior net and what it sees, in training."""
        self.training(305, note, width, inset=inset)
        for i, shown in enumerate(inputs):
            self.picture(114 - 74 * i, 348, 66, shown, "", GREY if i else ANNOTATION)
        net = self.box(210, 346, 150, 70, "posterior net", dashed=True)
        self.arrow(Part(180, 381), net, training=True)
        return net

    def latent(self, words: str, inputs: Sequence[Array], note: str, flow: bool = False) -> tuple[Part, Part]:
        """A normal distribution and z, in training of the posterior net, which a flow may follow."""
        net = self.posterior(inputs, note, 52, 765)
        normal, z = self.normal(430, 165, 120, 70, words), self.box(640, 177, 60, 46, "z")
        self.arrow(normal, z, words="draw")
        if flow:
            steps = self.box(520, 358, 70, 46, "flow", dashed=True)
            bent = self.normal(630, 346, 100, 70, dashed=True, bent=True)
            self.chain(net, self.normal(395, 346, 90, 70, dashed=True), steps, bent, z, training=True)
            self.arrow(Part(490, 266), Part(490, 294), Part(645, 294), bent, training=True, style="<|-|>")
        else:
            posterior = self.normal(430, 346, 120, 70, dashed=True)
            self.arrow(net, posterior, training=True)
            self.arrow(posterior, Part(670, 381), z, training=True, words="draw")
            self.arrow(Part(490, 266), posterior, training=True, style="<|-|>")
        self.text(*((590, 279) if flow else (515, 290)), "KL", GREY)
        return normal, z

    def levels(self, words: Sequence[str], note: str) -> tuple[list[Part], list[Part]]:
        """Distributions and latent maps from coarse to fine, in training of the posterior net."""
        net = self.posterior([FIRE.mask(1, ANNOTATION), FIRE.image], note, 41, 910)
        normals, maps = [], []
        for i in range(3):
            x = 378 + 200 * i
            normals.append(self.normal(x, 185, 58, 54, words[i]))
            maps.append(self.picture(x + 118, 185, 54, noise(i, 4 << i), "", RANDOM))
            self.arrow(normals[i], maps[i], words="draw")
            posterior = self.normal(x, 351, 58, 60, dashed=True)
            self.arrow(net, posterior, training=True)
            self.arrow(posterior, Part(x + 145, 381), maps[i], training=True)
            self.arrow(Part(x + 29, 270), posterior, training=True, style="<|-|>")
            self.text(x + 51, 290, "KL", GREY)
            net = posterior
        return normals, maps

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
