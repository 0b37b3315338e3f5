"""Methods of other packages join by their entry points, whichever package is imported first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "level-sets" / "src"


@pytest.mark.parametrize("first", ["ambiseg", "ambiseg.methods", "ambiseg_level_sets"])
@pytest.mark.parametrize(
    "ask", ["METHODS['level-sets']", "METHODS.get('level-sets')", "spec_of('level-sets')"]
)
def test_an_entry_point_is_found_in_any_order_of_imports(tmp_path, first, ask):
    info = tmp_path / "level_sets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: level-sets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ambiseg.methods]\nlevel-sets = ambiseg_level_sets:SPEC\n")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(EXAMPLE)!r}]; import {first};"
        f" from ambiseg.methods import METHODS, spec_of; found = {ask};"
        " from ambiseg_level_sets import SPEC; assert found is SPEC;"
        " assert 'torch' not in sys.modules and len(METHODS) == len(list(METHODS))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
