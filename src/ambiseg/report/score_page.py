"""The page of scores: one file that needs no other."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from ambiseg.metrics.tables import MetricRow
from ambiseg.report.score_tables import Column
from ambiseg.report.template import template
from ambiseg.report.text_tables import Table

_INTERVAL = re.compile(r"(?<= )(\[[^][<>]*\]|p (=|&lt;) [\d.]+)")
"""Parts of a cell in which a line does not break."""


def score_page(
    table: Table, columns: Sequence[Column], remarks: Sequence[str] = (), command: str = ""
) -> str:
    """A page with the table, what the metrics are, and the values of images to download; it needs no other file.

    Args:
        table: see `score_table`.
        columns: the systems; those with ``per_image`` get a link.
        remarks: what a reader must know before the figures.
        command: how to repeat it.
    """
    names = dict.fromkeys(name for column in columns for name in column.values)
    return template("score.html.j2").render(
        title=table.title,
        notes=table.notes,
        table=_INTERVAL.sub(r"<span>\g<0></span>", table.html()),
        remarks=remarks,
        metrics=[MetricRow.of(name) for name in names],
        downloads=[(c.name, _address(c.per_image)) for c in columns if c.per_image],
        command=command,
    )


def _address(text: str) -> str:
    """A CSV as a data address."""
    content = base64.b64encode(text.encode(errors="backslashreplace")).decode("ascii")
    return f"data:text/csv;charset=utf-8;base64,{content}"
