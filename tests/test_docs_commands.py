"""The documentation names only what is there: options of `ambiseg train`, settings, files and modules; and
the code of docs/extending and of the metrics' conventions runs."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import test_imports
from ambiseg.cli.parsing import parse
from ambiseg.cli.train import ResumeArguments, TrainArguments, chosen_values
from ambiseg.engine.presets import resolve
from ambiseg.engine.settings import TrainSettings
from ambiseg.methods import METHODS, method_info
from ambiseg.metrics import METRICS
from ambiseg.nested_settings import options_of
from ambiseg.networks.settings import UNetSettings
from ambiseg.testing import METRIC_CHECKS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
sys.path.insert(0, str(ROOT / "examples" / "level-sets" / "src"))
LEVEL_SETS = importlib.import_module("ambiseg_level_sets").SPEC
"""The method of the example, which is not installed here."""
GROUPS = ("methods", "networks", "metrics", "importers")
"""Of entry points, which begin like modules."""
NEEDED = {"--data": "DATA", "--out": "RUN"}
"""Options that a command in a sentence may leave out."""


def blocks(text: str, language: str = r"[^\n]*") -> list[str]:
    """Fenced blocks of code, all or those of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def train_commands(text: str) -> Iterator[str]:
    """Every ``ambiseg train`` with something behind it, of blocks of code and of sentences."""
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("ambiseg train "):
                yield line
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for code in re.findall(r"`([^`]+)`", prose):
        line = " ".join(code.split())
        if line.startswith("ambiseg train "):
            yield line


def parse_command(line: str) -> None:
    """Read a command up to where the training would begin."""
    words = shlex.split(line, comments=True)[2:]
    if "--resume" in words:
        parse(ResumeArguments, words, "ambiseg train")
        return
    spec = LEVEL_SETS if words[0] == LEVEL_SETS.name else method_info(words[0])
    if "--help-all" in words:
        assert words[1:] == ["--help-all"]
        return
    if "--config" in words:  # a file that the reader has
        at = words.index("--config")
        del words[at : at + 2]
    for option, value in NEEDED.items():
        words += [] if option in words else [option, value]
    preset, said = chosen_values(spec, parse(TrainArguments, words[1:], "ambiseg train"))
    resolve(spec, preset, said["train"], said["backbone"], said["settings"])


COMMANDS = [
    (name, line) for name, page in zip(IDS, PAGES, strict=True) for line in train_commands(page.read_text())
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_train_command_parses(page, line):
    parse_command(line)


def test_commands_were_found_and_wrong_ones_fail():
    assert len(COMMANDS) > 25
    assert list(train_commands("```sh\nambiseg train ssn \\\n  --lr 1\n```\n`ambiseg train\nmose`")) == [
        "ambiseg train ssn    --lr 1",
        "ambiseg train mose",
    ]
    for wrong in ("ssn --rank 3", "ssn --set rnk=3", "ssn --set rank=many", "sssn", "ssn --preset none"):
        with pytest.raises((Exception, SystemExit)):
            parse_command(f"ambiseg train {wrong}")


def test_every_setting_that_is_named_exists():
    """Behind ``--set``, in pages and in the table of the changelog."""
    known = {o.path for spec in METHODS.values() for o in options_of(spec.settings)}
    known |= {o.path for o in options_of(UNetSettings, prefix="backbone.")}
    known |= {o.path for o in options_of(TrainSettings, prefix="train.")}
    known |= {path.rpartition(".")[0] for path in known}  # a whole part, such as probability=null
    named = {
        (str(page.relative_to(ROOT)), name)
        for page in [*PAGES, ROOT / "CHANGELOG.md"]
        for name in re.findall(r"--set '?([a-z][a-z_.]*)=", page.read_text())
    }
    assert len(named) > 30
    assert not [pair for pair in sorted(named) if pair[1] not in known]


def script_of(path):
    """The script in examples/gallery that a page of the gallery is made from; other files as they are."""
    if path.parent != ROOT / "docs" / "gallery":
        return path
    name = "README.rst" if path.stem == "index" else f"{path.stem}.py"
    return ROOT / "examples" / "gallery" / name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_file_that_is_named_exists(page):
    """Files in backquotes count from the root, links from the page; those of benchmarks are left out. Pages of the
    gallery are made from its scripts."""
    text = page.read_text()
    code = {ROOT / path for path in re.findall(r"`((?:src|tests|examples)/[\w./-]*\w/?)`", text)}
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    linked = {page.parent / link for link in links if "://" not in link and "benchmarks/" not in link}
    linked = {script_of(path.resolve()) for path in linked}
    assert not [str(path) for path in sorted(code | linked) if not path.exists()]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_module_that_is_named_exists(page):
    for name in sorted(set(re.findall(r"`(ambiseg(?:\.\w+)+)`", page.read_text()))):
        parts, found = name.split("."), None
        for length in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:length]))
            except ModuleNotFoundError:
                continue
            break
        for attribute in parts[length:]:
            assert hasattr(found, attribute) or attribute in GROUPS, f"there is no {name}"
            found = getattr(found, attribute, None)


def test_the_table_of_folders_is_the_order_that_is_checked():
    """Folders of the same row may stand in several rows of the page, rows of one folder each in the order."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.split("| folder or file | holds |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in table.splitlines()]
    names = [["ambiseg" if name == "__init__" else name.strip("/") for name in row] for row in rows]
    assert sorted(name for row in names for name in row) == sorted(test_imports.ROW)
    assert [test_imports.ROW[row[0]] for row in names] == sorted(test_imports.ROW[row[0]] for row in names)
    assert all(len({test_imports.ROW[name] for name in row}) == 1 for row in names)


def test_where_to_change_names_files_and_what_is_in_them():
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.split("## Where to change")[1].split("## Decisions")[0].replace("NAME", "ssn")
    paths = re.findall(r"`([\w/]+(?:\.py|/)|\w+\.py)`", table)
    assert len(paths) > 35
    assert not [path for path in paths if not (ROOT / "src" / "ambiseg" / path).exists()]
    for name, path in re.findall(r"`(\w+)`(?: and the dataclasses)? in `([\w/]+\.py)`", table):
        assert name in (ROOT / "src" / "ambiseg" / path).read_text(), f"{path} has no {name}"


PROGRAMS = [
    *sorted((ROOT / "docs" / "extending").glob("*.md")),
    ROOT / "docs" / "metrics" / "conventions.md",
]


@pytest.mark.parametrize("page", PROGRAMS, ids=[page.stem for page in PROGRAMS])
def test_the_code_of_a_page_runs(page, tmp_path):
    """All blocks of Python of a page together, behind those of index.md that write the example data; in a process
    of their own, since they register names."""
    first = [page.with_name("index.md")] if page.parent.name == "extending" else []
    pages = dict.fromkeys([*first, page])
    code = "\n".join(block for one in pages for block in blocks(one.read_text(), "python"))
    script = tmp_path / "blocks.py"
    script.write_text(code)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_table_of_metrics_is_that_of_the_code():
    """Title, a star for what is printed by default, and direction."""
    lines = (ROOT / "docs" / "metrics" / "index.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.count("|") == 6]
    rows = {row[1].strip("`"): row for row in cells if row[1].startswith("`")}
    assert list(rows) and set(rows) == set(METRICS)
    for name, info in METRICS.items():
        title, _, _, _, direction = rows[name]
        assert title.replace("\\", "") == info.title + (" ★" if info.default else ""), name
        assert direction == {True: "↑", False: "↓", None: "–"}[info.higher_is_better], name


def test_the_checks_of_metrics_are_those_of_the_code():
    lines = (ROOT / "docs" / "extending" / "metric.md").read_text().split("## Check it")[1].splitlines()
    rows = [line.split("|")[1].strip(" `") for line in lines if line.startswith("| `")]
    assert rows == list(METRIC_CHECKS)
