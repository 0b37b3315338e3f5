"""The benchmark for a GPU: no part spoils another one, nothing that was measured is lost, and the page shows
what there is."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ambiseg.json_files import read_mapping

ROOT = Path(__file__).parents[1]
WORKER = """
import json, pathlib, subprocess, sys, time

part, out = sys.argv[1], pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
path = out / f"{part}.json"
note = json.loads(path.read_text())
note["rows"][f"{part} row"] = {"status": "done", "value": 1}
if part == "half":
    note["rows"]["late"] = {"status": "skipped: no time left"}
path.write_text(json.dumps(note))
with open(out / "calls.txt", "a") as calls:
    calls.write(part + "\\n")
if part == "crash":
    sys.exit("a planted fault")
if part == "hang":
    child = subprocess.Popen(["sleep", "60"])
    (out / "child.txt").write_text(str(child.pid))
    time.sleep(60)
"""


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


@pytest.fixture
def parts_module(gpu):
    return importlib.import_module("gpu_parts")


@pytest.fixture
def plan(gpu, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    (tmp_path / "out").mkdir()
    facts = {"card": "a card", "commit": "first"}
    return gpu.Plan(out=tmp_path / "out", work=tmp_path / "work", worker=worker, facts=facts)


def run(gpu, plan, *names, limit=20.0, least=0.0, **changes):
    """Results by name of parts that the fake worker knows."""
    parts = [gpu.Part(name, limit=1.0 if name == "hang" else limit, least=least) for name in names]
    changed = gpu.Plan(**{**vars(plan), **changes})
    return {note["part"]: note for note in gpu.run(parts, changed, say=lambda text: None)}


def calls(plan):
    path = plan.out / "calls.txt"
    return path.read_text().split() if path.exists() else []


def running(pid):
    """Whether a process is there and is not only waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_crash_and_a_hang_are_noted_and_the_rest_goes_on(gpu, plan):
    began = time.monotonic()
    notes = run(gpu, plan, "crash", "hang", "good")
    assert notes["crash"]["status"] == "failed: exit status 1: a planted fault"
    assert notes["hang"]["status"] == "timed out after 1 s"
    assert notes["good"]["status"] == "done" and notes["good"]["card"] == "a card"
    assert all(f"{name} row" in note["rows"] for name, note in notes.items())
    assert time.monotonic() - began < 30
    child = int((plan.out / "child.txt").read_text())
    deadline = time.monotonic() + 10
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child)
    for name, note in notes.items():
        assert json.loads((plan.out / f"{name}.json").read_text()) == note


def test_the_budget_skips_with_a_reason(gpu, plan):
    notes = run(gpu, plan, "good", least=40.0, minutes=0.5)
    assert notes["good"]["status"] == "skipped: no time left" and calls(plan) == []


def test_resuming_keeps_what_is_complete_and_the_rows_of_the_rest(gpu, plan, tmp_path):
    first = run(gpu, plan, "good", "half", "crash")
    assert first["half"]["status"] == "skipped: no time left for late"
    (plan.out / "calls.txt").unlink()
    again = {"earlier": plan.out, "out": tmp_path / "again", "facts": {"card": "a card", "commit": "second"}}
    (tmp_path / "again").mkdir()
    second = run(gpu, plan, "good", "half", "crash", **again)
    later = gpu.Plan(**{**vars(plan), **again})
    assert calls(later) == ["half", "crash"]
    assert second["good"] == first["good"]
    assert json.loads((later.out / "good.json").read_text()) == first["good"]
    assert second["half"]["commit"] == "first, second" and "half row" in second["half"]["rows"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"smoke": True}, {"facts": {"card": "another"}}], ids=str)
def test_results_of_other_settings_are_not_kept(gpu, plan, change):
    run(gpu, plan, "good")
    run(gpu, plan, "good", earlier=plan.out, **change)
    assert calls(plan) == ["good", "good"]


def test_a_part_without_its_simulated_data_fails_alone(gpu, plan):
    parts = [gpu.Part("fires", limit=20, least=0, simulates=True), gpu.Part("good", limit=20, least=0)]
    simulate = [sys.executable, "-c", "raise SystemExit('no fire')"]
    changed = gpu.Plan(**{**vars(plan), "simulate": simulate})
    fires, good = gpu.run(parts, changed, say=lambda text: None)
    assert fires["status"] == "failed: no simulated data: failed: exit status 1: no fire"
    assert good["status"] == "done"


def test_rows_are_measured_one_by_one(parts_module, gpu, tmp_path):
    """An error and too little memory cost a row each; what is there already is not measured again."""
    import torch

    def fails(error):
        def action(seconds):
            raise error

        return action

    row = parts_module.Row
    rows = [
        row("kept", fails(AssertionError("measured again"))),
        row("memory", fails(torch.OutOfMemoryError("CUDA out of memory."))),
        row("absent", fails(parts_module.Skipped("no data"))),
        row("good", lambda seconds: {"value": seconds}, training=10),
        row("bad", fails(ValueError("a planted fault"))),
        row("long", lambda seconds: {}, training=10_000),
    ]
    gpu.write_note(tmp_path / "x.json", {"status": "running", "rows": {"kept": {"status": "done"}}})
    context = parts_module.Context(tmp_path, tmp_path, tmp_path, time.time() + 100, 0, parts_module.TINY)
    parts_module.measure_rows(context, "x", rows)
    note = read_mapping(tmp_path / "x.json")
    assert {name: found["status"] for name, found in note["rows"].items()} == {
        "kept": "done",
        "memory": "skipped: out of memory: CUDA out of memory.",
        "absent": "skipped: no data",
        "good": "done",
        "bad": "failed: ValueError: a planted fault",
        "long": "skipped: no time left",
    }
    assert note["rows"]["good"]["value"] == 10
    assert note["status"] == "failed: 1 of 6 rows (bad)"


def test_two_calls_of_nine_minutes_train_everything_at_half_length_or_more(gpu, parts_module, tmp_path):
    """If methods, speed and metrics take 185 seconds together in the first call."""
    context = parts_module.Context(tmp_path, tmp_path, tmp_path, 0.0, 0, parts_module.FULL)
    rows = {name: parts_module.WHAT[name](context) for name in ("fires", "nodules", "samplers")}
    pending = [(name, row) for name in rows for row in rows[name]]
    for before in (185.0, 0.0):
        left = 60 * 9.0 - gpu.ENDING - before
        for name in rows:
            here = [row for part, row in pending if part == name]
            for i, row in enumerate(here):
                seconds = parts_module.training_time(left - gpu.ENDING, here[i:])
                if seconds is not None:
                    assert seconds >= row.training / 2
                    left -= seconds + row.besides
                    pending.remove((name, row))
    assert pending == []


def test_without_cuda_it_says_so_and_takes_the_smoke(gpu, monkeypatch, capsys, tmp_path):
    plans = []
    monkeypatch.setattr(gpu, "card", lambda: {"card": None, "memory_gib": None, "torch": "2"})
    monkeypatch.setattr(gpu, "run", lambda parts, plan, say: plans.append(plan) or [])
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    gpu.main()
    assert capsys.readouterr().out.splitlines()[0] == gpu.NO_CUDA
    assert plans[0].smoke and plans[0].environment()["CUDA_VISIBLE_DEVICES"] == ""


def test_an_unknown_part_is_refused(gpu):
    with pytest.raises(SystemExit, match="no part 'sped'.*speed"):
        gpu.chosen("sped")


def test_every_part_has_its_measurements_and_its_table(gpu, parts_module):
    specs = importlib.import_module("tables").specs()
    names = [part.name for part in gpu.PARTS]
    assert list(parts_module.WHAT) == names
    assert [f"gpu-{name}" for name in names] == [name for name in specs if name.startswith("gpu-")]


def test_the_runner_imports_no_torch(gpu):
    import subprocess

    code = "import sys, gpu; assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'benchmarks'}:{ROOT / 'src'}"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_tables_at_the_end_show_every_row(gpu, plan):
    notes = run(gpu, plan, "methods", "speed")
    shown = gpu.text(list(notes.values()), plan.out)
    assert "| methods row | done |" in shown and "| speed row | done |" in shown


def test_the_packages_that_travel_are_those_that_the_machine_lacks():
    """All that ambiseg needs, without what the head of gpu.sh says is there and what that needs in turn."""
    script = (ROOT / "benchmarks" / "gpu.sh").read_text()
    head = script.partition("set -euo")[0].replace("#", " ")
    words = re.search(r"brings (.*?); what it lacks", head, re.DOTALL).group(1)
    there = _closure(re.split(r",\s*", " ".join(words.split())))
    travels = re.search(r"names=\((.*?)\)", script).group(1).split()
    assert {canonicalize_name(name) for name in travels} == _closure(["ambiseg"]) - there - {"ambiseg"}


def _closure(names):
    found, left = set(), [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        for text in requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                left.append(canonicalize_name(needed.name))
    return found
