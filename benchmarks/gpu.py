"""Measure the library on one NVIDIA GPU: part by part, in the order of worth, within a time budget.

    benchmarks/gpu.sh [--minutes 9] [--out DIR] [--parts NAME,NAME] [--resume [DIR]] [--data-root DIR] [--smoke]

``gpu.sh`` finds the packages and runs ``benchmarks/gpu.py``. Each part runs in a process of its own
(``gpu_parts.py``), which is killed at its limit together with its children; whatever becomes of it, the next
part goes on. A part writes ``OUT/PART.json`` after every row that it has measured, so a part that was stopped
keeps its rows. ``--resume`` keeps the rows of an earlier call and measures the others.
``docs/research/gpu-measurements.md`` says more.

This process imports no torch. ``--smoke`` takes the same way on the CPU with tiny sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import tables
from ambiseg.atomic_write import replacing_file
from ambiseg.json_files import read_mapping

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORKER = HERE / "gpu_parts.py"
DONE, RUNNING, NO_TIME = "done", "running", "skipped: no time left"
NO_CUDA = "No CUDA device: this machine can only run --smoke, so that is what runs now."
ENDING = 5.0
"""Seconds that a part has to stop by itself before it is killed, and that are left for the tables at the
end."""
MOST_CHARACTERS = 11_000
"""Length of the tables at the end."""


@dataclass(frozen=True)
class Part:
    """One of the things to measure.

    Attributes:
        name: of its file and its verb of ``gpu_parts.py``.
        limit: most seconds that it may take.
        least: with fewer seconds left it is not begun.
        simulates: whether it needs the wildfires, which are simulated in the background from the start.
    """

    name: str
    limit: float
    least: float
    simulates: bool = False


PARTS = (
    Part("methods", limit=120, least=30),
    Part("speed", limit=210, least=30),
    Part("hardware", limit=60, least=15),
    Part("metrics", limit=45, least=20),
    Part("fires", limit=480, least=130, simulates=True),
    Part("nodules", limit=330, least=95),
    Part("samplers", limit=480, least=60),
)
"""In the order of worth: does it work, how fast is it, how good does it become."""


@dataclass(frozen=True)
class Plan:
    """What one call is asked for.

    Attributes:
        out: folder of the results.
        work: folder of simulated data and runs.
        data_root: folder of ``lidc-on-ct-64-{train,val}.npz``.
        minutes: budget of the whole.
        smoke: tiny sizes on the CPU.
        seed: of data, training and sampling.
        earlier: folder of results to go on from, if any.
        worker: the script that measures.
        simulate: the command that makes ``work/fires.h5``.
        facts: what every result says: card, versions.
    """

    out: Path
    work: Path
    data_root: Path = Path("data")
    minutes: float = 9.0
    smoke: bool = False
    seed: int = 0
    earlier: Path | None = None
    worker: Path = WORKER
    simulate: Sequence[str] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """That of a part: without the card for ``--smoke``."""
        return {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if self.smoke else {})}

    def command(self, part: Part, until: float) -> list[str]:
        """How a part is started; it plans to end at ``until``, in seconds since the epoch."""
        words = ["--out", self.out, "--work", self.work, "--data-root", self.data_root]
        words += ["--seed", self.seed, "--until", f"{until:.1f}", *(["--smoke"] if self.smoke else [])]
        return [sys.executable, str(self.worker), part.name, *map(str, words)]


# -- results -------------------------------------------------------------------------------------------------


def write_note(path: Path, note: dict[str, Any]) -> None:
    """Write a result whole or not at all."""
    with replacing_file(path) as partial:
        partial.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def status_of(rows: dict[str, dict[str, Any]]) -> str:
    """What became of a part, from what became of its rows: failures first, then what there was no time for.

    Example:
        >>> status_of({"a": {"status": "done"}, "b": {"status": "skipped: no time left"}})
        'skipped: no time left for b'
    """
    failed = [name for name, row in rows.items() if row["status"].startswith("failed")]
    late = [name for name, row in rows.items() if row["status"] == NO_TIME]
    if failed:
        return f"failed: {len(failed)} of {len(rows)} rows ({', '.join(failed)})"
    return f"{NO_TIME} for {', '.join(late)}" if late else DONE


def begin(plan: Plan, part: Part) -> dict[str, Any]:
    """The result of a part before it runs, with the rows that an earlier call has measured in the same
    way."""
    head = {"part": part.name, "status": RUNNING, "seconds": 0.0, **plan.facts}
    head |= {"seed": plan.seed, "smoke": plan.smoke, "sizes": {}, "rows": {}}
    old = read_mapping(plan.earlier / f"{part.name}.json") if plan.earlier else {}
    if any(old.get(key) != head.get(key) for key in ("part", "seed", "smoke", "card")):
        return head
    if old["status"] == DONE:
        return old
    kept = {name: row for name, row in old["rows"].items() if row["status"] == DONE}
    commits = dict.fromkeys([old.get("commit"), head.get("commit")] if kept else [head.get("commit")])
    return head | {"rows": kept, "commit": ", ".join(map(str, commits))}


# -- processes -----------------------------------------------------------------------------------------------


@dataclass
class Started:
    """A process in a session of its own, so that it can be killed together with its children."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def new(cls, command: Sequence[str], log: Path, environment: dict[str, str]) -> Started:
        """Start a command; its output goes to a file."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as stream:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                env=environment, start_new_session=True,
            )  # fmt: skip
        return cls(process, log)

    def wait(self, seconds: float) -> str:
        """Wait, then kill; "done", "timed out", or why it failed."""
        try:
            code = self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            return "timed out"
        self.kill()
        return DONE if code == 0 else f"failed: exit status {code}: {self.last_line()}"

    def kill(self) -> None:
        """End the process and its children, those that outlived it too."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()

    def last_line(self) -> str:
        """The last words of its output."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no output"


def run(parts: Sequence[Part], plan: Plan, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Run the parts one after the other within the budget; their results, which are also in ``plan.out``."""
    end = time.monotonic() + 60 * plan.minutes - ENDING
    notes = {part.name: begin(plan, part) for part in parts}
    for name, note in notes.items():
        write_note(plan.out / f"{name}.json", note)
    pending = [part for part in parts if notes[part.name]["status"] != DONE]
    background: Started | None = None
    try:
        if plan.simulate and any(part.simulates for part in pending):
            log = plan.work / "logs" / "simulate.txt"
            background = Started.new(plan.simulate, log, plan.environment())
        for part in parts:
            if part not in pending:
                say(f"{part.name}: kept")
                continue
            notes[part.name] = _one(part, plan, min(part.limit, end - time.monotonic()), background)
            say(f"{part.name}: {notes[part.name]['status']}, {notes[part.name]['seconds']:.0f} s")
    finally:
        if background is not None:
            background.kill()
    return list(notes.values())


def _one(part: Part, plan: Plan, seconds: float, background: Started | None) -> dict[str, Any]:
    """Run a part and write down what became of it."""
    path, began = plan.out / f"{part.name}.json", time.monotonic()
    outcome = NO_TIME if seconds < part.least else DONE
    if outcome == DONE and part.simulates and background is not None:
        outcome = background.wait(seconds - part.least)
        outcome = outcome if outcome == DONE else f"failed: no simulated data: {outcome}"
    if outcome == DONE:
        left = seconds - (time.monotonic() - began)
        log = plan.work / "logs" / f"{part.name}.txt"
        started = Started.new(plan.command(part, time.time() + left - ENDING), log, plan.environment())
        try:
            outcome = started.wait(left)
        finally:
            started.kill()
    note = read_mapping(path)
    if outcome != DONE:
        note["status"] = outcome if outcome != "timed out" else f"timed out after {seconds:.0f} s"
    elif note.get("status") == RUNNING:
        note["status"] = status_of(note["rows"])
    note["seconds"] = round(time.monotonic() - began, 1)
    write_note(path, note)
    return note


# -- the command line ----------------------------------------------------------------------------------------


def text(notes: Sequence[dict[str, Any]], out: Path) -> str:
    """The tables of all parts, one after the other."""
    specs, parts = tables.specs(), []
    for name in (note["part"] for note in notes):
        parts.append(f"{name}\n\n{tables.drawn({**specs[f'gpu-{name}'], 'file': f'{name}.json'}, out)}")
    return "\n\n".join(parts)


def card(worker: Path = WORKER) -> dict[str, Any]:
    """Name and memory of the card (None where there is no CUDA), and the versions, as a process with torch
    sees them."""
    found = subprocess.run([sys.executable, str(worker), "card"], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"torch cannot be used here: {found.stderr.strip()[-300:]}")
    facts: dict[str, Any] = json.loads(found.stdout.strip().splitlines()[-1])
    return facts


def commit() -> str:
    """The commit of the checkout, with "-dirty" where files differ from it; "unknown" without git."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def simulation(work: Path, smoke: bool, seed: int) -> list[str]:
    """The command that simulates the wildfires: 80 % for training, the rest for validation and tests."""
    scenarios, size = (40, 16) if smoke else (10_000, 64)
    workers = 1 if smoke else max(1, len(os.sched_getaffinity(0)) - 2)
    words = ["data", "simulate", "wildfire", "--out", work / "fires.h5", "--scenarios", scenarios]
    words += ["--size", size, "--seed", seed, "--workers", workers]
    return ["nice", sys.executable, "-m", "ambiseg", *map(str, words)]


def chosen(text: str | None) -> list[Part]:
    """The parts of ``--parts``, in the order of `PARTS`.

    Example:
        >>> [part.name for part in chosen("speed,methods")]
        ['methods', 'speed']
    """
    names = [part.name for part in PARTS]
    wanted = text.split(",") if text else names
    for name in wanted:
        if name not in names:
            raise SystemExit(f"there is no part {name!r}: choose among {', '.join(names)}")
    return [part for part in PARTS if part.name in wanted]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ["OUT"]) if os.environ.get("OUT") else ROOT / "build" / "gpu"
    parser.add_argument("--out", type=Path, default=default, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="time of the whole")
    parser.add_argument("--parts", help=f"these alone: {','.join(part.name for part in PARTS)}")
    resume = "keep what is measured there; in --out if left out"
    parser.add_argument("--resume", nargs="?", const="", metavar="DIR", help=resume)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--data-root", type=Path, help="folder of the .npz files; shared/data or data")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _ended(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Measure what is asked for and print the tables."""
    options = _options()
    parts = chosen(options.parts)
    signal.signal(signal.SIGTERM, _ended)
    facts = card()
    smoke = options.smoke or facts["card"] is None
    if smoke and not options.smoke:
        print(NO_CUDA, flush=True)
    if smoke:
        facts |= {"card": None, "memory_gib": None}
    shared = ROOT / "shared" / "data"
    data_root = options.data_root or (shared if shared.is_dir() else ROOT / "data")
    with tempfile.TemporaryDirectory(prefix="ambiseg-gpu-") as folder:
        plan = Plan(
            out=options.out.absolute(),
            work=Path(folder),
            data_root=data_root.absolute(),
            minutes=options.minutes,
            smoke=smoke,
            seed=options.seed,
            earlier=None if options.resume is None else Path(options.resume or options.out).absolute(),
            simulate=simulation(Path(folder), smoke, options.seed),
            facts=facts | {"commit": commit()},
        )
        notes = run(parts, plan, lambda text: print(text, flush=True))
    print(text(notes, plan.out)[:MOST_CHARACTERS])
    if smoke and any(note["status"].startswith(("failed", "timed out")) for note in notes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
