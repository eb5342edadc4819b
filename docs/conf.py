"""The site of the documentation, which `make docs` builds into docs/_build.

The source folder is the root of the repository, so that the links of every page hold both here and
where the repository is hosted. Links to source files lead to highlighted copies of them.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

project = "RLP in JAX"
author = "the authors of rlp-jax"
copyright = "2026, the authors of rlp-jax"  # noqa: A001  Sphinx's name
root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/*.ipynb", "benchmarks/*.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "runs", "build", "docs/_*", "**/__pycache__"]
extensions = [
    "myst_nb",
    "source_links",
    "plain_docstrings",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]

# Markdown.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = True

smartquotes_action = "D"  # dashes alone: quotes are those of commands

# The notebook shows its stored outputs; a test runs its cells.
nb_execution_mode = "off"

# Prompts and the output below a command are not copied.
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

# The API.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r".*")]  # types of other projects have no page here
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # docstrings say what an attribute is; types of arrays are long

# HTML.
html_theme = "sphinx_book_theme"
html_title = "RLP in JAX"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_source_button": False,
}
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]
