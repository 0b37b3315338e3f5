"""A study finds the best trial, outlives its failures, and ends the same when it was killed."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace

import pytest

from ambiseg.atomic_write import working_in, write_json
from ambiseg.data.source import open_split
from ambiseg.engine.module import TrainingModule
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.train import fit
from ambiseg.engine.tuning import study as studies
from ambiseg.engine.tuning.journal import JOURNAL, open_study, open_trial
from ambiseg.engine.tuning.space import NOT_COMPARABLE
from ambiseg.engine.tuning.study import Order, Study, begin, best_of, compared, digests, load
from ambiseg.engine.tuning.trial import Reports
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping
from ambiseg.methods import method_info
from ambiseg.plain_yaml import read_yaml_file

TINY = {
    "train": {
        "updates": 4,
        "batch_size": 4,
        "warmup": 1,
        "validations": 2,
        "precision": "32",
        "augment": False,
    },
    "backbone": {"width": 8, "depth": 2},
    "settings": {"proposals": 4, "selection": {"head_width": 8}},
}


SEED = 1
"""Of a search whose trials have both depths."""


class Killed(BaseException):
    """Ends a process as no handler expects."""


@pytest.fixture
def order(fires):
    space = {"train.lr": "log:1e-3..1e-1", "matching_score_weight": "0..0.5"}
    return Order(
        "mode-proposals", str(fires), TINY, space, "hm_iou_unique", 8, digests(fires), preset="recommended"
    )


def made(out, order, **options):
    begin(out, order, overwrite=False)
    return Study(out, order).carry_out(0, **options)


def objective(note):
    """In place of a training: best at lr 0.02 and weight 0.3."""
    entries = read_mapping(note)
    lr, weight = (float(text) for text in entries["settings"].values())
    run = note.with_suffix("")
    run.mkdir(exist_ok=True)
    value = 1 - abs(lr - 0.02) - abs(weight - 0.3)
    write_json(note, entries | {"result": {"value": value, "pruned": False, "steps": 4, "seconds": 1.0}})


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(studies, "work", objective)


def test_the_best_trial_is_found_and_written(order, fake, tmp_path):
    order = replace(order, trials=24)
    trials = made(tmp_path / "study", order)
    values = [trial.value for trial in trials]
    best = best_of(order, trials)
    assert best.value == max(values) > 0.9 and len(trials) == 24
    assert trials[0].settings == {
        "train.lr": "0.002",
        "matching_score_weight": "0.1",
    }  # the preset, where it is in range
    assert sum(values[14:]) > sum(values[1:11])  # it searches where it was good
    with open(tmp_path / "study" / "trials.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["hm_iou_unique"]) for row in rows] == values
    assert [row["train.lr"] for row in rows] == [trial.settings["train.lr"] for trial in trials]
    said = read_yaml_file(tmp_path / "study" / "best.yaml")
    assert said["train"] == TINY["train"] | {"lr": float(best.settings["train.lr"])}
    assert said["settings"]["matching_score_weight"] == float(best.settings["matching_score_weight"])
    assert (
        said["method"] == "mode-proposals"
        and read_mapping(tmp_path / "study" / "study.json")["best"]["value"] == best.value
    )
    assert load(tmp_path / "study") == order


def test_low_figures_are_best_where_the_metric_says_so(order, fake, tmp_path):
    order = replace(order, metric="ged")
    trials = made(tmp_path / "study", order)
    assert best_of(order, trials).value == min(trial.value for trial in trials)


def test_killed_at_any_moment_it_ends_the_same(order, fake, tmp_path, monkeypatch):
    """Killed before and after a trial is told to the journal, and with half a line and a lock in the journal."""
    whole = made(tmp_path / "whole", order)
    out = tmp_path / "killed"
    begin(out, order, overwrite=False)
    moments = iter(["work", "told", "work", "", "told"])

    def work(note, moment=""):
        moment = next(moments, "")
        if moment == "work":
            raise Killed
        objective(note)
        if moment == "told":
            raise Killed

    monkeypatch.setattr(studies, "work", work)
    for _ in range(4):
        with pytest.raises(Killed):
            Study(out, order).carry_out(0)
        with open(out / JOURNAL, "a") as stream:
            stream.write('{"op_code":5,"worker')
        (out / f"{JOURNAL}.lock").touch()
    assert Study(out, order).carry_out(0) == whole
    assert Study(out, order).carry_out(0) == whole
    more = Study(out, replace(order, trials=10)).carry_out(0)
    assert more[:8] == whole and len(more) == 10


def test_a_failure_is_recorded_and_the_study_goes_on(order, tmp_path, monkeypatch):
    def work(note):
        if note.stem in ("0001", "0004"):
            write_json(note, read_mapping(note) | {"error": "not enough memory for these settings"})
        else:
            objective(note)

    monkeypatch.setattr(studies, "work", work)
    trials = made(tmp_path / "study", order)
    assert [t.number for t in trials if t.state == "failed"] == [1, 4] and len(trials) == 8
    assert trials[1].error == "not enough memory for these settings" and trials[1].value is None


def test_a_combination_without_sense_fails_before_it_is_trained(order, monkeypatch, tmp_path):
    """Each value makes sense alone; few validations and much patience do not."""
    monkeypatch.delitem(NOT_COMPARABLE, "train.validations")
    space = {"train.validations": "4|12", "train.schedule.patience": "1|8"}
    watching = {"kind": "plateau", "watch": "validation"}
    values = TINY | {"train": TINY["train"] | {"validations": 10, "schedule": watching | {"patience": 1}}}
    order = replace(order, values=values, space=space, trials=8)

    def both(note):
        entries = read_mapping(note)
        write_json(note, entries | {"result": {"value": 0.5, "pruned": False, "steps": 4, "seconds": 1.0}})

    monkeypatch.setattr(studies, "work", both)
    trials = made(tmp_path / "study", order)
    senseless = [
        t for t in trials if t.settings == {"train.validations": "4", "train.schedule.patience": "8"}
    ]
    assert senseless and all(t.state == "failed" and "4 validations" in t.error for t in senseless)
    assert all(t.state == "done" for t in trials if t not in senseless)


def test_a_study_ends_where_every_trial_fails_alike(order, tmp_path, monkeypatch):
    def work(note):
        write_json(note, read_mapping(note) | {"error": "the image a.png is damaged"})

    monkeypatch.setattr(studies, "work", work)
    with pytest.raises(AmbisegError, match="the first 3 trials failed alike: the image a.png is damaged"):
        made(tmp_path / "study", order)


def test_failures_that_differ_in_numbers_only_are_alike(order, tmp_path, monkeypatch):
    def work(note):
        entries = read_mapping(note)
        write_json(note, entries | {"error": f"the rate {entries['settings']['train.lr']} is too high"})

    monkeypatch.setattr(studies, "work", work)
    with pytest.raises(AmbisegError, match="the first 3 trials failed alike: the rate 0.002 is too high"):
        made(tmp_path / "study", order)


@pytest.mark.parametrize("left", ["", "{", '{"result": 5}'])
def test_the_journal_knows_a_trial_whose_note_is_damaged(order, fake, tmp_path, left):
    out = tmp_path / "study"
    trials = made(out, order)
    best = best_of(order, trials)
    (out / "trials" / f"{best.number:04}.json").write_text(left)
    again = best_of(order, Study(out, order).trials())
    assert (again.number, again.value, again.settings) == (best.number, best.value, best.settings)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("metric", "hm", "unknown metric 'hm'"),
        ("space", {"rank": 5}, "space: rank is a text, received 5"),
        ("trials", "ten", "trials is int, received 'ten'"),
        (None, None, "study.json is damaged: restore it"),
    ],
)
def test_a_damaged_order_is_told(order, tmp_path, name, value, words):
    begin(tmp_path / "study", order, overwrite=False)
    entries = read_mapping(tmp_path / "study" / "study.json")
    entries = {"order": entries["order"] | {name: value}} if name else {}
    write_json(tmp_path / "study" / "study.json", entries)
    with pytest.raises(AmbisegError, match=words):
        load(tmp_path / "study")


def test_a_trial_that_was_killed_goes_on_with_data_that_moved(order, tmp_path, monkeypatch):
    def killed(note):
        raise Killed

    read = []

    def work(note):
        read.append(read_mapping(note)["data"])
        objective(note)

    monkeypatch.setattr(studies, "work", killed)
    with pytest.raises(Killed):
        made(tmp_path / "study", order)
    monkeypatch.setattr(studies, "work", work)
    order = replace(order, data=str(tmp_path / "moved"), trials=2)
    assert [trial.state for trial in Study(tmp_path / "study", order).carry_out(0)] == ["done", "done"]
    assert read == [order.data, order.data]


def test_a_study_in_progress_is_not_replaced(order, fake, tmp_path):
    out = tmp_path / "study"
    made(out, order)
    with (
        working_in(out, "the study"),
        pytest.raises(AmbisegError, match="another process works in the study"),
    ):
        begin(out, order, overwrite=True)
    assert len(read_mapping(out / "study.json")["trials"]) == order.trials
    begin(out, replace(order, trials=2), overwrite=True)
    assert not (out / JOURNAL).exists() and load(out).trials == 2


def test_ranges_that_are_not_those_of_the_journal_are_told(order, tmp_path, monkeypatch):
    def work(note):
        result = {"value": 0.5, "pruned": False, "steps": 4, "seconds": 1.0}
        write_json(note, read_mapping(note) | {"result": result})

    monkeypatch.setattr(studies, "work", work)
    order = replace(order, space={"matching_score_weight": "0.1|0.2"}, trials=2)
    made(tmp_path / "study", order)
    other = replace(order, space={"matching_score_weight": "0.1|0.3"}, trials=3)
    with pytest.raises(AmbisegError, match="the ranges of .*study.json are not those of journal.log"):
        Study(tmp_path / "study", other).carry_out(0)


def test_trials_train_go_on_after_a_kill_and_open_no_test_split(order, fires, tmp_path, monkeypatch):
    """Real trainings: the test split is damaged, the second trial is killed, the third has too deep a network."""
    data = tmp_path / "fires"
    shutil.copytree(fires, data)
    damaged = 0
    for path in data.rglob("*"):
        if path.is_file() and "test" in path.relative_to(data).as_posix():
            path.write_bytes(b"damaged")
            damaged += 1
    assert damaged >= 5
    with pytest.raises(AmbisegError):
        [open_split(data, "test")[i].image for i in range(5)]
    order = replace(
        order,
        data=str(data),
        space={"train.lr": "log:1e-3..1e-2", "backbone.depth": "2|9"},
        trials=3,
        seed=SEED,
    )
    whole = made(tmp_path / "whole", order)
    begin(tmp_path / "killed", order, overwrite=False)
    steps = []

    def step(self, batch, batch_idx, original=TrainingModule.training_step):
        steps.append(self.global_step)
        if len(steps) == 8:
            raise Killed
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", step)
        with pytest.raises(Killed):
            Study(tmp_path / "killed", order).carry_out(0)
    trials = Study(tmp_path / "killed", order).carry_out(0)
    times = [replace(trial, seconds=None) for trial in trials]
    assert times == [replace(trial, seconds=None) for trial in whole]
    depths = [trial.settings["backbone.depth"] for trial in trials]
    assert [trial.state for trial in trials] == ["failed" if depth == "9" else "done" for depth in depths]
    assert "9" in depths and all("network of depth 9" in t.error for t in trials if t.state == "failed")

    best = best_of(order, trials)
    folders = {
        t.number: tmp_path / "killed" / "trials" / f"{t.number:04}" for t in trials if t.state == "done"
    }
    for number, run in folders.items():
        assert (run / "model.safetensors").is_file() == (number == best.number)
        assert bool(list(run.glob("checkpoints/*.ckpt"))) == (number == best.number)
    said = read_yaml_file(tmp_path / "killed" / "best.yaml")
    again = fit(
        said["method"],
        data,
        tmp_path / "again",
        train=said["train"],
        backbone=said["backbone"],
        settings=said["settings"],
        quiet=True,
        fit_filter=False,
    )
    assert again.value == best.value
    trained = RunConfig.load(folders[best.number])
    assert RunConfig.load(tmp_path / "again").train == trained.train

    mine = folders[best.number] / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(AmbisegError, match="notes.txt.*ambiseg did not write"):
        begin(tmp_path / "killed", order, overwrite=True)
    mine.unlink()
    begin(tmp_path / "killed", order, overwrite=True)
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left - {".ambiseg-lock"} == {"study.json", ".ambiseg-files"}


class Ended:
    """A trial of Optuna that is pruned at a validation."""

    def __init__(self, at):
        self.at, self.reported = at, []

    def report(self, value, step):
        self.reported.append((step, value))

    def should_prune(self):
        return len(self.reported) == self.at


def test_a_trial_reports_each_validation_and_ends_when_it_is_told(order, fires, tmp_path):
    values = TINY | {"train": TINY["train"] | {"updates": 8, "validations": 4}}
    reports = Reports(Ended(at=2))
    options = {"quiet": True, "fit_filter": False, **values}
    ended = fit(order.method, fires, tmp_path / "ended", callbacks=[reports], **options)
    assert reports.pruned and ended.steps == 4 and [step for step, _ in reports.trial.reported] == [1, 2]
    reports = Reports(Ended(at=4))
    whole = fit(order.method, fires, tmp_path / "whole", callbacks=[reports], **options)
    assert (
        not reports.pruned
        and whole.steps == 8
        and whole.value == pytest.approx(max(value for _, value in reports.trial.reported), abs=1e-6)
    )


def test_a_loss_compares_no_trials_whose_loss_differs():
    spec = method_info("probabilistic-unet")
    nothing = {"train": {}, "backbone": {}, "settings": {}}
    own, shared = ["beta"], ["train.lr", "backbone.width"]
    assert compared(spec, "recommended", nothing, own, "ged") == (
        nothing | {"train": {"select": "ged"}},
        "ged",
    )
    spec = method_info("atfm")
    assert compared(spec, "recommended", nothing, shared, None) == (nothing, "loss")
    assert compared(spec, "recommended", nothing, ["rank"], None) == (
        nothing | {"train": {"select": "ged"}},
        "ged",
    )
    for values, metric in ((nothing, "loss"), (nothing | {"train": {"select": "loss"}}, None)):
        with pytest.raises(AmbisegError, match="the loss cannot compare trials whose loss differs, and rank"):
            compared(spec, "recommended", values, ["rank"], metric)
    with pytest.raises(AmbisegError, match="neither high nor low is better"):
        compared(spec, "recommended", nothing, shared, "diversity")


@pytest.mark.parametrize(("pruner", "ended"), [("none", [False, False]), ("median", [True, False])])
def test_the_median_ends_what_is_worse_at_the_same_validation(tmp_path, pruner, ended):
    """Figures 1 to 5 of five trials at validation 2: with the median 3 a trial of 2.5 ends, one of 3.5 goes on."""
    journal = open_study(tmp_path, higher_is_better=True)
    for value in range(1, 6):
        trial = journal.ask()
        trial.report(float(value), 2)
        journal.tell(trial, float(value))
    found = []
    for value in (2.5, 3.5):
        number = journal.ask()._trial_id
        trial = open_trial(tmp_path, number, pruner)
        trial.report(0.0, 1)
        assert not trial.should_prune()  # no other trial has a validation 1
        trial.report(value, 2)
        found.append(bool(trial.should_prune()))
    assert found == ended
