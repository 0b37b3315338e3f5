"""Which settings a search tries, and their ranges. Imports no torch.

::

    train.lr=log:1e-4..3e-3       a number between, on a logarithmic scale
    dropout=0.1..0.5              a number between
    proposals=8..32/8             8, 16, 24 or 32
    backbone.width=16|32|64       one of these
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambiseg.engine.presets import TRAINING_LENGTHS, joined, placed, resolve
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods.spec import MethodSpec
from ambiseg.nested_settings import mapping, options_of, parse_assignments, shown
from ambiseg.plain_yaml import read_yaml_file

OPTION = "--search"
GRAMMAR = "LOW..HIGH, LOW..HIGH/STEP, log:LOW..HIGH or A|B|C"
NOT_COMPARABLE = {f"train.{name}": "every trial is trained equally long" for name in TRAINING_LENGTHS} | {
    "train.seed": "a seed is chance, no setting that is good elsewhere",
    "train.labels": "the validation of trials with other labels is another one",
    "train.select": "--metric says what all trials are compared by",
    "train.validation_labels": "all trials are validated on the same labels",
    "train.validation_images": "all trials are validated on the same images",
    "train.validations": "the best of more validations is better by chance",
    "train.validate_every": "the best of more validations is better by chance",
    "train.early_stop": "every trial is trained equally long",
    "train.devices": "--jobs says how many trials are trained at a time",
}
"""Settings that are not searched, and why."""
MOST_CHOICES = 1000
_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})(?:/({_NUMBER}))?")


@dataclass(frozen=True)
class Numbers:
    """Numbers from ``low`` to ``high``, both included: on a logarithmic scale, in steps, or whole."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def suggest(self, trial: Any, name: str) -> str:
        """A value for a trial of Optuna, as YAML."""
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return shown(trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log))
        return shown(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))

    def ends(self) -> tuple[str, ...]:
        """The values that are checked before the search, as YAML."""
        return tuple(shown(int(end) if self.whole else end) for end in (self.low, self.high))

    def holds(self, value: Any) -> bool:
        """Whether a value is among them."""
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high:
            return False
        places = 0.0 if self.step is None else (value - self.low) / self.step
        return math.isclose(places, round(places), abs_tol=1e-9)

    def stored(self, value: Any) -> Any:
        """A value as Optuna keeps it."""
        return value


@dataclass(frozen=True)
class Choices:
    """Some values, as YAML."""

    words: tuple[str, ...]

    def suggest(self, trial: Any, name: str) -> str:
        """A value for a trial of Optuna, as YAML."""
        return str(trial.suggest_categorical(name, self.words))

    def ends(self) -> tuple[str, ...]:
        """The values that are checked before the search, as YAML."""
        return self.words

    def holds(self, value: Any) -> bool:
        """Whether a value is among them."""
        return self.stored(value) in self.words

    def stored(self, value: Any) -> Any:
        """A value as Optuna keeps it: the word that means it."""
        return next((word for word in self.words if _meant(word) == value), shown(value))


def _meant(word: str) -> Any:
    return parse_assignments([f"value={word}"], OPTION)["value"]


Range = Numbers | Choices


def parse_range(name: str, text: str, whole: bool = True) -> Range:
    """The range that a text says.

    Args:
        name: the setting.
        text: see the module.
        whole: whether the setting takes whole numbers only, where both ends are whole.

    Raises:
        AmbisegError: it says none.

    Example:
        >>> parse_range("train.lr", "log:1e-4..3e-3", whole=False)
        Numbers(low=0.0001, high=0.003, log=True, step=None, whole=False)
        >>> parse_range("backbone.width", "16|32|64")
        Choices(words=('16', '32', '64'))
    """
    said = f"{OPTION} {name}={text}"
    if "|" in text:
        words = tuple(word.strip() for word in text.split("|"))
        if not all(words) or len(set(words)) < len(words) or len(words) > MOST_CHOICES:
            raise AmbisegError(
                f"{said}: choices are different values with | between, at most {MOST_CHOICES} of them"
            )
        return Choices(words)
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        raise AmbisegError(f"{said}: a range is {GRAMMAR}")
    log, low, high = bool(found[1]), float(found[2]), float(found[3])
    step = None if found[4] is None else float(found[4])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise AmbisegError(f"{said}: the range goes from a lower number to a higher one")
    if log and low <= 0:
        raise AmbisegError(f"{said}: a logarithmic range begins above 0")
    if step is not None and (log or not 0 < step <= high - low):
        raise AmbisegError(f"{said}: a step is above 0 and at most the range, and goes with no log:")
    numbers = (low, high, *([] if step is None else [step]))
    return Numbers(low, high, log, step, whole and all(number == int(number) for number in numbers))


def parse_search(words: Collection[str]) -> dict[str, str]:
    """Texts of ranges by the names of settings, from words such as ``train.lr=log:1e-4..3e-3``.

    Raises:
        AmbisegError: a word without ``=``, or a setting that occurs twice.

    Example:
        >>> parse_search(["rank=5|10", "train.lr=log:1e-4..3e-3"])
        {'rank': '5|10', 'train.lr': 'log:1e-4..3e-3'}
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not name:
            raise AmbisegError(f"{OPTION} is NAME=RANGE, a range is {GRAMMAR}, received {word!r}")
        if name in found:
            raise AmbisegError(f"{OPTION} {name} is given twice, as {found[name]} and {text}: give one")
        found[name] = text
    return found


def read_space(path: Path) -> dict[str, str]:
    """Texts of ranges by the names of settings, from a YAML file: a text or a list of values for each setting, whose
    name is written with dots or nested.

    Raises:
        AmbisegError: the file cannot be read or says something else.
    """
    found = dict(_flat(mapping(read_yaml_file(path), str(path)), f"{path}: "))
    if not found:
        raise AmbisegError(f"{path} names no setting: write lines such as 'train.lr: log:1e-4..3e-3'")
    return found


def _flat(values: Mapping[str, Any], where: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, where, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        elif isinstance(value, list) and value:
            yield name, "|".join(map(shown, value))
        else:
            raise AmbisegError(
                f"{where}{name} is a range ({GRAMMAR}) or a list of values, received {value!r:.80}"
            )


def default_space(spec: MethodSpec, preset: str, said: Mapping[str, Any]) -> dict[str, str]:
    """What is searched where nothing is said: learning rate, weight decay and batch size around those of the preset, and
    the settings that the method names, where its ranges hold the values of the preset.

    Args:
        spec: the method.
        preset: one of its presets.
        said: values of train, backbone and settings over the preset; what they say is not searched.
    """
    train, backbone, settings = resolve(spec, preset, said["train"], said["backbone"], said["settings"])
    lr, decay, batch = train.lr, train.optimiser.weight_decay, train.batch_size
    found = {"train.lr": f"log:{lr / 5:.3g}..{lr * 5:.3g}"}
    if decay > 0:
        found["train.optimiser.weight_decay"] = f"log:{decay / 10:.3g}..{decay * 10:.3g}"
    sizes = dict.fromkeys(size for size in (batch // 2, batch, batch * 2) if size > 0)
    found["train.batch_size"] = "|".join(map(str, sizes))
    own = {option.path: option.default for option in options_of(type(settings), settings) if option.active}
    found |= {
        name: text
        for name, text in spec.search.items()
        if name in own and parse_range(name, text).holds(own[name])
    }
    return {name: text for name, text in found.items() if not _says(said, name)}


def _says(said: Mapping[str, Any], name: str) -> bool:
    """Whether values of train, backbone and settings say a setting, or what it is a part of."""
    part, _, rest = name.partition(".")
    place: Any = said.get(part) if part in ("train", "backbone") and rest else said["settings"]
    for key in (rest if place is said.get(part) else name).split("."):
        if not isinstance(place, Mapping):
            return True
        if key not in place:
            return False
        place = place[key]
    return True


@dataclass(frozen=True)
class Space:
    """Settings with their ranges, known to be of a method.

    Attributes:
        spec, preset: the method and its preset.
        said: values of train, backbone and settings that all trials share.
        ranges: by the names of settings.
        base: values of the searched settings without the search, by name.
    """

    spec: MethodSpec
    preset: str
    said: Mapping[str, Any]
    ranges: Mapping[str, Range]
    base: Mapping[str, Any]

    @classmethod
    def of(cls, texts: Mapping[str, str], spec: MethodSpec, preset: str, said: Mapping[str, Any]) -> Space:
        """The space that texts say, each range of which is tried at its ends.

        Raises:
            AmbisegError: a setting that the method does not have (the message suggests the nearest one), or that is not
                searched; a range that cannot be read, or whose ends make no sense.
        """
        if not texts:
            raise AmbisegError(f"nothing is left to search: name settings with {OPTION} NAME=RANGE")
        parts = resolve(spec, preset, said["train"], said["backbone"], said["settings"])
        options = {
            option.path: option
            for part, prefix in zip(parts, ("train.", "backbone.", ""), strict=True)
            for option in sorted(options_of(type(part), part, prefix), key=lambda option: option.active)
        }
        ranges = {}
        for name, text in texts.items():
            if name in NOT_COMPARABLE:
                raise AmbisegError(f"{OPTION} {name} is not possible: {NOT_COMPARABLE[name]}")
            whole = name not in options or "float" not in options[name].kind.split()
            ranges[name] = parse_range(name, text, whole)
            for end in ranges[name].ends():
                try:
                    _resolved(spec, preset, joined(said, placed(spec, [f"{name}={end}"], OPTION)))
                except AmbisegError as error:
                    words = str(error)
                    raise AmbisegError(
                        words if words.startswith(OPTION) else f"{OPTION} {name}={text}: {words}"
                    ) from error
        base = {name: options[name].default for name in ranges if name in options and options[name].active}
        return cls(spec, preset, said, ranges, base)

    def start(self) -> dict[str, Any]:
        """The values of the preset that lie in their ranges, for the first trial, as Optuna keeps them."""
        return {
            name: one.stored(self.base[name])
            for name, one in self.ranges.items()
            if name in self.base and one.holds(self.base[name])
        }

    def suggest(self, trial: Any) -> dict[str, str]:
        """Values for a trial of Optuna, as YAML; those that it has already stay."""
        return {name: one.suggest(trial, name) for name, one in self.ranges.items()}

    def values(self, drawn: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Values of train, backbone and settings of a trial, over those of the preset.

        Raises:
            AmbisegError: the combination makes no sense.
        """
        words = [f"{name}={text}" for name, text in drawn.items()]
        values = joined(self.said, placed(self.spec, words, OPTION))
        _resolved(self.spec, self.preset, values)
        return values


def _resolved(spec: MethodSpec, preset: str, values: Mapping[str, Any]) -> TrainSettings:
    return resolve(spec, preset, values["train"], values["backbone"], values["settings"])[0]


def brief(text: str) -> str:
    """The text of a value, a long number with four digits.

    Example:
        >>> brief("0.00042652076"), brief("logit-normal")
        ('0.0004265', 'logit-normal')
    """
    try:
        return text if len(text) <= 6 else f"{float(text):.4g}"
    except ValueError:
        return text
