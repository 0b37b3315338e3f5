"""Methods that are conditioned on annotators: styles from names, shares, likelihoods, and a training on two styles."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate, special

import ambiseg
from ambiseg.cli.main import main
from ambiseg.data.annotators import Styles, shares_of_styles
from ambiseg.data.batches import LabelView, Normalization
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import OneMaskSplit, open_split, write_dataset
from ambiseg.engine.run import load
from ambiseg.engine.train import fit
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import build
from ambiseg.methods.label_styles import Allotment

BINARY = LabelSpace.binary()
SMALL = {"width": 8, "depth": 2}
TWO = {"annotators": ("dilates", "erodes"), "shares": (0.75, 0.25)}
METHODS = ["c-ssn", "c-probabilistic-unet"]
LEARNS = {
    "c-ssn": {"draws": 8, "rank": 2, "likelihood_samples": 128},
    "c-probabilistic-unet": {"latent_size": 2},
}
"""Settings with which a short training suffices."""
STEPS = {"c-ssn": 60, "c-probabilistic-unet": 90}


def squares(count, seed=0):
    """Bright squares; one annotator draws them a pixel wider on each side, the other a pixel narrower."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        top, left = rng.integers(3, 6, 2)
        image, wide, narrow = (np.zeros((16, 16), kind) for kind in (np.float32, np.uint8, np.uint8))
        image[top : top + 7, left : left + 7] = 1
        wide[top - 1 : top + 8, left - 1 : left + 8] = 1
        narrow[top + 1 : top + 6, left + 1 : left + 6] = 1
        image += 0.1 * rng.standard_normal(image.shape, np.float32)
        yield Sample(
            f"s{i:03d}", image[None], np.stack([wide, narrow]), np.array([0.75, 0.25]), ("dilates", "erodes")
        )


@pytest.fixture(scope="module")
def styles(tmp_path_factory):
    """A data set of two styles."""
    splits = {"train": squares(24), "val": squares(4, 1), "test": squares(4, 2)}
    return write_dataset(tmp_path_factory.mktemp("styles") / "data", splits, DatasetInfo("styles"))


def trained(method, out, data, **settings):
    chosen = {"updates": 2, "batch_size": 8, "lr": 1e-2, "warmup": 2, "validations": 1, "precision": "32"}
    chosen |= {"augment": False, "ema": 0.0}
    return fit(
        method, data, out, train=chosen, backbone=SMALL, settings=settings, quiet=True, fit_filter=False
    ).run


# -- the data ----------------------------------------------------------------------------------------------------------


def test_a_view_says_whose_masks_there_are(styles):
    split = open_split(styles, "train")
    plain, known = Normalization((0.0,), (1.0,)), Styles(("erodes", "dilates"))
    whole = LabelView(split, plain, styles=known)[0].annotations
    assert whole.annotators.tolist() == [[1, 0]]
    assert LabelView(split, plain)[0].annotations.annotators is None
    single = LabelView(split, plain, "single", styles=known)
    drawn = [single[epoch, 0].annotations for epoch in range(20)]
    areas = {int(one.annotators): int(one.masks.sum()) for one in drawn}
    assert areas == {0: 25, 1: 81}, "the mask is that of the annotator"
    one = OneMaskSplit(split)[0]
    assert one.annotators == {81: ("dilates",), 25: ("erodes",)}[int(one.masks.sum())]


def test_identical_masks_of_two_annotators_stay_apart(tmp_path):
    mask = np.ones((2, 4, 4), np.uint8)
    sample = Sample("a", np.zeros((1, 4, 4), np.float32), mask, np.array([0.5, 0.5]), ("x", "y"))
    split = open_split(write_dataset(tmp_path / "d", {"train": [sample]}, DatasetInfo("d")), "train")
    plain = Normalization((0.0,), (1.0,))
    assert LabelView(split, plain, styles=Styles(("x", "y")))[0].annotations.annotators.tolist() == [[0, 1]]
    assert LabelView(split, plain)[0].annotations.count.tolist() == [1]


def test_mask_sets_keep_their_annotators(tmp_path):
    g = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 2, (2, 3, 4, 4), generator=g, dtype=torch.uint8)
    known = MaskSet(
        masks,
        torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]]),
        BINARY,
        annotators=torch.tensor([[0, 1, 2]] * 2),
    )
    assert known.sort().annotators.tolist() == [[1, 2, 0], [0, 1, 2]]
    assert known.padded(4).annotators[0].tolist() == [0, 1, 2, -1]
    assert MaskSet.stack([known[0], known[1].compact()]).annotators[1].tolist() == [0, 1, -1]
    assert MaskSet.stack([known, MaskSet.uniform(masks, BINARY)]).annotators is None
    known.save(tmp_path / "set.npz")
    assert MaskSet.load(tmp_path / "set.npz").annotators.equal(known.annotators)
    one = known.sample_one(g)
    rows = torch.arange(2)
    assert torch.equal(one.masks[:, 0], masks[rows, one.annotators[:, 0]])
    assert known.merge_identical().annotators is None
    with pytest.raises(AmbisegError, match="annotators of shape"):
        MaskSet(masks, known.weights, BINARY, annotators=torch.zeros(2, 2))


def test_styles_are_pieces_of_names():
    found = Styles(("T1", "T3"), 2)
    assert found.places(("A02_T3_S1_57c0", "A05_T1_S2_aa", "A05_T2_S2_aa")) == [1, 0, -1]
    assert shares_of_styles({"b_x": 0.5, "a_x": 0.25, "a_y": 0.25}, 1) == {"a": 0.5, "b": 0.5}
    with pytest.raises(AmbisegError, match="'anna' does not have: choose 1 to 1"):
        Styles(("T1",), 2).places(("anna",))


# -- shares ------------------------------------------------------------------------------------------------------------


def test_samples_of_a_style_weigh_its_share():
    g = torch.Generator().manual_seed(0)
    for shares in [(0.5, 0.3, 0.2), (0.98, 0.01, 0.01), (1.0,), (0.0, 1.0), (0.6, 0.0, 0.4)]:
        for count in (3, 5, 16, 100):
            found = Allotment.of(shares, count, g)
            assert len(found.styles) == len(found.weights) == count
            for style, share in enumerate(shares):
                own = sum(w for s, w in zip(found.styles, found.weights, strict=True) if s == style)
                assert math.isclose(own, share, abs_tol=1e-9)


def test_fewer_samples_than_styles_are_drawn_by_share():
    shares, draws = (0.5, 0.1, 0.15, 0.25), 4000
    g = torch.Generator().manual_seed(0)
    for count in (1, 3):
        total = np.zeros(4)
        for _ in range(draws):
            found = Allotment.of(shares, count, g)
            assert len(found.styles) == count and set(found.weights) == {1 / count}
            total += np.bincount(found.styles, minlength=4)
        assert np.abs(total / draws - count * np.array(shares)).max() < 5 * 0.5 / math.sqrt(draws)


# -- the models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_chosen_annotator_is_a_model_of_one_style(method):
    torch.manual_seed(0)
    model = build(method, 1, backbone=SMALL, settings=TWO).eval()
    images = torch.randn(2, 1, 9, 7)
    both, one = model.predict(images, 8), model.of_annotator("erodes").predict(images, 5)
    assert both.annotators[0].tolist() == [0] * 6 + [1] * 2
    assert torch.allclose(both.weights, torch.full((2, 8), 0.125))
    assert one.annotators.eq(1).all() and torch.allclose(one.weights, torch.full((2, 5), 0.2))
    assert model.annotators == TWO["annotators"] and model.chosen is None
    with pytest.raises(
        UnknownNameError, match="unknown annotator 'erode': did you mean 'erodes'.*known: dilates, erodes"
    ):
        model.of_annotator("erode")
    with pytest.raises(AmbisegError, match="SSN does not tell annotators apart, received 'erodes'"):
        build("ssn", 1, backbone=SMALL).of_annotator("erodes")


@pytest.mark.parametrize("method", METHODS)
def test_wrong_styles_are_refused(method):
    for settings, message in [
        ({"annotators": ("a", "a")}, "different names"),
        ({"annotators": ("a", "b"), "shares": (0.5, 0.6)}, "of sum 1"),
        ({"annotators": ("a", "b"), "shares": (1.0,)}, "each of the 2 annotators"),
    ]:
        with pytest.raises(AmbisegError, match=message):
            build(method, 1, backbone=SMALL, settings=settings)
    model, masks = build(method, 1, backbone=SMALL, settings=TWO), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    wrong = MaskSet(masks, torch.ones(1, 1), BINARY, annotators=torch.tensor([[2]]))
    with pytest.raises(AmbisegError, match="places in the 2 names of the model, received 2"):
        model.loss(torch.zeros(1, 1, 8, 8), wrong)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_style_of_a_mask_learns_from_it(method):
    torch.manual_seed(0)
    model = build(method, 1, backbone=SMALL, settings=TWO)
    masks = torch.randint(0, 2, (2, 1, 8, 8), dtype=torch.uint8)
    given = MaskSet(masks, torch.ones(2, 1), BINARY, annotators=torch.ones(2, 1, dtype=torch.int64))
    torch.autograd.backward(model.loss(torch.randn(2, 1, 8, 8), given)["loss"])
    entering = (
        model.style.weight.grad if method == "c-ssn" else model.prior.encoder.layers[0].weight.grad[:, 1:3]
    )
    of_styles = entering.abs().sum(tuple(i for i in range(entering.dim()) if i != 1))
    assert of_styles[0] == 0 < of_styles[1]


def test_the_likelihood_of_one_pixel_is_the_integral_of_each_style():
    """One pixel, rank 1: p(y = 1 | x, s) = E sigmoid(N(mu_s, D_s + P_s^2)); both styles together by their shares."""
    torch.manual_seed(1)
    model = build("c-ssn", 1, backbone=SMALL, settings={**TWO, "rank": 1, "likelihood_samples": 40000}).eval()
    with torch.no_grad():
        model.style.weight.mul_(10)
    image, mask, expected = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, dtype=torch.uint8), []
    for name in TWO["annotators"]:
        of_one = model.of_annotator(name)
        style = torch.tensor([model.names.index(name)])
        with torch.no_grad():
            normal = model._normal(model.styled(model.g(image), style))
        mean, spread = float(normal.mean), math.sqrt(float(normal.diagonal + normal.factor[..., 0] ** 2))
        value, _ = integrate.quad(
            lambda e, mean=mean, spread=spread: (
                special.expit(mean + spread * e) * math.exp(-e * e / 2) / math.sqrt(2 * math.pi)
            ),
            *(-8, 8),
        )
        assert math.isclose(float(of_one.log_prob(image, mask).exp()), value, abs_tol=5e-3)
        expected.append(value)
    assert abs(expected[0] - expected[1]) > 0.02
    whole = 0.75 * expected[0] + 0.25 * expected[1]
    assert math.isclose(float(model.log_prob(image, mask).exp()), whole, abs_tol=5e-3)
    unknown = MaskSet(mask[None], torch.ones(1, 1), BINARY)
    model.settings = type(model.settings)(**{**vars(model.settings), "draws": 40000})
    assert math.isclose(float(torch.exp(-model.loss(image, unknown)["loss"].detach())), whole, abs_tol=5e-3)


# -- training ----------------------------------------------------------------------------------------------------------


def batch(samples):
    """Images, and masks of which the first is always that of the first annotator."""
    samples = list(samples)
    images, masks = (torch.from_numpy(np.stack([getattr(s, n) for s in samples])) for n in ("image", "masks"))
    return images, replace(MaskSet.uniform(masks, BINARY), annotators=torch.tensor([[0, 1]] * len(samples)))


@pytest.mark.parametrize("method", METHODS)
def test_a_short_training_learns_both_styles(method):
    """Masks of a style have its size, and are likelier under it than under the other."""
    torch.manual_seed(0)
    images, annotations = batch(squares(24))
    model = build(method, 1, backbone=SMALL, settings={"annotators": TWO["annotators"]} | LEARNS[method])
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps := STEPS[method]):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        rows = torch.arange(8) + 8 * (step % 3)
        optimiser.zero_grad()
        torch.autograd.backward(model.loss(images[rows], annotations[rows])["loss"])
        optimiser.step()
    images, annotations = batch(squares(6, seed=1))
    for place, name in enumerate(model.eval().annotators):
        one, masks = model.of_annotator(name), annotations.masks[:, place]
        ratio = one.predict(images, 9).areas().median(1).values / annotations.areas()[:, place]
        assert 0.85 < float(ratio.mean()) < 1.15
        other = model.of_annotator(model.annotators[1 - place])
        assert (one.log_prob(images, masks) > other.log_prob(images, masks) + 20).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_likelihood_is_that_of_the_styles_by_their_shares(method):
    torch.manual_seed(0)
    model = build(method, 1, backbone=SMALL, settings={**TWO, "likelihood_samples": 5}).eval()
    images, masks = torch.randn(3, 1, 6, 5), torch.randint(0, 2, (3, 6, 5), dtype=torch.uint8)
    torch.manual_seed(1)
    whole = model.log_prob(images, masks)
    torch.manual_seed(1)
    parts = [model.of_annotator(name).log_prob(images, masks) for name in model.annotators]
    expected = torch.stack([math.log(share) + part for share, part in zip(TWO["shares"], parts, strict=True)])
    assert torch.allclose(whole, expected.logsumexp(0)) and not torch.allclose(*parts)


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(styles, tmp_path_factory):
    return trained("c-ssn", tmp_path_factory.mktemp("run") / "c", styles, samples=4)


def test_predict_takes_an_annotator(run, styles, tmp_path, capsys):
    image = next((styles / "test" / "images").iterdir())
    words = ["predict", str(run), str(image), "--no-picture", "--out"]
    assert load(run).config.settings.annotators == ("dilates", "erodes")
    assert load(run).config.settings.shares == (0.75, 0.25)
    assert main([*words, str(tmp_path / "one"), "--annotator", "erodes", "--all"]) == 0
    said = json.loads((tmp_path / "one" / image.stem / "prediction.json").read_text())
    assert {mask["annotator"] for mask in said["masks"]} == {"erodes"}
    assert said["settings"]["annotator"] == "erodes"
    assert main([*words, str(tmp_path / "both"), "--all"]) == 0
    said = json.loads((tmp_path / "both" / image.stem / "prediction.json").read_text())
    shares = {
        name: sum(m["probability"] for m in said["masks"] if m["annotator"] == name)
        for name in TWO["annotators"]
    }
    assert shares == pytest.approx({"dilates": 0.75, "erodes": 0.25})
    assert "annotator" not in said["settings"]
    capsys.readouterr()
    assert main([*words, str(tmp_path / "none"), "--annotator", "anna"]) == 2
    assert "unknown annotator 'anna' (known: dilates, erodes)" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main([*words, str(tmp_path / "one"), "--resume", "--all"]) == 2, (
        "predictions of another annotator stay apart"
    )


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("anna",), {}, "all masks of .* are those of 'anna'"),
        (("", ""), {}, """have numbers in place of names .*say --set 'annotators=\\["0", "1"\\]' if"""),
        (("reader-1", "reader-2"), {}, "have numbers in place of names"),
        (
            ("anna", "ben"),
            {"annotators": ("anna", "carl")},
            "'carl' are not those of .*, which are 'anna', 'ben'",
        ),
        (("anna_x", "ben_x"), {"name_part": 2}, "those of 'x'"),
        (("anna", "ben"), {"name_part": 2}, "'anna' does not have: choose 1 to 1"),
    ],
)
def test_data_without_styles_are_refused(names, settings, message, tmp_path):
    masks = np.stack([np.eye(8, dtype=np.uint8)] * len(names))
    sample = (np.zeros((1, 8, 8), np.float32) + np.eye(8, dtype=np.float32), masks)
    data = ambiseg.dataset(train=[sample] * 2, val=[sample] * 2, annotators=names if any(names) else ())
    with pytest.raises(AmbisegError, match=message):
        fit("c-ssn", data, tmp_path / "run", backbone=SMALL, settings=settings, quiet=True)
    assert not (tmp_path / "run").exists()


def test_numbers_are_annotators_where_it_is_said(tmp_path):
    pair = (np.eye(8, dtype=np.float32)[None], np.stack([np.eye(8, dtype=np.uint8)] * 2))
    data = ambiseg.dataset(train=[pair] * 2, val=[pair] * 2)
    assert load(trained("c-ssn", tmp_path / "r", data, annotators=("0", "1"))).model.annotators == ("0", "1")
