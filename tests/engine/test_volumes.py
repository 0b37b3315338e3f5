"""Prediction of volumes: slices of the model, joined; the same numbers at random in each; files; figures of volumes."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

from ambiseg.data.batches import Normalization
from ambiseg.data.source import SpreadSplit, open_split
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.data.volumes.volume import open_volume
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.hypotheses import SliceStore, predict_slices, through_volume
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.predict_volumes import find_volumes, predict_volumes
from ambiseg.engine.run import Run, load
from ambiseg.engine.volume_evaluation import compare_volumes, why_not_volumes
from ambiseg.engine.volumes import as_viewed, predict_volume, shown_slices
from ambiseg.errors import AmbisegError, DataWarning
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import build
from ambiseg.metrics import ged
from ambiseg.metrics.dialects import AMBISEG
from ambiseg.metrics.volumes import crps
from ambiseg.predictions import read_volume_prediction, read_written
from ambiseg.report.volume_pictures import draw_slices
from tube_helpers import AFFINE, discs, tube_volume, write_tubes


@pytest.fixture(scope="module")
def run(tube_run):
    return load(tube_run, precision="32", device="cpu")


@pytest.fixture(scope="module")
def scans(tubes):
    return sorted((tubes / "test" / "images").iterdir())


@pytest.fixture(scope="module")
def sampler(run):
    """An untrained SSN in the place of the model."""
    torch.manual_seed(0)
    config = run.config
    model = build("ssn", config.in_channels, config.labels, config.backbone)
    settings = replace(model.settings, samples=5)
    return Run(replace(config, method="ssn", settings=settings), model, run.hardware)


def whole(found):
    """All hypotheses of a volume."""
    return np.stack([found.whole(k) for k in range(int(found.masks.count[0]))])


def test_hypotheses_are_masks_of_the_slices(run, scans):
    """Every slice of every hypothesis is a mask of the model there, and no mask of a slice is lost."""
    found, volume = predict_volume(run, scans[0]), open_volume(scans[0])
    masks = whole(found)
    assert masks.shape[1:] == volume.shape and masks.any()
    assert (found.masks.weights.diff() <= 0).all() and found.masks.weights.sum() == pytest.approx(1)
    for z in range(volume.shape[2]):
        single = run.predict(volume.plane(2, z).astype(np.int16)).masks[0].numpy()
        ours = {mask.tobytes() for mask in masks[..., z]}
        assert ours == {mask.tobytes() for mask in single}


def test_the_run_finds_both_modes(run, scans):
    modes = tube_volume(int(scans[0].name[4]))[1]
    found = predict_volume(run, scans[0])
    dice = [[2 * (a & b).sum() / (a.sum() + b.sum()) for b in modes] for a in whole(found)]
    assert np.max(dice, axis=0).min() > 0.7
    thin, thick = np.argmax(dice, axis=0)
    assert found.masks.weights[0, thin] > found.masks.weights[0, thick]
    sizes = found.millilitres()[:, 1]
    assert sizes == pytest.approx(whole(found).sum((1, 2, 3)) * 0.8 * 0.9 * 2.5 / 1000, rel=1e-6)


def test_batches_and_the_axis_of_slices(run, scans):
    volume, one = open_volume(scans[0]), predict_volume(run, scans[0])
    for size in (1, 4):
        other = predict_volume(run, scans[0], batch_size=size)
        assert torch.equal(one.masks.masks, other.masks.masks)
    across = predict_volume(run, volume, slices=SliceSettings(axis=0))
    assert whole(across).shape[1:] == volume.shape
    assert {m.tobytes() for m in whole(across)[:, 5]} == {
        m.tobytes() for m in run.predict(volume.plane(0, 5).astype(np.int16)).masks[0].numpy()
    }


def test_top_counts_hypotheses_of_the_volume(run, scans):
    everything = PredictSettings(score_threshold=None, duplicate_iou=None, top=None)
    assert int(predict_volume(run, scans[0], everything).masks.count[0]) == 6
    assert int(predict_volume(run, scans[0], replace(everything, top=2)).masks.count[0]) == 2


def test_every_slice_of_a_sampler_has_the_same_random_numbers(sampler):
    """Equal slices give equal samples, whatever the size of batches; another seed gives others."""
    image = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    settings = PredictSettings(score_threshold=None, duplicate_iou=None, top=None).for_run(sampler)
    sets = [one.masks for one in predict_slices(sampler, [image] * 3, settings, batch_size=3)]
    assert len(sets) == 3 and all(torch.equal(sets[0].masks, one.masks) for one in sets)
    other = next(iter(predict_slices(sampler, [image], settings, seed=1))).masks
    assert not torch.equal(sets[0].masks, other.masks)
    joined = through_volume(sets, settings, sampled=True)
    assert torch.equal(joined.masks, torch.stack([one.masks for one in sets], 2))


def test_slices_that_lie_otherwise_than_those_of_training_are_warned_of(run, scans, tubes, tmp_path):
    """Rows and columns count, and the order of slices only where neighbours are channels."""
    image = nibabel.load(scans[0])
    values, affine = np.asarray(image.dataobj), image.affine
    for axis, words in ((0, "mirrored or turned"), (2, "")):
        turned = values[::-1] if axis == 0 else values[:, :, ::-1]
        there = affine @ np.diag([*(-1.0 if i == axis else 1.0 for i in range(3)), 1])
        nibabel.save(nibabel.Nifti1Image(turned, there), tmp_path / f"{axis}.nii.gz")
        remark = predict_volume(run, tmp_path / f"{axis}.nii.gz").remark
        assert words in remark and bool(words) == bool(remark)
    assert predict_volume(run, tmp_path / "0.nii.gz", slices=SliceSettings(axis="coronal")).remark == ""
    assert predict_volume(run, scans[0]).remark == ""
    other = Run(replace(run.config, directions=("PI",)), run.model, run.hardware)
    with pytest.warns(DataWarning, match="P-I"):
        other.check_data(open_split(tubes, "test"))
    other = Run(replace(run.config, slices=SliceSettings(axis="coronal")), run.model, run.hardware)
    with pytest.warns(DataWarning, match="along the axis axial, those of training along coronal"):
        other.check_data(open_split(tubes, "test"))


def test_slices_are_kept_within_their_boxes():
    store, sets = (
        SliceStore(),
        [discs([0, 0], [0.5, 0.5]), discs([2, 4], [0.5, 0.5]), discs([3, 1], [0.5, 0.5])],
    )
    for one in sets:
        store.add(one)
    assert store.box == (slice(2, 10), slice(2, 10)) and store.most == 2 and len(store) == 3
    for one, cut in zip(sets, store.sets(), strict=True):
        assert torch.equal(cut.masks, one.masks[:, :, 2:10, 2:10]) and torch.equal(cut.weights, one.weights)
    for one, same in zip(sets, store.sets((slice(0, 12), slice(0, 12))), strict=True):
        assert torch.equal(same.masks, one.masks)
    empty = SliceStore()
    empty.add(sets[0])
    assert empty.box == (slice(0, 1), slice(0, 1))


def test_scores_of_hypotheses_are_means_over_slices_with_foreground():
    first, second = discs([3, 5], [0.5, 0.5]), discs([0, 5], [0.5, 0.5])
    sets = [
        replace(one, scores=torch.tensor([scores]))
        for one, scores in ((first, [0.9, 0.6]), (second, [0.1, 0.8]))
    ]
    settings = PredictSettings(score_threshold=None, duplicate_iou=None, top=None)
    found = through_volume(sets, settings, sampled=False)
    assert sorted(found.scores[0].tolist()) == pytest.approx([0.7, 0.9])


def test_other_channels_and_scales_are_refused(run, scans, tmp_path):
    with pytest.raises(AmbisegError, match="ambiseg.predict_volume"):
        run.predict(scans[0])
    with pytest.raises(AmbisegError, match="have 3 channels, the run has 1"):
        predict_volume(run, scans[0], slices=SliceSettings(neighbours=1))
    image = nibabel.Nifti1Image(
        (1e7 * np.random.default_rng(0).random((16, 16, 6))).astype(np.float32), AFFINE
    )
    nibabel.save(image, tmp_path / "far.nii.gz")
    with pytest.raises(AmbisegError, match="training"):
        predict_volume(run, tmp_path / "far.nii.gz")


@pytest.mark.parametrize("axis", range(3))
def test_slices_are_shown_as_a_viewer_shows_them(axis, scans):
    """Rows from superior (or anterior) down, columns from the right of the patient (or anterior)."""
    volume = open_volume(scans[0])
    voxels = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"))
    world = np.tensordot(AFFINE[:3, :3], voxels, 1)
    plane = as_viewed(world.take(3, axis + 1), volume, axis)
    sagittal, coronal = volume.axis_names[axis] == "sagittal", volume.axis_names[axis] == "coronal"
    down, across = (2, 1) if sagittal else (2, 0) if coronal else (1, 0)
    assert (np.diff(plane[down], axis=0) < 0).all() and (np.diff(plane[across], axis=1) < 0).all()


def test_the_picture_shows_slices_in_which_hypotheses_differ(run, scans):
    found = predict_volume(run, scans[0])
    shown = list(shown_slices(found, 3))
    assert 1 <= len(shown) <= 3
    for index, image, masks in shown:
        assert image.shape[1:] == tuple(masks.masks.shape[2:])
        assert (whole(found)[..., index] != whole(found)[:1, ..., index]).any()
    figure = draw_slices(shown)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "hypothesis 1" in texts and f"slice {shown[0][0]}" in texts


# -- files ------------------------------------------------------------------------------------------------------


def test_files_of_volumes(run, scans, tmp_path):
    """They lie where the volumes do, hold the hypotheses, and are read again."""
    results = list(predict_volumes(run, scans, tmp_path / "out", pixel_probabilities=True))
    assert [result.error for result in results] == [None, None]
    found = predict_volume(run, scans[0])
    content = json.loads((results[0].folder / "prediction.json").read_text())
    for k, entry in enumerate(content["masks"]):
        image = nibabel.load(results[0].folder / entry["file"])
        assert np.array_equal(image.affine, nibabel.load(scans[0]).affine)
        assert np.array_equal(np.asanyarray(image.dataobj), found.whole(k))
        assert entry["millilitres"]["foreground"] == pytest.approx(found.millilitres()[k, 1], abs=1e-6)
        assert entry["area"] == pytest.approx(found.whole(k).mean(), rel=1e-5)
    volume = content["volume"]
    assert (volume["axis"], volume["slices"], volume["neighbours"]) == ("axial", 6, 0)
    mean = sum(entry["probability"] * entry["millilitres"]["foreground"] for entry in content["masks"])
    assert volume["millilitres"]["foreground"]["mean"] == pytest.approx(mean, abs=1e-5)
    expected = nibabel.load(results[0].folder / content["expected"]).get_fdata()
    assert expected.shape == (16, 16, 6) and expected.max() <= 1
    sizes = whole(found).sum((1, 2, 3))
    assert expected.sum() == pytest.approx(found.masks.weights[0].numpy() @ sizes, rel=0.5)
    read = read_volume_prediction(results[0].folder)
    assert np.array_equal(read.masks, whole(found)) and read.weights == pytest.approx(
        found.masks.weights[0].tolist()
    )
    assert np.array_equal(read.affine, nibabel.load(scans[0]).affine)
    assert read_written(results[0].folder).volume.slices == 6


def test_an_interrupted_prediction_goes_on(run, scans, tmp_path):
    out = tmp_path / "out"
    first = next(predict_volumes(run, scans, out))
    stamp = (first.folder / "prediction.json").stat().st_mtime_ns
    again = list(predict_volumes(run, scans, out, resume=True))
    assert [result.kept for result in again] == [True, False]
    assert (first.folder / "prediction.json").stat().st_mtime_ns == stamp
    with pytest.raises(AmbisegError, match=r"otherwise \(slices\)"):
        list(predict_volumes(run, scans, out, slices=SliceSettings(axis=0), resume=True))
    with pytest.raises(AmbisegError, match="--resume"):
        list(predict_volumes(run, scans, out))


def test_one_damaged_volume_stops_none(run, scans, tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(scans[0].read_bytes()[:400])
    results = list(predict_volumes(run, [bad, scans[0]], tmp_path / "out"))
    assert "bad.nii.gz" in results[0].error and results[1].error is None


def test_files_of_single_channels_are_one_volume(run, scans, tmp_path):
    """As the data set reads them: nnU-Net's ``_0000``, ``_0001``, predicted like one file with both channels."""
    image = nibabel.load(scans[0])
    values, folder = np.asarray(image.dataobj), tmp_path / "imagesTs"
    folder.mkdir()
    for channel, factor in enumerate((1, 2)):
        nibabel.save(
            nibabel.Nifti1Image(values * factor, image.affine), folder / f"case_7_{channel:04}.nii.gz"
        )
    nibabel.save(
        nibabel.Nifti1Image(np.stack([values, 2 * values], -1), image.affine), tmp_path / "both.nii.gz"
    )
    torch.manual_seed(0)
    scale = Normalization(2 * run.config.normalization.mean, 2 * run.config.normalization.std)
    config = replace(run.config, in_channels=2, normalization=scale, images=None)
    two = Run(config, config.build(), run.hardware)
    results = list(predict_volumes(two, find_volumes([folder]), tmp_path / "out"))
    assert [(one.folder.name, one.error) for one in results] == [("case_7", None)]
    (other,) = predict_volumes(two, [tmp_path / "both.nii.gz"], tmp_path / "other")
    ours, theirs = (read_volume_prediction(one.folder) for one in (results[0], other))
    assert np.array_equal(ours.masks, theirs.masks)
    (again,) = predict_volumes(two, find_volumes([folder]), tmp_path / "out", resume=True)
    assert again.kept
    (single,) = predict_volumes(run, [folder / "case_7_0000.nii.gz"], tmp_path / "single")
    assert single.folder.name == "case_7" and single.error is None
    both = list(predict_volumes(run, find_volumes([folder]), tmp_path / "each"))
    assert [one.path.name for one in both] == ["case_7_0000.nii.gz", "case_7_0001.nii.gz"]


def test_volumes_are_found(scans, fires, tmp_path):
    assert find_volumes([scans[0].parent]) == scans and find_volumes([scans[1]]) == [scans[1]]
    assert find_volumes([fires / "test" / "images"]) == []
    with pytest.raises(AmbisegError, match="in two calls"):
        find_volumes([scans[0], fires / "test" / "images"])
    (tmp_path / "a.nii.gz").write_bytes(scans[0].read_bytes())
    (tmp_path / "notes.txt").touch()
    assert find_volumes([tmp_path]) == [tmp_path / "a.nii.gz"]
    image = nibabel.load(scans[0])
    nibabel.save(image.slicer[:, :, :1], tmp_path / "one slice.nii.gz")
    (tmp_path / "broken.nii").touch()
    assert [path.name for path in find_volumes([tmp_path])] == ["a.nii.gz", "broken.nii", "one slice.nii.gz"]
    assert find_volumes([scans[0], tmp_path / "broken.nii"]) == [scans[0], tmp_path / "broken.nii"]
    assert find_volumes([tmp_path / "one slice.nii.gz"]) == []
    with pytest.raises(AmbisegError, match="does not exist"):
        find_volumes([scans[0], tmp_path / "missing.nii"])
    (tmp_path / "b.png").touch()
    with pytest.raises(AmbisegError, match="files of one kind"):
        find_volumes([tmp_path])


@pytest.mark.parametrize(
    "wrong", [{"axis": "round"}, {"slices": 0}, {"slices": 10**5000}, {"slices": "6"}, {"neighbours": None}]
)
def test_damaged_descriptions_of_volumes_are_refused(wrong, run, scans, tmp_path):
    folder = next(predict_volumes(run, scans[:1], tmp_path / "out")).folder
    content = json.loads((folder / "prediction.json").read_text())
    content["volume"] |= {name: value for name, value in wrong.items() if value != 10**5000}
    text = json.dumps(content)
    if wrong == {"slices": 10**5000}:
        text = text.replace('"slices": 6', '"slices": 6' + 4000 * "0")
    (folder / "prediction.json").write_text(text)
    with pytest.raises(AmbisegError, match="prediction.json"):
        read_volume_prediction(folder)


# -- evaluation -------------------------------------------------------------------------------------------------


def test_volumes_of_a_split_are_measured(run, tubes, scans):
    found = evaluate(run, tubes, bootstrap=None, oracle_draws=0).volumes
    assert found.ids == ("tube4", "tube5")
    for row, scan in enumerate(scans):
        ours, modes = predict_volume(run, scan), tube_volume(int(scan.name[4]))[1]
        truth = MaskSet.from_numpy(modes, [0.75, 0.25])
        same = MaskSet.from_numpy(whole(ours), ours.masks.weights[0].numpy())
        assert found.values[""]["ged"][row] == pytest.approx(float(ged(same, truth)), abs=1e-6)
        own, ml = found.values["foreground"], 0.8 * 0.9 * 2.5 / 1000
        predicted, annotated = whole(ours).sum((1, 2, 3)) * ml, modes.sum((1, 2, 3)) * ml
        u, v = same.weights[0].double().numpy(), np.array([0.75, 0.25])
        assert own["bias"][row] == pytest.approx(u @ predicted - v @ annotated, abs=1e-6)
        assert own["crps"][row] == pytest.approx(crps(predicted, annotated, u, v), abs=1e-6)
    entries = found.to_dict()
    assert entries["volumes"] == 2 and entries["classes"]["foreground"]["crps"] == pytest.approx(
        own["crps"].mean(), abs=1e-6
    )
    assert len(found.csv().splitlines()) == 3 and found.intervals() == {}


def test_the_annotators_themselves_have_no_error():
    truth = MaskSet.from_numpy(tube_volume(0)[1], [0.75, 0.25])
    found = compare_volumes(truth, truth, AMBISEG, 0.002)
    assert found[""]["ged"] == 0 and found["foreground"]["bias"] == 0 and found["foreground"]["distance"] == 0
    assert found["foreground"]["crps"] > 0


def test_void_counts_in_no_volume():
    """Voxels that no annotator labelled are left out of the predicted volume too; classes have volumes of their own."""
    labels = LabelSpace.of_classes(3, ignore_value=255)
    ours = MaskSet.from_numpy(np.array([[[[1, 1, 2, 2]]]]), labels=labels)
    theirs = MaskSet.from_numpy(np.array([[[[1, 255, 2, 0]]]]), labels=labels)
    found = compare_volumes(ours, theirs, AMBISEG, 1.0)
    assert found["class 1"]["bias"] == 0 and found["class 2"]["bias"] == 1
    assert found["class 2"]["relative_bias"] == 100


def test_volumes_are_measured_where_all_their_slices_are_there(run, tubes, fires, tmp_path):
    assert why_not_volumes(open_split(tubes, "test")) == "" == why_not_volumes(open_split(fires, "test"))
    assert "all slices" in why_not_volumes(SpreadSplit(open_split(tubes, "test"), 3))
    some = write_tubes(tmp_path / "some", {"test": 1}, SliceSettings(keep="foreground"))
    assert "keep: all" in why_not_volumes(open_split(some, "test"))
    assert evaluate(run, some, bootstrap=None, oracle_draws=0).volumes is None
