"""Write the sources of the book: README, chapters and job notebooks as a reader wants them, and one page per module.

`make book` runs this, and then Sphinx. nbs/index.ipynb gives the parts of the book and the order of their chapters.
"""

import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#\s]+)(#[^)\s]*)?\)")
DOCUMENTS = ("docs/stages", "docs/data", "docs/prediction", "docs/clusters", "docs/results", "bench/README")
FOR_MACHINES = ("default_exp", "hide")  # directives of nbdev: such cells are not for readers


def read_notebook(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def text_of(notebook: dict) -> str:
    return "\n".join("".join(cell["source"]) + "\n" for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def parts() -> dict[str, list[str]]:
    "Return the chapters and jobs of each part, as nbs/index.ipynb lists them."
    found: dict[str, list[str]] = {}
    for line in text_of(read_notebook(ROOT / "nbs" / "index.ipynb")).splitlines():
        if line.startswith("## "):
            title = line[3:]
        listed = re.match(r"\| \[.*\]\((\w[\w.]*)\.ipynb\) \|", line)
        if listed:
            found.setdefault(title, []).append(listed[1])
    return found


def modules() -> dict[str, tuple[str, str]]:
    "Return the name and the purpose of the chapter of each module."
    rows = re.findall(
        r"^\| \[.*\]\((\w[\w.]*)\.ipynb\) \| `([\w.]+)` \| (.*) \|$",
        text_of(read_notebook(ROOT / "nbs" / "index.ipynb")),
        re.M,
    )
    return {module: (chapter, purpose) for chapter, module, purpose in rows}


def without_scripts(text: str) -> str:
    "Return Markdown whose Mermaid diagrams are shown as text, because drawing them takes a script from a network."
    return re.sub(r"^( *```)mermaid\b", r"\1text", text, flags=re.M)


def is_widget(output: dict) -> bool:
    "Return True for a widget, which shows nothing without a kernel."
    return any("widget" in kind for kind in output.get("data", ()))


def for_readers(notebook: dict) -> dict:
    "Return a notebook without nbdev's directives and what is for machines only, its parameters folded."
    kept = []
    for cell in notebook["cells"]:
        lines = without_scripts("".join(cell["source"])).splitlines()
        if cell["cell_type"] == "code":
            directives = {line.split()[1].rstrip(":") for line in lines if re.match(r"#\| *\w", line)}
            if directives & set(FOR_MACHINES):
                continue
            lines = [line for line in lines if not re.match(r"#\| *\w", line)]
            tags = cell["metadata"].get("tags", [])
            cell["metadata"] = {"tags": [*tags, "hide-input"]} if "parameters" in tags else {"tags": tags}
            cell["outputs"] = [output for output in cell["outputs"] if not is_widget(output)]
        kept.append({**cell, "source": "\n".join(lines)})
    return {**notebook, "cells": kept}


def copy_linked(text: str, start: Path, target: Path) -> None:
    "Copy the pictures and files of the repository that a page links to."
    for _, address, _ in LINK.findall(text) + [("", name, "") for name in re.findall(r'<img[^>]* src="([^"]+)"', text)]:
        source = (ROOT / start / address).resolve()
        if source.is_file() and source.is_relative_to(ROOT) and not (target / source.relative_to(ROOT)).exists():
            copy = target / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def toctree(names: list[str], caption: str = "") -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *names, "```", ""])


def write_front_page(target: Path) -> None:
    "Write the README with the table of contents."
    text = without_scripts((ROOT / "README.md").read_text(encoding="utf-8"))
    trees = [toctree([f"nbs/{name}" for name in names], title) for title, names in parts().items()]
    text = "\n".join([text, toctree(["Contents <nbs/index>", *DOCUMENTS, "api/index"], "Overview"), *trees])
    (target / "index.md").write_text(text, encoding="utf-8")
    copy_linked(text, Path(), target)


def write_notebooks(target: Path) -> None:
    (target / "nbs").mkdir()
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        notebook = for_readers(read_notebook(path))
        (target / "nbs" / path.name).write_text(json.dumps(notebook), encoding="utf-8")
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        copy_linked(text_of(read_notebook(path)), Path("nbs"), target)


def write_reference(target: Path) -> None:
    "Write a page per module, and their list."
    (target / "api").mkdir()
    rows = ["# Reference", "", "What each module exports, from its docstrings."]
    rows += ["", "| module | what it does |", "|---|---|"]
    for module, (chapter, purpose) in modules().items():
        rows.append(f"| [`{module}`]({module}.md) | {purpose} |")
        page = [
            f"# {module}",
            "",
            f"{purpose} The chapter [](../nbs/{chapter}.ipynb) explains and tests it.",
            "",
            "```{eval-rst}",
            f".. automodule:: postergenre.{module}",
            "   :members:",
            "```",
            "",
        ]
        (target / "api" / f"{module}.md").write_text("\n".join(page), encoding="utf-8")
    text = "\n".join([*rows, "", toctree(list(modules()))])
    (target / "api" / "index.md").write_text(text, encoding="utf-8")


def main(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    write_notebooks(target)
    write_reference(target)
    for name in DOCUMENTS:
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / f"{name}.md", target / f"{name}.md")
        copy_linked((ROOT / f"{name}.md").read_text(encoding="utf-8"), Path(name).parent, target)
    write_front_page(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
