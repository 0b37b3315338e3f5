"""Damaged input of every reader gives the right value or one clear error; `benchmarks/reliability/fuzz.py` tries more of it."""

from __future__ import annotations

import dataclasses
import os
import random
import sys
from pathlib import Path

import pytest

from ambiseg.errors import AmbisegError

if sys.platform != "linux":
    pytest.skip("processes are bounded as Linux does it", allow_module_level=True)

import fuzzing

MUTATIONS = 500
PER_SHARE = MUTATIONS / sum(reader.share for reader in fuzzing.READERS)
TEXT = fuzzing.Reader("text", ("lists", "*.csv"), lambda _, file: file.read_bytes())


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return fuzzing.make_corpus(tmp_path_factory.mktemp("fuzz") / "corpus")


def outcomes(reader, corpus, seeds):
    return list(fuzzing.outcomes(reader, corpus, corpus.parent / "work", seeds))


@pytest.mark.parametrize("reader", fuzzing.READERS, ids=lambda reader: reader.name)
def test_damage_is_refused_or_harmless(reader, corpus):
    seeds = fuzzing.seeds_of(reader, PER_SHARE, 0)
    found = outcomes(reader, corpus, seeds)
    assert [outcome.seed for outcome in found] == list(seeds)
    assert [outcome for outcome in found if outcome.word == "WRONG"] == []


def test_mutations_are_those_of_their_seed():
    content = b'{"a": 1.5, "b": [3, 40]}' * 20
    changed = [fuzzing.mutate(random.Random(seed), content, [b"other"])[0] for seed in range(200)]
    assert changed == [fuzzing.mutate(random.Random(seed), content, [b"other"])[0] for seed in range(200)]
    assert len(set(changed)) > 150


def _leaves_a_file(root, file):
    (root.parents[2] / "elsewhere").write_text("x")


def _takes_memory(root, file):
    return b"x" * (200 << 20)


def _tells_nothing(root, file):
    raise AmbisegError("something is wrong")


def _takes_forever(root, file):
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda _, file: {}[file.name], "KeyError"),
        (lambda _, file: os.system("true"), "os.system"),
        (lambda _, file: os._exit(3), "the process ended with 3"),
        (_leaves_a_file, "open"),
        (_takes_memory, "MiB of memory"),
        (_tells_nothing, "names no file"),
        (_takes_forever, "more than"),
        (lambda _, file: Path(file).read_bytes(), "other numbers"),
    ],
)
def test_what_is_not_allowed_is_noticed(read, words, corpus, monkeypatch):
    monkeypatch.setattr(fuzzing, "SECONDS", 0.2)
    monkeypatch.setattr(fuzzing, "BYTES", 100 << 20)
    monkeypatch.setattr(fuzzing, "expected_of", lambda *_: None)
    found = outcomes(dataclasses.replace(TEXT, read=read, checked=words == "other numbers"), corpus, range(2))
    assert [outcome.word for outcome in found] == ["WRONG"] * 2
    assert all(words in outcome.detail for outcome in found), found
    assert not (corpus.parent / "elsewhere").exists()
