"""The example notebook runs from its first to its last cell, and shows what it says."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import ambiseg

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook" / "first-steps.ipynb"
SOURCE = Path(ambiseg.__file__).parents[1]


@pytest.fixture
def kernel(tmp_path, monkeypatch) -> str:
    """Name of a kernel of this Python and this source, with all its files in the folder of the test."""
    spec = tmp_path / "kernels" / "this"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "this", "language": "python"})
    )
    paths = [str(SOURCE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    return "this"


def test_the_notebook_runs_and_shows_every_object(kernel, tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is stored without outputs"
    NotebookClient(
        notebook, kernel_name=kernel, timeout=300, resources={"metadata": {"path": tmp_path}}
    ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pages, figures, texts = [], 0, ""
    for cell in cells:
        shown = [output for output in cell.outputs if "data" in output]
        assert len(shown) <= 1, f"shown more than once: {cell.source}"
        pages += [output.data["text/html"] for output in shown if "text/html" in output.data]
        figures += sum("image/png" in output.data for output in shown)
        texts += "".join(output.text for output in cell.outputs if output.output_type == "stream")
    assert figures == 2
    sets = [page for page in pages if "MaskSet" in page]
    tables = [page for page in pages if "<table>" in page]
    assert len(sets) == 3 and len(tables) == 3 and len(pages) == 6
    assert all("data:image/png" in page for page in sets)
    for title in ("simulating, test", "training", "evaluating"):
        assert f"{title}: 100%" in texts, "a bar for every long step"
