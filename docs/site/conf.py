"""Configuration of Sphinx for the site that `make docs` builds (docs/site/build.py)."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "OpenGuild"
copyright = "The OpenGuild developers"
release = version = version_of("openguild")

extensions = ["myst_parser", "sphinx.ext.autodoc", "fields"]
root_doc = "index"
exclude_patterns = ["web/**", "examples/**"]
nitpicky = False  # types that the reference omits are shown without a link
default_role = "py:obj"  # a name in backticks is a link if the reference has it, else code

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]
suppress_warnings = [
    "myst.header",  # the parts of the specification continue each other's section numbers
    "ref.python",  # a type name that several modules use has no link
]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"Event": "openguild_proto.events.Event"}
autodoc_use_type_comments = False  # there are none, and looking for them is slow
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 96
add_module_names = False
toc_object_entries = False  # furo would copy them into the navigation of every page
highlight_language = "default"  # Python if it parses, as in docstrings

html_theme = "furo"
html_title = "OpenGuild"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_use_index = True
html_show_search_summary = False  # it fetches pages, which browsers refuse for local files
html_theme_options = {"top_of_page_buttons": []}
