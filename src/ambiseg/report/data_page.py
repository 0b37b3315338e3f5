"""The page of a data set: facts, warnings, tables and examples with their annotations, in one file that needs
no other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ambiseg.maskset import MaskSet
from ambiseg.report.files import write_page
from ambiseg.report.page import Picture, embedded
from ambiseg.report.pictures import draw_case_row
from ambiseg.report.template import template


@dataclass(frozen=True)
class TextTable:
    """A table of words and numbers as they are printed.

    Attributes:
        title: heading.
        header: titles of the columns; the first one names the rows.
        rows: one text per column.
        note: what a reader should know, below the table.
        folded: the page has it at its end, and shows it when its title is clicked.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Example:
    """One image with its annotations, ``(C, H, W)`` and ``(1, N, H, W)``, and what its caption says."""

    caption: str
    image: NDArray[np.generic]
    annotations: MaskSet


def write_data_page(
    path: str | os.PathLike[str],
    title: str,
    *,
    facts: Sequence[tuple[str, object]] = (),
    warnings: Sequence[str] = (),
    tables: Sequence[TextTable] = (),
    examples: Sequence[tuple[str, Sequence[Example]]] = (),
    channels: Sequence[str] = (),
    command: str = "",
    footer: str = "",
) -> None:
    """Write the page, whole or not at all; an existing file is replaced.

    Args:
        path: file to write.
        title: heading.
        facts: ``(name, value)``.
        warnings: what a person should look at, above all else.
        tables: numbers.
        examples: headings and the images below them.
        channels: names of the channels of the images, see `background_of`.
        command: how to repeat it.
        footer: last line.

    Raises:
        AmbisegError: the file cannot be written, or an example cannot be drawn (see `draw_case_row`).
    """
    groups = [
        (heading, [(one.caption, _picture(one, channels)) for one in group]) for heading, group in examples
    ]
    page = template("data.html.j2").render(
        title=title,
        facts=facts,
        warnings=warnings,
        tables=tables,
        groups=groups,
        command=command,
        footer=footer,
    )
    write_page(Path(path), page)


def _picture(example: Example, channels: Sequence[str]) -> Picture:
    return embedded(draw_case_row(example.image, example.annotations, None, channels))
