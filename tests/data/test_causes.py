"""Problems by cause: one row for what is mended at once, in the words of one thing or of many."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ambiseg.data.causes import Problem, by_cause
from ambiseg.data.check import check_dataset

CLASSES = ["background", "cup"]


def test_numbers_that_are_no_classes_are_one_cause():
    problems = [Problem(f"{i}.png", "...", "...", values=(2, 3) if i % 2 else (2,)) for i in range(165)]
    (cause,) = by_cause(problems, CLASSES)
    assert cause.problem == "165 masks hold 2 and 3, but the classes are 0..1 (background, cup)"
    expected = (
        "write 'classes: [background, cup, class-2, class-3]' in dataset.yaml if these are classes, else"
    )
    assert cause.remedy.startswith(expected)
    assert len(cause.files) == 165 and cause.files[:2] == ("0.png", "1.png")


def test_one_file_has_the_singular():
    (cause,) = by_cause([Problem("a.png", "...", "...", values=(7,))], CLASSES, 255)
    assert cause.problem == "the mask holds 7, but the classes are 0..1 (background, cup) and 255 is ignored"
    (same,) = by_cause([Problem("a.png", "the file is empty (0 bytes)", "copy it again")], CLASSES)
    assert (same.problem, same.remedy) == ("the file is empty (0 bytes)", "copy it again")


def test_many_numbers_suggest_no_list_of_classes():
    (cause,) = by_cause([Problem("a.png", "...", "...", values=tuple(range(40, 60)))], CLASSES)
    assert "40, 41, 42, 43, 44, 45 and others" in cause.problem and "class-" not in cause.remedy


def test_details_do_not_tell_causes_apart_and_severity_does():
    problems = [
        Problem("w.png", "the image is only 3x4 pixels", "...", "warning"),
        Problem("a.png", "the mask is 3 high, 4 wide but its image 10 x 12", "draw it again"),
        Problem("b.png", "the mask is 5 high, 4 wide but its image 10 x 12", "draw it again"),
        Problem("c.png", "there is no such file", "correct the path"),
        Problem("d.png", "the image is only 5x4 pixels", "..."),
    ]
    causes = by_cause(problems, CLASSES)
    assert [(cause.files, cause.severity) for cause in causes] == [
        (("a.png", "b.png"), "error"),
        (("c.png",), "error"),
        (("d.png",), "error"),
        (("w.png",), "warning"),
    ]
    assert causes[0].problem == "the mask is 3 high, 4 wide but its image 10 x 12; the others alike"


def test_a_whole_data_set_with_one_mistake_has_one_cause(tmp_path):
    for split in ("train", "val"):
        for i in range(20):
            rng = np.random.default_rng([i, len(split)])
            for path, most in ((f"images/{split}{i}.png", 256), (f"masks/{split}{i}/anna.png", 4)):
                file = tmp_path / split / path
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, most, (12, 12), np.uint8)).save(file)
    report = check_dataset(tmp_path)
    (cause,) = report.causes
    assert len(report.problems) == 40 and cause.problem.startswith("40 masks hold 2 and 3, but")
