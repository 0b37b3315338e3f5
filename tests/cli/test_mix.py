"""Several runs as one: the union of their masks with weights of least GED; a folder that every command takes for a run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from scipy.optimize import minimize

from ambiseg.data.batches import annotations_of
from ambiseg.data.files.reading import read_mask, write_mask
from ambiseg.data.source import open_split
from ambiseg.engine.filter_choice import FEWEST
from ambiseg.engine.fitted_filter import FittedFilter
from ambiseg.engine.mixture import MIXTURE, MixtureFit
from ambiseg.engine.run import fit_mixture, load, mixed
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import ged


@pytest.fixture(scope="module")
def runs(train_tiny, tmp_path_factory):
    """Three runs of other seeds and settings."""
    place = tmp_path_factory.mktemp("mixed")
    wishes = [
        {"seed": 1},
        {"seed": 2, "proposals": 4, "labels": "single"},
        {"seed": 3, "epochs": 8, "lr": 5e-3},
    ]
    return [train_tiny(place / f"run-{i}", **wish).run for i, wish in enumerate(wishes)]


@pytest.fixture(scope="module")
def loaded(runs):
    return [load(run, precision="32", device="cpu") for run in runs]


def test_a_mixture_is_the_weighted_union(loaded, fires):
    image = open_split(fires, "test")[0].image
    parts = [run.propose([image]) for run in loaded]
    whole = mixed(loaded, [0.5, 0.3, 0.2]).propose([image])
    assert whole.masks.shape[1] == sum(part.masks.shape[1] for part in parts) and whole.scores is None
    assert torch.equal(whole.masks, torch.cat([part.masks for part in parts], 1))
    expected = torch.cat([a * part.weights for a, part in zip((0.5, 0.3, 0.2), parts, strict=True)], 1)
    torch.testing.assert_close(whole.weights, expected)
    alone = mixed(loaded, [0.0, 1.0, 0.0]).propose([image]).merge_identical()
    assert torch.equal(alone.masks, parts[1].merge_identical().masks)


def test_the_fit_is_the_mean_ged_and_its_minimum(loaded, fires):
    """Against GED itself for given weights, and a general solver for the best ones."""
    fit, pairs = MixtureFit(3), []
    for sample in open_split(fires, "val"):
        truth = annotations_of(sample, loaded[0].config.labels)
        found = [run.propose([sample.image]) for run in loaded]
        fit.add(found, truth)
        pairs.append((sample.image, truth))
    for weights in ([1.0, 0.0, 0.0], [0.2, 0.5, 0.3]):
        means = [float(ged(mixed(loaded, weights).propose([image]), truth)) for image, truth in pairs]
        assert fit.ged(weights) == pytest.approx(np.mean(means), abs=1e-5)
    whole = fit_mixture(loaded, open_split(fires, "val"))
    assert torch.equal(whole.gram, fit.gram) and torch.equal(whole.moment, fit.moment)
    best = minimize(
        fit.ged,
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert sum(fit.weights()) == pytest.approx(1) and fit.ged(fit.weights()) <= best.fun + 1e-6
    assert fit.ged(fit.weights()) <= min(fit.ged(np.eye(3)[r]) for r in range(3)) + 1e-9


def test_a_run_that_is_right_takes_all_and_equal_runs_share():
    truth = MaskSet.uniform(torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 1]]]), LabelSpace.binary())
    wrong = MaskSet.uniform(torch.tensor([[[1, 1, 1, 1]]]), LabelSpace.binary())
    fit = MixtureFit(2)
    fit.add([truth, wrong], truth)
    assert fit.weights() == (1.0, 0.0) and fit.ged((1.0, 0.0)) == pytest.approx(0)
    fit = MixtureFit(2)
    fit.add([truth, truth], truth)
    assert fit.weights() == pytest.approx((0.5, 0.5))
    halves = MixtureFit(2)
    halves.add(
        [truth.gather(torch.tensor([[0]])).normalised(), truth.gather(torch.tensor([[1]])).normalised()],
        truth,
    )
    assert halves.weights() == pytest.approx((0.5, 0.5)) and halves.ged(halves.weights()) == pytest.approx(0)
    with pytest.raises(AmbisegError, match="fitted on annotated images"):
        MixtureFit(2).weights()


def test_every_command_takes_a_mixture(cli, runs, fires, tmp_path):
    mix = tmp_path / "mix"
    annotated = ("--data", fires, "--split", "train")
    outcome = cli("mix", *runs, "--out", mix, *annotated, "--json")
    assert outcome.status == 0
    found = json.loads(outcome.out)
    assert sum(row["weight"] for row in found["runs"]) == pytest.approx(1)
    assert found["ged"]["mixture"] <= min(found["ged"][str(run)] for run in runs) + 1e-9
    fitted = FittedFilter.load(mix)
    assert fitted.message == found["filter"] and fitted.images == len(open_split(fires, "train")) >= FEWEST
    assert cli("calibrate-filter", mix, *annotated).status == 0 and FittedFilter.load(mix) == fitted
    images = fires / "test" / "images"
    words = ("predict", mix, images, "--out", tmp_path / "out", "--no-picture", "--top", 3)
    assert cli(*words).status == 0
    content = json.loads((tmp_path / "out" / "fire-00016" / "prediction.json").read_text())
    assert 1 <= len(content["masks"]) <= 3
    assert cli("evaluate", mix, "--data", fires).status == 0 and (mix / "metrics.json").exists()
    assert cli("report", mix, "--data", fires).status == 0 and "mixture" in (mix / "report.html").read_text()
    assert "exists already" in cli("mix", *runs, "--out", mix, "--data", fires).error
    assert cli("mix", *runs, "--out", mix, "--data", fires, "--weights", 1, 2, 1, "--overwrite").status == 0
    assert yaml.safe_load((mix / MIXTURE).read_text())["runs"][1]["weight"] == 0.5
    assert FittedFilter.load(mix) is None


@pytest.mark.parametrize("annotations", ["one image", "all the same", "all empty", "none alike"])
def test_a_mixture_is_fitted_on_any_images(cli, runs, fires, tmp_path, annotations):
    """The weights are the best ones of what is there; a filter is chosen from eight images on."""
    data, mix = tmp_path / "data", tmp_path / "mix"
    shutil.copytree(fires, data)
    images = sorted((data / "train" / "images").iterdir())
    kept = images[:1] if annotations == "one image" else images
    for image in images:
        masks = data / "train" / "masks" / image.stem
        if image not in kept:
            image.unlink()
            shutil.rmtree(masks)
            continue
        for n, file in enumerate(sorted(masks.iterdir())):
            value = np.array(read_mask(file))
            if annotations == "all the same":
                value[:] = 0
                value[4:12, 4:12] = 1
            elif annotations == "all empty":
                value[:] = 0
            elif annotations == "none alike":
                value[:] = 0
                value[n : n + 5, 3 : 9 + n] = 1
            write_mask(file, value)
    (data / "train" / "weights.csv").unlink(missing_ok=True)
    outcome = cli("mix", *runs, "--out", mix, "--data", data, "--split", "train", "--json")
    assert outcome.status == 0
    found = json.loads(outcome.out)
    assert sum(row["weight"] for row in found["runs"]) == pytest.approx(1)
    assert found["ged"]["mixture"] <= min(found["ged"][str(run)] for run in runs) + 1e-9
    assert FittedFilter.load(mix).images == (len(kept) if len(kept) >= FEWEST else 0)
    assert cli("predict", mix, images[0], "--out", tmp_path / "out", "--no-picture").status == 0


def test_what_cannot_be_mixed_is_refused(cli, runs, fires, train_tiny, tmp_path):
    place = tmp_path / "place"
    shutil.copytree(runs[0].parent, place)
    one, two = place / runs[0].name, place / runs[1].name
    mix = tmp_path / "mix"
    words = ("mix", one, two, "--out", mix, "--data", fires)
    assert "two runs or more" in cli("mix", one, "--out", mix).error
    assert "weights are 2 numbers" in cli(*words, "--weights", 1).error
    assert "weights are 2 numbers" in cli(*words, "--weights", 0, 0).error
    assert "is not a run folder" in cli("mix", one, fires, "--out", mix).error
    assert cli(*words).status == 0
    assert "is a mixture itself" in cli("mix", mix, one, "--out", tmp_path / "more", "--data", fires).error
    shutil.copytree(runs[2], one, dirs_exist_ok=True)
    assert "was trained again" in cli("evaluate", mix, "--data", fires).error
    for text in ("[]", "runs: []", "runs: [{run: a}]", "runs: [{run: a, weight: x, digest: b}]", "runs: ["):
        (mix / MIXTURE).write_text(text)
        assert "mixture.yaml" in cli("evaluate", mix, "--data", fires).error
    other = tmp_path / "other"
    shutil.copytree(fires, other)
    shutil.rmtree(other / "train" / "masks" / "fire-00000")
    shutil.copytree(other / "train" / "masks" / "fire-00001", other / "train" / "masks" / "fire-00000")
    strange = train_tiny(tmp_path / "strange", data=other).run
    assert (
        "cannot be mixed: they have other training images"
        in cli("mix", two, strange, "--out", tmp_path / "x").error
    )
