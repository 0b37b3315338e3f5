"""A benchmark that was killed ends like one that was not, keeps what is there, and outlives its failures."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from ambiseg import owned_files
from ambiseg.atomic_write import write_json
from ambiseg.engine import benchmark, benchmark_run
from ambiseg.engine.benchmark import carry_out, plan
from ambiseg.engine.module import TrainingModule
from ambiseg.engine.parallel import workers
from ambiseg.engine.suite import Recipe, load_suite, read_suite, suite_names
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping
from ambiseg.methods import METHODS

TEXT = """
protocol:
  samples: 4
  metrics: [hm_iou_unique, selection_f1, ged]
  train: {updates: 6, batch_size: 4, warmup: 2, validations: 2, lr: 5.0e-3, precision: "32"}
  backbone: {width: 8, depth: 2}
data:
  fires: {path: fires}
methods:
  mode-proposals:
    settings: {proposals: 4, selection: {head_width: 8}}
  m-heads:
"""
MEASURED = ("steps", "metrics", "oracle", "per_image", "coverage", "estimated", "true", "masks")
"""What of a result is not a time."""


class Killed(BaseException):
    """Ends a process as no handler expects."""


@pytest.fixture
def suite():
    return read_suite(TEXT, "tiny")


def matrix(suite, fires, out, **options):
    return plan(suite, {"fires": fires}, out, **options)


def measured(cells):
    return [{name: cell.result()[name] for name in MEASURED} for cell in cells]


def test_a_mistake_in_a_suite_names_its_file(tmp_path):
    path = tmp_path / "mine.yaml"
    for change, words in (
        ("width: null", "backbone: width is int, received None"),
        ("width: 0", "width"),
    ):
        path.write_text(
            f"protocol: {{backbone: {{{change}}}}}\ndata: {{a: {{path: a}}}}\nmethods: {{ssn: }}\n"
        )
        with pytest.raises(AmbisegError, match=f"mine.yaml: .*{words}"):
            load_suite(path)


def test_killed_and_started_again_it_gives_the_same(suite, fires, tmp_path, monkeypatch):
    """Killed between two validations, in the evaluation, and with half a checkpoint on disk."""
    whole = matrix(suite, fires, tmp_path / "whole")
    carry_out(whole, jobs=0)
    first, second = cells = matrix(suite, fires, tmp_path / "killed")
    steps = []

    def step(self, batch, batch_idx, original=TrainingModule.training_step):
        steps.append(self.global_step)
        if len(steps) == 5:
            raise Killed
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", step)
    with pytest.raises(Killed):
        carry_out(cells, jobs=0)
    with monkeypatch.context() as patch:
        patch.setattr(benchmark_run, "evaluate", lambda *args, **kwargs: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            carry_out(cells, jobs=0)
    assert steps == [0, 1, 2, 3, 4, 3, 4, 5] and first.result() is None
    begun_run(second.run, {"checkpoints/last.ckpt": "half a checkpo", "config.yaml": "method: m-heads"})
    write_json(second.note, {"order": second.order})
    carry_out(cells, jobs=0)
    assert steps[8:] == [0, 1, 2, 3, 4, 5]
    assert measured(cells) == measured(whole)
    assert list(first.result()["metrics"]) == ["hm_iou_unique", "selection_f1", "ged"]
    assert list(second.result()["metrics"]) == ["hm_iou_unique", "ged"]

    lines = []
    monkeypatch.setattr(benchmark_run, "fit", None)
    carry_out(matrix(suite, fires, tmp_path / "killed"), jobs=0, tell=lines.append)
    assert lines == ["2 runs, 0 to do"]
    again = matrix(
        read_suite(TEXT.replace("selection_f1, ged", "m_iou"), "tiny"), fires, tmp_path / "killed"
    )[1]
    carry_out([again], jobs=0)
    assert list(again.result()["metrics"]) == ["hm_iou_unique", "m_iou"]
    assert again.result()["per_image"]["hm_iou_unique"] == whole[1].result()["per_image"]["hm_iou_unique"]


def begun_run(run, files):
    """A run folder with some files."""
    for name in files:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
    owned_files.begin(run, "train")
    owned_files.add(run, files)
    for name, text in files.items():
        (run / name).write_text(text)


def noted(cells):
    """All of them with a result, as if they had been run."""
    for cell in cells:
        result = {"metrics": {"ged": 0.5}, "steps": 1, "training_seconds": 2.0}
        write_json(cell.note, {"order": cell.order, "result": result})
    return cells


def test_a_change_makes_anew_what_depends_on_it_and_says_so(fires, tmp_path, monkeypatch):
    text = TEXT + "  ssn:\n  atfm: {start_from: ssn}\n"
    noted(matrix(read_suite(text, "tiny"), fires, tmp_path, seeds=2))
    changed = read_suite(text.replace("  ssn:\n", "  ssn: {settings: {rank: 3}}\n"), "tiny")
    cells = matrix(changed, fires, tmp_path, seeds=2)
    assert {c.method for c in cells if c.result() is None} == {"ssn", "atfm"}
    left = cells[2].run / "config.yaml"
    begun_run(cells[2].run, {"config.yaml": "method: ssn"})
    lines, seen = [], []

    def work(note):
        seen.append((note, left.exists()))
        noted([cell for cell in cells if cell.note == note])

    monkeypatch.setattr(benchmark, "work", work)
    carry_out(cells, jobs=0, tell=lines.append)
    todo = [c for c in cells if c.method in ("ssn", "atfm")]
    assert seen == [(c.note, False) for c in todo] and [c.start for c in todo[1::2]] == todo[::2]
    assert sum("anew: it was made with another configuration" in line for line in lines) == 4
    assert all(cell.result() for cell in cells)


def test_a_setting_that_came_later_had_its_default(fires, tmp_path):
    text = TEXT + "  ssn:\n  atfm: {start_from: ssn}\n"
    for cell in noted(matrix(read_suite(text, "tiny"), fires, tmp_path)):
        note = read_mapping(cell.note)
        training = note["order"]["training"]
        for one in (training, training["start"] or training):
            one["train"].pop("clip", None)
            one["settings"].pop("rank", None)
        write_json(cell.note, note)
    assert all(cell.result() for cell in matrix(read_suite(text, "tiny"), fires, tmp_path))
    other = read_suite(text.replace("  ssn:\n", "  ssn: {settings: {rank: 3}}\n"), "tiny")
    lost = {cell.method for cell in matrix(other, fires, tmp_path) if cell.result() is None}
    assert lost == {"ssn", "atfm"}


def test_failures_are_noted_and_the_rest_goes_on(suite, fires, tmp_path, monkeypatch):
    suite = read_suite(
        TEXT + "  flow-matching:\n  second: {method: mode-proposals, start_from: flow-matching}\n", "x"
    )

    def fit(method, data, out, original=benchmark_run.fit, **options):
        if method == "flow-matching":
            raise RuntimeError("no such\nluck")
        return original(method, data, out, **options)

    monkeypatch.setattr(benchmark_run, "fit", fit)
    cells = [c for c in matrix(suite, fires, tmp_path) if c.method != "mode-proposals"]
    lines = []
    carry_out(cells, jobs=0, tell=lines.append)
    errors = {c.method: c.entries().get("error") for c in cells}
    assert errors == {
        "m-heads": None,
        "flow-matching": "RuntimeError: no such luck",
        "second": "the run that it starts from failed (fires, flow-matching, seed 0)",
    }
    assert cells[0].result() and "failed: RuntimeError: no such luck" in "\n".join(lines)
    assert "Traceback" in cells[1].note.with_suffix(".log").read_text()


STAND_IN = """#!{python}
import json, os, pathlib, sys, time
note = pathlib.Path(sys.argv[3])
entries = json.loads(note.read_text())
(note.parent / "started").touch()
kind = entries["order"]["training"]["method"]
if kind == "m-heads":
    sys.exit(7)
if kind == "ssn":
    os.read(0, 1)
    note.with_suffix(".stopped").touch()
    sys.exit(130)
entries["result"] = {{"metrics": {{"ged": 0.5}}, "steps": 1, "training_seconds": 2.0}}
entries["result"]["threads"] = os.environ["OMP_NUM_THREADS"]
note.write_text(json.dumps(entries))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """In place of Python, a program that does not train: one method dies, one waits to be stopped, the rest
    is done."""
    path = tmp_path / "python"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(path))


def test_processes_share_the_cores_and_their_deaths_are_noted(suite, fires, tmp_path, monkeypatch, stand_in):
    monkeypatch.setattr(workers.torch, "get_num_threads", lambda: 6)
    first, second = cells = matrix(suite, fires, tmp_path)
    carry_out(cells, jobs=3)
    assert first.result()["threads"] == "2"
    assert "ended with status 7" in second.entries()["error"]


def test_an_interruption_stops_the_processes_that_run(suite, fires, tmp_path, monkeypatch, stand_in):
    cells = matrix(read_suite(TEXT + "  ssn:\n", "x"), fires, tmp_path)
    waiting = cells[2]

    def sleep(seconds):
        if (waiting.note.parent / "started").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(benchmark.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        carry_out([waiting], jobs=2)
    assert waiting.note.with_suffix(".stopped").exists()
    assert waiting.entries() and waiting.result() is None


def test_the_particular_counts_before_the_general():
    text = """
protocol: {train: {updates: 10, lr: 1.0e-3}, samples: 4, backbone: {width: 8}}
data:
  a: {path: a, train: {lr: 1.0e-2}}
  b: {path: b}
methods:
  mine:
    method: ssn
    train: {epochs: 3}
    overrides: {b: {settings: {rank: 3}, samples: 9, train: {labels: single}}}
"""
    suite = read_suite(text, "x")
    train, backbone, settings, samples = suite.resolved("a", "mine", seed=5)
    assert (train.epochs, train.updates, train.lr, train.labels, train.seed) == (3, None, 1e-2, "full", 5)
    assert (backbone.width, settings.rank, samples) == (8, 10, 4)
    train, _, settings, samples = suite.resolved("b", "mine")
    assert (train.lr, train.labels, settings.rank, samples) == (1e-3, "single", 3, 9)
    assert Recipe(samples=3).over(Recipe({"minutes": 1}, samples=2)) == Recipe({"minutes": 1}, samples=3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  samples: 4", "  sampels: 4", "did you mean 'samples'"),
        ("updates: 6", "update: 6", "did you mean 'updates'"),
        ("lr: 5.0e-3", "lr: 5e-3", "YAML wants a dot"),
        ("updates: 6", "updates: 6, epochs: 1", "epochs or updates, not both"),
        ("  m-heads:", "  m-head:", "did you mean 'm-heads'"),
        ("{proposals: 4,", "{proposals: many,", "proposals is int, received 'many'"),
        ("  m-heads:", "  m-heads: {start_from: m-heads}", "starts from itself"),
        ("  m-heads:", "  m-heads: {run_of: mode-proposals, backbone: {width: 9}}", "settings, samples and presets only"),
        ("  m-heads:", "  m-heads: {run_of: mode-proposal}", "did you mean 'mode-proposals'"),
        ("  m-heads:", "  m-heads: {run_of: m-heads}", "starts from itself"),
        ("  m-heads:", "  m-heads: {run_of: mode-proposals, presets: {fires: lidc}}", "the preset lidc trains"),
        ("  m-heads:", "  m-heads: {run_of: mode-proposals, presets: {fires: lidcs}}", "did you mean 'lidc'"),
        ("{path: fires}", "{layout: lidcs}", "did you mean 'lidc'"),
        ("  m-heads:", "  m-heads: {overrides: {fire: {}}}", "did you mean 'fires'"),
        ("  m-heads:", "  ../m-heads:", "rename it"),
        ("{path: fires}", "{path: fires, simulate: wildfire}", "how to get it"),
        ("{path: fires}", "{}", "how to get it"),
        ("data:", "data: [", "not valid YAML"),
        ("  samples: 4", "  seeds: 0", "protocol.seeds must be at least 1"),
        ("{path: fires}", "{path: fires, images: 0}", "fires.images must be at least 1"),
        ("methods:", "papers: here\nmethods:", "papers is a list"),
        ("methods:", "papers: [{paper: x, data: fires, values: {y: {ged: [1, 2, 3]}}}]\nmethods:", "deviation"),
        ("methods:", "papers: [{data: fires}]\nmethods:", "paper"),
    ],
)  # fmt: skip
def test_mistakes_in_a_suite_are_named(old, new, message):
    assert old in TEXT
    with pytest.raises(AmbisegError, match=message):
        read_suite(TEXT.replace(old, new), "tiny", "tiny.yaml")


def test_a_part_of_the_images_is_evaluated_where_that_is_asked_for(fires, tmp_path):
    some = read_suite(TEXT.replace("{path: fires}", "{path: fires, images: 2}"), "tiny")
    cells = matrix(some, fires, tmp_path / "out")[-1:]
    carry_out(cells, jobs=0)
    result = cells[0].result()
    assert result["images"] == 2 and all(len(values) == 2 for values in result["per_image"].values())


def test_one_run_is_measured_in_several_ways(fires, tmp_path, monkeypatch):
    text = TEXT + (
        "  ssn:\n  ssn-2: {run_of: ssn, samples: 2}\n"
        "  flow-matching: {settings: {steps: 4}}\n"
        "  flow-1: {run_of: flow-matching, settings: {steps: 1}, overrides: {fires: {samples: 3}}}\n"
        "  flow-1-2: {run_of: flow-1, samples: 2}\n"
    )
    trained = []

    def fit(method, *words, original=benchmark_run.fit, **options):
        trained.append(method)
        return original(method, *words, **options)

    monkeypatch.setattr(benchmark_run, "fit", fit)
    cells = {c.method: c for c in matrix(read_suite(text, "tiny"), fires, tmp_path)[2:]}
    carry_out(list(cells.values()), jobs=0)
    results = {name: cell.result() for name, cell in cells.items()}
    assert trained == ["ssn", "flow-matching"]
    assert {name: result["masks"] for name, result in results.items()} == {
        "ssn": 4, "ssn-2": 2, "flow-matching": 4, "flow-1": 3, "flow-1-2": 2,
    }  # fmt: skip
    assert results["flow-1"]["steps"] == results["flow-matching"]["steps"]
    assert cells["flow-1-2"].order["evaluation"]["settings"] == {"steps": 1}
    other = read_suite(text.replace("steps: 4", "steps: 5"), "tiny")
    lost = {cell.method for cell in matrix(other, fires, tmp_path)[2:] if cell.result() is None}
    assert lost == {"flow-matching", "flow-1", "flow-1-2"}


def test_a_run_is_measured_with_the_settings_of_a_preset():
    """Those in which it differs from the preset of the run, under settings of the entry; its remark as well."""
    text = """
data: {lidc: {path: a}, other: {path: b}}
methods:
  flow-matching: {presets: {lidc: lidc, other: paper}, settings: {steps: 4}}
  spell: {run_of: flow-matching, presets: {lidc: lidc-spell}}
  near: {run_of: flow-matching, presets: {lidc: lidc-spell}, settings: {guidance: {radius: 3.0}}}
  one-step: {run_of: spell, settings: {steps: 1}}
"""
    suite = read_suite(text, "x")
    presets = METHODS["flow-matching"].presets
    guidance = presets["lidc-spell"].settings["guidance"]
    assert suite.sampling("lidc", "spell").settings == {"guidance": guidance}
    assert suite.sampling("lidc", "near").settings == {"guidance": {**guidance, "radius": 3.0}}
    assert suite.sampling("lidc", "one-step").settings == {"guidance": guidance, "steps": 1}
    assert suite.resolved("lidc", "spell")[2].steps == 4 and suite.preset("lidc", "one-step") == "lidc-spell"
    assert presets["lidc-spell"].differs in suite.differs("lidc")["spell"]
    assert set(suite.differs("lidc")) == {"spell", "near", "one-step"}


def test_a_layout_alone_says_how_to_get_the_data():
    text = """
data:
  lidc: {layout: lidc}
  mine: {layout: cityscapes-twins, source: elsewhere, options: {size: [64, 128]}}
  half: {part_of: mine, train_share: 0.5}
  made: {layout: cityscapes-prediction}
  drawn: {simulate: lesions, layout: lidc}
methods: {ssn: }
"""
    data = read_suite(text, "x").data
    lidc, mine = data["lidc"], data["mine"]
    assert (lidc.importer, lidc.source, lidc.options) == ("lidc-crops", "lidc-crops", {"split": "lidcv1"})
    assert (mine.importer, mine.source) == ("cityscapes", "elsewhere")
    assert mine.options == {"output": "twins", "size": [64, 128]}
    assert (data["half"].layout, data["half"].importer) == ("cityscapes-twins", "")
    assert (data["made"].path, data["made"].importer) == ("cityscapes-prediction.h5", "")
    assert (data["drawn"].simulate, data["drawn"].importer) == ("lesions", "")


def test_the_suites_that_come_along():
    """Smoke and cpu have every method of ambiseg; papers' values are of metrics that there are."""
    papers = ("mode-proposals", "flow-ssn", "probabilistic-unet", "atfm", "mose")
    assert set(suite_names()) == {"cpu", "smoke", "paper", *(f"paper-{paper}" for paper in papers)}
    for name in ("smoke", "cpu"):
        suite = load_suite(name)
        assert {entry.method or title for title, entry in suite.methods.items()} == set(METHODS)
    for name in suite_names():
        suite = load_suite(name)
        shown = set(suite.protocol.metrics)
        assert all(set(values) <= shown for paper in suite.papers for values in paper.values.values())
    with pytest.raises(AmbisegError, match="did you mean 'smoke'"):
        load_suite("smok")
    with pytest.raises(AmbisegError, match="does not exist"):
        load_suite(Path("nowhere.yaml"))


def test_suites_of_papers_measure_as_the_papers_do():
    """Street scenes by the code of the table beside them, which counts the classes that flip; single labels start
    from a flow that saw single labels."""
    assert load_suite("paper").dialect("cityscapes-twins") == "kohl"
    assert load_suite("paper-probabilistic-unet").dialect("cityscapes-twins") == "kohl"
    for name in ("paper", "paper-mose"):
        suite = load_suite(name)
        streets = [data for data in suite.data if data.startswith("cityscapes-prediction")]
        assert {suite.dialect(data) for data in streets} == {"mose"}
    assert load_suite("paper").dialect("lidc") == load_suite("paper").dialect("cityscapes") == "ambiseg"
    started = 0
    for name in suite_names():
        suite = load_suite(name)
        for data in suite.data:
            for method in suite.methods_on(data):
                if (start := suite.methods[method].start_from) and name.startswith("paper"):
                    ours, theirs = suite.resolved(data, method)[0], suite.resolved(data, start)[0]
                    started += ours.labels == theirs.labels == "single"
                    assert ours.labels == theirs.labels
    assert started == 6


def test_a_suite_names_dialect_and_classes(fires, tmp_path):
    """They are part of what the result depends on; those of the data set count before those of the protocol."""
    text = TEXT.replace("protocol:\n", "protocol:\n  dialect: ccdm\n  classes: [foreground]\n")
    (first, _) = matrix(read_suite(text, "tiny"), fires, tmp_path)
    evaluation = first.order["evaluation"]
    assert (evaluation["dialect"], evaluation["classes"]) == ("ccdm", ["foreground"])
    own = text.replace("{path: fires}", "{path: fires, classes: [0], dialect: wildfire}")
    evaluation = matrix(read_suite(own, "tiny"), fires, tmp_path)[0].order["evaluation"]
    assert (evaluation["dialect"], evaluation["classes"]) == ("wildfire", [0])
    assert not {"dialect", "classes"} & set(
        matrix(read_suite(TEXT, "tiny"), fires, tmp_path)[0].order["evaluation"]
    )
    for wrong, words in (
        (own.replace("[0]", "[fire]"), "tiny: fires: unknown class 'fire'"),
        (text.replace("ccdm", "cdm"), "unknown dialect 'cdm': did you mean 'ccdm'"),
        (own.replace("wildfire", "wildfires"), "unknown dialect 'wildfires': did you mean 'wildfire'"),
    ):
        with pytest.raises(AmbisegError, match=words):
            matrix(read_suite(wrong, "tiny"), fires, tmp_path)
