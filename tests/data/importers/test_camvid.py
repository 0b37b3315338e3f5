"""CamVid in its three layouts gives the same modes, stores labels once, and stops at labels that are none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.camvid import CLASSES, COLORS, FLIPS
from ambiseg.data.importers.settings import CamvidSettings
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError

SIZE = (12, 16)
AS_IS = CamvidSettings(size=(0, 0))


def scenes(count=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *SIZE, 3), np.uint8), rng.integers(0, 12, (count, *SIZE)).astype(
        np.uint8
    )


def colored(label_map):
    """Any of the colours of each class, so that every one of the 32 is met."""
    of_class = [[color for color, number in COLORS.items() if number == c] for c in range(12)]
    rng = np.random.default_rng(5)
    return np.array(
        [[of_class[c][rng.integers(len(of_class[c]))] for c in row] for row in label_map], np.uint8
    )


def write(root, kind):
    for split, seed in (("train", 0), ("val", 1)):
        images, labels = scenes(seed=seed)
        if kind == "npz":
            root.mkdir(exist_ok=True)
            np.savez(root / f"camvid-12x16-{split}.npz", images=images, labels=labels)
            continue
        folder = root / f"{split}{'_labels' if kind == 'colours' else 'annot'}"
        for path in (root / split, folder):
            path.mkdir(parents=True)
        for i, (image, label_map) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(root / split / f"{split}-{i:04}.png")
            picture, ending = (colored(label_map), "_L") if kind == "colours" else (label_map, "")
            Image.fromarray(picture).save(folder / f"{split}-{i:04}{ending}.png")
    return root


@pytest.mark.parametrize("output", ["binary", "twins"])
def test_every_layout_gives_the_same_data(tmp_path, output):
    settings = CamvidSettings(output, (0, 0))
    digests = []
    for kind in ("colours", "numbers", "npz"):
        report = import_dataset("camvid", write(tmp_path / kind, kind), tmp_path / f"{kind}.out", settings)
        assert report.images == {"train": 2, "val": 2} and not report.problems
        digests.append(report.digests)
    assert digests[0] == digests[1] == digests[2]
    assert len(list((tmp_path / "npz.out").glob("train/masks/*/*.png"))) == 2
    split = open_split(tmp_path / "npz.out", "train")
    assert split.info.licence == "CC BY-NC 4.0 as redistributed"
    label_map, sample = scenes()[1][0], split[0]
    flipped = [CLASSES.index(name) for name in FLIPS[output]]
    all_on = sample.masks[sample.annotators.index("flip-" + "1" * len(flipped))]
    if output == "binary":
        np.testing.assert_array_equal(all_on, np.isin(label_map, flipped))
        assert split.info.labels.ignore_value is None and len(sample.masks) == 16
    else:
        assert len(sample.masks) == 32 and split.info.labels.names[11] == "pavement-twin"
        np.testing.assert_array_equal(all_on == 255, label_map == 11)
        for twin, c in enumerate(flipped, 11):
            np.testing.assert_array_equal(all_on == twin, label_map == c)


def test_sizes_and_weights(tmp_path):
    import_dataset("camvid", write(tmp_path / "npz", "npz"), tmp_path / "out", CamvidSettings(size=(6, 8)))
    sample = open_split(tmp_path / "out", "val")[0]
    assert sample.image.shape == (3, 6, 8) and sample.masks.shape[1:] == (6, 8)
    assert sample.weights[sample.annotators.index("flip-0000")] == pytest.approx(0.95 * 0.75 * 0.25 * 0.05)


def test_bad_files_are_noted_and_wrong_labels_stop(tmp_path):
    root = write(tmp_path / "in", "numbers")
    (root / "trainannot" / "train-0000.png").write_bytes(b"\x89PNG\r\n\x1a\n truncated")
    (root / "valannot" / "val-0000.png").unlink()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(root / "valannot" / "val-0001.png")
    report = import_dataset("camvid", root, tmp_path / "out", AS_IS)
    assert report.images["train"] == 1
    files = " ".join(str(problem) for problem in report.problems)
    for words in (
        "trainannot/train-0000.png",
        "no label file",
        "valannot/val-0001.png: the mask is 5 high",
    ):
        assert words in files
    Image.fromarray(np.full(SIZE, 12, np.uint8)).save(root / "trainannot" / "train-0001.png")
    with pytest.raises(
        AmbisegError, match=r"train-0001.png: the label\(s\) \[12\] are not in the class list 0..11"
    ):
        import_dataset("camvid", root, tmp_path / "other", AS_IS)
    assert not (tmp_path / "other").exists()


def test_unknown_colours_stop(tmp_path):
    root = write(tmp_path / "in", "colours")
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[3, 4] = (1, 2, 3)
    Image.fromarray(picture).save(root / "train_labels" / "train-0001_L.png")
    with pytest.raises(AmbisegError, match=r"train-0001_L.png: the color\(s\) \[\(1, 2, 3\)\] are none"):
        import_dataset("camvid", root, tmp_path / "out", AS_IS)


def test_another_folder_is_named(tmp_path):
    with pytest.raises(AmbisegError, match="found no train/ with train_labels/"):
        import_dataset("camvid", tmp_path, tmp_path / "out")
    with pytest.raises(AmbisegError, match="--size is a height and a width"):
        import_dataset("camvid", tmp_path, tmp_path / "out", CamvidSettings(size=(0, 5)))
    np.savez(
        tmp_path / "x-train.npz",
        images=np.zeros((2, 3, 4, 3), np.uint8),
        labels=np.zeros((2, 3, 5), np.uint8),
    )
    with pytest.raises(
        AmbisegError, match=r"x-train.npz: images \(2, 3, 4, 3\) and labels \(2, 3, 5\) do not fit"
    ):
        import_dataset("camvid", tmp_path, tmp_path / "out")
