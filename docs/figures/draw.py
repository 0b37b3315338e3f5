"""Draw the schematic of every method: docs/figures/<method>.png.

    python docs/figures/draw.py

All figures share one visual language. Blue: networks. Orange: random numbers. Violet: annotations. Green: masks
with their weights below. Dashed: only in training. The scene and its masks come from the wildfire simulator.
Masks of methods are made by hand from these, so a figure shows how a method works, not how well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Circle
from scipy.ndimage import gaussian_filter
from sheet import (
    ANNOTATION,
    FIRE,
    GREY,
    INK,
    MASK,
    NETWORK,
    PALE,
    RANDOM,
    WEIGHTS,
    Part,
    Scene,
    Share,
    Sheet,
    blocks,
    noise,
    rgb,
)


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


def probabilistic_unet(s: Sheet, words: str = "p(z | image)", seen: str = "image and annotation",
                       flow: bool = False) -> None:
    image, prior = s.image(30, 70), s.box(210, 160, 150, 80, "prior net")
    net, last = s.box(210, 25, 150, 80, "U-Net,\none pass"), s.box(720, 25, 220, 80, "last layers:\n1 × 1 convolutions")
    note = f"The posterior net sees {seen}. Its z must give the annotation (cross-entropy). KL keeps" \
        " prior and posterior close."
    if flow:
        note = "A flow gives the posterior another shape. Its z must give the annotation (cross-entropy). KL," \
            " estimated at this z, keeps prior and posterior close."
    normal, z = s.latent(words, [FIRE.mask(1, ANNOTATION), FIRE.image], note, flow)
    for box in (net, prior):
        s.arrow(image, Part(175, 125), Part(175, box.y + 40), box)
    s.arrow(net, last, words="features of the image")
    s.arrow(prior, normal)
    s.arrow(z, Part(830, 200), last)
    s.samples(last, 65, "K masks")


def c_probabilistic_unet(s: Sheet) -> None:
    probabilistic_unet(s, "p(z | image, A)", "image, annotation and annotator A")
    s.arrow(s.box(20, 214, 145, 42, "annotator A"), Part(210, 225, 150, 10))


def cflow(s: Sheet) -> None:
    probabilistic_unet(s, flow=True)


def phiseg(s: Sheet) -> None:
    note = "The posterior's latents must give the annotation after every level (cross-entropy). KL keeps prior and" \
        " posterior of each level close."
    normals, maps = s.levels(("level 2", "level 1", "level 0"), note)
    s.chain(s.image(30, 157), s.box(190, 172, 125, 80, "encoder,\none pass"), normals[0])
    s.text(30, 62, "Every distribution sees features of\nthe image and the next coarser latent.", at="left")
    decoder = s.box(378, 114, 572, 38, "decoder: each level adds to the coarser logits")
    soft = [blocks(gaussian_filter(FIRE.truth[0], width), size) for width, size in ((4, 8), (2, 2), (0, 1))]
    masks = [s.mask(found.x - 8, 15, 70, share) for found, share in zip(maps, soft, strict=True)]
    for found, mask in zip(maps, masks, strict=True):
        s.chain(found, decoder)
        s.arrow(Part(mask.x + 35, decoder.y), mask)
    for i in (0, 1):
        s.arrow(masks[i], masks[i + 1], words="+")
        s.arrow(maps[i], normals[i + 1])
    s.samples(masks[2], 50, "K masks")


def hierarchical_probabilistic_unet(s: Sheet) -> None:
    note = "The posterior net is a second U-Net. Its latents enter the first one. The sum of all KL is minimised" \
        " while the cross-entropy is below a bound."
    normals, maps = s.levels(("scale 0", "scale 1", "scale 2"), note)
    boxes = [s.box(240, 55, 205, 76, "U-Net, way down,\none pass"), s.box(493, 55, 145, 76, "way up\nto scale 1"),
             s.box(693, 55, 145, 76, "way up\nto scale 2"), s.box(893, 55, 85, 76, "last\nlayers")]
    s.chain(s.image(30, 38), *boxes)
    for i in range(3):
        s.arrow(boxes[i], normals[i])
        s.arrow(maps[i], up := boxes[i + 1])
        s.arrow(boxes[0], Part(342, 25), Part(up.x + up.w / 2, 25), up)
    s.text(30, 215, "A distribution depends on the\nimage and all coarser latents.", at="left")
    s.samples(boxes[3], 93, "K masks")


def car(s: Sheet) -> None:
    note = "The calibration net learns from all annotations (cross-entropy). The discriminator tells annotations" \
        " from masks, given the image. The refinement net must deceive it. KL holds the mean of its masks at the" \
        " probabilities."
    s.training(305, note, 74, inset=545)
    image, net = s.image(30, 60), s.box(185, 45, 175, 80, "calibration net,\none pass")
    share = s.mask(410, 37, 96, FIRE.mean, "probabilities", GREY)
    last = s.box(640, 37, 230, 96, "refinement net:\nlast layer per mask")
    normal, z = s.normal(555, 170, 120, 70, "fixed: N(0, I)"), s.box(750, 182, 60, 46, "z")
    s.chain(image, net, share, last)
    s.arrow(image, Part(85, 22), Part(755, 22), last)
    s.arrow(normal, z, words="draw")
    s.arrow(z, last)
    s.samples(last, 85, "K masks")
    s.mask(40, 348, 66, 1, "", ANNOTATION)
    s.arrow(s.mask(114, 348, 66, 0), s.box(212, 358, 150, 46, "discriminator", dashed=True), training=True)
    s.arrow(Part(458, 164), s.mask(420, 318, 76, FIRE.mean, "mean of masks"), training=True)
    s.text(482, 250, "KL", GREY)


def pixelseg(s: Sheet) -> None:
    small = [np.asarray(blocks(FIRE.truth[k], 4) > 0.5, np.float64) for k in (0, 1)]
    net, last = s.box(180, 62, 110, 100, "U-Net,\none pass"), s.box(810, 62, 165, 86, "convolutions,\nfull resolution")
    cnn, states = s.box(325, 230, 440, 46, "PixelCNN: next pixel, given all before it"), []
    for i, words in enumerate(("first pixels", "half drawn", "small mask")):
        shown, row, column = FIRE.mask(small[0]), (16, 32, 64)[i], 20 + 12 * i
        shown[row + 4 :] = shown[row : row + 4, column:] = rgb("#ccd0d5")
        shown[row : row + 4, column : column + 4] = rgb(RANDOM)
        states.append(s.picture(340 + 150 * i, 57, 96, shown, words, MASK))
    s.chain(s.image(30, 57), net)
    s.chain(*states, last)
    s.arrow(net, Part(235, 253), cnn)
    s.arrow(net, Part(235, 25), Part(892, 25), last)
    for x in (463, 613):
        s.arrow(Part(x, 230), Part(x, 120))
    s.samples(last, 105, "K masks")
    note = "An annotation is drawn by its weight. The convolutions learn it, given its small mask. Both losses are" \
        " cross-entropies."
    s.training(305, note, 46)
    truth = s.mask(560, 320, 76, 1, "annotation", ANNOTATION)
    target = s.mask(720, 320, 76, small[1], "small mask", ANNOTATION)
    s.chain(truth, target, s.box(885, 335, 120, 46, "PixelCNN", dashed=True), Part(1060, 358), training=True)
    s.text(1072, 358, "learns every pixel,\ngiven all before it", at="left")


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
        mose, atfm, dropout_unet, unet_ensemble, m_heads, image2image_vae, cflow, phiseg,
        hierarchical_probabilistic_unet, car, pixelseg, overview,
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
