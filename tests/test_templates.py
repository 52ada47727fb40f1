"""Template files: each can be compiled, and what is filled into HTML stays text."""

import re
from importlib.resources import files

import jinja2
import pytest

from postergenre.report.comparison import _TEMPLATES, render

NAMES = sorted(path.name for path in files("postergenre").joinpath("templates").iterdir())
HOSTILE = '"><script>alert(1)</script>'


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".jinja")])
def test_a_template_compiles_and_only_html_is_escaped(name):
    template = _TEMPLATES.get_template(name)
    assert template.environment.autoescape(name) == name.endswith(".html.jinja")
    text = _TEMPLATES.loader.get_source(_TEMPLATES, name)[0]
    assert "|safe" not in re.sub(r"\s", "", text)  # nothing is exempt


NO_PICTURE = {"address": "", "reason": HOSTILE}
TILE = {"name": HOSTILE, "genres": [HOSTILE], "note": HOSTILE, "hint": HOSTILE}
COLORS = {HOSTILE: "red"}
CHOSEN = {"n_chosen": 1, "n_posters": 2, "combination": HOSTILE, "known": [], "colors": COLORS}
BAR = {"genre": HOSTILE, "color": "red", "is_reached": True, "width": "1%", "tick": "2%", "score": 0, "threshold": 1}
FILLED = {  # template -> values, and how often the name is shown
    "bars.html.jinja": ({"rows": [BAR]}, 2),
    "chosen.html.jinja": (CHOSEN | {"named": [(HOSTILE, 1)], "unnamed": [(HOSTILE, 2)]}, 3),
    "counts.html.jinja": ({"counts": {HOSTILE: HOSTILE}}, 2),
    "findings.html.jinja": ({"columns": [HOSTILE], "rows": [{HOSTILE: HOSTILE}], "stops": "stops"}, 2),
    "gallery.html.jinja": (
        {"things": [([(TILE, NO_PICTURE)], 0)], "size": (1, 1), "colors": COLORS, "clickable": True},
        5,
    ),
    "pictures.html.jinja": (
        {
            "rows": [{"title": HOSTILE, "color": "red", "pictures": [(NO_PICTURE, [(HOSTILE, "red")], HOSTILE)]}],
            "width": 1,
        },
        4,
    ),
    "poster.html.jinja": (
        {
            "tile": TILE | {"path": HOSTILE},
            "picture": NO_PICTURE,
            "place": HOSTILE,
            "run": HOSTILE,
            "colors": COLORS,
            "scores": [{"genre": HOSTILE, "score": 0.5, "has": True}],
        },
        7,
    ),
    "words.html.jinja": ({"text": HOSTILE, "told": {HOSTILE: HOSTILE}}, 3),
    "parameters.html.jinja": ({"rows": [{"name": HOSTILE, "value": HOSTILE, "changed": True}], "n_changed": 1}, 2),
    "result.html.jinja": (
        {"name": HOSTILE, "notes": [HOSTILE], "rows": [{"split": HOSTILE, "missing": HOSTILE}]},
        4,
    ),
    "run_links.html.jinja": (
        {"rows": [{"name": HOSTILE, "job": "", "state": "", "score": "", "baseline": "", "links": {HOSTILE: HOSTILE}}]},
        3,
    ),
    "verdict.html.jinja": ({"texts": [HOSTILE]}, 1),
}


@pytest.mark.parametrize("name", FILLED)
def test_names_of_genres_and_files_are_text_in_every_part_of_a_page(name):
    values, times = FILLED[name]
    shown = render(name, **values)
    assert "<script" not in shown and '"">' not in shown
    assert shown.count("&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;") == times


def test_rules_of_the_stylesheet_reach_nothing_but_this_project():
    style = re.sub(
        r"/\*.*?\*/", "", files("postergenre").joinpath("templates", "style.css").read_text("utf-8"), flags=re.S
    )
    selectors = [part.strip() for rule in re.findall(r"([^{}]+)\{", style) for part in rule.split(",")]
    assert len(selectors) > 20 and all(selector.startswith(".pg-") for selector in selectors)
    assert "url(" not in style and "@import" not in style


def test_a_value_that_is_left_out_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'texts' is undefined"):
        render("verdict.html.jinja")
