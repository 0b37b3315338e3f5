"""``predict``, ``evaluate`` and ``report`` with a trained run, with good and with bad files."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import shutil
import struct
import zlib
from dataclasses import asdict, fields

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from ambiseg import progress_log
from ambiseg.cli.main import main
from ambiseg.cli.parsing import Proposing
from ambiseg.cli.predict import settings_of
from ambiseg.engine.fitted_filter import FilterValues, FittedFilter
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import load


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of a run to write into."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_the_defaults_are_those_of_the_library():
    shared = {f.name for f in fields(Proposing)} & {f.name for f in fields(PredictSettings)}
    assert shared == {*asdict(FilterValues()), "samples"}
    assert all(getattr(Proposing(), name) == getattr(PredictSettings(), name) for name in shared)


def test_what_the_filters_are_told(cli, tiny_run):
    model = load(tiny_run)
    assert settings_of(Proposing(duplicate_iou=1.0), model)[0].duplicate_iou == 1.0
    everything, _ = settings_of(Proposing(all=True), model)
    assert (everything.score_threshold, everything.duplicate_iou, everything.top) == (None, None, None)
    assert settings_of(Proposing(all=True, top=2), model)[0].top == 2
    error = cli("evaluate", tiny_run, "--all", "--duplicate-iou", 0.9).error
    assert "--all keeps every mask: leave out --duplicate-iou" in error
    content = json.loads(cli("evaluate", tiny_run, "--all", "--no-save", "--json").out)
    assert content["kept"]["masks_per_image"] == content["all"]["masks_per_image"]
    assert content["settings"]["duplicate_iou"] is None


def test_a_filter_is_chosen_again_and_then_used(cli, run):
    """On the 12 training images, and twice the same."""
    outcome = cli("calibrate-filter", run, "--split", "train")
    assert outcome.status == 0 and "chosen on 12 images of the split train: GED²" in outcome.out
    found = FittedFilter.load(run)
    assert found.message == outcome.out.strip() and found.images == 12 and found.predicted == 6
    again = json.loads(cli("calibrate-filter", run, "--split", "train", "--json").out)
    assert again["values"] == asdict(found.values) and again["curve"] == list(found.curve)
    settings = json.loads(cli("evaluate", run, "--no-save", "--json").out)["settings"]
    assert settings == {**asdict(found.values), "samples": None}
    given = cli("evaluate", run, "--no-save", "--json", "--score-threshold", 0.3, "--temperature", 2)
    settings = json.loads(given.out)["settings"]
    assert (settings["score_threshold"], settings["temperature"]) == (0.3, 2)
    assert cli("report", run).status == 0
    page = (run / "report.html").read_text()
    assert (
        "What is kept" in page
        and "chosen on 12 images" in page
        and "against the threshold below which" in page
    )


def test_a_filter_cannot_be_chosen(cli, run, tmp_path):
    assert "no split 'best'" in cli("calibrate-filter", run, "--split", "best").error
    assert "not a run folder" in cli("calibrate-filter", tmp_path).error
    assert "--images must be at least 1" in cli("calibrate-filter", run, "--images", 0).error
    assert "too few" in cli("calibrate-filter", run, "--split", "train", "--images", 1).out
    (run / "filter.json").write_text("damaged")
    assert "filter.json cannot be used" in cli("evaluate", run).error
    assert cli("calibrate-filter", run).status == 0 and cli("evaluate", run, "--no-save").status == 0


# -- predict -------------------------------------------------------------------------------------------------


def test_predict_a_folder(cli, tiny_run, fires, tmp_path):
    out = tmp_path / "out"
    outcome = cli(
        "predict", tiny_run, fires / "test" / "images", "--out", out, "--all", "--pixel-probabilities"
    )
    assert outcome.status == 0 and "5 of 5 images" in outcome.out
    folders = sorted(path for path in out.iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == [f"fire-{i:05}" for i in range(16, 21)]
    entries = json.loads((folders[0] / "prediction.json").read_text())
    assert len(entries["masks"]) == 6
    assert sum(mask["probability"] for mask in entries["masks"]) == pytest.approx(1, abs=1e-4)
    assert {"picture.png", "probabilities.npz", "mask-01.png"} <= {path.name for path in folders[0].iterdir()}


def test_predict_options(cli, tiny_run, fires, tmp_path):
    image = fires / "test" / "images" / "fire-00016.npy"
    words = (
        "predict",
        tiny_run,
        image,
        "--out",
        tmp_path / "out",
        "--json",
        "--no-picture",
        "--all",
        "--top",
        2,
    )
    outcome = cli(*words)
    entry = json.loads(outcome.out)["images"][0]
    assert entry["masks"] == 2 and entry["error"] is None
    assert not (tmp_path / "out" / "fire-00016" / "picture.png").exists()
    assert "--overwrite" in cli(*words).error
    assert cli(*words, "--overwrite").status == 0


def test_an_interrupted_prediction_says_how_it_goes_on(cli, tiny_run, fires, tmp_path, monkeypatch):
    def stopped(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ambiseg.engine.predict.predict_files", stopped)
        outcome = cli("predict", tiny_run, fires / "test" / "images", "--out", tmp_path / "out", "--overwrite")
    assert outcome.status == 130
    again = re.search(r"'ambiseg (predict .* --resume)' goes on where this stopped", outcome.err)
    assert again is not None and "--overwrite" not in again[1]
    assert main(again[1].split()) == 0


def test_overlays_and_the_page_of_all_images(cli, tiny_run, fires, tmp_path):
    """The page names what earlier calls predicted too; without pictures there is none, and a foreign one stays."""
    first, second = sorted((fires / "test" / "images").iterdir())[:2]
    out, page = tmp_path / "out", tmp_path / "out" / "index.html"
    plain = ("predict", tiny_run, first, "--out", out, "--no-picture", "--top", 2)
    assert "page: " not in cli(*plain).out and not page.exists()
    drawn = ("predict", tiny_run, first, second, "--out", out, "--top", 2, "--overlays")
    assert f"page: {page}" in cli(*drawn, "--resume").out
    masks = json.loads((out / second.stem / "prediction.json").read_text())["masks"]
    assert [mask["overlay"] for mask in masks] == ["overlay-01.jpg", "overlay-02.jpg"]
    with Image.open(out / second.stem / "overlay-01.jpg") as overlay:
        assert overlay.size == (16, 16)
    shown = page.read_text(encoding="utf-8")
    assert f"{first.stem}/mask-02.png" in shown and f"{second.stem}/overlay-02.jpg" in shown
    assert cli(*plain, "--overwrite").status == 0 and not page.exists()
    page.write_text("mine")
    assert "was not written by ambiseg" in cli(*drawn, "--resume").error and page.read_text() == "mine"


def test_one_bad_file_does_not_stop_the_rest(cli, tiny_run, fires, tmp_path):
    good = fires / "test" / "images" / "fire-00016.npy"
    corrupt, grey, small = tmp_path / "corrupt.png", tmp_path / "grey.png", tmp_path / "small.npy"
    corrupt.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(grey)
    np.save(small, np.ones((7, 1, 1), np.float32))
    out = tmp_path / "out"
    outcome = cli("predict", tiny_run, corrupt, good, grey, small, "--out", out)
    assert outcome.status == 2 and "2 of 4 images" in outcome.out
    warning, *errors = outcome.err.strip().splitlines()
    assert warning.startswith("ambiseg: warning: 1 of 4 images: ") and "small.npy: its values" in warning
    assert len(errors) == 2 and all(line.startswith("ambiseg: error: ") for line in errors)
    assert "corrupt.png" in errors[0] and "grey.png" in errors[1] and "channel" in errors[1]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["fire-00016", "small"]
    assert json.loads((out / "small" / "prediction.json").read_text())["size"] == [1, 1]
    outcome = cli("predict", tiny_run, corrupt, good, "--out", tmp_path / "json", "--json")
    images = json.loads(outcome.out)["images"]
    assert outcome.status == 2 and [image["error"] is None for image in images] == [False, True]


def _chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_a_huge_header_is_refused(cli, tiny_run, tmp_path):
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0))
    path = tmp_path / "huge.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")
    )
    outcome = cli("predict", tiny_run, path, "--out", tmp_path / "out")
    assert outcome.status == 2 and "20000x20000" in outcome.err
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--score-threshold 2", "--score-threshold"),
        ("--duplicate-iou nan", "--duplicate-iou"),
        ("--foreground-threshold 1.5", "--foreground-threshold"),
        ("--probability-threshold -1", "--probability-threshold"),
        ("--temperature 0", "--temperature must be above 0"),
        ("--samples 0", "--samples"),
        ("--top -1", "--top"),
        ("--batch-size 0", "--batch-size"),
        ("--seed -5", "--seed"),
        ("--draws 0", "--draws"),
        ("--flips -1", "flips is 0 to"),
        ("--flips 1000", "flips is 0 to"),
        ("--robust", "--robust is of use with"),
    ],
)
def test_senseless_filters(cli, tiny_run, fires, tmp_path, words, hint):
    images = fires / "test" / "images"
    assert hint in cli("predict", tiny_run, images, "--out", tmp_path / "out", *words.split()).error
    assert not (tmp_path / "out").exists()


def test_wrong_places(cli, tiny_run, fires, tmp_path):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    images = fires / "test" / "images"
    assert "no image" in cli("predict", tiny_run, "--out", out).error
    assert "holds no image" in cli("predict", tiny_run, empty, "--out", out).error
    assert "does not exist" in cli("predict", tiny_run, tmp_path / "a.png", "--out", out).error
    assert "not a run folder" in cli("predict", fires, images, "--out", out).error
    assert "not a run folder" in cli("predict", tmp_path / "nothing", images, "--out", out).error
    assert not out.exists()
    out.write_text("mine")
    assert "is a file" in cli("predict", tiny_run, images, "--out", out).error
    assert out.read_text() == "mine"


# -- weights -------------------------------------------------------------------------------------------------


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def _poison(path):
    path.write_bytes(pickle.dumps(Payload(path.parent / "executed")))


def _truncate(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("spoil", [_poison, _truncate, lambda path: path.unlink()])
def test_weights_that_are_none(cli, run, spoil):
    spoil(run / "model.safetensors")
    assert "model.safetensors" in cli("evaluate", run).error
    assert not (run / "executed").exists()


def test_weights_of_another_size(cli, run):
    path = run / "config.yaml"
    entries = yaml.safe_load(path.read_text())
    entries["backbone"]["width"] = 12
    path.write_text(yaml.safe_dump(entries))
    assert "expected" in cli("evaluate", run).error


def test_long_steps_write_lines_unless_a_program_reads(cli, tiny_run, monkeypatch):
    monkeypatch.setattr(progress_log, "LOG_EVERY", 0.0)
    words = ("evaluate", tiny_run, "--no-save", "--metrics", "ged")
    assert "evaluating: 5 of 5 (100 %)" in cli(*words).err
    assert "evaluating" not in cli(*words, "--json").err


# -- evaluate ------------------------------------------------------------------------------------------------


def test_evaluate_prints_and_saves(cli, run):
    outcome = cli("evaluate", run)
    assert outcome.status == 0
    for word in ("HM IoU*", "GED²", "kept masks", "split test: 5 images", "↑", "↓", "digest"):
        assert word in outcome.out
    entries = json.loads((run / "metrics.json").read_text())
    assert entries["images"] == 5 and entries["all"]["masks_per_image"] == 6
    with open(run / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and "hm_iou_unique" in rows[0]


def test_evaluate_as_json_and_unsaved(cli, run):
    words = ("--metrics", "ged, hm_iou", "--split", "val", "--no-save", "--json", "--seed", 4)
    outcome = cli("evaluate", run, *words)
    entries = json.loads(outcome.out)
    assert outcome.status == 0 and entries["split"] == "val" and entries["seed"] == 4
    assert set(entries["all"]) == {"masks_per_image", "ged", "hm_iou"}
    assert not (run / "metrics.json").exists()


def test_evaluate_some_images_spread_over_the_split(cli, run):
    """Three of the five test images: the first, the second and the fourth, with the values that all five have."""

    def rows(*words: object) -> list[dict[str, str]]:
        assert cli("evaluate", run, "--metrics", "hm_iou_unique", *words).status == 0
        return list(csv.DictReader((run / "per_image.csv").read_text().splitlines()))

    every, some = rows(), rows("--images", 3)
    assert some == [every[i] for i in (0, 1, 3)]
    assert json.loads((run / "metrics.json").read_text())["data_digest"].endswith(", 3 of 5 images")
    assert rows("--images", 9) == every
    assert "--images must be at least 1" in cli("evaluate", run, "--images", 0).error


def test_evaluate_prints_intervals_over_groups(cli, run, tmp_path):
    outcome = cli("evaluate", run, "--metrics", "ged", "--no-save", "--intervals", "--prefix", "fire-[0-9]+")
    assert outcome.status == 0 and "95% of 1000 resamples of 5 images" in outcome.out
    assert re.search(r"GED².* 0\.\d{4}  -?0\.\d{3} to 0\.\d{3}", outcome.out)
    ids = json.loads(cli("evaluate", run, "--metrics", "ged", "--json").out) and [
        row["id"] for row in csv.DictReader((run / "per_image.csv").read_text().splitlines())
    ]
    table = tmp_path / "groups.csv"
    table.write_text("id,group\n" + "".join(f"{name},{max(i, 1)}\n" for i, name in enumerate(ids)))
    words = ("--metrics", "ged", "--groups", table)
    outcome = cli("evaluate", run, *words, "--no-save", "--intervals")
    assert (
        "resamples of 4 groups of images" in outcome.out
        and "4 groups only: intervals are too narrow" in outcome.err
    )
    assert json.loads(cli("evaluate", run, *words, "--json").out)["intervals"]["units"] == 4
    page = tmp_path / "page.html"
    cli("report", run, "--groups", table, "--out", page)
    text = page.read_text()
    assert "resamples of 4 groups of images" in text and 'class="interval"' in text
    assert f"--groups {table}" in text
    assert "give one of them" in cli("evaluate", run, "--groups", table, "--prefix", "f").error
    table.write_text("id,group\n" + "".join(f"{name},{i // 2}\n" for i, name in enumerate(ids)))
    assert "intervals: none, for 3 groups" in cli("evaluate", run, *words, "--no-save", "--intervals").out
    table.write_text("id,group\nx,1\n")
    assert "images have no group" in cli("evaluate", run, "--groups", table).error


def test_evaluate_refuses(cli, run, fires, tmp_path):
    assert "no split 'best'" in cli("evaluate", run, "--split", "best").error
    assert "did you mean 'hm_iou'" in cli("evaluate", run, "--metrics", "hm_io").error
    assert "there is no data set" in cli("evaluate", run, "--data", tmp_path / "nothing").error
    part = tmp_path / "part"
    shutil.copytree(fires / "train", part / "train")
    assert "no split 'test'" in cli("evaluate", run, "--data", part).error
    path = run / "config.yaml"
    entries = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**entries, "data": str(tmp_path / "moved")}))
    assert "give --data" in cli("evaluate", run).error
    assert cli("evaluate", run, "--data", fires).status == 0


def test_evaluate_data_of_other_channels(cli, run, tmp_path):
    words = ("--scenarios", 10, "--size", 16, "--probabilities", "prevailing")
    assert cli("data", "simulate", "wildfire", "--out", tmp_path / "other", *words).status == 0
    assert "channel" in cli("evaluate", run, "--data", tmp_path / "other").error


# -- report --------------------------------------------------------------------------------------------------


def test_report_is_one_page(cli, run):
    outcome = cli("report", run)
    assert outcome.status == 0 and outcome.out.strip() == str(run / "report.html")
    page = (run / "report.html").read_text()
    for word in ("mode-proposals", "HM IoU*", "ambiseg train mode-proposals", "fire-00016", "data:image/png"):
        assert word in page
    assert (run / "metrics.json").exists()


def test_report_of_a_damaged_run(cli, run):
    (run / "training.json").write_text('{"parameters": 5, "steps": "many", "seconds": 3}')
    assert "training.json holds no numbers of parameters, steps and seconds" in cli("report", run).error


def test_report_elsewhere_of_another_split(cli, run, fires, tmp_path):
    page = tmp_path / "pages" / "train.html"
    assert cli("report", run, "--split", "train", "--data", fires, "--out", page).status == 0
    assert all(word in page.read_text() for word in ("Best", "Median", "Worst"))
    assert not (run / "report.html").exists()


def test_report_of_what_is_no_run(cli, tmp_path):
    assert "not a run folder" in cli("report", tmp_path).error
    assert not list(tmp_path.iterdir())


# -- probabilities from a flow model -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flow(fires, tmp_path_factory):
    """The folder of a flow model after a few steps."""
    folder = tmp_path_factory.mktemp("flows") / "flow"
    words = (
        "--epochs 1 --batch-size 4 --quiet --set train.validations=1 --set backbone.width=8 --set backbone.depth=2"
        " --set steps=2"
    )
    assert main(["train", "flow-matching", "--data", str(fires), "--out", str(folder), *words.split()]) == 0
    return folder


def prediction(out):
    return json.loads((out / "fire-00016" / "prediction.json").read_text())


def test_probabilities_from_a_flow_model(cli, tiny_run, fires, flow, tmp_path):
    assert json.loads((flow / "training.json").read_text())["metric"] == "loss"
    image = fires / "test" / "images" / "fire-00016.npy"
    chosen = ("--probabilities", "velocity", "--flow", flow, "--draws", 4, "--all", "--no-picture")
    outcome = cli("predict", tiny_run, image, "--out", tmp_path / "out", *chosen)
    assert outcome.status == 0
    content = prediction(tmp_path / "out")
    assert sum(mask["probability"] for mask in content["masks"]) == pytest.approx(1, abs=1e-4)
    how = {"kind": "velocity", "flips": 0, "flow": str(flow), "draws": 4, "robust": False}
    assert content["estimate"] == {**how, "determined": "does not determine" not in outcome.err}
    own = ("evaluate", tiny_run, "--metrics", "brier_skill_score", "--no-save", "--json")
    results = [
        json.loads(cli(*own, *more).out)
        for more in ((), ("--probabilities", "samples", "--flow", flow, "--draws", 4, "--flips", 2))
    ]
    assert results[0]["kept"]["brier_skill_score"] != results[1]["kept"]["brier_skill_score"]
    assert [result["estimate"] for result in results] == [
        {"kind": "head", "flips": 0, "undetermined": 0},
        {"kind": "samples", "flips": 2, "flow": str(flow), "draws": 4, "robust": False, "undetermined": 0},
    ]


def test_flips_of_the_method_s_own_probabilities(cli, tiny_run, fires, tmp_path):
    """With one area, all masks that show it are alike, and so are all that do not."""
    image = fires / "test" / "images" / "fire-00016.npy"
    words = ("predict", tiny_run, image, "--out", tmp_path / "out", "--flips", 1, "--all", "--no-picture")
    assert cli(*words).status == 0
    content = prediction(tmp_path / "out")
    assert content["estimate"] == {"kind": "head", "flips": 1, "determined": True}
    assert len({mask["probability"] for mask in content["masks"]}) <= 2 < len(content["masks"])


def test_probabilities_that_are_not_determined(cli, run, fires, flow, tmp_path):
    """Six times the same proposal: they share evenly, with one line that says so; without copies there is
    none."""
    weights = load_file(run / "model.safetensors")
    for name in ("h.weight", "h.bias"):
        weights[name][:] = weights[name][:1].clone()
    save_file(weights, run / "model.safetensors")
    chosen = ("--probabilities", "velocity", "--flow", flow, "--draws", 2)
    predict = ("predict", run, fires / "test" / "images", "--no-picture", *chosen, "--out")
    outcome = cli(*predict, tmp_path / "all", "--all")
    warnings = [line for line in outcome.err.splitlines() if line.startswith("ambiseg: warning: ")]
    assert outcome.status == 0 and len(warnings) == 1 and "5 of 5 images" in warnings[0]
    assert "near-duplicates" in warnings[0] and "--probabilities posterior" in warnings[0]
    content = prediction(tmp_path / "all")
    assert [m["probability"] for m in content["masks"]] == pytest.approx([1 / 6] * 6, abs=1e-5)
    assert content["estimate"]["determined"] is False
    assert "warning" not in cli(*predict, tmp_path / "flips", "--all", "--flips", 1).err
    assert "warning" not in cli(*predict, tmp_path / "kept").err
    evaluate = ("evaluate", run, "--metrics", "brier_skill_score", "--json", *chosen)
    outcome = cli(*evaluate, "--all")
    assert "of 5 images, the most even" in outcome.err
    saved = json.loads((run / "metrics.json").read_text())["estimate"]
    assert saved == json.loads(outcome.out)["estimate"] and saved["undetermined"] == 5


def test_a_flow_of_other_images(cli, run, fires, flow, tmp_path):
    """Compared all the same, with a line that says so."""
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "data_digest": "0123456789abcdef"}))
    chosen = ("--probabilities", "mean", "--flow", flow)
    for words in (
        ("predict", run, fires / "test" / "images", "--out", tmp_path / "out", "--no-picture"),
        ("evaluate", run),
        ("report", run),
    ):
        outcome = cli(*words, *chosen)
        assert outcome.status == 0 and outcome.err.count("was trained on other images") == 1, words
    assert "--probabilities mean" in (run / "report.html").read_text()


def test_mistakes_about_flows(cli, tiny_run, fires, tmp_path):
    predict = ("predict", tiny_run, fires / "test" / "images", "--out", tmp_path / "out")
    assert "needs --flow RUN" in cli(*predict, "--probabilities", "mean").error
    assert "is of use with --probabilities" in cli(*predict, "--flow", tiny_run).error
    assert "has no velocity" in cli(*predict, "--probabilities", "mean", "--flow", tiny_run).error
    assert "not a run folder" in cli(*predict, "--probabilities", "mean", "--flow", tmp_path).error
    assert not (tmp_path / "out").exists()


def test_a_dialect_and_classes_stand_in_everything_that_is_written(cli, run):
    assert cli("evaluate", run, "--metrics", "ged,hm_iou_unique").status == 0
    usual = json.loads((run / "metrics.json").read_text())
    assert usual["dialect"] == "ambiseg" and usual["classes"] == ["foreground"]
    outcome = cli(
        "evaluate", run, "--metrics", "ged,hm_iou_unique", "--dialect", "ccdm", "--classes", "0, foreground"
    )
    assert "metric [ccdm, classes 0-1]" in outcome.out and "Classes: background, foreground." in outcome.out
    assert "replaced: numbers of the dialect ambiseg and the classes foreground" in outcome.err
    entries = json.loads((run / "metrics.json").read_text())
    assert (entries["dialect"], entries["classes"]) == ("ccdm", ["background", "foreground"])
    assert entries["all"]["ged"] != usual["all"]["ged"]
    head = (run / "per_image.csv").read_text().splitlines()[0]
    assert "ged [ccdm, classes 0-1]" in head.replace('"', "")
    assert cli("report", run, "--dialect", "wildfire").status == 0
    page = (run / "report.html").read_text()
    assert "metric [wildfire]" in page and "--dialect wildfire" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dialect", "mosse"), "unknown dialect 'mosse': did you mean 'mose'?"),
        (("--classes", "foregroud"), "unknown class 'foregroud': did you mean 'foreground'"),
        (("--classes", "7"), "there is no class 7: the ids are 0..1"),
    ],
)
def test_unknown_dialects_and_classes(cli, run, words, message):
    assert message in cli("evaluate", run, *words).error
