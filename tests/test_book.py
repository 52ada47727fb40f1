"""The book: each chapter, job and module has its page, no link is broken, and nothing comes from elsewhere."""

import ast
import functools
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT
from ruamel.yaml import YAML
from test_project import CHAPTERS, OTHERS

from book.prepare import for_readers, main, modules, parts, read_notebook, text_of

SIZES = {"1280": {"width": 1280, "height": 800}, "1920": {"width": 1920, "height": 1080}}
PAGES = ["index.html", "nbs/30_metrics.metrics.html", "api/params.html"]


class Page(HTMLParser):
    "The ids, the links, and the files that a page loads."

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.update(given[name] for name in ("id", "name") if given.get(name))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("script", "link", "img", "iframe", "source", "embed", "object"):
            self.loaded += [given[name] for name in ("src", "href", "data") if given.get(name)]


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    "The book: the folder that the environment variable BOOK names, or one that is built now."
    if os.environ.get("BOOK"):
        return Path(os.environ["BOOK"])
    for name in ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml"):
        if not importlib.util.find_spec(name):
            pytest.skip("Sphinx is not installed (make book)")
    folder = tmp_path_factory.mktemp("book")
    main(folder / "source")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--jobs", "2", "--conf-dir", str(ROOT / "book")]
    line = [sys.executable, "-m", "sphinx", *options, str(folder / "source"), str(folder / "site")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "site"


@pytest.fixture(scope="module")
def pages(book) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(book.rglob("*.html")) if "_static" not in path.parts}


@pytest.fixture(scope="module")
def address(book):
    "The address of a server of the book."

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_parts_are_those_of_the_index():
    listed = [name for names in parts().values() for name in names]
    assert [name for name in listed if name[0].isdigit()] == [path.stem for path in CHAPTERS]
    assert sorted(name for name in listed if not name[0].isdigit()) == [path.stem for path in OTHERS]
    assert [chapter for chapter, _ in modules().values()] == [path.stem for path in CHAPTERS]


def test_readers_get_no_directives_no_hidden_cells_and_no_widgets():
    def cell(source: str, *outputs: dict, **metadata) -> dict:
        return {"cell_type": "code", "source": source, "outputs": list(outputs), "metadata": metadata}

    widget = {
        "output_type": "display_data",
        "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox"},
    }
    text = {"output_type": "stream", "name": "stdout", "text": "4"}
    given = [cell("#| default_exp a"), cell("#| hide\nassert True"), cell("#| export\n#| eval: false\nx = 1"),
             cell("show()", widget, text), cell("n = 1", tags=["parameters"])]  # fmt: skip
    given.append({"cell_type": "markdown", "source": "```mermaid\nflowchart LR\n```", "metadata": {}})
    shown, page, parameters, diagram = for_readers({"cells": given})["cells"]
    assert diagram["source"] == "```text\nflowchart LR\n```"
    assert shown["source"] == "x = 1" and page["outputs"] == [text]
    assert parameters["metadata"]["tags"] == ["parameters", "hide-input"]


def test_every_notebook_has_its_page_with_every_saved_picture(book):
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        outputs = [output for cell in for_readers(read_notebook(path))["cells"] for output in cell.get("outputs", ())]
        saved = sum(any(kind.startswith("image/") for kind in output.get("data", ())) for output in outputs)
        saved += text_of(read_notebook(path)).count("![")
        shown = Page(book / "nbs" / f"{path.stem}.html").loaded
        assert sum("_images/" in name for name in shown) == saved, path.name


def test_the_reference_has_everything_a_module_exports_with_the_comments_of_parameters(pages, book):
    for module in modules():
        tree = ast.parse((ROOT / "postergenre" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        names = {node.name for node in defined if node.name[0] != "_" and ast.get_docstring(node)}
        missing = {
            name for name in names if f"postergenre.{module}.{name}" not in pages[book / "api" / f"{module}.html"].ids
        }
        assert not missing, f"{module}: {missing}"
    assert "fractions of train, valid and test" in (book / "api" / "data.split.html").read_text(encoding="utf-8")
    assert "n_demo_posters" in (book / "api" / "params.html").read_text(encoding="utf-8")


def test_no_internal_link_is_broken(pages):
    followed = 0
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name} links to {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids | {""}, f"{path.name} links to {link}"
            followed += 1
    assert followed > 10_000


def test_nothing_is_loaded_from_elsewhere(pages, book):
    for path, page in pages.items():
        away = [name for name in page.loaded if urlsplit(name).netloc]
        assert not away, f"{path.name} loads {away}"
    for path in (book / "_static").glob("**/*.css"):
        assert "url(http" not in path.read_text(encoding="utf-8").replace('"', ""), path.name


def test_the_workflow_runs_all_checks_and_publishes_the_book():
    workflow = YAML(typ="safe").load((ROOT / ".github" / "workflows" / "ci.yaml").read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["publish"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    assert "bash .ci/run" in [step.get("run") for step in steps]
    assert ["_book/"] == [step["with"]["path"] for step in steps if "upload-pages-artifact" in step.get("uses", "")]
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 0 < checks.find("make book ") < checks.find("export BOOK=$PWD/_book") < checks.find("make test ")


@pytest.mark.parametrize("size", SIZES)
def test_pages_open_in_a_browser_and_ask_for_nothing_else(browser, address, shots, size):
    page = browser.new_page(viewport=SIZES[size])
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("response", lambda answer: problems.append(answer.url) if answer.status >= 400 else None)
    for name in PAGES:
        page.goto(f"{address}/{name}", wait_until="load")
        assert page.locator("h1").first.is_visible() and page.locator(".bd-sidebar-primary").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], name
        page.screenshot(path=shots / f"book_{size}_{Path(name).stem}.png")
    page.goto(f"{address}/search.html?q=jackknife")
    page.locator("#search-results a", has_text="Confidence intervals").first.wait_for(timeout=20_000)
    page.screenshot(path=shots / f"book_{size}_search.png")
    assert not problems and all(url.startswith((address, "data:")) for url in asked)
    page.close()
