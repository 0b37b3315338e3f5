"""Images that two splits share are found, copies that were changed a little as well, and strangers are
not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.check import check_dataset
from ambiseg.data.folder import DatasetInfo, write_folder
from ambiseg.data.packed import pack
from ambiseg.data.sample import Sample
from ambiseg.data.simulators.wildfire import simulate_wildfires
from ambiseg.data.splits.leakage import BANDS, Prints, likeness, mean_hash, shared


def cloud(seed, size=48):
    """A smooth random picture, ``(1, size, size)`` uint8."""
    frequency = np.fft.fftfreq(size)
    radius = np.maximum(np.hypot(frequency[:, None], frequency), 1 / size)
    noise = np.random.default_rng(seed).standard_normal((size, size))
    picture = np.fft.ifft2(np.fft.fft2(noise) / radius**1.7).real
    return np.uint8(20 + 200 * (picture - picture.min()) / np.ptp(picture))[None]


def jpeg(image):
    stream = io.BytesIO()
    Image.fromarray(image[0]).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))[None]


def noisy(image):
    noise = np.random.default_rng(9).normal(0, 3, image.shape)
    return np.uint8(np.clip(image + noise, 0, 255))


CHANGES = {
    "same": lambda image: image,
    "jpeg": jpeg,
    "noisy": noisy,
    "darker": lambda image: np.uint8(image * 0.7 + 5),
    "as float": lambda image: image.astype(np.float32) / 255,
    "shifted": lambda image: np.roll(image, 1, axis=2),
    "enlarged": lambda image: image.repeat(2, 1).repeat(2, 2),
}


def prints(images):
    found = Prints()
    for name, image in images.items():
        found.add(name, image)
    return found


def pairs(one, other):
    return shared(prints(one), prints(other), one.get, other.get)


@pytest.mark.parametrize("change", CHANGES)
def test_planted_copies_are_found_and_nothing_else(change):
    train = {f"a{i}": cloud(i) for i in range(40)}
    test = {f"b{i}": cloud(100 + i) for i in range(20)} | {
        f"copy{i}": CHANGES[change](cloud(i)) for i in (3, 17)
    }
    found = pairs(train, test)
    mark = "=" if change == "same" else "~"
    assert sorted(map(str, found)) == [f"a17 {mark} copy17", f"a3 {mark} copy3"]
    assert all(twin.identical == (change == "same") and 0.95 <= twin.likeness <= 1 + 1e-6 for twin in found)


def test_independent_scenarios_are_no_twins():
    fires = {sample.id: sample.image for sample in simulate_wildfires(16, size=16, seed=1, workers=1)}
    names = list(fires)
    assert pairs({n: fires[n] for n in names[:10]}, {n: fires[n] for n in names[10:]}) == []
    closest = max(likeness(fires[a], fires[b]) for a in names[:10] for b in names[10:])
    assert closest < 0.9


def test_constant_images_are_identical_or_nothing():
    train = {str(v): np.full((1, 16, 16), v, np.uint8) for v in range(20)}
    test = {f"t{v}": np.full((1, 16, 16), v, np.uint8) for v in (3, 100, 101)} | {
        "again": np.full((1, 16, 16), 3, np.uint8)
    }
    assert not mean_hash(train["7"]).any() and not mean_hash(np.full((1, 9, 9), 0.1, np.float32)).any()
    assert list(map(str, pairs(train, test))) == ["3 = t3"]
    assert likeness(train["1"], train["2"]) == likeness(train["1"], cloud(0, 16)) == 0


def test_likeness_sees_every_channel():
    a, b = cloud(1), cloud(2)
    assert likeness(a, a) == pytest.approx(1)
    assert likeness(np.concatenate([a, a]), np.concatenate([a, b])) == pytest.approx(likeness(a, b))
    assert likeness(a, np.concatenate([a, a])) == 0
    assert likeness(a, 255 - a) < 0


def test_few_bits_always_leave_a_band_alone():
    """The pigeonhole behind the bands: any 15 flipped bits are found."""
    image, rng = cloud(5), np.random.default_rng(0)
    one, other = Prints(), Prints()
    one.add("a", image)
    for i in range(30):
        bits = np.unpackbits(mean_hash(image))
        bits[rng.choice(bits.size, BANDS - 1, replace=False)] ^= 1
        other.ids.append(str(i))
        other._exact += i.to_bytes(16, "big")
        other._mean += np.packbits(bits).tobytes()
    assert len(shared(one, other, lambda _: image, lambda _: image)) == 30


def test_crowds_of_alike_images_are_each_named_once():
    rng = np.random.default_rng(0)
    crowd = [np.clip(cloud(1) + rng.integers(0, 3, (1, 48, 48)), 0, 255).astype(np.uint8) for _ in range(150)]
    found = pairs(
        {f"a{i}": image for i, image in enumerate(crowd[:90])},
        {f"b{i}": image for i, image in enumerate(crowd[90:])},
    )
    assert sorted(twin.other for twin in found) == sorted(f"b{i}" for i in range(60))


def test_the_check_warns_and_names_the_pairs(tmp_path):
    def sample(name, image):
        return Sample(name, image, np.eye(image.shape[1], dtype=np.uint8)[None], np.ones(1), ("r",))

    splits = {
        "train": [sample("a", cloud(1)), sample("b", cloud(2)), sample("c", cloud(3))],
        "test": [sample("d", noisy(cloud(1))), sample("e", cloud(2)), sample("f", cloud(4))],
    }
    root = write_folder(tmp_path / "d", splits, DatasetInfo("d"))
    report = check_dataset(root, to_train=False)
    assert report.ok and [p.problem for p in report.warnings] == [
        "1 identical image, a leak: b = e",
        "1 near-identical image, a leak: a ~ d",
    ]
    assert check_dataset(pack(root, tmp_path / "d.h5"), to_train=False).summaries == report.summaries
    assert [p.problem for p in check_dataset(tmp_path / "d.h5", to_train=False).warnings] == [
        p.problem for p in report.warnings
    ]
