"""Work over Ray: the same files and figures as in one process, also where a worker is killed."""

from __future__ import annotations

import socket
from functools import partial

import numpy as np
import pytest
import torch
from ray import cloudpickle

import ray_pieces
from ambiseg.atomic_write import write_json
from ambiseg.data.source import open_split
from ambiseg.engine.benchmark import carry_out, plan
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.parallel import over_ray
from ambiseg.engine.parallel.over_ray import RayEngine
from ambiseg.engine.parallel.pieces import Here, SharedRun, seed_of
from ambiseg.engine.parallel.workers import INTERRUPTED, _on_ray
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.predict import predict_files
from ambiseg.engine.run import Run, load
from ambiseg.engine.score import files as score_files_module
from ambiseg.engine.score import score_files, scorer
from ambiseg.engine.suite import read_suite
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping


@pytest.fixture(scope="module")
def engine():
    """Ray on this machine, with two workers; this process takes as many threads as each, since sums are rounded so."""
    before = torch.get_num_threads()
    with RayEngine(workers=2) as found:
        cloudpickle.register_pickle_by_value(ray_pieces)  # workers do not find the folder of the tests
        torch.set_num_threads(found.cores)
        yield found
    torch.set_num_threads(before)


def test_pieces_come_in_their_order(engine):
    assert list(engine.map(ray_pieces.double, range(5))) == list(Here().map(ray_pieces.double, range(5)))


def test_a_killed_worker_costs_no_result(engine, tmp_path):
    assert list(engine.map(partial(ray_pieces.kill_once, str(tmp_path)), range(4))) == [0, 1, 2, 3]
    assert (tmp_path / "2").exists()


@pytest.mark.slow
def test_a_piece_that_always_kills_is_given_up(engine, monkeypatch):
    monkeypatch.setattr(over_ray, "RETRIES", 1)
    with pytest.raises(
        AmbisegError, match="died 2 times on the same piece.*lower --batch-size or --ray-workers"
    ):
        list(engine.map(ray_pieces.kill_always, [0]))


def test_the_error_of_a_piece_is_its_own(engine):
    with pytest.raises(AmbisegError, match="^piece 0 is wrong$"):
        list(engine.map(ray_pieces.refuse, [0]))


def test_pieces_that_nobody_waits_for_do_no_harm(engine):
    for _ in range(10):
        results = engine.map(ray_pieces.double, range(8))
        assert next(results) == 0
        results.close()  # others end at any moment around this one
    assert list(engine.map(ray_pieces.double, [1])) == [1, 10]


def test_a_worker_that_shall_stop_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note, stop = tmp_path / "note.json", tmp_path / "stop"
    write_json(note, {})
    stop.touch()
    assert _on_ray("ambiseg.nothing", note, stop, str(tmp_path)) == INTERRUPTED


def test_a_worker_stops_when_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "until_told.py").write_text(
        "from ambiseg.engine.parallel.workers import work_alone\nimport time\n"
        "def work(note):\n    note.with_name('stop').touch()\n    time.sleep(60)\n"
        "raise SystemExit(work_alone(work))\n"
    )
    note = tmp_path / "note.json"
    write_json(note, {})
    assert _on_ray("until_told", note, tmp_path / "stop", str(tmp_path)) == INTERRUPTED
    assert "error" not in read_mapping(note)


def _files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("predictions.jsonl", ".lock")
    }


def test_predictions_are_the_same_files(engine, tiny_run, fires, tmp_path):
    run, paths = load(tiny_run), []
    for sample in open_split(fires, "test"):
        paths.append(tmp_path / f"{sample.id}.npy")
        np.save(paths[-1], sample.image)
    paths.append(tmp_path / "broken.npy")
    paths[-1].write_bytes(b"nothing")
    found = {}
    for name, chosen in (("here", None), ("ray", engine)):
        results = list(predict_files(run, paths, tmp_path / name, batch_size=2, engine=chosen))
        found[name] = {r.path.name: (r.masks, r.determined, bool(r.error)) for r in results}
    assert found["here"] == found["ray"] and found["ray"]["broken.npy"] == (0, True, True)
    here, ray = _files(tmp_path / "here"), _files(tmp_path / "ray")
    assert len(here) > 10 and here == ray


@pytest.mark.slow
def test_scores_are_the_same(engine, tiny_run, fires, tmp_path, monkeypatch):
    for module in (score_files_module, scorer):
        monkeypatch.setattr(module, "BATCH", 2)
    paths = []
    for sample in open_split(fires, "test"):
        paths.append(tmp_path / f"{sample.id}.npy")
        np.save(paths[-1], sample.image)
    systems = [tmp_path / "one", tmp_path / "two"]
    for out, samples in zip(systems, (3, 4), strict=True):
        list(predict_files(load(tiny_run), paths, out, PredictSettings(samples=samples)))
    (systems[1] / paths[0].stem / "notes.txt").write_text("seen twice")
    here, ray = (
        score_files(systems, fires, metrics=["ged", "hm_iou_unique"], engine=one) for one in (None, engine)
    )
    assert here.remarks == ray.remarks
    np.testing.assert_equal(here.to_dict(), ray.to_dict())


@pytest.mark.slow
def test_figures_are_the_same(engine, tiny_run, fires):
    run = load(tiny_run)
    here = evaluate(run, fires, batch_size=2, metrics="all")
    ray = evaluate(run, fires, batch_size=2, metrics="all", engine=engine)
    here, ray = ({**one.to_dict(), "seconds_per_image": None} for one in (here, ray))
    np.testing.assert_equal(here, ray)


def test_a_run_in_memory_cannot_be_shared(tiny_run):
    run = load(tiny_run)
    with pytest.raises(AmbisegError, match="lies in memory only"):
        SharedRun(Run(run.config, run.model, run.hardware)).__getstate__()


def test_seeds_differ_from_piece_to_piece():
    assert seed_of(7, 0) == 7 and len({seed_of(7, place) for place in range(100)}) == 100


def test_addresses_without_ray_are_refused(monkeypatch):
    with pytest.raises(AmbisegError, match="--ray-address is HOST:PORT"), RayEngine("ray://head"):
        pass
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(AmbisegError, match=f"no Ray cluster answers at {address} .*ray start --head"):
            RayEngine(address).__enter__()
        closed.listen()
        monkeypatch.setattr(over_ray, "PATIENCE", 0.3)
        with pytest.raises(AmbisegError, match=f"no Ray cluster answers at {address} within 0.3 s"):
            RayEngine(address).__enter__()


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(over_ray, "find_spec", lambda name: None)
    with pytest.raises(AmbisegError, match=r"pip install 'ambiseg\[ray\]'"):
        RayEngine()


SUITE = """
protocol:
  samples: 4
  metrics: [ged]
  train: {updates: 4, batch_size: 4, warmup: 2, precision: "32"}
  backbone: {width: 8, depth: 2}
data: {fires: {path: fires}}
methods: {m-heads: {}}
"""


@pytest.mark.slow
def test_a_benchmark_has_the_same_results(engine, fires, tmp_path):
    found = {}
    for name, chosen in (("here", None), ("ray", engine)):
        cells = plan(read_suite(SUITE, "tiny"), {"fires": fires}, tmp_path / name, seeds=2)
        carry_out(cells, jobs=0, engine=chosen)
        found[name] = [cell.result()["per_image"] for cell in cells]
    assert found["here"] == found["ray"] and len(found["ray"]) == 2
