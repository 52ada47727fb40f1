"""Configuration of the book: nothing is executed, and nothing is fetched, when it is built or when it is read."""

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import papermill  # noqa: F401  first, because it imports postergenre.engine while it is itself being imported
from docutils.nodes import SkipNode
from fastcore.docments import docments
from latex2mathml.converter import convert
from sphinx.application import Sphinx

from postergenre.config import describe
from postergenre.params import Schema

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(HERE.parent / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

project = settings["title"]
author = settings["author"]
copyright = settings["copyright"]
release = settings["version"]
extensions = ["myst_nb", "sphinx.ext.autodoc"]
source_suffix = {".ipynb": "myst-nb", ".md": "myst-nb"}
exclude_patterns = ["**/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # these scripts would come from a network; prepare.py leaves widgets out
nb_code_prompt_show = "Show the parameters"
nb_code_prompt_hide = "Hide the parameters"
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
html_math_renderer = "mathml"

html_theme = "sphinx_book_theme"
html_title = settings["title"]
html_static_path = [str(HERE / "static")]
html_css_files = ["book.css"]
html_favicon = str(HERE / "static" / "icon.svg")
html_context = {"default_mode": "light"}
templates_path = [str(HERE / "templates")]
html_domain_indices = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}

default_role = "literal"  # docstrings write code in single backticks
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100


def as_rest(text: str) -> str:
    "Return plain text with code in backticks as reStructuredText."
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if n % 2 else re.sub(r"([*|_\\])", r"\\\1", part) for n, part in enumerate(parts))


def parameter_table(schema: type[Schema]) -> list[str]:
    "Return the parameters of a job as a table."
    lines = [".. list-table::", "   :header-rows: 1", ""]
    rows = [("parameter", "default", "allowed", "meaning")]
    for row in describe(schema):
        unit = f" [{row['unit']}]" if row["unit"] else ""
        meaning = as_rest(f"{row['meaning']}{unit}")
        rows.append((f"`{row['name']}`", f"`{row['default']!r}`", as_rest(row["allowed"]), meaning))
    for first, *others in rows:
        lines += [f"   * - {first}", *(f"     - {other}" for other in others)]
    return ["", *lines, ""]


def is_schema(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, Schema)


def add_comments(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    "Add the comments of parameters, which autodoc does not know."
    lines[:] = [as_rest(line) for line in lines]
    if what == "module":  # the page begins with the purpose
        lines.clear()
    elif is_schema(thing):
        lines += parameter_table(thing)
    elif what in ("class", "exception", "function", "method"):
        comments = {key: about.docment or "" for key, about in docments(thing, full=True).items()}
        returned = comments.pop("return", "")
        lines += ["", *(f":param {key}: {as_rest(comment)}" for key, comment in comments.items())]
        lines += [f":return: {as_rest(returned)}"] if returned else []


def shorten_signature(app: Sphinx, what: str, name: str, thing: Any, *others: Any) -> tuple[str, str | None] | None:
    "Leave out the signature of a schema, since its table says more."
    return ("(**values)", None) if is_schema(thing) else None


def write_formula(writer: Any, node: Any) -> None:
    "Write a formula as MathML, which browsers show without a script."
    display = "block" if node.tagname == "math_block" else "inline"
    writer.body.append(convert(node.astext(), display=display))
    raise SkipNode


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", add_comments)
    app.connect("autodoc-process-signature", shorten_signature)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
