"""Entry points of other packages: what loads joins, what does not is left out with a warning."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from ambiseg.data.importers import IMPORTERS, Importer, register_importer
from ambiseg.errors import AmbisegError
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings
from ambiseg.plugins import load_plugins


def make_package(folder, entries):
    """A package as pip leaves it: a module and its metadata."""
    (folder / "tiny_plugin.py").write_text("GOOD = 3\n")
    info = folder / "tiny_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entries))


def test_a_broken_plugin_does_not_stop_the_others(tmp_path, monkeypatch):
    make_package(
        tmp_path,
        """
        [ambiseg.trial]
        bad = tiny_plugin:MISSING
        good = tiny_plugin:GOOD
        worse = no_such_module:X
        """,
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {}
    with pytest.warns(UserWarning) as warned:
        load_plugins("ambiseg.trial", found.__setitem__)
    assert found == {"good": 3}
    messages = sorted(str(w.message) for w in warned)
    assert len(messages) == 2 and "'bad' of tiny_plugin:MISSING is left out (AttributeError" in messages[0]
    assert "'worse' of no_such_module:X is left out (ModuleNotFoundError" in messages[1]


def test_the_command_line_says_what_is_left_out(tmp_path):
    make_package(
        tmp_path,
        """
        [ambiseg.methods]
        broken = tiny_plugin:MISSING
        taken = tiny_plugin:TAKEN
        """,
    )
    (tmp_path / "tiny_plugin.py").write_text(
        "from dataclasses import replace\nfrom ambiseg.methods import ssn\nTAKEN = replace(ssn.SPEC)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "ambiseg", "methods"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and "mode-proposals" in done.stdout and len(lines) == 2
    start = "ambiseg: warning: ambiseg.methods: "
    assert lines[0].startswith(f"{start}'broken' of tiny_plugin:MISSING is left out (AttributeError: ")
    taken = "there is a method 'ssn' already: give yours another name"
    assert lines[1] == f"{start}'taken' of tiny_plugin:TAKEN is left out ({taken})"


def test_networks_that_cannot_be_imported_are_named(tmp_path, monkeypatch):
    make_package(
        tmp_path,
        """
        [ambiseg.networks]
        lost = no_such_module:net
        three = tiny_plugin:GOOD
        """,
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        AmbisegError, match="the network 'lost' of no_such_module:net cannot be imported .*mend"
    ):
        build_backbone(3, UNetSettings(kind="lost"))
    with pytest.raises(AmbisegError, match="the network 'three' is a module, or a function"):
        build_backbone(3, UNetSettings(kind="three"))
    with pytest.raises(AmbisegError, match="unknown network 'xyz' ") as found:
        build_backbone(3, UNetSettings(kind="xyz"))
    assert str(found.value).count("lost") == 1


def test_importers_register_once():
    entry = next(iter(IMPORTERS.values()))
    name = next(iter(IMPORTERS))
    register_importer(name, entry)
    with pytest.raises(AmbisegError, match=f"there is an importer '{name}' already"):
        register_importer(name, Importer("t", "c", "l", "s", "m:f", "m:c"))
    with pytest.raises(AmbisegError, match="takes an Importer, received int"):
        register_importer("mine", 3)
