"""YAML that is not trusted: plain values, bounded, every key once; and nothing else reads YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import ambiseg
from ambiseg.errors import AmbisegError
from ambiseg.plain_yaml import MAX_CHARACTERS, NotPlainError, plain_values, read_yaml, read_yaml_file

LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(PLAIN)
def test_what_is_written_is_read_back(value):
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    assert plain_values(yaml.dump(value, Dumper=Plain)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x 1\nb: *x", "line 2: write the value in place of the alias *x"),
        ("a: 1\nb: {c: 2, c: 3}", "line 2: the key 'c' occurs twice"),
        ("[" * 100_000, "line 1: more than 20 lists and mappings inside one another"),
        ("a:\n  " + "9" * 5000, "line 2: a whole number has at most 19 digits"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("? [1, 2]\n: 3", "line 1: a key is a word or a number"),
        ("a: !!python/object/apply:os.mkdir [x]", "line 1: could not determine a constructor"),
        ("a: [", "line 1: expected the node content"),
        ("a: \x00", "special characters are not allowed"),
        ("x" * (MAX_CHARACTERS + 1), "more than 1000000 characters"),
    ],
)
def test_what_is_refused(text, reason):
    with pytest.raises(NotPlainError) as caught:
        plain_values(text)
    assert reason in str(caught.value)
    with pytest.raises(AmbisegError, match=r"^my.yaml: not valid YAML \(.*\): correct the file$"):
        read_yaml(text, "my.yaml")


def test_aliases_of_a_suite_do_not_grow():
    assert plain_values("a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: *x", aliases=True) == {
        "a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": {"b": 1}
    }  # fmt: skip
    with pytest.raises(NotPlainError, match=r"line 2: the alias \*a is inside of a value"):
        plain_values(LAUGHS, aliases=True)
    with pytest.raises(NotPlainError, match="more than 100 aliases"):
        plain_values("a: &a x\nb: [" + "*a, " * 101 + "]", aliases=True)


def test_files(tmp_path):
    path = tmp_path / "a.yaml"
    with pytest.raises(AmbisegError, match="a.yaml does not exist"):
        read_yaml_file(path)
    path.write_bytes(b"a: \xff")
    with pytest.raises(AmbisegError, match="a.yaml: cannot be read .*save it as UTF-8"):
        read_yaml_file(path)
    path.write_text("\ufeffa: 1", encoding="utf-8")
    assert read_yaml_file(path) == {"a": 1}


def test_nothing_else_reads_yaml():
    source = Path(ambiseg.__file__).parent
    readers = {
        path.name
        for path in source.rglob("*.py")
        if re.search(r"yaml\.(\w*load\w*|compose|parse)\(", path.read_text())
    }
    assert readers == {"plain_yaml.py"}
