"""Settings as nested frozen dataclasses, read from plain values such as those of YAML. Imports no torch.

A field may be a number, a string, one of some literals, a tuple, a dataclass, None, one of several
dataclasses, or a tuple of such. Members of such a choice have a field ``kind`` with one literal, which tells them apart; where
none is said it is that of the default:

    class Sampling:
        solver: Euler | Adaptive = Euler()          {"solver": {"kind": "adaptive", "tolerance": 1.0e-3}}
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import docstring_parser
import yaml

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.plain_yaml import NotPlainError, plain_values

T = TypeVar("T")

MOST = (
    {"depth": 12, "flow_depth": 12, "blocks": 64, "layers": 64, "combine_layers": 64, "members": 256}
    | {name: 4096 for name in ("proposals", "heads", "experts")}
    | {"draws": 100_000}
)
"""Greatest values of whole numbers that repeat parts of a network or a loss."""
MOST_OF_OTHERS = 1_000_000
"""Greatest value of all others; what they need of memory is checked beside the images."""
SIGNED = {"mean", "log_mean"}
"""Names of numbers that may be below 0."""
_EXPONENT = re.compile(r"[-+]?\d+\.?\d*[eE][-+]?\d+")


def from_values(cls: type[T], values: Any, where: str) -> T:
    """A dataclass from plain values, each of the kind that it declares; what is not said keeps its default.

    Args:
        cls: a dataclass, nested as deep as may be.
        values: a mapping, or None for the defaults.
        where: what to call it in messages.

    Raises:
        UnknownNameError: a name that the dataclass does not have; the message suggests the nearest one.
        AmbisegError: a value of another kind, or one that is missing.

    Example:
        >>> from ambiseg.networks.settings import UNetSettings
        >>> from_values(UNetSettings, {"width": "wide"}, "backbone")
        Traceback (most recent call last):
        ambiseg.errors.AmbisegError: backbone: width is int, received 'wide'
    """
    hints = get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    found = {}
    for name, value in mapping(values, where).items():
        check_name(f"key of {where}", name, known)
        found[name] = _value(hints[name], value, name, where, _default(known[name]))
    missing = [name for name, field in known.items() if _is_required(field) and name not in found]
    if missing:
        raise AmbisegError(f"{where}: {' and '.join(missing)} must be set, there is no default")
    return cls(**found)


def to_values(settings: Any) -> dict[str, Any]:
    """The same as nested plain values, as YAML and JSON give them back: lists in place of tuples."""
    values: dict[str, Any] = _plain(dataclasses.asdict(settings))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def replaced(settings: T, values: Mapping[str, Any], where: str) -> T:
    """The same settings with some values replaced, nested ones key by key.

    Raises:
        AmbisegError: see `from_values`.

    Example:
        >>> from ambiseg.networks.settings import UNetSettings
        >>> replaced(UNetSettings(width=8), {"depth": 2}, "backbone").width
        8
    """
    return from_values(type(settings), merged(to_values(settings), values), where)


def completed(
    cls: type[T],
    general: Mapping[str, Any],
    given: Any,
    where: str,
    join: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] | None = None,
) -> T:
    """Settings of given values over general ones; complete settings are taken as they are.

    Args:
        cls: the class of the settings.
        general: values of a preset.
        given: settings, a mapping of values, or None.
        where: what to call them in messages.
        join: joins both mappings; `merged` if None.

    Raises:
        AmbisegError: something else is given, or see `from_values`.
    """
    if isinstance(given, cls):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise AmbisegError(
            f"{where}: {cls.__name__} or a mapping of its values is expected, received {type(given).__name__}"
        )
    # A part that is none by default is merged with its own defaults by `from_values`, so only what is given
    # is passed on.
    return from_values(cls, (join or merged)(general, given or {}), where)


def merged(general: Mapping[str, Any], particular: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one; the particular one wins, and another ``kind`` replaces the whole part.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}})
        {'a': {'b': 1, 'c': 4}, 'd': 3}
    """
    total = dict(general)
    for name, value in particular.items():
        old = total.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            other = "kind" in value and value["kind"] != old.get("kind")
            total[name] = dict(value) if other else merged(old, value)
        else:
            total[name] = value
    return total


def parse_assignments(words: Collection[str], option: str = "--set") -> dict[str, Any]:
    """Nested values from words such as ``energy.weight=0.5``; the right side is YAML.

    Raises:
        AmbisegError: a word without ``=``, or one that contradicts another.

    Example:
        >>> parse_assignments(["energy.weight=0.5", "energy.kernel=dice"])
        {'energy': {'weight': 0.5, 'kernel': 'dice'}}

        A word with settings below it is the kind of a choice:

        >>> parse_assignments(["optimiser=adam", "optimiser.weight_decay=0"])
        {'optimiser': {'kind': 'adam', 'weight_decay': 0}}
    """
    found: dict[str, Any] = {}
    for word in words:
        path, equals, text = word.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names):
            raise AmbisegError(f"{option} is NAME=VALUE, such as backbone.width=64, received {word!r}")
        place = found
        for i, name in enumerate(names[:-1]):
            held = place.setdefault(name, {})
            if isinstance(held, str):
                held = place[name] = {"kind": held}
            if not isinstance(held, dict):
                raise AmbisegError(
                    f"{option} {word} contradicts {option} {'.'.join(names[: i + 1])}={shown(held)}: give one"
                )
            place = held
        value = _scalar(text)
        if isinstance(value, str) and isinstance(place.get(names[-1]), dict):
            place, names = place[names[-1]], [*names, "kind"]
        if names[-1] in place and place[names[-1]] != value:
            raise AmbisegError(
                f"{option} {path} is given twice, as {shown(place[names[-1]])} and {text}: give one"
            )
        place[names[-1]] = value
    return found


@dataclass(frozen=True)
class Option:
    """One value that can be set.

    Attributes:
        path: its place, names joined by dots.
        kind: what it may be, in words.
        default: its value, or its default where it is not `active`.
        help: one paragraph.
        owner: the choices that it belongs to, such as "flow=autoregressive"; empty if it is always there.
        active: whether these choices are made.
        required: whether it has no default.
    """

    path: str
    kind: str
    default: Any
    help: str
    owner: str = ""
    active: bool = True
    required: bool = False


def options_of(
    cls: type[Any], settings: Any = None, prefix: str = "", owner: str = "", active: bool = True
) -> Iterator[Option]:
    """Every value of nested settings with its default and its help, parts that are not chosen as well.

    Example:
        >>> from ambiseg.networks.settings import UNetSettings
        >>> option = next(options_of(UNetSettings))
        >>> option.path, option.kind, option.default, option.help
        ('width', 'int', 32, 'Channels at full resolution.')
    """
    hints, texts = get_type_hints(cls), _texts(cls)  # type: ignore[arg-type]
    for field in dataclasses.fields(cls):
        path, value = (
            prefix + field.name,
            _default(field) if settings is None else getattr(settings, field.name),
        )
        parts = [kind for kind in _members(hints[field.name]) if is_dataclass(kind)]
        if not parts:
            required = settings is None and _is_required(field)
            words = _words(hints[field.name])
            yield Option(path, words, value, texts.get(field.name, ""), owner, active, required)
            continue
        names = [_tag_of(part) if len(parts) > 1 else "settings" for part in parts] + ["none"] * (
            value is None
        )
        if len(parts) > 1 or value is None:
            yield Option(path, " or ".join(names), _tag(value), texts.get(field.name, ""), owner, active)
        for part in parts:
            chosen = isinstance(value, part)  # type: ignore[arg-type]
            own = f"{path}={_tag_of(part)}" if len(parts) > 1 else owner if chosen else f"{path} set"
            yield from options_of(part, value if chosen else None, f"{path}.", own, active and chosen)  # type: ignore[arg-type]


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Values by their paths, without those of parts that are None.

    Example:
        >>> from ambiseg.networks.settings import UNetSettings
        >>> flat(UNetSettings(width=8))["width"]
        8
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        found |= (
            flat(value, f"{prefix}{field.name}.") if is_dataclass(value) else {prefix + field.name: value}
        )
    return found


def number_problems(settings: Any, prefix: str = "") -> list[str]:
    """Numbers that make no sense in the settings of a network or a method, one sentence each.

    Whole numbers count something, so they are 1 or more, or 0 where that is the default or the field's
    metadata have ``least=0``, and at most what `MOST` says; all others are finite, and 0 or more unless they are among `SIGNED`.

    Example:
        >>> from ambiseg.networks.settings import UNetSettings
        >>> number_problems(UNetSettings(width=0, dropout=0), "backbone.")
        ['backbone.width must be at least 1, received 0']
    """
    found = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        least = field.metadata.get("least", 0 if field.default == 0 else 1)
        if is_dataclass(value):
            found += number_problems(value, f"{prefix}{field.name}.")
        whole = (
            isinstance(value, int) and not isinstance(value, bool) and not isinstance(field.default, float)
        )
        if whole and value < least:
            found.append(f"{prefix}{field.name} must be at least {least}, received {value}")
        most = MOST.get(field.name, MOST_OF_OTHERS)
        if whole and value > most:
            found.append(f"{prefix}{field.name} must be at most {most}, received {value}")
        signed = field.name in SIGNED
        if isinstance(value, float) and not (math.isfinite(value) and (signed or value >= 0)):
            words = "a number" if signed else "0 or more"
            found.append(f"{prefix}{field.name} must be {words}, received {value}")
    return found


def differences(settings: Any, other: Any) -> dict[str, Any]:
    """Values by their paths that turn ``other`` into ``settings``.

    Example:
        >>> from ambiseg.networks.settings import UNetSettings
        >>> differences(UNetSettings(width=8), UNetSettings())
        {'width': 8}
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        ours, theirs = getattr(settings, field.name), getattr(other, field.name)
        if ours == theirs:
            continue
        if not is_dataclass(ours):
            found[field.name] = ours
            continue
        same = type(ours) is type(theirs)
        more = differences(ours, theirs) if same else flat(ours)
        found |= {f"{field.name}.{path}": value for path, value in more.items()}
    return found


def shown(value: Any) -> str:
    """A plain value as YAML on one line.

    Example:
        >>> shown(None), shown("euler"), shown((1, 2))
        ('null', 'euler', '[1, 2]')
    """
    plain = [_short(entry) for entry in value] if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=math.inf)
    return str(text).removesuffix("\n").removesuffix("\n...").strip()


def _short(value: Any) -> Any:
    """A dataclass of a choice as its name, or as a mapping of the values that are not its defaults."""
    if not is_dataclass(value):
        return value
    fields = dataclasses.fields(value)
    told = {f.name: getattr(value, f.name) for f in fields if getattr(value, f.name) != f.default}
    return {"kind": _tag(value), **told} if told else _tag(value)


def check_name(kind: str, name: object, names: Collection[str]) -> None:
    """Raise `UnknownNameError` unless a name is among the known ones."""
    if name not in names:
        raise UnknownNameError(kind, str(name), names)


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A mapping, empty for None.

    Raises:
        AmbisegError: anything else.
    """
    if value is not None and not isinstance(value, Mapping):
        raise AmbisegError(f"{where}: 'key: value' lines are expected, received {value!r}")
    return value or {}


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain value is of a declared kind.

    Example:
        >>> fits(1, float), fits(True, int), fits("a", Literal["a", "b"])
        (True, False, True)
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin in (UnionType, Union):
        return any(fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(fits(one, inner[0]) for one in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else origin or kind)


def _value(kind: Any, value: Any, name: str, where: str, default: Any) -> Any:
    inner = _entries(kind)
    if inner is not None and isinstance(value, list | tuple):
        return tuple(_value(inner, entry, name, where, MISSING) for entry in value)
    parts = [part for part in _members(kind) if is_dataclass(part)]
    if parts and value == "none" and type(None) in _members(kind):
        return None
    if len(parts) > 1 and isinstance(value, str):
        value = {"kind": value}
    if parts and value is not None and not fits(value, kind):
        inside = f"{where}: {name}"
        values = mapping(value, inside)
        if len(parts) > 1:
            tags = {_tag_of(part): part for part in parts}
            tag = values.get("kind", getattr(default, "kind", None))
            if tag is None:
                raise AmbisegError(f"{inside}: say which kind: {', '.join(tags)}")
            check_name(f"kind of {inside}", tag, tags)
            _check_owner(values, tag, tags, inside)
            listed = f"{inside}: {tag}" if default is MISSING else inside
            return from_values(tags[tag], values, listed)  # type: ignore[arg-type]
        return from_values(parts[0], values, inside)  # type: ignore[arg-type]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not fits(value, kind) and fits(str(value), kind):
        return str(value)  # YAML takes the word 32 for a number
    if isinstance(value, bool) and get_origin(kind) is Literal and fits("yes" if value else "no", kind):
        return "yes" if value else "no"  # and the word yes for true
    if isinstance(value, int) and not isinstance(value, bool) and float in _members(kind):
        return float(value)
    literals = [word for one in _members(kind) for word in get_args(one) if get_origin(one) is Literal]
    words = [word for word in literals if isinstance(word, str)]
    if words and inner is None and isinstance(value, str):
        check_name(f"value of {where}: {name}", value, words)
    if not fits(value, kind):
        hint = " (YAML wants a dot: 1.0e-3)" if isinstance(value, str) and "e-" in value else ""
        raise AmbisegError(f"{where}: {name} is {_words(kind)}, received {value!r}{hint}")
    return tuple(value) if isinstance(value, list) else value


def _entries(kind: Any) -> Any:
    """The type of the entries where a value may be a tuple of dataclasses, else None."""
    for one in _members(kind):
        inner = get_args(one)[0] if get_origin(one) is tuple else None
        if any(is_dataclass(part) for part in _members(inner)):
            return inner
    return None


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)


def _words(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (UnionType, Union):
        return " or ".join(_words(one) for one in inner)
    if origin is tuple:
        return f"list of {', '.join(map(_words, _members(inner[0])))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping of values by names"
    if kind is type(None):
        return "none"
    if is_dataclass(kind) and "kind" in {field.name for field in dataclasses.fields(kind)}:
        return _tag_of(kind)
    return kind.__name__ if isinstance(kind, type) and not inner else str(kind)


def _tag_of(part: Any) -> str:
    return str(next(f.default for f in dataclasses.fields(part) if f.name == "kind"))


def _tag(value: Any) -> Any:
    return getattr(value, "kind", value) if is_dataclass(value) else value


def _check_owner(values: Mapping[str, Any], tag: str, tags: Mapping[str, Any], where: str) -> None:
    """Say which kind has a setting that the chosen one does not have."""
    names = {kind: {f.name for f in dataclasses.fields(part)} for kind, part in tags.items()}
    for name in values:
        others = [kind for kind, known in names.items() if name in known]
        if others and tag not in others:
            raise AmbisegError(
                f"unknown key of {where} {name!r}: {tag} has no such setting, {' and '.join(others)} has;"
                f" choose kind: {others[0]}, or leave it out"
            )


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


@functools.cache
def _texts(cls: Any) -> dict[str, str]:
    found = [
        p for base in reversed(cls.__mro__[:-1]) for p in docstring_parser.parse_from_object(base).params
    ]
    return {p.arg_name: " ".join((p.description or "").split()) for p in found}


def _scalar(text: str) -> Any:
    try:
        value = plain_values(text) if text.strip() else ""
    except NotPlainError as error:
        raise AmbisegError(f"{text!r} is no value ({error}): quote it") from error
    if isinstance(value, str) and _EXPONENT.fullmatch(text.strip()):
        return float(value)  # YAML takes 1e-3 for a word
    return value
