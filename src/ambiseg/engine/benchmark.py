"""Runs of a benchmark: every method on every data set with every seed, each an ordinary run folder, resumable
at any point.

::

    OUT/runs/<data>/<method>/
      seed-0.json    the note: what is asked for, and, once it is there, the result or the error
      seed-0/        the run folder
      seed-0.log     what the training said

The note is the order of work, and all the state there is. A run whose note asks for the same as now and holds
a result is kept; one without a result goes on from its last checkpoint; one that was trained otherwise is
made anew, and so are those that start from its weights; where the evaluation alone is another one, the run is
measured anew. Notes and checkpoints decide what happens next, never what is in memory: hence a benchmark that
was killed and started again ends like one that was not.

Each run has a process of its own (`ambiseg.engine.benchmark_run`), so that a crash ends one run only and
memory is measured from zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ambiseg import owned_files
from ambiseg.atomic_write import write_json
from ambiseg.data.source import open_split
from ambiseg.engine.benchmark_run import work
from ambiseg.engine.callbacks import clock
from ambiseg.engine.parallel.workers import RayWorker, Worker, fail
from ambiseg.engine.run_folder import CONFIG, TRAIN_VERB
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.suite import Suite
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping
from ambiseg.methods import method_info
from ambiseg.methods.spec import RECOMMENDED
from ambiseg.metrics import METRICS, dialect_of, metric_info
from ambiseg.metrics.dialects import AMBISEG
from ambiseg.nested_settings import to_values
from ambiseg.networks.settings import UNetSettings

if TYPE_CHECKING:
    from ambiseg.engine.parallel.over_ray import RayEngine

Tell = Callable[[str], None]

RUN = "ambiseg.engine.benchmark_run"
"""Module of the process of one run."""
POLL = 0.1
"""Seconds between looks at the runs in progress."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of the matrix.

    Attributes:
        data, method, seed: its place; names of the suite.
        note: its file, see the module.
        source: the data set.
        order: all that the result depends on, as plain values: the training, and the evaluation.
        start: the run whose weights it starts from, or the one that it measures.
        measures_only: it measures the run of ``start``, with other settings of sampling.
        preset: that of its training.
        smoke: its run is a small and short one.
    """

    data: str
    method: str
    seed: int
    note: Path
    source: Path
    order: dict[str, Any]
    start: Cell | None = None
    measures_only: bool = False
    preset: str = RECOMMENDED
    smoke: bool = False

    @property
    def run(self) -> Path:
        """The run folder; that of another cell where this one measures only."""
        return self.start.run if self.start and self.measures_only else self.note.with_suffix("")

    @property
    def title(self) -> str:
        """How it is called in lines of progress."""
        return f"{self.data}, {self.method}, seed {self.seed}"

    def entries(self) -> dict[str, Any]:
        """What the note holds, if it is of this order, else nothing."""
        return read_mapping(self.note) if _order(self.note) == self.order else {}

    def result(self) -> dict[str, Any] | None:
        """What was measured, if it is there."""
        result: dict[str, Any] | None = self.entries().get("result")
        return result


def plan(suite: Suite, sources: dict[str, Path], out: Path, seeds: int | None = None) -> list[Cell]:
    """The matrix, data set by data set; a run comes after the one that it starts from.

    Args:
        suite: methods, data sets, protocol.
        sources: where the data sets are; those of the suite that are missing here are left out.
        out: folder of the benchmark.
        seeds: how many; those of the protocol if None.

    Raises:
        AmbisegError: an unknown metric, dialect or class, a data set that cannot be read, or settings that make
            no sense.
    """
    for name in suite.protocol.metrics:
        metric_info(name)
    _check_place(out, suite.smoke)
    dialects = {name: dialect_of(suite.dialect(name)) for name in suite.data}
    cells: dict[tuple[str, str, int], Cell] = {}
    for data, source in sources.items():
        split, dialect = suite.data[data].split or suite.protocol.split, dialects[data]
        digests = {name: open_split(source, name).digest() for name in ("train", "val", split)}
        labels, classes = (
            open_split(source, split).info.labels,
            suite.data[data].classes or suite.protocol.classes,
        )
        try:
            dialect.space(labels.restricted(classes) if classes else labels)
        except AmbisegError as error:
            raise AmbisegError(f"{suite.name}: {data}: {error}") from error
        for seed in range(suite.protocol.seeds if seeds is None else seeds):
            for method in suite.methods_on(data):
                entry = suite.methods[method]
                start = cells[data, entry.needs, seed] if entry.needs else None
                trained = suite.trained(method)
                train, backbone, settings, _ = suite.resolved(data, trained, seed)
                samples = suite.resolved(data, method, seed)[3]
                training = {
                    "method": suite.methods[trained].method or trained,
                    "train": to_values(train),
                    "backbone": to_values(backbone),
                    "settings": to_values(settings),
                    "digests": [digests["train"], digests["val"]],
                    "start": start.order["training"] if start else None,
                }
                evaluation: dict[str, Any] = {
                    "split": split,
                    "digest": digests[split],
                    "samples": samples,
                    "metrics": list(suite.protocol.metrics),
                    "batch_size": suite.protocol.batch_size,
                    **({"images": images} if (images := suite.data[data].images) else {}),
                    **({"dialect": dialect.name} if dialect != AMBISEG else {}),
                    **({"classes": list(classes)} if classes else {}),
                }
                if entry.run_of and start:
                    training = start.order["training"]
                    evaluation["settings"] = suite.sampling(data, method).settings
                order = {"training": training, "evaluation": evaluation}
                note = out / "runs" / data / method / f"seed-{seed}.json"
                cells[data, method, seed] = Cell(
                    *(data, method, seed, note, source, order, start, bool(entry.run_of)),
                    *(suite.preset(data, method), suite.smoke),
                )
    return list(cells.values())


def _check_place(out: Path, smoke: bool) -> None:
    """Refuse to replace runs by smoke runs, and the other way round."""
    for note in sorted(out.glob("runs/*/*/seed-*.json")):
        if read_mapping(note).get("smoke", False) != smoke:
            raise AmbisegError(
                f"{out} holds {'runs that are no smoke runs' if smoke else 'smoke runs'}: choose another --out"
            )


def carry_out(
    cells: Sequence[Cell],
    jobs: int = 1,
    tell: Tell = lambda line: None,
    engine: RayEngine | None = None,
) -> None:
    """Make every run that is not there yet; a failure is noted, and the rest goes on.

    Args:
        cells: the runs, those that others start from among them (`plan`).
        jobs: runs at a time, each in a process of its own with its share of the cores; 0: one after the other
            in this one.
        tell: takes lines of progress.
        engine: workers of Ray, which make the runs in place of ``jobs``.

    Raises:
        AmbisegError: a run of several devices without a process of its own.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    jobs = jobs if engine is None else engine.workers
    if not jobs and any(cell.order["training"]["train"]["devices"] > 1 for cell in cells):
        raise AmbisegError("a run on several devices needs a process of its own: take --jobs 1")
    waiting = [cell for cell in cells if cell.result() is None]
    tell(f"{len(cells)} runs, {len(waiting)} to do")
    progress = _Progress(len(waiting), max(1, jobs), tell)
    running: dict[Cell, Worker | RayWorker] = {}
    try:
        while waiting or running:
            for cell in list(waiting):
                if cell.start in waiting or cell.start in running or len(running) >= max(1, jobs):
                    continue
                waiting.remove(cell)
                progress.begin(cell, _prepare(cell))
                if cell.start and cell.start.result() is None:
                    fail(cell.note, f"the run that it starts from failed ({cell.start.title})")
                elif jobs:
                    place = min(set(range(jobs)) - {worker.place for worker in running.values()})
                    devices = cell.order["training"]["train"]["devices"]
                    running[cell] = (
                        Worker(RUN, cell.note, place, jobs, devices == 1)
                        if engine is None
                        else RayWorker(RUN, cell.note, place, engine, devices)
                    )
                    continue
                else:
                    work(cell.note)
                progress.end(cell)
            for cell in [cell for cell, worker in running.items() if worker.ended()]:
                del running[cell]
                progress.end(cell)
            if running:
                time.sleep(POLL)
    finally:
        for worker in running.values():
            worker.ask_to_stop()
        for worker in running.values():
            worker.wait()


class _Progress:
    """Lines on the whole matrix: how many of how many, what came out, and how much time is left."""

    def __init__(self, total: int, jobs: int, tell: Tell) -> None:
        self.total, self.jobs, self.tell = total, jobs, tell
        self.began: dict[Cell, float] = {}
        self.took: list[float] = []

    def begin(self, cell: Cell, remark: str) -> None:
        self.began[cell] = time.monotonic()
        self.tell(f"[{len(self.began)}/{self.total}] {cell.title}{remark}")

    def end(self, cell: Cell) -> None:
        self.took.append(time.monotonic() - self.began[cell])
        entries = cell.entries()
        if "error" in entries:
            line = f"failed: {entries['error']}"
        else:
            result = entries["result"]
            name, value = next(iter(result["metrics"].items()))
            shown = "not defined" if value is None else f"{value:.3f}"
            line = f"{METRICS[name].title} {shown}, {result['steps']} steps in {clock(result['training_seconds'])}"
        left = self.total - len(self.took)
        remaining = clock(left * sum(self.took) / len(self.took) / self.jobs)
        self.tell(f"    {cell.title}: {line}" + (f"; {left} to go, about {remaining} left" if left else ""))


def _order(note: Path) -> dict[str, Any]:
    """What a note asks for; settings that there were not yet when it was written have their defaults."""
    order: dict[str, Any] = read_mapping(note).get("order", {})
    try:
        return {**order, "training": _completed(order["training"])} if order else {}
    except (AmbisegError, KeyError, TypeError):
        return {}


def _completed(training: dict[str, Any]) -> dict[str, Any]:
    kinds = {
        "train": TrainSettings,
        "backbone": UNetSettings,
        "settings": method_info(training["method"]).settings,
    }
    filled = {name: to_values(kind()) | training[name] for name, kind in kinds.items()}
    start = training["start"]
    return {**training, **filled, "start": _completed(start) if start else None}


def _prepare(cell: Cell) -> str:
    """Write the note, and clear away a run that was asked for otherwise; a remark on what there was.

    The old note stays until the old run is gone, so that a kill in between leaves no run under a note that is
    not its own.
    """
    before, remark = _order(cell.note), ""
    if cell.measures_only:
        write_json(cell.note, _note(cell) | {"run": str(cell.run)})
        return remark
    if before.get("training") == cell.order["training"]:
        remark = ", going on" if cell.run.exists() else ""
    elif cell.note.exists() or (cell.run / CONFIG).is_file():
        if cell.run.exists():
            owned_files.check_replaceable(cell.run, [TRAIN_VERB])
            owned_files.remove(cell.run)
        remark = ", anew: it was made with another configuration or other data"
    init = str(cell.start.run) if cell.start else None
    owned_files.add_path(cell.note.with_suffix(".log"))
    owned_files.add_path(cell.run, is_folder=True)
    write_json(cell.note, _note(cell) | {"init": init})
    return remark


def _note(cell: Cell) -> dict[str, Any]:
    """What the notes of all runs say."""
    return {"order": cell.order, "data": str(cell.source), "preset": cell.preset, "smoke": cell.smoke}
