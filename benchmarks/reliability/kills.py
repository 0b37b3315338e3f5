"""Kill every verb that writes at random moments, run it again, and compare with what an uninterrupted run gives.

    python benchmarks/reliability/kills.py --out docs/results/reliability/kills.json            (about an hour of a core)
    python benchmarks/reliability/kills.py --verbs train predict --kills 20 --temporary /dev/shm

A killed command must leave nothing half-written, lose no file of the user's, and end like an uninterrupted one when it is
run again; nothing of it may be left beside the result. ``--temporary`` is where TMPDIR points to, another file system for
instance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from ambiseg.cli.main import main
from ambiseg.data.source import list_splits, open_split
from ambiseg.engine.curve import training_curve
from ambiseg.engine.run_folder import CONFIG, LAST, WEIGHTS, digest_of_tensors
from ambiseg.owned_files import LIST, LOCK, PARTIAL

TRAIN = ["--updates", "24", "--batch-size", "2", "--quiet"]
TRAIN += ["--set", "train.validations=4", "--set", "backbone.width=4"]
SUITE = """
title: reliability
protocol: {seeds: 2, samples: 4, metrics: [ged], train: {updates: 12, batch_size: 2, validations: 2}, backbone: {width: 4}}
data: {fires: {simulate: wildfire, options: {scenarios: 10, size: 16, workers: 1}}}
methods: {ssn: , m-heads: }
"""


@dataclass(frozen=True)
class Verb:
    """A command to kill.

    Attributes:
        name: in the table.
        words: the command, for a place to write to.
        again: the command that goes on after a kill.
        result: what came out, as text that is the same for the same result.
        kills: of a full run.
    """

    name: str
    words: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    result: Callable[[Path], str]
    kills: int = 50


def start(words: list[str], temporary: Path) -> int:
    """Run a command in a process of its own, with everything imported already."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    os.environ["TMPDIR"] = str(temporary)
    tempfile.tempdir = None
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    sys.argv = ["ambiseg", *words]
    status = 1
    try:
        status = main(words)
    finally:
        os._exit(status)


def finish(words: list[str], temporary: Path) -> tuple[int, float]:
    """Run a command to its end: exit status and seconds."""
    began = time.monotonic()
    _, status = os.waitpid(start(words, temporary), 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - began


def kill(words: list[str], temporary: Path, after: float) -> bool:
    """Run a command and kill it, with all its processes, after some seconds; False if it had ended by then."""
    child = start(words, temporary)
    time.sleep(after)
    ended, _ = os.waitpid(child, os.WNOHANG)
    if not ended:
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its group yet
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return not ended


def digest_of_files(folder: Path) -> str:
    """Names and content of all files but the index, whose order may differ, and the list of files."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("predictions.jsonl", LIST, LOCK):
            total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def result_of_training(run: Path) -> str:
    curve = [{k: v for k, v in row.items() if k not in ("epoch",)} for row in training_curve(run)]
    return digest_of_tensors(load_file(run / WEIGHTS)) + json.dumps(curve, sort_keys=True)


def result_of_benchmark(out: Path) -> str:
    runs = json.loads((out / "results.json").read_text())["runs"]
    return json.dumps([[r["data"], r["method"], r["seed"], r["metrics"]] for r in runs])


def result_of_data(path: Path) -> str:
    return json.dumps({split: open_split(path, split).digest() for split in list_splits(path)})


def train_again(data: Path) -> Callable[[Path], list[str]]:
    """Resume where there is a checkpoint; else start anew."""

    def words(run: Path) -> list[str]:
        if (run / LAST).exists() and (run / CONFIG).exists():
            return ["train", "--resume", str(run), "--quiet"]
        return ["train", "m-heads", "--data", str(data), "--out", str(run), *TRAIN, "--overwrite"]

    return words


def verbs(data: Path, run: Path, arrays: Path, suite: Path) -> list[Verb]:
    """All verbs that write, on small inputs."""

    def of(
        *words: object, again: tuple[str, ...] = (), result: Callable[[Path], str], name: str, kills: int = 50
    ) -> Verb:
        texts = [str(word) for word in words]
        return Verb(
            name,
            lambda out: [*texts, "--out", str(out)],
            lambda out: [*texts, "--out", str(out), *again],
            result,
            kills,
        )

    def pack(out: Path) -> list[str]:
        return ["data", "pack", str(data), f"{out}.h5"]

    simulate = ("data", "simulate", "wildfire", "--scenarios", 10, "--size", 16, "--workers", 1)
    again, images = ("--overwrite",), data / "train" / "images"
    return [
        Verb(
            "train",
            lambda out: ["train", "m-heads", "--data", str(data), "--out", str(out), *TRAIN],
            train_again(data),
            result_of_training,
            200,
        ),
        of(
            "predict",
            run,
            images,
            "--batch-size",
            4,
            "--no-picture",
            again=("--resume",),
            result=digest_of_files,
            name="predict",
        ),
        of(*simulate, again=again, result=result_of_data, name="data simulate"),
        Verb(
            "data pack",
            pack,
            lambda out: [*pack(out), "--overwrite"],
            lambda out: result_of_data(Path(f"{out}.h5")),
        ),
        of("data", "import", "arrays", arrays, again=again, result=result_of_data, name="data import"),
        of("data", "split", data, again=again, result=result_of_data, name="data split"),
        of("benchmark", suite, "--jobs", 2, again=(), result=result_of_benchmark, name="benchmark --jobs 2"),
    ]


def trial(verb: Verb, place: Path, temporary: Path, seconds: float, expected: str, twice: bool) -> str:
    """Kill once (or also the run after it), finish, compare; what came out in a word."""
    out, mine = place / "out", place / "mine.txt"
    mine.write_text("mine")
    killed = kill(verb.words(out), temporary, random.uniform(0, seconds))
    if not killed:
        return "ended before"
    if twice:
        kill(verb.again(out), temporary, random.uniform(0, seconds))
    status, _ = finish(verb.again(out), temporary)
    if status and "--resume" in verb.again(out):
        status, _ = finish(verb.again(out), temporary)
    if status:
        return f"exit {status}"
    if mine.read_text() != "mine" or {path.name for path in place.iterdir()} - {"out", "out.h5", "mine.txt"}:
        return "left-overs"
    if [path for path in out.rglob(f"{PARTIAL}*") if out.is_dir()]:
        return "left-overs"
    return "same" if verb.result(out) == expected else "different"


def carry_out(arguments: argparse.Namespace, work: Path) -> dict[str, dict[str, int]]:
    temporary = arguments.temporary or work
    data, run, arrays, suite = work / "data", work / "run", work / "arrays", work / "suite.yaml"
    suite.write_text(SUITE)
    for words in (
        [
            "data",
            "simulate",
            "wildfire",
            "--scenarios",
            "20",
            "--size",
            "16",
            "--out",
            str(data),
            "--workers",
            "1",
        ],
        ["train", "m-heads", "--data", str(data), "--out", str(run), *TRAIN],
    ):
        assert finish(words, temporary)[0] == 0, words
    write_arrays(data, arrays)
    table: dict[str, dict[str, int]] = {}
    for verb in verbs(data, run, arrays, suite):
        if arguments.verbs and verb.name not in arguments.verbs:
            continue
        whole = work / "whole"
        status, seconds = finish(verb.words(whole / "out"), temporary)
        assert status == 0, f"{verb.name}: exit {status}"
        expected = verb.result(whole / "out")
        shutil.rmtree(whole)
        for twice in (False, True) if verb.name == "train" else (False,):
            outcomes: Counter[str] = Counter()
            kills = arguments.kills or (50 if twice else verb.kills)
            while sum(outcomes.values()) - outcomes["ended before"] < kills:
                place = work / "place"
                place.mkdir()
                outcome = trial(verb, place, temporary, seconds, expected, twice)
                outcomes[outcome] += 1
                if outcome in ("same", "ended before"):
                    shutil.rmtree(place)
                else:
                    place.rename(
                        Path(tempfile.mkdtemp(prefix=f"{verb.name.split()[-1]}-{outcome}-", dir=work))
                        / "place"
                    )
            name = f"{verb.name}, and its resume" if twice else verb.name
            table[name] = {k: v for k, v in sorted(outcomes.items()) if k != "ended before"}
            print(f"{name:32} {seconds:5.1f} s  {table[name]}", flush=True)
    return table


def write_arrays(data: Path, folder: Path) -> None:
    """The data set as the arrays that ``data import arrays`` reads."""
    import numpy as np

    folder.mkdir()
    for split in list_splits(data):
        samples = list(open_split(data, split))
        images = np.stack([sample.image.transpose(1, 2, 0) for sample in samples])
        masks = np.stack([sample.masks for sample in samples])
        np.savez(folder / f"fires-{split}.npz", images=images, masks=masks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--verbs", nargs="*", default=[])
    parser.add_argument(
        "--kills", type=int, default=0, help="of each verb; 200 of train, 50 of the others if left out"
    )
    parser.add_argument("--temporary", type=Path, help="where TMPDIR points to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work", type=Path, help="folder that keeps what went wrong; a temporary one if left out"
    )
    parser.add_argument("--out", type=Path, help="JSON to write")
    chosen = parser.parse_args()
    random.seed(chosen.seed)
    folder = Path(chosen.work or tempfile.mkdtemp(prefix="reliability-"))
    folder.mkdir(exist_ok=True)
    found = carry_out(chosen, folder)
    if chosen.out:
        before = json.loads(chosen.out.read_text())["outcomes"] if chosen.out.exists() else {}
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(
            json.dumps({"seed": chosen.seed, "outcomes": {**before, **found}}, indent=2) + "\n"
        )
    sys.exit(any(set(outcomes) - {"same"} for outcomes in found.values()))
