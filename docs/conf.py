"""How Sphinx builds the documentation: `make docs`. Nothing is fetched, neither here nor by the pages in a browser."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ["MPLBACKEND"] = "Agg"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import pages
from sphinx.application import Sphinx
from sphinx.ext import napoleon
from sphinx.ext.napoleon import GoogleDocstring

from alphagrad import __version__

project = "alphagrad"
author = "The alphagrad authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "equations"]
exclude_patterns = ["_build"]
highlight_language = "none"
smartquotes = False  # g' is a name

html_theme = "furo"
html_title = "alphagrad"
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
html_math_renderer = "drawn"
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what an argument is
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True

nitpicky = True
# Other projects' pages are not fetched, so their names lead nowhere.
nitpick_ignore_regex = [
    (r"py:.*", r"(abc|collections|datetime|enum|numpy|np|pathlib|pydantic|pydantic_core|torch|typing)(\..*)?"),
    (r"py:.*", r"(ABC|BaseModel|Exception|FloatingPointError|KeyboardInterrupt|Optimizer|Protocol|RuntimeError)"),
    (r"py:.*", r"(TypeError|ValueError|NamedTuple|dict|object|tuple)"),
    (r"py:.*", r"(ConfigError|observe_every|FINAL_EPISODES)"),  # ours, without a place in the API
]


def docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Google's sections in Sphinx's words; shapes such as ``[tensors, *batch]`` as code.

    An attribute's docstring is left as it is: napoleon would take what stands before its first colon for a type.
    """
    lines[:] = [re.sub(r"(?<!`)(\[[^\]`]*\*[^\]`]*\])", r"``\1``", line) for line in lines]
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, napoleon.Config(napoleon_use_rtype=False), app, what, name, obj).lines()


def setup(app: Sphinx) -> None:
    """Writes the pages that are made of the code, the configuration and the commands' help."""
    app.connect("autodoc-process-docstring", docstring)
    pages.write_all(HERE / "generated")
