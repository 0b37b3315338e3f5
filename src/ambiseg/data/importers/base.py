"""What an importer is: a function that reads one distribution of a published data set into samples.

An importer opens nothing but its source, reads lazily, and never stops at one bad file: what cannot be read
goes into `Imported.problems` with its name and remedy, and the rest goes on. It stops (`AmbisegError`) where
nothing can be read, or where going on would give a data set that means something else, such as an unknown
class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ambiseg.data.files.validation import FileProblem
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample

Facts = dict[str, int | float | str]
"""Numbers worth knowing, such as masks that were scaled, by what they count."""


def count(facts: Facts, what: str) -> None:
    """Count one more of ``what``.

    Example:
        >>> facts = {}
        >>> count(facts, "scans"), count(facts, "scans"), facts
        (None, None, {'scans': 2})
    """
    facts[what] = int(facts.get(what, 0)) + 1


@dataclass(frozen=True)
class Lazy:
    """Samples that are made when they are asked for, and whose number is known before.

    Example:
        >>> len(Lazy(3, lambda: iter([])))
        3
    """

    count: int
    make: Callable[[], Iterator[Sample]]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return self.make()


@dataclass(frozen=True)
class Imported:
    """A distribution that was opened: what it is, its splits, and what was wrong with it.

    Attributes:
        info: name, classes, source, licence, augmentation, channels.
        splits: samples of each split; where the number is known, as `Lazy`. Fewer may come than announced.
        split_name: how the splits were made, such as ``by patient, 60/20/20, seed 0``.
        problems: what was left out, added to while the splits are read.
        facts: numbers worth knowing, such as scans and nodules by number of readers; may be added to while
            the splits are read.
    """

    info: DatasetInfo
    splits: Mapping[str, Iterable[Sample]]
    split_name: str
    problems: list[FileProblem] = field(default_factory=list)
    facts: Mapping[str, int | float | str] = field(default_factory=dict)
