"""The Dockerfile names files, extras and commands that are there; it is not built here."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

from ambiseg.cli.parsing import parse
from ambiseg.cli.serve import ServeArguments

ROOT = Path(__file__).parents[2]


def test_the_dockerfile_fits_the_repository():
    text = (ROOT / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    steps = [line.split(maxsplit=1) for line in text.replace("\\\n", "").splitlines() if line[:1].isupper()]
    copied = [name for step, words in steps if step == "COPY" for name in words.split()[:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert {project["readme"], *project["license-files"], "pyproject.toml", "src"} <= set(copied)
    (install,) = [words for step, words in steps if step == "RUN" and words.startswith("pip install")]
    assert "--constraint constraints.txt" in install and "constraints.txt" in copied
    extras = re.search(r"'\.\[([\w,]+)\]'", install)[1].split(",")
    assert set(extras) <= project["optional-dependencies"].keys() and "serve" in extras
    (entry,) = [json.loads(words) for step, words in steps if step == "ENTRYPOINT"]
    assert entry[0] in project["scripts"]
    users = [i for i, (step, _) in enumerate(steps) if step == "USER"]
    assert users and users[-1] < [step for step, _ in steps].index("ENTRYPOINT")
    python = re.search(r"FROM python:([\d.]+)", text)[1]
    assert any(python in line for line in project["classifiers"])


def test_its_command_can_be_parsed():
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").replace("#", " ")
    words = shlex.split(re.search(r"docker run .* ambiseg\s+serve (.*?)\n", text)[1])
    assert parse(ServeArguments, words, "ambiseg serve").host == "0.0.0.0"
