"""Plain English: docstrings start with a verb, and words that read like a translation do not come back."""

import ast
import io
import json
import re
import tokenize
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = sorted(path for path in (ROOT / "postergenre").rglob("*.py") if path.name != "_modidx.py")
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
TEXTS = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "bench").rglob("*.md"),
        *(ROOT / "params").glob("*.yaml"),
    ]
)
KINDS = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None))  # the last: Python 3.12
VERBS = set((ROOT / "tests" / "verbs.txt").read_text(encoding="utf-8").split())
STILTED = {  # pattern: what to write instead
    r"\banew\b": "again",
    r"\bbesides?\b": "next to, with, or also",
    r"\bwhole\b": "complete, entire, or all of",
    r"\b(is|are|was|be|been) (told|said)\b": "is reported, or is printed",
    r"\b(tells|says) (of|what|how|which|where|whether)\b": "reports, prints or describes",
    r"\b(row|line|file|picture|column|batch|batches|lines|rows|step|steps) an? (epoch|run|genre|poster|image)\b": "per",
    r"\bin sentences\b": "with a message",
    r"\blook whole\b": "is complete",
    r"\bsurest\b": "most confident",
    r"\bno[- ]skill floor\b": "no-skill baseline",
    r"\bfalse alarms?\b": "false positive",
    r"\ba look at\b": "a check of",
}


def prose_of_module(path: Path) -> str:
    "Return the comments and strings of a module."
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return "\n".join(t.string for t in tokens if t.type in KINDS)


def prose_of_notebook(path: Path) -> str:
    "Return the text cells of a notebook."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def check_words(prose: str) -> None:
    found = [
        f"{match.group()!r} in {line.strip()!r}: write {instead}"
        for line in prose.splitlines()
        for pattern, instead in STILTED.items()
        for match in re.finditer(pattern, line, re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_written_in_plain_english(path):
    check_words(prose_of_module(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapters_are_written_in_plain_english(path):
    check_words(prose_of_notebook(path))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_are_written_in_plain_english(path):
    check_words(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_of_functions_start_with_a_verb(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if text and text.split()[0] not in VERBS:
            found.append(f"{node.name}: {text.splitlines()[0]}")
    assert not found, "\n".join(found)
