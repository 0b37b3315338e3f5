"""Settings of the documentation, built by ``make docs``."""

from __future__ import annotations

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import ambiseg

project = "ambiseg"
author = "The ambiseg developers"
copyright = "The ambiseg developers, Apache-2.0"
release = version = ambiseg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "results/**/*.md", "gallery/*.py.md5"]
root_doc = "index"
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = True
autosummary_ignore_module_all = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": ["../examples/gallery"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "run_stale_examples": True,
    "remove_config_comments": True,
    "plot_gallery": "True",
    "image_srcset": ["2x"],
    "thumbnail_size": (400, 280),
    "ignore_repr_types": r"matplotlib\..*",
    "reset_modules": ("matplotlib",),
    "backreferences_dir": None,
    "show_signature": False,
}
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_title = f"ambiseg {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False


def formulas_as_text(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Show the indented blocks of a docstring, which are its formulas, as they stand."""
    shown: list[str] = []
    before, within, introduced = 0, False, False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip():
            within = within and indent > before
            if not within and shown and not shown[-1] and indent > before and not introduced:
                shown += [" " * before + ".. code-block:: text", ""]
                within = True
            if not within:
                before, introduced = indent, line.rstrip().endswith("::")
        shown.append(line)
    lines[:] = shown


def inline_formula(translator: HTML5Translator, node: nodes.math) -> None:
    """A formula as MathML, which browsers draw without a script from elsewhere."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block_formula(translator: HTML5Translator, node: nodes.math_block) -> None:
    """The same on lines of its own."""
    translator.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register how formulas are drawn, and what is done to docstrings before napoleon reads them."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
    app.connect("autodoc-process-docstring", formulas_as_text, priority=400)
