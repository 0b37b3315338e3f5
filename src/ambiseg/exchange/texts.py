"""Names and colours as XML, HTML and JSON can hold them."""

from __future__ import annotations

import re

from ambiseg.escaping import visible

_FORBIDDEN = re.compile("[\ufffe\uffff]")


def xml_text(text: str) -> str:
    r"""The text without characters that XML forbids: control characters are spelt out. It is not escaped yet.

    Example:
        >>> xml_text("a\x01<b>\uffff")
        'a\\x01<b>?'
    """
    return _FORBIDDEN.sub("?", visible(text))


def hex_color(color: tuple[int, int, int]) -> str:
    """A colour as HTML writes it.

    Example:
        >>> hex_color((255, 0, 16))
        '#ff0010'
    """
    return "#{:02x}{:02x}{:02x}".format(*color)
