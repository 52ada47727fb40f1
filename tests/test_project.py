"""The house: chapters stand on lower ones, jobs are thin, notebooks are small and say nothing of one machine."""

import ast
import importlib
import importlib.util
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LONG, ROOT

from bench.params import BenchParams
from postergenre import config, params
from postergenre.sweep.plan import SweepFile, SweepParams

CHAPTERS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
OTHERS = sorted(path for path in (ROOT / "nbs").glob("*.ipynb") if not path.name[0].isdigit() and path.stem != "index")
JOBS = [path for path in OTHERS if not path.stem.startswith("study_")]  # studies are no part of a user's project
PACKAGE = sorted(path for path in (ROOT / "postergenre").rglob("*.py") if path.name != "_modidx.py")
SUBPACKAGES = sorted(path.parent.name for path in (ROOT / "postergenre").glob("*/__init__.py"))
SCHEMAS = {"predict": params.PredictParams, "pick_lr": params.PickParams, "bench": BenchParams,
           "compare": params.CompareParams, "explore": params.ExploreParams, "evaluate": params.EvaluateParams,
           "try_it": params.TryParams, "audit": params.AuditParams, "swa": params.SwaParams,
           "ensemble": params.EnsembleParams,
           "to_torchscript": params.ExportParams, "sweep": SweepParams,
           "sweep_example": SweepFile}  # fmt: skip


def cells(path: Path, kind: str) -> list[dict]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"] if cell["cell_type"] == kind]


def module_name(path: Path) -> str:
    "Return the name of a module below the package, such as data.images."
    return ".".join(path.relative_to(ROOT / "postergenre").with_suffix("").parts)


def imports(path: Path) -> set[str]:
    "Return the project's modules that a module imports, such as data.images."
    package = ".".join(["postergenre", *path.relative_to(ROOT / "postergenre").parts[:-1]])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if name.startswith("postergenre"):
                found.add(name.removeprefix("postergenre").strip("."))
    return found


def chapter_modules() -> dict[str, int]:
    return {path.stem[3:]: int(path.stem[:2]) for path in CHAPTERS}


def test_each_chapter_has_its_number_and_its_module():
    numbers = chapter_modules()
    assert len(numbers) >= 30 and sorted(numbers.values()) == list(range(len(CHAPTERS)))
    written = {module_name(path) for path in PACKAGE if path.name not in ("__init__.py", "__main__.py")}
    assert written == set(numbers)
    for path in CHAPTERS:
        assert f"#| default_exp {path.stem[3:]}\n" in cells(path, "code")[0]["source"] + "\n"


def test_the_index_lists_every_chapter_in_order_and_every_job():
    text = "\n".join(cell["source"] for cell in cells(ROOT / "nbs" / "index.ipynb", "markdown"))
    rows = []
    for path in CHAPTERS:
        title, purpose = cells(path, "markdown")[0]["source"].splitlines()[:2]
        rows.append(f"| [{title[2:]}]({path.name}) | `{path.stem[3:]}` | {purpose[2:]} |")
    assert [line for line in text.splitlines() if re.match(r"\| \[.*\]\(\d\d_", line)] == rows
    assert set(re.findall(r"\]\((\D\w+)\.ipynb\)", text)) == {path.stem for path in OTHERS} - {"index"}


def test_a_chapter_imports_from_lower_numbers_only():
    numbers = chapter_modules()
    for name, number in numbers.items():
        for imported in imports(ROOT / "postergenre" / f"{name.replace('.', '/')}.py"):
            assert numbers[imported] < number, f"{name} ({number}) imports {imported} ({numbers[imported]})"


def test_nothing_imports_pages_and_neither_data_nor_model_imports_training():
    for path in PACKAGE:
        wing = module_name(path).split(".")[0]
        wings = {name.split(".")[0] for name in imports(path)}
        if path.name != "__init__.py":
            assert wing == "pages" or "pages" not in wings, path
            assert wing not in ("data", "model") or "train" not in wings, path


@pytest.mark.parametrize("path", PACKAGE, ids=module_name)
def test_a_module_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


@pytest.mark.parametrize("name", ["postergenre", "postergenre.params", "postergenre.config"])
def test_parameters_are_read_before_anything_heavy_is_imported(name):
    code = f"import sys, {name}; print([m for m in ('torch', 'pandas', 'timm', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("page", ["pick_lr", "compare", "picker", "home"])
def test_a_page_about_runs_opens_without_torch(page):
    heavy = ("torch", "timm", "sklearn", "scipy.stats", "cv2")
    code = f"import sys, postergenre.pages.{page}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_files_that_pytest_starts_first_are_there():
    assert [name for name in LONG if not (ROOT / "tests" / f"test_{name}.py").is_file()] == []


def test_a_prediction_starts_without_libraries_that_only_others_need():
    slow = re.compile(r"^(from|import) (sklearn|onnxruntime|captum)\b", re.MULTILINE)
    modules, needed = {module_name(path): path for path in PACKAGE}, {"predict.job"}
    while more := {name for each in needed for name in imports(modules[each])} - needed:
        needed |= more
    assert "text.words" in needed and "export.files" in needed
    assert not [name for name in needed if slow.search(modules[name].read_text(encoding="utf-8"))]


@pytest.mark.parametrize("name", ["postergenre", *(f"postergenre.{name}" for name in SUBPACKAGES)])
def test_what_a_package_offers_is_there(name):
    package = importlib.import_module(name)
    assert package.__doc__ and len(package.__all__) >= 2
    for offered in package.__all__:
        assert getattr(package, offered).__doc__, offered


def test_a_module_that_moved_says_where_it_is():
    with pytest.raises(ModuleNotFoundError, match="is now in postergenre.train.callbacks"):
        importlib.import_module("postergenre.callbacks")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_opens_with_title_and_purpose_and_tests_what_it_defines(path):
    title = cells(path, "markdown")[0]["source"].splitlines()
    assert title[0].startswith("# ") and title[1].startswith("> ")
    code = [cell["source"] for cell in cells(path, "code")]
    exported = [source for source in code if "#| export" in source]
    assert exported and all(source.count("\n") <= 40 for source in exported)
    assert any(re.search(r"^\s*(assert |test_)", source, re.M) for source in code)


def test_exported_cells_hold_one_thought():
    lengths = [
        cell["source"].count("\n")
        for path in CHAPTERS
        for cell in cells(path, "code")
        if cell["source"].startswith("#| export")
    ]
    assert statistics.median(lengths) < 15


@pytest.mark.parametrize("name", ["pick_lr", "explore", "compare"])
def test_the_code_of_a_page_is_collapsed_but_not_its_parameters(name):
    for cell in cells(ROOT / "nbs" / f"{name}.ipynb", "code"):
        is_given = "parameters" in cell["metadata"].get("tags", [])
        assert cell["metadata"].get("jupyter", {}).get("source_hidden", False) != is_given


def test_each_chapter_ends_with_a_summary_and_a_link_to_the_next():
    following = [path.name for path in CHAPTERS[1:]] + ["index.ipynb"]
    for path, name in zip(CHAPTERS, following, strict=True):
        *summary, link = cells(path, "markdown")[-1]["source"].splitlines()
        assert link.endswith(f"({name})") and 1 <= sum(line != "" for line in summary) <= 3, path


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_is_thin_and_its_parameters_are_the_schema(path):
    code = cells(path, "code")
    tagged = [cell["source"] for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1 and code[0]["source"] == tagged[0]
    assert not any(re.search(r"^\s*(def|class) ", cell["source"], re.M) for cell in code)
    schema = SCHEMAS.get(path.stem, params.Params)
    namespace: dict = {}
    exec(tagged[0], namespace)
    given = {name: value for name, value in namespace.items() if not name.startswith("__")}
    assert given == schema().model_dump()
    for name, field in schema.model_fields.items():
        assert re.search(rf"^{name}: \w+ = .*  # {re.escape(field.description)}", tagged[0], re.M), name


def test_papermill_shows_every_parameter_with_its_meaning():
    import papermill

    shown = papermill.inspect_notebook(str(ROOT / "nbs" / "train.ipynb"))
    assert {name: row["help"].split(" [")[0] for name, row in shown.items()} == {
        name: field.description for name, field in params.Params.model_fields.items()
    }


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda path: path.stem)
def test_params_files_load_and_hold_only_what_differs(path):
    from ruamel.yaml import YAML

    given = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    schema = SCHEMAS.get(path.stem, params.Params)
    read, defaults = config.read_params_file(path, schema), schema()
    given.pop("deprecated", None)
    same = [name for name in given if getattr(read, name) == getattr(defaults, name)]
    assert not same, f"{path.name} repeats defaults: {same}"


def test_every_stage_has_its_params_file():
    stages = {"demo", "simple", "lrf_head", "head", "lrf_full", "full", "focal", "smoothing"}
    assert {path.stem for path in (ROOT / "params").glob("*.yaml")} >= stages


@pytest.mark.parametrize("name", ["focal", "smoothing"])
def test_a_params_file_of_an_earlier_version_is_full_yaml_with_an_overlay(name, capsys):
    from ruamel.yaml import YAML

    def values(*names: str) -> dict:
        files = [(ROOT / "params" / f"{name}.yaml").read_text(encoding="utf-8") for name in names]
        return {name: value for file in files for name, value in YAML(typ="safe").load(file).items()}

    assert set(values(name)) == {"experiment_name", "loss", "loss_kwargs"}
    wanted = config.read_parameters(values("full", name))
    assert not capsys.readouterr().out
    assert config.read_parameters(values(f"full_{name}")) == wanted
    assert f"Give -f params/full.yaml -f params/{name}.yaml instead." in capsys.readouterr().out


@pytest.mark.parametrize("path", [*CHAPTERS, *JOBS, ROOT / "nbs" / "index.ipynb"], ids=lambda path: path.stem)
def test_notebooks_are_small_and_name_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r"/(root|home|work|Users)/\w|/tmp/\w|/site-packages/", text), "a path of one machine"


def test_no_server_is_opened_to_the_network():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "jupyter lab --ServerApp.ip=127.0.0.1 " in text and text.count("ip=") == 1
    served = json.loads((ROOT / "voila.json").read_text(encoding="utf-8"))
    assert served["Voila"]["ip"] == "127.0.0.1"


@pytest.mark.parametrize("path", [path for path in OTHERS if path not in JOBS], ids=lambda path: path.stem)
def test_a_study_is_thin_and_its_parameters_are_the_schema(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    schema = getattr(importlib.import_module(f"bench.{path.stem}"), path.stem.title().replace("_", "") + "Params")
    given: dict = {}
    exec(code[0], given)
    assert {name: value for name, value in given.items() if not name.startswith("__")} == schema().model_dump()
    assert not any(line.startswith(("def ", "class ")) for cell in code for line in cell.splitlines())
