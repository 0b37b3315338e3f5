"""YAML from files that are not trusted: plain values only, bounded in size and depth, every key once.

Every YAML that the library reads goes through `read_yaml` or `read_yaml_file`.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from ambiseg.errors import AmbisegError

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 20
"""Lists and mappings inside one another."""
MAX_ALIASES = 100
MAX_DIGITS = 19
"""Of a whole number."""


class NotPlainError(AmbisegError):
    """A text that is no YAML, or more than plain values; the message is the reason alone."""


class _Loader(yaml.SafeLoader):
    """Plain values, without aliases."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self.check_alias(event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(event, f"more than {MAX_DEPTH} lists and mappings inside one another")
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def check_alias(self, event: yaml.AliasEvent) -> None:
        raise _refusal(event, f"write the value in place of the alias *{event.anchor}")

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, ScalarNode):
                raise _refusal(key_node, "a key is a word or a number")
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node)
            if key in seen:
                raise _refusal(key_node, f"the key {key!r} occurs twice")
            seen.add(key)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found

    def construct_whole(self, node: ScalarNode) -> int:
        if len(node.value.lstrip("+-")) > MAX_DIGITS:
            raise _refusal(node, f"a whole number has at most {MAX_DIGITS} digits")
        return int(self.construct_yaml_int(node))


class _AliasLoader(_Loader):
    """The same with a few aliases, of values without aliases, so that no value grows by much."""

    aliases = 0
    inside = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        named = not isinstance(event, yaml.AliasEvent) and getattr(event, "anchor", None) is not None
        self.inside += named
        node = super().compose_node(parent, index)
        self.inside -= named
        return node

    def check_alias(self, event: yaml.AliasEvent) -> None:
        self.aliases += 1
        if self.inside:
            raise _refusal(event, f"the alias *{event.anchor} is inside of a value that has an anchor itself")
        if self.aliases > MAX_ALIASES:
            raise _refusal(event, f"more than {MAX_ALIASES} aliases")


def _refusal(place: Node | yaml.Event, reason: str) -> NotPlainError:
    return NotPlainError(_line(place.start_mark) + reason)


def _line(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}: "


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)


def plain_values(text: str, aliases: bool = False) -> Any:
    """The values of a YAML text.

    Args:
        text: the text.
        aliases: whether it may have some aliases; for files that people write.

    Raises:
        NotPlainError: it is no YAML, or has aliases, doubled keys, objects of Python, or too much of anything.

    Example:
        >>> plain_values("{width: 8, width: 9}")
        Traceback (most recent call last):
        ambiseg.plain_yaml.NotPlainError: line 1: the key 'width' occurs twice
    """
    if len(text) > MAX_CHARACTERS:
        raise NotPlainError(f"more than {MAX_CHARACTERS} characters")
    try:
        return yaml.load(text, _AliasLoader if aliases else _Loader)
    except NotPlainError:
        raise
    except yaml.MarkedYAMLError as error:
        raise NotPlainError(f"{_line(error.problem_mark)}{' '.join(str(error.problem).split())}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise NotPlainError(" ".join(str(error).split())) from error


def read_yaml(text: str, where: str, aliases: bool = False) -> Any:
    """The values of a YAML text of a user.

    Args:
        text: the text.
        where: the file, for the message.
        aliases: see `plain_values`.

    Raises:
        AmbisegError: see `plain_values`.
    """
    try:
        return plain_values(text, aliases)
    except NotPlainError as error:
        raise AmbisegError(f"{where}: not valid YAML ({error}): correct the file") from error


def yaml_text(path: str | PathLike[str]) -> str:
    """The text of a YAML file; of one that is too long, no more than shows it.

    Raises:
        FileNotFoundError: there is none.
        AmbisegError: it cannot be read, or is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig") as stream:
            return stream.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise AmbisegError(f"{path}: cannot be read ({error}): save it as UTF-8 text") from error


def read_yaml_file(path: str | PathLike[str]) -> Any:
    """The values of a YAML file of a user.

    Raises:
        AmbisegError: it cannot be read; see `plain_values`.
    """
    try:
        text = yaml_text(path)
    except FileNotFoundError as error:
        raise AmbisegError(f"{path} does not exist: give a YAML file") from error
    return read_yaml(text, str(path))
