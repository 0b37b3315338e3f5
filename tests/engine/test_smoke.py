"""Smoke runs keep what a setting chooses and bound what takes time; every experiment of the papers runs as one."""

from __future__ import annotations

import json
from dataclasses import is_dataclass, replace
from typing import get_args, get_type_hints

import pytest

from ambiseg.cli.main import main
from ambiseg.data.importers import importer
from ambiseg.data.layouts import LAYOUTS
from ambiseg.engine.presets import resolve
from ambiseg.engine.settings import Constant, Cosine, Plateau, Steps, TrainSettings
from ambiseg.engine.smoke import LARGEST, LARGEST_OF_NETWORK, NOTE, shrunk
from ambiseg.engine.suite import load_suite, suite_names
from ambiseg.methods import METHODS
from ambiseg.nested_settings import flat, from_values
from ambiseg.networks.settings import UNetSettings

PRESETS = [(name, preset) for name, spec in METHODS.items() for preset in spec.all_presets]
PAPER = ["benchmark", "paper", "--jobs", "0", "--json"]
PAPERS = [name for name in suite_names() if name.startswith("paper")]


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_only_numbers_that_cost_time_change(method, preset):
    full = resolve(METHODS[method], preset)
    small = shrunk(*full)
    assert shrunk(*small) == small and (small[0].epochs, small[0].updates) == (None, 2)
    for before, after in zip(full, small, strict=True):
        assert is_dataclass(after) and type(after) is type(before)
        old, new = flat(before), flat(after)
        changed = {name.rpartition(".")[2] for name in old if old[name] != new[name]}
        assert changed <= LARGEST.keys() | LARGEST_OF_NETWORK.keys() | {
            "factors",
            "epochs",
            "updates",
            "minutes",
        }
        assert all(new[name] <= LARGEST[name] for name in changed & LARGEST.keys() & new.keys())


SCHEDULES = (
    Cosine(),
    Constant(),
    Steps(shares=(0.5,), factors=(0.1,)),
    Steps(updates=(1000, 5000, 9000), factors=(0.5, 0.1, 0.01)),
    Plateau(),
    Plateau(watch="validation"),
)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("frequency", [{}, {"validations": 40}, {"validate_every": 3}])
def test_every_schedule_suits_a_smoke_run(schedule, frequency):
    """What a smoke run has of it is valid and of the same kind, with as many places."""
    full = TrainSettings(updates=10_000, schedule=schedule, **frequency)
    full = full if schedule != Plateau(watch="validation") or frequency else replace(full, validations=20)
    assert full.problems() == []
    small = shrunk(full, UNetSettings(), METHODS["ssn"].settings())[0]
    assert small.problems() == [] and small.late_steps(2) == []
    assert type(small.schedule) is type(schedule)
    most = 2 if schedule == Plateau(watch="validation") else 1
    assert (small.validations or 1) <= most and small.validate_every == full.validate_every
    if isinstance(schedule, Steps):
        assert small.schedule.factors == schedule.factors
    assert {type(one) for one in SCHEDULES} == set(get_args(get_type_hints(TrainSettings)["schedule"]))


def test_a_whole_validation_split_is_bounded_too():
    for given, taken in ((0, 2), (1, 1), (200, 2)):
        small = shrunk(TrainSettings(validation_images=given), UNetSettings(), METHODS["ssn"].settings())
        assert small[0].validation_images == taken


@pytest.mark.parametrize("name", PAPERS)
def test_suites_of_papers_name_layouts_and_presets(name):
    """A layout is what the import of its data gives, and a preset runs on data that have its layout."""
    suite = load_suite(name)
    for entry in suite.data.values():
        layout = LAYOUTS[entry.layout]
        if entry.importer:
            assert entry.importer == layout.importer
            settings = importer(entry.importer).settings_class()
            given = (
                from_values(settings, dict(options), name) for options in (entry.options, layout.options)
            )
            assert next(given) == next(given)
    for data, entry in suite.data.items():
        for method in suite.methods_on(data):
            trained = suite.trained(method)
            spec = METHODS[suite.methods[trained].method or trained]
            asked = spec.preset(suite.preset(data, method)).data
            assert asked is None or asked.classes == LAYOUTS[entry.layout].classes
            assert bool(suite.differs(data).get(method)) == bool(
                spec.preset(suite.preset(data, method)).differs
            )


def test_every_preset_of_an_experiment_is_in_the_suite_of_the_papers():
    suite, found = load_suite("paper"), set()
    for data in suite.data:
        for method in suite.methods_on(data):
            trained = suite.trained(method)
            found.add((suite.methods[trained].method or trained, suite.preset(data, method)))
    asked = {
        (n, p)
        for n, p in PRESETS
        if METHODS[n].preset(p).data and str(METHODS[n].model).startswith("ambiseg.")
    }
    assert asked <= found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_experiment_of_the_papers_runs(tmp_path, capsys):
    """Training, validation and evaluation of every entry."""
    assert main([*PAPER, "--smoke", "--out", str(tmp_path)]) == 0
    results = json.loads(capsys.readouterr().out)
    suite = load_suite("paper")
    assert len(results["runs"]) == sum(len(suite.methods_on(data)) for data in suite.data)
    assert not results["missing"] and not results["skipped"] and not results["failures"]
    assert all(run["steps"] == 2 for run in results["runs"])
    tables = {table["title"].partition(":")[0]: table for table in results["tables"]}
    assert set(tables) == set(suite.data) and all(NOTE in table["title"] for table in tables.values())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_experiment_of_the_papers_runs(tmp_path, capsys):
    """A second call finds nothing to do, and a call without --smoke refuses the folder."""
    out, words = tmp_path / "bench", [*PAPER, "--data", "lidc", "--methods", "mose", "mose-48"]
    assert main([*words, "--smoke", "--out", str(out)]) == 0
    results = json.loads(capsys.readouterr().out)
    assert (
        results["smoke"] and not results["failures"] and [run["steps"] for run in results["runs"]] == [2, 2]
    )
    tables = {table["title"].partition(":")[0]: table for table in results["tables"]}
    rows = [row[0]["value"] for row in tables["lidc"]["rows"]]
    assert "mose †" in rows and "mose: Gao et al., tables 1 and 4" in rows
    notes = [note for note in tables["lidc"]["notes"] if note.startswith("† mose, mose-48")]
    assert len(notes) == 1 and METHODS["mose"].preset("lidc").differs in notes[0]
    assert main([*words, "--smoke", "--out", str(out)]) == 0
    assert "runs, 0 to do" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    assert main([*words, "--out", str(out), "--data-root", str(tmp_path / "data")]) == 2
