"""A study: trials of one method on one data set, each with other settings, compared on the validation split.

::

    STUDY/
      study.json         what is asked for, and all trials
      journal.log        the same as Optuna keeps it, with every validation
      trials/0007.json   the note of a trial: its settings and, once it is there, the result or the error
      trials/0007/       its run folder; only those of the best trials keep their weights
      trials/0007.log    what its process said
      trials.csv         the table
      best.yaml          the best settings, for ``ambiseg train --config``

Journal and notes decide what happens next, never what is in memory: a study that was killed goes on, and a trial that
was killed goes on from its last checkpoint. No split but train and val is opened.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ambiseg import owned_files
from ambiseg.atomic_write import working_in, write_json, write_text
from ambiseg.data.source import open_split
from ambiseg.engine.callbacks import clock
from ambiseg.engine.module import LOSS, higher_is_better, validated
from ambiseg.engine.parallel.workers import Worker
from ambiseg.engine.presets import resolve
from ambiseg.engine.run_folder import WEIGHTS
from ambiseg.engine.settings import SELECT_LAST
from ambiseg.engine.tuning.journal import JOURNAL, Pruner, open_study, optuna, sampler
from ambiseg.engine.tuning.space import Space, brief
from ambiseg.engine.tuning.trial import work
from ambiseg.errors import AmbisegError
from ambiseg.escaping import csv_cell
from ambiseg.json_files import read_mapping
from ambiseg.methods import method_info
from ambiseg.methods.spec import MethodSpec
from ambiseg.metrics import METRICS, metric_info
from ambiseg.nested_settings import from_values, shown
from ambiseg.version import __version__

STUDY, TABLE, BEST, TRIALS = "study.json", "trials.csv", "best.yaml", "trials"
TUNE_VERB = "tune"
RUN = "ambiseg.engine.tuning.trial"
"""Module of the process of one trial."""
SAMPLED = "ged"
"""What trials are compared by where a method is validated by a loss that the search itself changes."""
ALIKE = 3
"""Trials after which a study ends where each of them failed, with the same words."""
_NUMBER = re.compile(r"\d\S*")
POLL = 0.1
"""Seconds between looks at the trials in progress."""

State = Literal["done", "pruned", "failed", "running"]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What a study is asked for.

    Attributes:
        method, preset: of all trials.
        data: the data set; ``digests`` are those of its training and validation split.
        values: of train, backbone and settings, which all trials share.
        space: texts of ranges by the names of settings (`ambiseg.engine.tuning.space`).
        metric: what the trials are compared by.
        trials: how many there are in all.
        pruner: which trials end early.
        keep: how many trials keep their weights, the best ones.
        seed: of the search.
        smoke: trials are smoke runs, whose figures mean nothing.
    """

    method: str
    data: str
    values: dict[str, Any]
    space: dict[str, str]
    metric: str
    trials: int
    digests: tuple[str, ...]
    preset: str
    pruner: Pruner = "none"
    keep: int = 1
    seed: int = 0
    smoke: bool = False

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return higher_is_better(self.metric)

    @property
    def title(self) -> str:
        """The metric as tables name it."""
        return METRICS[self.metric].title if self.metric in METRICS else self.metric.replace("_", " ")

    def searched(self) -> Space:
        """The settings that are searched.

        Raises:
            AmbisegError: see `Space.of`.
        """
        return Space.of(self.space, method_info(self.method), self.preset, self.values)


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: from 0.
        state: what became of it.
        value: the metric on the validation split, of the weights that it would keep.
        settings: the searched ones, as YAML.
        steps, seconds: of its training.
        error: why it failed, in one sentence.
    """

    number: int
    state: State
    value: float | None
    settings: dict[str, str]
    steps: int | None = None
    seconds: float | None = None
    error: str = ""


def compared(
    spec: MethodSpec, preset: str, values: Mapping[str, Any], names: Sequence[str], metric: str | None
) -> tuple[dict[str, Any], str]:
    """Values of all trials with the figure that they are compared by, and its name.

    Args:
        spec, preset, values: what all trials share.
        names: the settings that are searched.
        metric: a metric, "loss", or None for the figure that validates the method; for trials whose loss the search
            changes that is `SAMPLED` in place of the loss.

    Raises:
        AmbisegError: no such metric, or one that cannot compare these trials.
    """
    train = {**values["train"], **({} if metric is None else {"select": metric})}
    chosen = resolve(spec, preset, train, values["backbone"], values["settings"])[0]
    if chosen.devices > 1:
        raise AmbisegError(
            "a trial is trained on one device: leave train.devices out, --jobs says how many at a time"
        )
    found = validated(spec, chosen)
    own = [name for name in names if name.partition(".")[0] not in ("train", "backbone")]
    if found == LOSS and own:
        if metric is not None or chosen.select == LOSS:
            raise AmbisegError(
                f"the loss cannot compare trials whose loss differs, and {own[0]} is searched: give another --metric, such"
                f" as {SAMPLED}, or leave {own[0]} out"
            )
        train["select"] = found = SAMPLED
    if metric is not None and metric == SELECT_LAST:
        raise AmbisegError(f"--metric {metric} is no figure: name a metric or loss")
    return {**values, "train": train}, found


def digests(data: str | Path) -> tuple[str, str]:
    """Digests of the training and the validation split."""
    return open_split(data, "train").digest(), open_split(data, "val").digest()


def begin(out: Path, order: Order, overwrite: bool) -> None:
    """Make the folder of a study.

    Raises:
        AmbisegError: there is one already that must stay or is in progress, or files of somebody else.
    """
    owned_files.check_inputs(out, [Path(order.data)])
    if not owned_files.is_empty(out):
        if not overwrite:
            raise AmbisegError(
                f"{out} exists: choose another --out, go on with --resume, or replace it with --overwrite"
            )
        owned_files.check_replaceable(out, [TUNE_VERB], [Path(order.data)])
    owned_files.enter(out, TUNE_VERB)
    with working_in(out, "the study"):
        owned_files.remove(out, keep_folder=True)
        owned_files.begin(out, TUNE_VERB)
        save(out, order)


def save(out: Path, order: Order, trials: Sequence[Trial] = ()) -> None:
    """Write what is asked for and all trials."""
    best = best_of(order, trials)
    entries: dict[str, Any] = {
        "ambiseg": __version__,
        "order": asdict(order) | {"digests": list(order.digests)},
    }
    entries |= {"best": None if best is None else asdict(best), "trials": [asdict(trial) for trial in trials]}
    write_json(out / STUDY, entries)


def load(out: Path) -> Order:
    """What a study was asked for.

    Raises:
        AmbisegError: it is no folder of a study, or the file is damaged.
    """
    path = out / STUDY
    if not path.is_file():
        raise AmbisegError(
            f"{out} is no study (it has no {STUDY}): give the folder that 'ambiseg tune' wrote"
        )
    given = read_mapping(path).get("order")
    if given is None:
        raise AmbisegError(f"{path} is damaged: restore it, or begin with another --out")
    order = from_values(Order, given, f"{path}: order")
    for part in ("train", "backbone", "settings"):
        if not isinstance(order.values.get(part), dict):
            raise AmbisegError(f"{path}: order: values have no {part}: restore the file")
    for name, text in order.space.items():
        if not isinstance(text, str):
            raise AmbisegError(
                f"{path}: order: space: {name} is a text, received {text!r:.80}: restore the file"
            )
    if order.metric != LOSS:
        metric_info(order.metric)
    return order


def best_of(order: Order, trials: Sequence[Trial]) -> Trial | None:
    """The best trial that was trained to its end; of equal ones the first."""
    return next(iter(ranked(order, trials)), None)


def ranked(order: Order, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that were trained to their end, the best one first."""
    sign = -1 if order.higher_is_better else 1
    done = [trial for trial in trials if trial.state == "done" and trial.value is not None]
    return sorted(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


class Study:
    """The study of a folder, by the only process that works in it.

    Args:
        out: the folder.
        order: what is asked for.
        tell: takes lines of progress.

    Raises:
        AmbisegError: Optuna is missing, or a file is damaged.
    """

    def __init__(self, out: Path, order: Order, tell: Tell = lambda line: None) -> None:
        self.out, self.order, self.tell = out, order, tell
        self.space = order.searched()
        self.journal = open_study(out, order.higher_is_better)
        self.began: dict[int, float] = {}

    def carry_out(self, jobs: int = 1) -> list[Trial]:
        """Make every trial that is not there yet; a failure is noted, and the rest goes on.

        Args:
            jobs: trials at a time, each in a process of its own with its share of the cores; 0: one after the other in
                this one.

        Raises:
            AmbisegError: the first trials failed for one reason, which is probably that of all.
            KeyboardInterrupt: interrupted; the same call goes on.
        """
        waiting, running = self._waiting(), dict[int, Worker]()
        try:
            while True:
                while len(running) < max(1, jobs) and (number := next(waiting, None)) is not None:
                    note = self._note(number)
                    if {"result", "error"} & set(read_mapping(note)):
                        self._end(number)
                    elif jobs:
                        place = min(set(range(jobs)) - {worker.place for worker in running.values()})
                        running[number] = Worker(RUN, note, place, jobs)
                    else:
                        work(note)
                        self._end(number)
                if not running:
                    break
                for number in [number for number, worker in running.items() if worker.ended()]:
                    del running[number]
                    self._end(number)
                time.sleep(POLL)
        finally:
            for worker in running.values():
                worker.ask_to_stop()
            for worker in running.values():
                worker.process.wait()
        return self.write()

    def _waiting(self) -> Iterator[int]:
        """Numbers of the trials to make: first those that a kill left, then new ones."""
        states = optuna().trial.TrialState
        left = self.journal.get_trials(deepcopy=False, states=(states.RUNNING,))
        yield from [self._prepare(optuna().trial.Trial(self.journal, trial._trial_id)) for trial in left]
        while True:
            begun = [t for t in self.journal.get_trials(deepcopy=False) if t.state != states.WAITING]
            if len(begun) >= self.order.trials:
                return
            if not self.journal.get_trials(deepcopy=False):
                self.journal.enqueue_trial(self.space.start())
            self.journal.sampler = sampler(self.order.seed, len(begun))
            yield self._prepare(self.journal.ask())

    def _prepare(self, trial: Any) -> int:
        """Write the note of a trial that has none yet; its number."""
        try:
            number, drawn = int(trial.number), self.space.suggest(trial)
        except ValueError as error:
            raise AmbisegError(
                f"the ranges of {self.out / STUDY} are not those of {JOURNAL} ({error}): restore them, or begin with"
                " another --out"
            ) from error
        note = self._note(number)
        words = ", ".join(f"{name} {brief(text)}" for name, text in drawn.items())
        self.tell(f"[{number + 1}/{self.order.trials}] trial {number}: {words}")
        self.began[number] = time.monotonic()
        if entries := read_mapping(note):
            if entries.get("data") != self.order.data:  # they moved
                write_json(note, entries | {"data": self.order.data})
            return number
        owned_files.add_path(note.with_suffix(".log"))
        owned_files.add_path(note.with_suffix(""), is_folder=True)
        entries = {"settings": drawn}
        try:
            entries["values"] = self.space.values(drawn)
        except AmbisegError as error:
            entries["error"] = str(error)
        order = self.order
        entries |= {
            "trial": trial._trial_id,
            "method": order.method,
            "preset": order.preset,
            "data": order.data,
        }
        write_json(note, entries | {"pruner": order.pruner, "smoke": order.smoke})
        return number

    def _note(self, number: int) -> Path:
        return self.out / TRIALS / f"{number:04}.json"

    def _end(self, number: int) -> None:
        """Tell the journal what a trial came to, and write the tables."""
        note = self._note(number)
        result, states = read_mapping(note).get("result"), optuna().trial.TrialState
        if result is None:
            self.journal.tell(number, state=states.FAIL)
        elif result["pruned"]:
            self.journal.tell(number, state=states.PRUNED)
        else:
            self.journal.tell(number, result["value"])
        trials = self.write()
        self._report(trials[number], trials)
        errors = [trial.error for trial in trials if trial.state == "failed"]
        if len(errors) == len(trials) >= ALIKE and len({_NUMBER.sub("", error) for error in errors}) == 1:
            raise AmbisegError(f"the first {len(errors)} trials failed alike: {errors[0]}")

    def _report(self, trial: Trial, trials: Sequence[Trial]) -> None:
        best = best_of(self.order, trials)
        if trial.state == "failed":
            line = f"failed: {trial.error}"
        else:
            line = f"{self.order.title} {trial.value:.4f}, {trial.steps} steps in {clock(trial.seconds or 0)}"
            line += ", ended early" if trial.state == "pruned" else ""
        if best is not None:
            line += f"; best: {best.value:.4f}, trial {best.number}"
        self.tell(f"    trial {trial.number}: {line}")

    def trials(self) -> list[Trial]:
        """All trials that have begun."""
        return [
            self._trial(trial)
            for trial in self.journal.get_trials(deepcopy=False)
            if trial.state.name != "WAITING"
        ]

    def _trial(self, trial: Any) -> Trial:
        names: dict[str, State] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
        note = read_mapping(self._note(trial.number))
        result = note.get("result")
        result = result if isinstance(result, dict) else {"value": trial.value}
        state = names.get(trial.state.name, "running")
        error = note.get("error", "it left no note") if state == "failed" else ""
        found = (result.get(name) for name in ("value", "steps", "seconds"))
        value, steps, seconds = found
        drawn = {name: one if isinstance(one, str) else shown(one) for name, one in trial.params.items()}
        return Trial(trial.number, state, value, note.get("settings", drawn), steps, seconds, error)

    def write(self) -> list[Trial]:
        """Write tables and best settings, and drop the weights of all but the best trials; all trials."""
        trials = self.trials()
        kept = {trial.number for trial in ranked(self.order, trials)[: self.order.keep]}
        for trial in trials:
            if trial.state != "running" and trial.number not in kept:
                _drop_weights(self._note(trial.number).with_suffix(""))
        write_text(self.out / TABLE, table(self.order, trials))
        best = best_of(self.order, trials)
        if best is not None:
            write_text(self.out / BEST, settings_file(self.order, self.space.values(best.settings)))
        save(self.out, self.order, trials)
        return trials


def _drop_weights(run: Path) -> None:
    for name in owned_files.listed(run):
        if name == WEIGHTS or name.endswith(".ckpt"):
            (run / name).unlink(missing_ok=True)


def settings_file(order: Order, values: Mapping[str, Any]) -> str:
    """The settings of a trial as a file for ``ambiseg train --config``."""
    parts = {name: part for name, part in values.items() if part}
    entries = {"method": order.method, "preset": order.preset, **parts}
    return str(yaml.safe_dump(entries, sort_keys=False))


def table(order: Order, trials: Sequence[Trial]) -> str:
    """All trials as CSV."""
    text = io.StringIO()
    names = list(order.space)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", order.metric, "steps", "seconds", *map(csv_cell, names), "error"])
    for trial in trials:
        figures = ["" if value is None else value for value in (trial.value, trial.steps, trial.seconds)]
        settings = [csv_cell(trial.settings.get(name, "")) for name in names]
        writer.writerow([trial.number, trial.state, *figures, *settings, csv_cell(trial.error)])
    return text.getvalue()
