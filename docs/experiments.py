"""Draw the tables of presets in docs/papers.md and docs/papers-compared.md from the code of the methods.

    python docs/experiments.py

Replaces what stands between ``<!-- presets NAME -->`` and ``<!-- end -->``. The parameters are counted.
"""

from __future__ import annotations

import re
from pathlib import Path

from ambiseg.engine.parameters import parameters
from ambiseg.methods import METHODS

PAGES = [Path(__file__).parent / name for name in ("papers.md", "papers-compared.md")]

PAPERS = {
    "mode-proposals": ["flow-matching", "mode-proposals"],
    "flow-ssn": ["flow-ssn", "ssn"],
    "probabilistic-unet": [
        "probabilistic-unet", "dropout-unet", "image2image-vae", "m-heads", "unet-ensemble",
    ],
    "phiseg": ["phiseg", "probabilistic-unet", "unet-ensemble"],
    "hierarchical-probabilistic-unet": ["hierarchical-probabilistic-unet"],
    "cflow": ["cflow"],
    "atfm": ["ssn", "atfm"],
    "mose": ["mose"],
    "pixelseg": ["pixelseg"],
    "label-styles": ["c-probabilistic-unet", "c-ssn"],
}  # fmt: skip
"""The methods of each paper; presets of ssn for ATFM begin with atfm, those of baselines of PHiSeg end with phiseg."""


def rows(paper: str) -> list[list[str]]:
    """One row for each preset of a paper that is made for the data of an experiment, or has a network of its own."""
    found = []
    for method in PAPERS[paper]:
        for name, preset in METHODS[method].presets.items():
            if not (preset.data or preset.backbone):
                continue
            if method == "ssn" and name.startswith("atfm") != (paper == "atfm"):
                continue
            if method != "phiseg" and name.endswith("phiseg") != (paper == "phiseg"):
                continue
            # mode proposals are counted as they start from a flow, with its inputs
            over: dict[str, object] = {"flow_input": True} if method == "mode-proposals" else {}
            if METHODS[method].by_annotator:
                over["annotators"] = ["T1", "T2", "T3"]  # the styles of the paper
            count = sum(parameters(METHODS[method], name, over).values())
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
    for page in PAGES:
        page.write_text(redrawn(page.read_text(encoding="utf-8")), encoding="utf-8")
