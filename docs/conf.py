"""Configure the documentation site. The build needs no network.

python -m sphinx -W --keep-going -b html docs build/docs
"""

from __future__ import annotations

import inspect
import re
import sys
from importlib.metadata import version as installed
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import results  # noqa: E402  (docs/results.py)

project = "nlmeans"
author = "the nlmeans authors"
copyright = "the nlmeans authors, Apache-2.0"
version = release = installed("nlmeans")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]

# ---------------------------------------------------------------- pages

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# ---------------------------------------------------------------- reference

default_role = "py:obj"  # `name` in a docstring becomes a link if it is documented, else plain code
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings describe the arguments, with shapes and units
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape"]
python_maximum_signature_line_length = 80

# ---------------------------------------------------------------- looks

smartquotes = False  # two hyphens begin a command-line option and must not become a dash
html_theme = "furo"
html_title = "nlmeans"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5a8a", "color-brand-content": "#0b5a8a"},
    "dark_css_variables": {"color-brand-primary": "#6cb8e6", "color-brand-content": "#6cb8e6"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_prompt_text = ">>> |\\.\\.\\. |\\$ "
copybutton_prompt_is_regexp = True

MARKER = re.compile(r"^<!-- (results|table|readme): (.+?) -->$", re.MULTILINE)


def with_results(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the markers in a page by measured results or by parts of the README."""
    if not MARKER.search(source[0]):
        return
    source[0] = MARKER.sub(lambda marker: results.filled(marker[1], marker[2], page), source[0])
    for file in (results.README, *results.RESULTS.iterdir()):
        app.env.note_dependency(str(file))


def as_written(app: Sphinx, command: object, lines: list[str]) -> None:
    """Escape asterisks in the help of a command: patterns such as scans/**/*.nii.gz are not markup."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def signature_of_class(
    app: Sphinx, what: str, name: str, obj: type, options: object, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    """Show the arguments of ``__init__`` where a base class hides them in its ``__new__``, such as MapTransform."""
    if what == "class" and signature == "(*args, **kwargs)":
        return stringify_signature(inspect.signature(obj), show_annotation=False, show_return_annotation=False), None
    return None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", signature_of_class)
    app.connect("source-read", with_results)
    app.connect("sphinx-click-process-description", as_written)
