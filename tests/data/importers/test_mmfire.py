"""MMFire: wildfires in the layout of its authors come back, splits are by number, broken arrays are named."""

from __future__ import annotations

import numpy as np
import pytest

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.settings import MMFireSettings
from ambiseg.data.simulators.wildfire import simulate_wildfires
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError

SETTINGS = MMFireSettings(train=3, val=2)


@pytest.fixture(scope="module")
def fires():
    return list(simulate_wildfires(6, size=16))


def write(folder, fires):
    """The arrays of the authors, of these fires."""
    folder.mkdir()
    np.save(folder / "X.npy", np.stack([fire.image for fire in fires]))
    np.save(folder / "Y.npy", np.stack([fire.masks for fire in fires]))
    return folder


def test_arrays_become_splits_by_number(fires, tmp_path):
    report = import_dataset("mmfire", write(tmp_path / "in", fires), tmp_path / "out", SETTINGS)
    assert report.images == {"train": 3, "val": 2, "test": 1}
    assert report.split_name == "official: first 3, next 2, rest"
    for split, first in (("train", 0), ("val", 3), ("test", 5)):
        for i, sample in enumerate(open_split(tmp_path / "out", split), first):
            assert (sample.id, sample.annotators) == (fires[i].id, fires[i].annotators)
            np.testing.assert_array_equal(sample.masks, fires[i].masks)
            np.testing.assert_array_equal(sample.image, fires[i].image)
            np.testing.assert_allclose(sample.weights, fires[i].weights)
    assert not any(open_split(tmp_path / "out", "test").info.augment.values())


def test_a_header_that_no_array_has_is_named(fires, tmp_path):
    folder = write(tmp_path / "in", fires)
    content = (folder / "X.npy").read_bytes()
    huge = b"(9" + b"0" * 30
    place = content.index(b"(6, ")
    (folder / "X.npy").write_bytes(
        content[:place] + huge + content[place + 2 : 118] + b"    " + content[128:]
    )
    with pytest.raises(AmbisegError, match="X.npy: cannot be read as a NumPy array"):
        import_dataset("mmfire", folder, tmp_path / "out", SETTINGS)


def test_arrays_as_the_authors_write_them(fires, tmp_path):
    """Numbers of twice the width, and outcomes of equal probability."""
    np.save(tmp_path / "X.npy", np.stack([fire.image for fire in fires]).astype(np.float64))
    np.save(tmp_path / "Y.npy", np.stack([fire.masks for fire in fires]).astype(np.int64))
    settings = MMFireSettings("uniform", 3, 2)
    import_dataset("mmfire", tmp_path, tmp_path / "out", settings)
    sample = open_split(tmp_path / "out", "train")[1]
    np.testing.assert_array_equal(sample.image, fires[1].image)
    assert sample.masks.dtype == np.uint8 and sample.weights.tolist() == [1 / 8] * 8


def test_wrong_arrays(fires, tmp_path):
    source = write(tmp_path / "in", fires)
    with pytest.raises(AmbisegError, match="5000 scenarios to train and 2500 to validate leave none of 6"):
        import_dataset("mmfire", source, tmp_path / "out")
    masks = np.load(source / "Y.npy")
    masks[4, 0, 0, 0] = 2
    images = np.load(source / "X.npy")
    images[0, 0, 0, 0] = np.nan
    np.save(source / "X.npy", images)
    np.save(source / "Y.npy", masks)
    report = import_dataset("mmfire", source, tmp_path / "some", SETTINGS)
    assert report.images == {"train": 2, "val": 1, "test": 1}
    assert [p.file.rsplit(", ", 1)[1] for p in report.problems] == ["scenario 0", "scenario 4"]
    np.save(source / "Y.npy", masks[:, :7])
    with pytest.raises(AmbisegError, match=r"X has shape \(6, 7, 16, 16\), Y \(6, 7, 16, 16\)"):
        import_dataset("mmfire", source, tmp_path / "out", SETTINGS)
    np.save(source / "Y.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(AmbisegError, match="Y.npy: cannot be read"):
        import_dataset("mmfire", source, tmp_path / "out", SETTINGS)
    (source / "X.npy").write_bytes((source / "X.npy").read_bytes()[:2000])
    with pytest.raises(AmbisegError, match="X.npy: cannot be read as a NumPy array"):
        import_dataset("mmfire", source, tmp_path / "out", SETTINGS)
    (source / "X.npy").unlink()
    with pytest.raises(AmbisegError, match="found no X.npy and Y.npy"):
        import_dataset("mmfire", source, tmp_path / "out", SETTINGS)
