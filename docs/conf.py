"""Settings of the documentation, built by ``make docs``."""

from __future__ import annotations

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

default_role = "code"
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
    "min_reported_time": 1000,
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "plot_gallery": "True",
}
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_title = f"ambiseg {release}"
html_static_path: list[str] = []
html_copy_source = False
