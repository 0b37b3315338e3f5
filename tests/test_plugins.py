"""Entry points of other packages: what loads joins, what does not is left out with a warning."""

from __future__ import annotations

import textwrap

import pytest

from ambiseg.data.importers import IMPORTERS, Importer, register_importer
from ambiseg.errors import AmbisegError
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


def test_importers_register_once():
    entry = next(iter(IMPORTERS.values()))
    name = next(iter(IMPORTERS))
    register_importer(name, entry)
    with pytest.raises(AmbisegError, match=f"there is an importer '{name}' already"):
        register_importer(name, Importer("t", "c", "l", "s", "m:f", "m:c"))
    with pytest.raises(AmbisegError, match="takes an Importer, received int"):
        register_importer("mine", 3)
