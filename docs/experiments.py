"""Draw the tables of presets in docs/papers.md from the code of the methods.

    python docs/experiments.py

Replaces what stands between ``<!-- presets NAME -->`` and ``<!-- end -->``. The parameters are counted.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ambiseg.engine.presets import resolve
from ambiseg.labels import LabelSpace
from ambiseg.methods import METHODS, build

PAGE = Path(__file__).parent / "papers.md"

BINARY = {"lidc": (1, 1), "mmfire": (7, 1), "cityscapes": (3, 1), "refuge": (3, 1), "isic": (3, 1)}
TWINS = {"lidc": (1, 1), "cityscapes": (3, 24)}
"""Channels of the images and classes of the masks, by the data set that a preset is named after; one class:
binary."""

PAPERS = {
    "mode-proposals": (BINARY, ["flow-matching", "mode-proposals"]),
    "flow-ssn": (BINARY, ["flow-ssn", "ssn"]),
    "probabilistic-unet": (TWINS, ["probabilistic-unet", "image2image-vae", "m-heads", "unet-ensemble"]),
    "atfm": (BINARY, ["ssn", "atfm"]),
    "mose": ({"lidc": (1, 1), "cityscapes": (4, 24)}, ["mose"]),
}
"""The data and the methods of each paper; presets of ssn for ATFM begin with atfm."""

EXTRA = "^atfm-|-(discrete|particle|spell)$"
"""What the name of a preset says beside its data set."""


def parameters(method: str, preset: str, channels: int, classes: int) -> int:
    """Parameters of the model of a preset; mode proposals as they start from a flow, with its inputs."""
    over = {"flow_input": True} if method == "mode-proposals" else {}
    _, backbone, settings = resolve(METHODS[method], preset, settings=over)
    labels = LabelSpace.binary() if classes == 1 else LabelSpace.of_classes(classes)
    with torch.device("meta"):
        model = build(method, channels, labels, backbone, settings)
    return sum(p.numel() for p in model.parameters())


def rows(paper: str) -> list[list[str]]:
    """One row for each preset of a paper that names a network."""
    data, methods = PAPERS[paper]
    found = []
    for method in methods:
        for name, preset in METHODS[method].presets.items():
            if not preset.backbone or (method == "ssn" and name.startswith("atfm") != (paper == "atfm")):
                continue
            count = parameters(method, name, *data[re.sub(EXTRA, "", name)])
            found.append([f"`{method} --preset {name}`", f"{count:,}", preset.source, preset.differs])
    return found


def table(lines: list[list[str]]) -> str:
    """Lines of cells as Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def redrawn(text: str) -> str:
    """The page with its tables as the code has them."""
    head = ["preset", "parameters here", "source", "what still differs"]
    return re.sub(
        r"(<!-- presets (\S+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{table([head, ['---'] * 4, *rows(match[2])])}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
