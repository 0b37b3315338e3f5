"""Words to typed values: tyro reads the dataclass of a verb, and a mistake becomes one sentence.

tyro draws its complaints as boxes of several lines (in plain characters where the terminal knows no others);
here they are read back into the single line that every other error of this command line has.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import tyro

from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.engine.postprocess import PredictSettings

T = TypeVar("T")

_CONFIG = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone)

Shown = tyro.conf.arg(help_behavior_hint="")
"""Marks an option that is on by default and shown as ``--no-...``: its help says what that does."""


def parse(arguments: type[T], args: Sequence[str], prog: str, pairs: bool = False) -> T:
    """The value of a dataclass as ``args`` say; ``--help`` prints the help and ends the program.

    Args:
        arguments: the dataclass.
        args: the words.
        prog: the words before them.
        pairs: whether every switch can be given as ``--name`` and ``--no-name``; else only as what changes
            it.

    Raises:
        AmbisegError: an unknown option, a missing one, or a value of the wrong kind.
    """
    complaint = io.StringIO()
    _join_lines(arguments)
    config = _CONFIG if pairs else (*_CONFIG, tyro.conf.FlagCreatePairsOff)
    try:
        with redirect_stderr(complaint):
            return tyro.cli(arguments, args=list(args), prog=prog, config=config)
    except SystemExit as end:
        if not end.code:
            raise
        raise AmbisegError(f"{sentence(complaint.getvalue())}; see '{prog} --help'") from None


def _join_lines(arguments: Any) -> None:
    """Give tyro the help of each field as one line: of a docstring of several it keeps the breaks, and wraps
    between them."""
    for part in get_args(arguments):
        _join_lines(part)
    kind = get_origin(arguments) or arguments
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return
    help_of: dict[str, str | None] = {}
    for owner in filter(is_dataclass, reversed(kind.__mro__)):
        help_of |= {p.arg_name: p.description for p in docstring_parser.parse_from_object(owner).params}
    types = get_type_hints(kind)
    for field in fields(kind):
        if text := help_of.get(field.name):
            field.metadata = MappingProxyType({"help": " ".join(text.split()), **field.metadata})
        _join_lines(types[field.name])


def sentence(box: str) -> str:
    """The message inside one of tyro's boxes, with the nearest option if it names one.

    Example:
        >>> sentence('''╭─ Unrecognized options ─────╮
        ... │ Unrecognized options: --lrr │
        ... │ ─────────────────────────── │
        ... │ Perhaps you meant:          │
        ... │     --lr FLOAT              │
        ... ╰─────────────────────────────╯''')
        'unrecognized options: --lrr (did you mean --lr?)'
    """
    plain = re.sub(r"\x1b\[[0-9;]*m|│$", "", box, flags=re.MULTILINE)
    parts: list[list[str]] = [[]]
    for line in plain.splitlines()[1:]:
        if set(line) <= set(" │─-╰╯"):
            parts.append([])
        else:
            parts[-1].append(line[2:].rstrip())
    parts = [part for part in parts if part] or [["the command line cannot be understood"]]
    if parts[0][0].startswith("Missing from"):
        unknown = [word for part in parts if part[0].startswith("Unrecognized") for word in _entries(part)]
        tail = f"; unrecognized: {' '.join(unknown)}" if unknown else ""
        return f"missing {', '.join(_entries(parts[0]))}{tail}"
    words = " ".join(line.strip() for line in parts[0]).rstrip(". ")
    words = words.replace("'None', ", "").replace(", 'None'", "")
    near = [name for part in parts if part[0].startswith("Perhaps") for name in _entries(part)]
    hint = f" (did you mean {near[0].split()[0].rstrip(',')}?)" if near else ""
    return words[:1].lower() + words[1:] + hint


def _entries(lines: list[str]) -> list[str]:
    """The options in a list of options with their help: indented by one level."""
    return [line.strip() for line in lines if re.match(r" {4}\S", line)]


FILTERS = ("score_threshold", "probability_threshold", "duplicate_iou")
"""Options that drop masks."""


@dataclass(frozen=True)
class Filtering:
    """How many masks are asked of the model, and which are kept."""

    all: bool = False
    """Keep every mask that the model predicts: no filter."""
    score_threshold: float | Literal["auto"] = "auto"
    """Drop masks with a lower selection score; the masks that represent them best get their probability. This and the
    next five are "auto": the values fitted on the validation images of the run (filter.json)."""
    probability_threshold: float | Literal["auto"] = "auto"
    """Drop masks with a lower probability in the same way."""
    duplicate_iou: float | Literal["auto"] = "auto"
    """Of masks more alike than this keep the best, with their joint probability; 1: of identical ones."""
    foreground_threshold: float | Literal["auto"] = "auto"
    """Pixels with a higher probability are foreground (one class). Below one half small objects are missed
    less often."""
    temperature: float | Literal["auto"] = "auto"
    """Probabilities of kept masks are taken to the power of one over this: more even above 1."""
    top: int | Literal["auto"] = "auto"
    """Keep at most this many masks, those that represent all of them best, each with its share of the probability."""
    samples: int | None = None
    """Masks to ask of the model; the method's own number if left out."""

    def check(self) -> None:
        """Raise `AmbisegError` if a value makes no sense."""
        for name in (*FILTERS, "foreground_threshold"):
            value = getattr(self, name)
            if value != "auto" and not 0 <= value <= 1:
                raise AmbisegError(f"--{name.replace('_', '-')} is 0 to 1, received {value}")
        if self.temperature != "auto" and not 0 < self.temperature < math.inf:
            raise AmbisegError(f"--temperature must be above 0, received {self.temperature}")
        given = [f"--{name.replace('_', '-')}" for name in FILTERS if getattr(self, name) != "auto"]
        if self.all and given:
            raise AmbisegError(f"--all keeps every mask: leave out {' and '.join(given)}")
        at_least_one(top=None if self.top == "auto" else self.top)
        at_least_one(samples=self.samples)

    def settings(self) -> PredictSettings:
        """The library's settings for these options."""
        from ambiseg.engine.postprocess import PredictSettings

        filters: dict[str, Any] = {name: None if self.all else getattr(self, name) for name in FILTERS}
        return PredictSettings(
            **filters,
            samples=self.samples,
            top=None if self.all and self.top == "auto" else self.top,
            foreground_threshold=self.foreground_threshold,
            temperature=self.temperature,
        )


@dataclass(frozen=True)
class Proposing(Filtering):
    """Which masks are asked of the model and kept, and where their probabilities come from."""

    probabilities: Literal["head", "velocity", "mean", "posterior", "samples"] = "head"
    """Where the probabilities of kept masks come from: the method itself, or a flow model (--flow): its
    velocity decomposed, the same from one evaluation, its posterior means at t > 0, or samples counted."""
    flow: Path | None = None
    """Run of flow-matching that estimates probabilities."""
    draws: int = 64
    """Draws of noise, or samples, with which it does."""
    robust: bool = False
    """Take medians of what the flow says over areas in which no kept mask changes, not means: pixels that it
    takes for another class do not count then."""
    flips: int = 0
    """Number of areas that are switched on and off independently in the masks, like classes of a street scene
    (0: none). They are found in the kept masks, whose probabilities become products of one probability for
    each area."""
    batch_size: int = 16
    """Images in one pass."""
    seed: int = 0
    """Seed of methods that draw at random."""

    def check(self) -> None:
        """Raise `AmbisegError` if a value makes no sense."""
        super().check()
        if self.temperature != "auto" and self.probabilities != "head":
            raise AmbisegError(
                f"--temperature is of use with --probabilities head only, received {self.probabilities}"
            )
        at_least_one(batch_size=self.batch_size, draws=self.draws)
        if self.probabilities != "head" and self.flow is None:
            raise AmbisegError(
                f"--probabilities {self.probabilities} needs --flow RUN, a run of 'ambiseg train flow-matching'"
            )
        if self.probabilities == "head" and self.flow is not None:
            raise AmbisegError(
                "--flow is of use with --probabilities velocity, mean, posterior or samples only"
            )
        if self.robust and self.probabilities in ("head", "samples"):
            raise AmbisegError("--robust is of use with --probabilities velocity, mean or posterior only")
        if self.seed < 0:
            raise AmbisegError(f"--seed must not be negative, received {self.seed}")


@dataclass(frozen=True)
class Grouping:
    """Which images belong together; intervals draw them together."""

    groups: Path | None = None
    """CSV with the columns id and group (a patient, a scene), as for 'ambiseg data split'. Without it and --prefix,
    slices of a volume belong together."""
    prefix: str = ""
    """Regular expression for the start of an id that names its group, such as "[^_]+" for patient_slice."""

    def of(self, ids: Sequence[str]) -> dict[str, str] | None:
        """Group of each image that is named; None where each stands alone.

        Raises:
            AmbisegError: both options, a table that is wrong, or an expression that does not fit.
        """
        from ambiseg.data.listing import read_columns
        from ambiseg.data.splits.assignment import groups_by_pattern
        from ambiseg.data.volumes.settings import of_slices

        if self.groups is not None and self.prefix:
            raise AmbisegError("--groups and --prefix both say what a group is: give one of them")
        if self.groups is not None:
            return {
                name: row["group"] for name, row in of_slices(read_columns(self.groups, "group"), ids).items()
            }
        return groups_by_pattern(ids, self.prefix) if self.prefix else None


@dataclass(frozen=True)
class Measuring:
    """Whose conventions hold in metrics, and which classes count."""

    dialect: str = "ambiseg"
    """Conventions of a paper's code, by name: ambiseg, kohl, flow-ssn, mose, ccdm or wildfire."""
    classes: str = ""
    """Classes to evaluate, names or ids with commas between them; those of the dialect if left out, of most all
    but the background."""

    def chosen(self) -> list[str]:
        """The classes, one by one."""
        return [word.strip() for word in self.classes.split(",") if word.strip()]


def at_least_one(**numbers: int | None) -> None:
    """Raise `AmbisegError` if one of the numbers is below 1 (None is allowed)."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise AmbisegError(f"--{name.replace('_', '-')} must be at least 1, received {value}")


def changed_options(arguments: Any) -> Iterator[object]:
    """Words for the values of a flat dataclass that are not the defaults."""
    for field in fields(arguments):
        value, name = getattr(arguments, field.name), field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        else:
            yield from (f"--{name}", value)
