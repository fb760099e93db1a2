"""Settings of the site: `sphinx-build -W -n -b html docs build/site`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extension"))

import lmjax

project = "lmjax"
author = "the authors of lmjax"
release = version = lmjax.__version__
html_title = f"lmjax {release}"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "site_pages",
]
exclude_patterns = ["_extension"]

# Pages are Markdown, and read well on the forge too.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page begins where a part of another one was
nb_execution_mode = "off"  # notebooks are executed by CI, and show what they gave then

# Docstrings: Google's sections, Markdown's backticks, types as short as they can be.
default_role = "literal"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
nitpick_ignore_regex = [
    ("py:.*", r"(?!lmjax\.).*"),  # names of other libraries, of which no index is here
    ("py:.*", r"lmjax\.(\w+\.)+(InputImage|InstalledWeights|Record|Saved|Scenes|Shares|Spending)"),
]

html_theme = "furo"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
