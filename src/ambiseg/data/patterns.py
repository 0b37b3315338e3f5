"""Where the files of a data set lie: paths with fields, such as ``masks/{annotator}/{id}.*``.

A field stands for one part of a file or folder name:

``{id}``
    the image; every pattern has it.
``{annotator}``
    who made the mask.
``{group}``
    a patient, scene or folder; part of the name of the image.
``{split}``
    train, val, test, or what usually means them: `split_word`.
``{channel}``
    for images whose channels are files of their own.

``{annotator:anna|ben}`` admits these values only. ``*`` is any text within a name, ``?`` one character, ``**/`` any
folders; ``.*`` at the end is the suffix of any file that can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from ambiseg.errors import AmbisegError, UnknownNameError

FIELDS = ("id", "annotator", "group", "split", "channel")
LONGEST = 1000
"""Characters of a pattern."""
MOST_WILDCARDS = 6
"""Fields and ``*`` in one part of a path."""

_TOKEN = re.compile(r"\{([a-z]+)(?::([^{}/]*))?\}|\*\*/|\*|\?|[^{}*?]+|.")
_SPLIT_WORDS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "ts"),
}


def split_word(name: str) -> str:
    """The split that a folder name means.

    Example:
        >>> split_word("Training"), split_word("valid"), split_word("Ts"), split_word("extra")
        ('train', 'val', 'test', 'extra')
    """
    return next((split for split, words in _SPLIT_WORDS.items() if name.lower() in words), name)


@dataclass(frozen=True)
class Pattern:
    """One path with fields, relative to the data.

    Raises:
        AmbisegError: unknown fields, no ``{id}``, a path that leads elsewhere, too many wildcards.

    Example:
        >>> Pattern("masks/{annotator}/{id}.*").match("masks/anna/p1_3.png")
        {'annotator': 'anna', 'id': 'p1_3'}
        >>> Pattern("{id}_{annotator}.*").match("p1_3_anna.png", [4, 2])
        {'id': 'p1_3', 'annotator': 'anna'}
    """

    text: str

    def __post_init__(self) -> None:
        parts = self.text.split("/")
        if not self.text or len(self.text) > LONGEST:
            raise AmbisegError(f"a pattern has 1 to {LONGEST} characters, received {len(self.text)}")
        if self.text.startswith("/") or "\\" in self.text or not {"", ".", ".."}.isdisjoint(parts):
            raise AmbisegError(
                f"pattern {self.text!r} is no path within the data: write folders and file with '/' between them,"
                " without '..'"
            )
        names = [match[1] for match in _TOKEN.finditer(self.text) if match[1]]
        unknown = next((name for name in names if name not in FIELDS), None)
        if unknown is not None:
            raise UnknownNameError(f"field of pattern {self.text!r}", unknown, FIELDS)
        if "id" not in names:
            raise AmbisegError(
                f"pattern {self.text!r} has no {{id}}: write it where the name of the image stands"
            )
        if any(match[0] in "{}" for match in _TOKEN.finditer(self.text)):
            raise AmbisegError(
                f"pattern {self.text!r} has a brace that is no field: write {{id}} or {{annotator}}"
            )
        if any(sum(m[0][0] in "{*?" for m in _TOKEN.finditer(part)) > MOST_WILDCARDS for part in parts):
            raise AmbisegError(
                f"pattern {self.text!r} has more than {MOST_WILDCARDS} fields and '*' in one name: simplify it"
            )

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the fields that it has."""
        return frozenset(match[1] for match in _TOKEN.finditer(self.text) if match[1])

    @cached_property
    def depth(self) -> int | None:
        """Parts of the paths that it describes; None where ``**`` admits any."""
        return None if "**/" in self.text else self.text.count("/") + 1

    @cached_property
    def any_suffix(self) -> bool:
        """Whether files of all suffixes belong to it."""
        return self.text.endswith(".*")

    @cached_property
    def _loose(self) -> bool:
        """Whether the name with ``{id}`` may be read in several ways."""
        return any(
            "{id" in part and sum(m[0][0] in "{*" for m in _TOKEN.finditer(part)) > 1
            for part in self.text.removesuffix(".*").split("/")
        )

    def match(self, path: str, lengths: Iterable[int] = ()) -> dict[str, str] | None:
        """The fields of a path, None if it does not fit.

        Args:
            path: with ``/`` between its parts.
            lengths: of the ids that are known, longest first; tried one after another where ``{id}`` may end in
                several places. See `matches`.
        """
        return next(self.matches(path, lengths), None)

    def matches(self, path: str, lengths: Iterable[int] = ()) -> Iterator[dict[str, str]]:
        """The fields of a path, for each way to read it that has an id of one of the lengths."""
        text = path if not self.any_suffix else _without_suffix(path)
        if not self._loose or not lengths:
            found = _compiled(self.text, None).fullmatch(text)
            if found is not None:
                yield found.groupdict()
            return
        for length in lengths:
            found = _compiled(self.text, length).fullmatch(text) if length <= len(text) else None
            if found is not None:
                yield found.groupdict()


@lru_cache(maxsize=4096)
def _compiled(pattern: str, length: int | None) -> re.Pattern[str]:
    """The regular expression of a pattern, with an id of this many characters."""
    seen: set[str] = set()
    made = []
    for token in _TOKEN.finditer(pattern.removesuffix(".*")):
        name, values = token[1], token[2]
        if name in seen:
            made.append(f"(?P={name})")
        elif name:
            seen.add(name)
            own = "[^/]+" if name != "id" or length is None else f"[^/]{{{length}}}"
            if values is not None:
                own = "|".join(re.escape(value) for value in values.split("|"))
            made.append(f"(?P<{name}>{own})")
        else:
            made.append({"*": "[^/]*", "?": "[^/]", "**/": "(?:[^/]+/)*"}.get(token[0], re.escape(token[0])))
    return re.compile("".join(made), re.DOTALL)


def _without_suffix(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix.isdigit():  # a folder, also one named by the UID of a DICOM series
        stem = name
    elif name.lower().endswith(".nii.gz"):
        stem = name[:-7]
    return f"{folder}{slash}{stem}"


@dataclass(frozen=True)
class FilePatterns:
    """The key ``files`` of ``dataset.yaml``: data that are read where they lie.

    Attributes:
        images: patterns of the images.
        masks: patterns of the masks.
        root: folder of the data, relative to that of ``dataset.yaml`` or absolute.
        splits: table beside ``dataset.yaml`` with the columns id and split, which counts more than ``{split}`` of a
            pattern; empty if there is none.

    Raises:
        AmbisegError: no pattern, a field in the wrong place, a table that lies elsewhere.
    """

    images: tuple[Pattern, ...]
    masks: tuple[Pattern, ...]
    root: str = "."
    splits: str = ""

    def __post_init__(self) -> None:
        for what, patterns in (("images", self.images), ("masks", self.masks)):
            if not patterns:
                raise AmbisegError(f"files has no {what}: write a pattern, such as {what}: {what}/{{id}}.*")
        fields = [pattern.fields for pattern in self.images]
        if any(one != fields[0] for one in fields):
            raise AmbisegError("all patterns of images need the same fields: correct them")
        for pattern in self.images:
            if "annotator" in pattern.fields:
                raise AmbisegError(f"{pattern.text!r} is a pattern of images: remove {{annotator}}")
        for pattern in self.masks:
            extra = pattern.fields - {"annotator"} - fields[0]
            if extra or "channel" in pattern.fields:
                name = min(extra or {"channel"})
                raise AmbisegError(f"pattern {pattern.text!r} of masks has {{{name}}}: write * in its place")
        if self.splits and (re.search(r"[/\\]", self.splits) or self.splits.startswith(".")):
            raise AmbisegError(
                f"splits is a file beside dataset.yaml, such as splits.csv, received {self.splits!r}"
            )

    @property
    def all(self) -> tuple[Pattern, ...]:
        """The patterns of images and masks."""
        return self.images + self.masks

    @property
    def depth(self) -> int | None:
        """Most parts of a path that fits; None for any number."""
        depths = [pattern.depth for pattern in self.all]
        return None if None in depths else max(depth for depth in depths if depth)

    def entries(self) -> dict[str, Any]:
        """The plain values that `read_files` reads back."""
        found: dict[str, Any] = {"root": self.root} if self.root != "." else {}
        for key, patterns in (("images", self.images), ("masks", self.masks)):
            texts = [pattern.text for pattern in patterns]
            found[key] = texts[0] if len(texts) == 1 else texts
        return found | ({"splits": self.splits} if self.splits else {})

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> FilePatterns:
        """From the values of its keys."""
        return cls(
            tuple(map(Pattern, values["images"])),
            tuple(map(Pattern, values["masks"])),
            values["root"] or ".",
            values["splits"],
        )
