"""Damage the input of every reader at random, and count what comes of it.

    python benchmarks/reliability/fuzz.py --seconds 300
    python benchmarks/reliability/fuzz.py --mutations 20000 --out docs/results/reliability/fuzz.json
    python benchmarks/reliability/fuzz.py --reader "packed data" --seed 7 --mutations 1

``tests/fuzzing.py`` says what is damaged, how, and what is allowed. Inputs with a wrong outcome are kept in ``--work``. The
exit status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "data" / "importers")]

import fuzzing  # type: ignore[import-not-found]  # noqa: E402

PER_ROUND = 25
"""Mutations of a reader of share 1 in one process; there is a round of all readers after the other."""


def carry_out(
    readers: list[fuzzing.Reader], arguments: argparse.Namespace, base: Path
) -> dict[str, Counter[str]]:
    """Outcomes of each reader, until the time or the mutations are used up."""
    corpus, work = base / "corpus", base / "work"
    if not corpus.exists():
        fuzzing.make_corpus(corpus)
    table: dict[str, Counter[str]] = {reader.name: Counter() for reader in readers}
    began, done = time.monotonic(), 0
    total = sum(reader.share for reader in readers)
    per_share = min(PER_ROUND, arguments.mutations / total) if arguments.mutations else PER_ROUND
    first = dict.fromkeys(table, arguments.seed)
    while True:
        for reader in readers:
            over = (
                done >= arguments.mutations
                if arguments.mutations
                else time.monotonic() - began > arguments.seconds
            )
            if over:
                return table
            seeds = fuzzing.seeds_of(reader, per_share, first[reader.name])
            first[reader.name] = seeds.stop
            for outcome in fuzzing.outcomes(reader, corpus, work, seeds):
                done += 1
                table[reader.name][outcome.word] += 1
                if outcome.word == "WRONG":
                    print(f"{reader.name}, seed {outcome.seed}: {outcome.detail}", flush=True)
                    kept = base / "wrong" / f"{reader.name.replace(' ', '-')}-{outcome.seed}"
                    shutil.rmtree(kept, ignore_errors=True)
                    shutil.copytree(work / "w" / reader.corpus[0], kept)


def show(table: dict[str, Counter[str]]) -> None:
    """Readers x outcomes."""
    print(f"{'reader':34}" + "".join(f"{word:>13}" for word in ("mutations", *fuzzing.OUTCOMES)))
    for name, found in {**table, "all": sum(table.values(), Counter())}.items():
        print(f"{name:34}{found.total():13}" + "".join(f"{found[word]:13}" for word in fuzzing.OUTCOMES))


def main(argv: list[str] | None = None) -> int:
    """Run; exit status 1 if an outcome is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300, help="how long, unless --mutations is given")
    parser.add_argument("--mutations", type=int, default=0, help="how many at least")
    parser.add_argument(
        "--reader", action="append", default=[], help="a reader of the table; all if left out"
    )
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutation of each reader")
    parser.add_argument(
        "--work", type=Path, help="folder of the corpus and of wrong inputs; a new one if left out"
    )
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args(argv)
    names = [reader.name for reader in fuzzing.READERS]
    if unknown := set(arguments.reader) - set(names):
        parser.error(f"unknown reader {sorted(unknown)}: choose from {names}")
    readers = [
        reader for reader in fuzzing.READERS if not arguments.reader or reader.name in arguments.reader
    ]
    base = Path(arguments.work or tempfile.mkdtemp(prefix="fuzz-")).resolve()
    table = carry_out(readers, arguments, base)
    show(table)
    wrong = sum(found["WRONG"] for found in table.values())
    if wrong:
        print(f"{wrong} wrong outcomes; their inputs: {base / 'wrong'}")
    elif not arguments.work:
        shutil.rmtree(base)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        rows = {name: {word: found[word] for word in fuzzing.OUTCOMES} for name, found in table.items()}
        record = {
            "seed": arguments.seed,
            "mutations": sum(found.total() for found in table.values()),
            "outcomes": rows,
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
