"""Words of users, files and data as a terminal, JSON and a spreadsheet can show them without obeying them."""

from __future__ import annotations

import re
import unicodedata

_PLAIN = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?inf")


def visible(text: str) -> str:
    r"""The text with everything that moves the cursor, starts a line or turns the reading direction spelt out.

    Example:
        >>> visible("a\nb"), visible("\x1b[2J"), visible("α–β")
        ('a\\nb', '\\x1b[2J', 'α–β')
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def visible_json(text: str) -> str:
    """JSON with the same characters as JSON escapes; line breaks and tabs between its entries stay.

    Example:
        >>> visible_json('"a\x9bb"')
        '"a\\\\u009bb"'
    """
    return "".join(f"\\u{ord(c):04x}" if c != "\n" and _acts(c) and ord(c) < 0x10000 else c for c in text)


def csv_cell(text: str) -> str:
    """The text as a spreadsheet shows it and does not compute it: what begins like a formula and is no number
    gets an apostrophe.

    Example:
        >>> csv_cell("=1+1"), csv_cell("-0.5"), csv_cell("-inf"), csv_cell("ssn")
        ("'=1+1", '-0.5', '-inf', 'ssn')
    """
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def of_csv_cell(text: str) -> str:
    """The inverse of `csv_cell`.

    Example:
        >>> of_csv_cell("'=1+1"), of_csv_cell("'s")
        ('=1+1', "'s")
    """
    return text[1:] if text.startswith("'") and csv_cell(text[1:]) == text else text


def _acts(character: str) -> bool:
    """Whether a terminal acts on it or cannot show it: control, format, surrogates, breaks of lines."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _visible(character: str) -> str:
    if not _acts(character):
        return character
    code = ord(character)
    return _PLAIN.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
