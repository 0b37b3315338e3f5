"""Prediction is the model on the normalised image for any batch; files tell it all; bad images stop none."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from ambiseg.atomic_write import DiskFullError
from ambiseg.data.batches import Normalization
from ambiseg.data.files.reading import read_mask
from ambiseg.data.source import open_split
from ambiseg.engine import run as run_module
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.machine.memory import NotEnoughMemoryError
from ambiseg.engine.parallel.pieces import HERE
from ambiseg.engine.parallel.threads import Threads
from ambiseg.engine.postprocess import PredictSettings, postprocess
from ambiseg.engine.predict import find_images, predict_files
from ambiseg.engine.run import Run, load
from ambiseg.engine.run_folder import CONFIG, WEIGHTS, RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.mode_proposals import ModeProposalsSettings, SelectionSettings
from ambiseg.methods.mode_proposals.model import ModeProposals
from ambiseg.networks.settings import UNetSettings
from ambiseg.owned_files import LIST
from ambiseg.predictions.index import LONGEST, PredictionIndex, folder_names

EVERYTHING = PredictSettings(score_threshold=None, duplicate_iou=None)


@pytest.fixture(scope="module")
def run(tiny_run):
    return load(tiny_run, precision="32", device="cpu")


@pytest.fixture(scope="module")
def images(fires):
    return [sample.image for sample in open_split(fires, "test")]


@pytest.fixture
def files(images, tmp_path):
    """Five images as files, one of them of another size."""
    folder = tmp_path / "in"
    folder.mkdir()
    cut = [image if i != 2 else image[:, :13, :11] for i, image in enumerate(images)]
    for i, image in enumerate(cut):
        np.save(folder / f"scene-{i}.npy", image)
    return folder


def folders(out):
    """Names of the folders in a folder, hidden ones too."""
    return sorted(path.name for path in out.iterdir() if path.is_dir())


def alike(one, other):
    """Same masks and, to rounding, the same numbers."""
    assert torch.equal(one.masks, other.masks)
    torch.testing.assert_close(one.weights, other.weights)
    torch.testing.assert_close(one.scores, other.scores)
    torch.testing.assert_close(one.probabilities, other.probabilities)


def test_prediction_is_the_model_on_the_normalised_image(run, images):
    config = run.config
    mean, std = (np.array(v)[:, None, None] for v in (config.normalization.mean, config.normalization.std))
    for image in images:
        normalised = torch.from_numpy(((image - mean) / std).astype(np.float32))[None]
        with torch.no_grad():
            expected = run.model.predict(normalised)
        torch.testing.assert_close(
            run.propose([image]).probabilities, expected.probabilities, atol=1e-4, rtol=1e-4
        )
        order = expected.weights.argsort(descending=True)
        found = run.predict(image, EVERYTHING)
        torch.testing.assert_close(
            found.probabilities, expected.gather(order).probabilities, atol=1e-4, rtol=1e-4
        )
        assert (found.weights.diff() <= 0).all()


def test_the_size_of_batches_changes_nothing(run, images):
    whole = run.propose(images)
    for size in (1, 2, 3):
        parts = [run.propose(images[i : i + size]) for i in range(0, len(images), size)]
        alike(MaskSet.stack(parts), whole)


def test_parts_of_a_batch_on_a_cpu_change_nothing(run, images, monkeypatch):
    """A layer of two images is as much as goes together; methods that draw random numbers are not cut."""
    whole, passes, predict = run.propose(images), [], run.model.predict
    monkeypatch.setattr(
        run.model, "predict", lambda batch, *rest: passes.append(len(batch)) or predict(batch, *rest)
    )
    monkeypatch.setattr(run_module, "CPU_ELEMENTS", 2 * images[0][0].size * run.config.backbone.width)
    alike(run.propose(images), whole)
    assert max(passes) == 2 and sum(passes) == len(images)
    passes.clear()
    sampling = Run(replace(run.config, method="ssn"), run.model, run.hardware)
    monkeypatch.setattr(sampling, "_refusing_too_much", lambda *_: nullcontext())
    alike(sampling.propose(images), whole)
    assert passes == [len(images)]


def test_files_arrays_and_grey_images(run, files, images, tmp_path):
    alike(run.predict(files / "scene-0.npy"), run.predict(images[0]))
    with pytest.raises(AmbisegError, match="1 channel"):
        run.predict(images[0][0])
    with pytest.raises(AmbisegError, match="absent.png"):
        run.predict(tmp_path / "absent.png")


def test_time_in_the_model_is_counted(tiny_run, images):
    fresh = load(tiny_run, precision="32", device="cpu")
    fresh.propose(images[:3])
    assert fresh.images == 3 and fresh.seconds > 0


def proposals():
    """Four masks, the second and third nearly alike; the third has the higher score."""
    masks = torch.zeros(1, 4, 1, 20, dtype=torch.uint8)
    masks[0, 0, :, :5], masks[0, 1, :, 5:16], masks[0, 2, :, 5:15], masks[0, 3, :, 15:] = 1, 1, 1, 1
    weights, scores = torch.tensor([[0.1, 0.3, 0.2, 0.4]]), torch.tensor([[0.8, 0.6, 0.9, 0.3]])
    return MaskSet(masks, weights, LabelSpace.binary(), scores)


def test_filters_by_hand():
    """The near-duplicate gives its probability away before low scores go; the rest is sorted."""
    found = postprocess(proposals(), PredictSettings(duplicate_iou=0.9)).masks
    assert found.scores.tolist()[0] == pytest.approx([0.9, 0.8])
    assert found.weights.tolist()[0] == pytest.approx([0.7, 0.3])
    every = postprocess(proposals(), EVERYTHING).masks
    assert every.weights.tolist()[0] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    top = postprocess(proposals(), PredictSettings(None, None, top=2)).masks
    alike = 1 / 15  # IoU of the two masks that represent all: they share a pixel
    last, second = 0.4 + 0.3 * alike, 0.3 + 0.2 * 10 / 11 + 0.4 * alike
    shift = (last - second) / (2 * (1 - alike))
    assert sorted(top.weights.tolist()[0]) == pytest.approx(sorted([0.5 - shift, 0.5 + shift]))
    strict = postprocess(proposals(), PredictSettings(score_threshold=0.99)).masks
    assert strict.scores.tolist()[0] == pytest.approx([0.9]) and strict.weights.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("labels", "selection", "expected"), [("full", 0.01, 1.0), ("single", 0.01, 0.95), ("full", 0.0, 0.95)]
)
def test_scores_that_reject_copies_make_the_duplicate_filter_needless(run, labels, selection, expected):
    """Full labels teach the scores which of two masks is a copy; nothing else says that of two that are
    nearly alike."""
    config = replace(run.config, train=replace(run.config.train, labels=labels))
    settings = ModeProposalsSettings(proposals=4, selection=SelectionSettings(head_width=8, weight=selection))
    model = ModeProposals(run.model.in_channels, config.labels, UNetSettings(width=8, depth=2), settings)
    other = Run(config, model, run.hardware)
    assert PredictSettings().for_run(other).duplicate_iou == expected
    assert PredictSettings(duplicate_iou=0.8).for_run(other).duplicate_iou == 0.8
    assert PredictSettings(duplicate_iou=None).for_run(other).duplicate_iou is None
    assert PredictSettings(score_threshold=None).for_run(other).duplicate_iou == 0.95, (
        "no scores, no rejection"
    )


@pytest.mark.parametrize(("labels", "expected"), [("full", 2), ("single", 1)])
def test_well_scored_masks_that_are_nearly_alike_are_two_modes_of_full_labels(
    run, images, labels, expected, monkeypatch
):
    masks = torch.ones(1, 2, *images[0].shape[1:], dtype=torch.uint8)
    masks[0, 1, 0, 0] = 0
    twins = MaskSet(masks, torch.tensor([[0.7, 0.3]]), run.config.labels, torch.tensor([[0.9, 0.8]]))
    config = replace(run.config, train=replace(run.config.train, labels=labels))
    other = Run(config, run.model, run.hardware)
    monkeypatch.setattr(other.model, "predict", lambda *_: twins)
    assert int(other.predict(images[0]).count[0]) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_files_tell_the_whole_prediction(run, files, tmp_path, batch_size):
    out, drawn = tmp_path / "out", {}

    def picture(image, prediction, path):
        drawn[path.parent.name] = int(prediction.count[0])
        Image.new("L", image.shape[:0:-1]).save(path)

    paths = find_images([files])
    settings = PredictSettings(score_threshold=0.2, foreground_threshold=0.4)
    results = list(
        predict_files(
            run, paths, out, settings, pixel_probabilities=True, batch_size=batch_size, picture=picture
        )
    )
    assert sorted(r.path for r in results) == paths and all(r.error is None for r in results)
    assert folders(out) == [f"scene-{i}" for i in range(5)]
    assert drawn == {r.folder.name: r.masks for r in results}
    for result in results:
        expected = run.predict(result.path, settings).compact()
        content = json.loads((result.folder / "prediction.json").read_text())
        entries = content["masks"]
        assert content["image"] == result.path.name and content["size"] == list(expected.masks.shape[2:])
        assert content["classes"] == list(run.config.labels.names)
        assert content["settings"] == {
            "score_threshold": 0.2,
            "duplicate_iou": 1.0,
            "samples": None,
            "top": None,
            "foreground_threshold": 0.4,
            "probability_threshold": None,
            "temperature": 1.0,
        }
        assert result.masks == len(entries) == int(expected.count[0])
        given = [entry["probability"] for entry in entries]
        assert sum(given) == pytest.approx(1, abs=1e-5) and given == sorted(given, reverse=True)
        assert given == pytest.approx(expected.weights[0].tolist(), abs=2e-6)
        assert [e["score"] for e in entries] == pytest.approx(expected.scores[0].tolist(), abs=2e-6)
        for k, entry in enumerate(entries):
            mask = read_mask(result.folder / entry["file"])
            np.testing.assert_array_equal(mask, expected.masks[0, k].numpy())
            assert entry["area"] == pytest.approx((mask != 0).mean(), abs=1e-6)
        kept = np.load(result.folder / content["probabilities"])["probabilities"]
        np.testing.assert_allclose(kept, expected.probabilities[0].numpy(), atol=1e-5)
        written = {LIST, "prediction.json", "probabilities.npz", "picture.png", *(e["file"] for e in entries)}
        assert {p.name for p in result.folder.iterdir()} == written


def test_nifti_gives_nifti_with_its_affine(tmp_path):
    """Masks come back where a viewer lays them over the scan."""
    normalization, backbone = Normalization((0.0,), (1.0,)), UNetSettings(width=8, depth=2)
    settings = ModeProposalsSettings(proposals=3, selection=SelectionSettings(head_width=8))
    config = RunConfig(
        "mode-proposals", 1, LabelSpace.binary(), normalization, backbone, settings, TrainSettings()
    )
    run = Run(config, config.build(), Hardware("cpu", False, False))
    scan = np.random.default_rng(0).normal(size=(14, 9)).astype(np.float32)
    affine = np.array([[0.0, 2, 0, 5], [-3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(scan, affine), tmp_path / "scan.nii.gz")
    (result,) = predict_files(run, [tmp_path / "scan.nii.gz"], tmp_path / "out")
    assert result.folder.name == "scan"
    for entry in json.loads((result.folder / "prediction.json").read_text())["masks"]:
        assert entry["file"].endswith(".nii.gz")
        mask = nibabel.load(result.folder / entry["file"])
        np.testing.assert_array_equal(mask.affine, affine)
        assert mask.shape == scan.shape and np.asarray(mask.dataobj).dtype == np.uint8


def test_images_that_cannot_be_read_stop_none(run, files, tmp_path):
    (files / "broken.png").write_bytes(b"this is no image")
    np.save(files / "grey.npy", np.zeros((16, 16), np.float32))
    results = {
        r.path.name: r for r in predict_files(run, find_images([files]), tmp_path / "out", batch_size=3)
    }
    assert len(results) == 7
    for name, word in [("broken.png", "broken.png"), ("grey.npy", "channel")]:
        assert results[name].folder is None and name in results[name].error and word in results[name].error
    assert sum(r.error is None for r in results.values()) == 5
    assert folders(tmp_path / "out") == [f"scene-{i}" for i in range(5)]


def test_equal_names_get_folders_of_their_own(run, files, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(files, other)
    paths = [files / "scene-0.npy", other / "scene-0.npy", other / "scene-1.npy"]
    results = list(predict_files(run, paths, tmp_path / "out"))
    names = [r.folder.name for r in results]
    assert names[2] == "scene-1" and names[0] != names[1] and all(n.startswith("scene-0~") for n in names[:2])
    assert [json.loads((r.folder / "prediction.json").read_text())["path"] for r in results] == [
        str(path) for path in paths
    ]
    assert folder_names(paths[::-1]) == names[::-1], "a name does not depend on the order"


def test_names_that_a_file_system_takes_for_one_meet_nowhere():
    paths = [
        Path(p)
        for p in (
            "x/a.png",
            "x/A.tif",
            "x/a~1.png",
            "x/caf\u00e9.png",
            "x/cafe\u0301.png",
            f"x/{'n' * 250}.png",
        )
    ]
    paths += [Path("x/a\nb.png"), Path("x/.hidden.png"), Path("x/b.png")]
    names = folder_names(paths)
    assert len({name.casefold() for name in names}) == len(paths) and names[-1] == "b"
    assert all(
        len(name.encode()) <= LONGEST and name.isprintable() and not name.startswith(".") for name in names
    )


def test_a_prediction_that_stopped_goes_on_and_ends_the_same(run, files, tmp_path):
    """Also with random numbers: each batch has its own."""
    paths, whole, parts = find_images([files]), tmp_path / "whole", tmp_path / "parts"
    list(predict_files(run, paths, whole, batch_size=2))
    begun = predict_files(run, paths, parts, batch_size=2)
    first = next(begun)
    begun.close()
    complete = folders(parts)
    assert first.folder.name in complete
    results = list(predict_files(run, paths, parts, batch_size=2, resume=True))
    assert all(r.kept == (r.folder.name in complete) for r in results) and len(results) == len(paths)
    for name in folders(whole):
        for path in (whole / name).iterdir():
            assert (parts / name / path.name).read_bytes() == path.read_bytes()
    np.save(paths[0], np.load(paths[0]) + 1)
    again = {r.path: r.kept for r in predict_files(run, paths, parts, batch_size=2, resume=True)}
    assert [path for path, kept in again.items() if not kept] == [paths[0]], "an image that changed"
    with pytest.raises(AmbisegError, match=r"otherwise \(seed\): give the same"):
        list(predict_files(run, paths, parts, batch_size=2, seed=1, resume=True))


def written(out):
    """All that a prediction has written, with the index."""
    return {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_threads_write_the_same_files(run, files, tmp_path, monkeypatch):
    """To the last byte, with the index in the same order, an image that cannot be read, one that needs too much memory,
    pictures and overlays; for any number of threads."""
    (files / "scene-1b.png").write_bytes(b"this is no image")
    np.save(files / "scene-5.npy", np.load(files / "scene-0.npy")[:, :8, :8])
    predict_batch = run.predict_batch

    def limited(images, *rest):
        if images[0].shape[1:] == (8, 8):
            raise NotEnoughMemoryError("too large")
        return predict_batch(images, *rest)

    def picture(image, prediction, path):
        path.write_text(f"{image.sum()} {prediction.mean().sum()}")

    def overlays(image, prediction, paths):
        for path in paths:
            path.write_text(str(image.sum()))

    monkeypatch.setattr(run, "predict_batch", limited)
    found, paths = {}, find_images([files])
    for name, engine in (("here", HERE), ("one", Threads(1)), ("four", Threads(4)), ("default", None)):
        results = list(
            predict_files(
                run, paths, tmp_path / name, batch_size=2, picture=picture, overlays=overlays, engine=engine
            )
        )
        outcome = [(r.path.name, r.masks, r.determined, r.error) for r in results]
        found[name] = (outcome, written(tmp_path / name))
    assert len(found["here"][1]) > 20 and sum(one[3] is not None for one in found["here"][0]) == 2
    assert all(one == found["here"] for one in found.values())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_was_complete_before_an_end_is_kept(run, files, tmp_path, monkeypatch, error):
    """Every complete folder is in the index, none is half, and going on gives the whole."""
    paths, out, calls = find_images([files]), tmp_path / "out", []
    list(predict_files(run, paths, tmp_path / "whole", batch_size=1, engine=HERE))
    predict_batch = run.predict_batch

    def interrupted(images, *rest):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return predict_batch(images, *rest)

    def full(image, prediction, path):
        if path.parent.name == "scene-3":
            raise error

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, DiskFullError)):
        options = {"picture": full}
        if isinstance(error, KeyboardInterrupt):
            patch.setattr(run, "predict_batch", interrupted)
            options = {}
        list(predict_files(run, paths, out, batch_size=1, **options))
    complete = folders(out)
    index = PredictionIndex(out)
    assert complete and "scene-3" not in complete
    assert sorted(entry["folder"] for entry in index.entries.values()) == complete
    assert all((out / name / "prediction.json").exists() for name in complete)
    assert not any(thread.name.startswith("ambiseg-") for thread in threading.enumerate())
    results = list(predict_files(run, paths, out, batch_size=1, resume=True))
    assert [r.path for r in results] == paths
    assert sorted(r.folder.name for r in results if r.kept) == complete
    if isinstance(error, KeyboardInterrupt):
        whole = written(tmp_path / "whole")
        assert {name: text for name, text in written(out).items() if name.parent != Path()} == {
            name: text for name, text in whole.items() if name.parent != Path()
        }


@pytest.mark.parametrize("change", [{"masks": "2"}, {"masks": None}, {"determined": 3}, {"folder": 5}])
def test_an_entry_that_is_damaged_is_predicted_again(change, tmp_path):
    whole = {"image": "a.png", "folder": "a", "state": None, "masks": 2, "determined": True}
    (tmp_path / "a").mkdir()
    (tmp_path / "a/prediction.json").write_text("{}")
    for entry, expected in ((whole, whole), ({**whole, **change}, None)):
        lines = [{"seed": 0}, {"image": "b.png"}, entry]
        (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        index = PredictionIndex(tmp_path)
        assert index.done(Path("a.png"), "a") == expected
        assert index.done(Path("b.png"), "b") is None


def test_an_index_names_the_settings_that_differ(tmp_path):
    PredictionIndex(tmp_path).begin({"seed": 0, "settings": {"top": 2, "annotator": "anna"}})
    with pytest.raises(AmbisegError, match=r"made otherwise \(seed, annotator\): give the same"):
        PredictionIndex(tmp_path).begin({"seed": 1, "settings": {"top": 2}})


def test_results_are_not_overwritten_unless_asked(run, files, tmp_path):
    out, paths = tmp_path / "out", [files / "scene-0.npy"]
    list(predict_files(run, paths, out))
    with pytest.raises(AmbisegError, match="holds predictions.*--overwrite"):
        list(predict_files(run, paths, out))
    (out / "scene-0" / "notes.txt").write_text("mine")
    with pytest.raises(AmbisegError, match="scene-0/notes.txt.*did not write"):
        list(predict_files(run, paths, out, overwrite=True))
    (out / "scene-0" / "notes.txt").unlink()
    list(predict_files(run, [files / "scene-1.npy"], out, overwrite=True))
    assert folders(out) == ["scene-1"]
    with pytest.raises(AmbisegError, match="is the input"):
        list(predict_files(run, paths, files / "scene-0.npy"))


def test_a_folder_appears_when_it_is_complete(run, files, tmp_path):
    def fail(image, prediction, path):
        raise OSError(28, "No space left on device")

    with pytest.raises(AmbisegError, match="the disk is full"):
        list(predict_files(run, [files / "scene-0.npy"], tmp_path / "out", picture=fail))
    assert folders(tmp_path / "out") == []


def test_images_are_found_in_folders(files, tmp_path):
    (files / "notes.txt").write_text("no image")
    assert [p.name for p in find_images([files, files / "scene-1.npy"])] == [
        *(f"scene-{i}.npy" for i in range(5)),
        "scene-1.npy",
    ]
    (tmp_path / "empty").mkdir()
    for path, word in [(tmp_path / "absent", "does not exist"), (tmp_path / "empty", "holds no image")]:
        with pytest.raises(AmbisegError, match=word):
            find_images([path])
    with pytest.raises(AmbisegError, match="no image to predict"):
        find_images([])


def test_damaged_runs_are_refused(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / WEIGHTS).write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(AmbisegError, match="no safetensors file"):
        load(run)
    shutil.copy(tiny_run / WEIGHTS, run / WEIGHTS)
    text = (run / CONFIG).read_text()
    (run / CONFIG).write_text(text.replace("proposals: 6", "proposals: 5"))
    with pytest.raises(AmbisegError, match="does not hold a mode-proposals model of the size"):
        load(run)
    for bad in ("method: [", "method: mode-proposals", "[]", text.replace("width: 8", "widht: 8")):
        (run / CONFIG).write_text(bad)
        with pytest.raises(AmbisegError):
            load(run)
    (run / WEIGHTS).unlink()
    (run / CONFIG).write_text(text)
    with pytest.raises(AmbisegError, match="first validation"):
        load(run)
