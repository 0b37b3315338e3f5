"""`Table`: figures with deviations and marks, as Markdown, CSV, LaTeX and HTML that say the same.

Every word is escaped as its format wants it, since titles, names and notes come from files of users.
"""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ambiseg.escaping import csv_cell, visible

Mark = Literal["", "bold", "italic"]


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table.

    Example:
        >>> Entry(0.51234, 0.01).text, Entry(None).text, Entry(float("nan")).text, Entry("ssn").text
        ('0.512 ± 0.010', '', '–', 'ssn')
    """

    value: float | str | None
    std: float | None = None
    digits: int = 3
    mark: Mark = ""

    @property
    def text(self) -> str:
        """Mean and standard deviation in words; a dash where a figure is not defined."""
        spread = "" if self.std is None else f" ± {self._number(self.std)}"
        return self.plain + spread

    @property
    def plain(self) -> str:
        """The mean alone."""
        if self.value is None or isinstance(self.value, str):
            return self.value or ""
        return self._number(self.value) if math.isfinite(self.value) else "–"

    def _number(self, value: float) -> str:
        return f"{value:.{self.digits}f}"


@dataclass(frozen=True)
class Table:
    """Words in rows and columns, with a title above and notes below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """As Markdown."""
        mark = {"": "{}", "bold": "**{}**", "italic": "*{}*"}
        lines = [_row(_md(word) for word in self.header), _row("---" for _ in self.header)]
        lines += [_row(mark[e.mark].format(_md(e.text)) for e in row) for row in self.rows]
        notes = "\n".join(f"- {_md(note)}" for note in self.notes)
        return f"### {_md(self.title)}\n\n" + "\n".join(lines) + (f"\n\n{notes}\n" if notes else "\n")

    def csv(self) -> str:
        """As CSV: standard deviations in columns of their own, no notes."""
        several = [any(row[i].std is not None for row in self.rows) for i in range(len(self.header))]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")

        def spread(cells: Sequence[tuple[str, str]]) -> list[str]:
            return [
                word
                for pair, both in zip(cells, several, strict=True)
                for word in (pair if both else pair[:1])
            ]

        writer.writerow(csv_cell(word) for word in spread([(word, f"{word} std") for word in self.header]))
        for row in self.rows:
            cells = spread([(e.plain, "" if e.std is None else e.text.partition(" ± ")[2]) for e in row])
            writer.writerow(map(csv_cell, cells))
        return text.getvalue()

    def latex(self) -> str:
        """As a LaTeX table environment; needs no package."""
        mark = {"": "{}", "bold": "\\textbf{{{}}}", "italic": "\\textit{{{}}}"}
        rows = [" & ".join(mark[e.mark].format(_tex(e.text)) for e in row) + " \\\\" for row in self.rows]
        parts = [
            "\\begin{table}",
            f"\\caption{{{_tex(self.title)}.}}",
            f"\\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
            "\\hline",
            " & ".join(map(_tex, self.header)) + " \\\\",
            "\\hline",
            *rows,
            "\\hline",
            "\\end{tabular}",
            *(f"\\par\\footnotesize {_tex(note)}" for note in self.notes),
            "\\end{table}",
        ]
        return "\n".join(parts) + "\n"

    def html(self) -> str:
        """As an HTML table; every word is escaped, and cells name their column for pages that stack them."""
        mark = {"": "{}", "bold": "<b>{}</b>", "italic": "<i>{}</i>"}
        kinds = ["title", *["number"] * (len(self.header) - 1)]
        head = "".join(
            f'<th scope="col" class="{k}">{html.escape(w)}</th>'
            for k, w in zip(kinds, self.header, strict=True)
        )
        body = "\n".join(
            "<tr>"
            + "".join(
                f'<td class="{k}" data-head="{html.escape(w)}">{mark[e.mark].format(html.escape(e.text))}</td>'
                for k, w, e in zip(kinds, self.header, row, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _row(words: Iterable[str]) -> str:
    return "| " + " | ".join(words) + " |"


def _md(text: str) -> str:
    """The text on one line, with what Markdown would take for its own escaped."""
    return "".join("\\" + c if c in "\\|*_`<>[]#~&!" else c for c in _line(text))


_TEX = (
    {c: "\\" + c for c in "&%$#_{}"}
    | {c: f"{{{c}}}" for c in "[]*"}
    | {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "±": "$\\pm$",
        "²": "$^2$",
        "↑": "$\\uparrow$",
        "↓": "$\\downarrow$",
        "†": "$\\dagger$",
        "–": "--",
        "∞": "$\\infty$",
    }
)


def _tex(text: str) -> str:
    """The text on one line, with what LaTeX would take for its own escaped."""
    return "".join(_TEX.get(c, c) for c in _line(text))


def _line(text: str) -> str:
    """The text with what ends a line as spaces, and other control characters spelt out."""
    return visible(" ".join(text.split()))
