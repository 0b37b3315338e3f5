"""`ambiseg serve` says where it answers, ends with status 0 when it is told to, and its mistakes are one sentence."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from ambiseg.cli.serve import PACKAGES
from ambiseg.data.source import open_split


def test_a_user_serves_a_run_and_stops_it(tiny_run, fires, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "my run")
    command = [sys.executable, "-m", "ambiseg", "serve", str(run), "--port", "0", "--top", "2", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONUNBUFFERED", None)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            lines = []
            while not lines or lines[-1] != "}\n":
                lines.append(process.stdout.readline())
                assert lines[-1], process.stderr.read()
            said = json.loads("".join(lines))
            assert said["method"] == "mode-proposals" and said["run"] == "my run"
            shutil.rmtree(run)
            stream = io.BytesIO()
            np.save(stream, open_split(fires, "test")[0].image)
            asked = urllib.request.Request(f"{said['address']}/predict", stream.getvalue(), method="POST")
            with urllib.request.urlopen(asked, timeout=60) as answer:
                assert 1 <= len(json.load(answer)["masks"]) <= 2
            process.send_signal(signal.SIGTERM)
            rest, complaints = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, rest, complaints) == (0, "", "")


def test_mistakes_are_one_sentence(cli, tiny_run, tmp_path):
    for words, sentence in (
        (("--port", "70000"), "--port is 0 to 65535, received 70000"),
        (("--timeout", "0"), "--timeout is a number from 0.1, received 0.0"),
        (("--max-body", "nan"), "--max-body is a number from 0.001, received nan"),
        (("--max-body", "1e-9"), "--max-body is a number from 0.001, received 1e-09"),
        (("--max-queue", "0"), "--max-queue must be at least 1, received 0"),
        (("--batch-size", "0"), "--batch-size must be at least 1, received 0"),
        (("--host", ".."), "--host .. is no address"),
    ):
        assert sentence in cli("serve", tiny_run, *words).error
    assert "nothing is not a run folder" in cli("serve", tmp_path / "nothing", "--port", "0").error


def test_a_port_in_use_is_one_sentence(cli, tiny_run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = cli("serve", tiny_run, "--port", port).error
    assert f"port {port} (Address already in use): use another --port" in said


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_names_the_extra(cli, tiny_run, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    said = cli("serve", tiny_run).error
    assert f"needs the package {package}" in said and "pip install 'ambiseg[serve]'" in said


def test_help_needs_none_of_the_packages(cli):
    words = "import sys; from ambiseg.cli.main import main; main(['serve', '--help']); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    assert "--max-pixels" in found
    assert not {"torch", "fastapi", "uvicorn"} & set(found.splitlines()[-1].split())
