"""The house: chapters stand on lower ones, jobs are thin, notebooks are small and say nothing of one machine."""

import ast
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT

from postergenre import config

CHAPTERS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
JOBS = sorted(path for path in (ROOT / "nbs").glob("*.ipynb") if not path.name[0].isdigit())
SCHEMAS = {"predict": config.PredictParams, "pick_lr": config.PickParams, "bench": config.BenchParams,
           "compare": config.CompareParams, "explore": config.ExploreParams, "evaluate": config.EvaluateParams,
           "try_it": config.TryParams, "audit": config.AuditParams, "swa": config.SwaParams,
           "to_torchscript": config.ExportParams}  # fmt: skip


def cells(path: Path, kind: str) -> list[dict]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"] if cell["cell_type"] == kind]


def imports(source: str) -> set[str]:
    "The project's modules that a module imports."
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("postergenre")):
            found.add((node.module or "").removeprefix("postergenre").strip(".").split(".")[0])
    return found - {""}


def test_a_chapter_imports_from_lower_numbers_only():
    floor = {path.stem[3:]: int(path.stem[:2]) for path in CHAPTERS}
    assert len(floor) >= 15
    for name, number in floor.items():
        for imported in imports((ROOT / "postergenre" / f"{name}.py").read_text(encoding="utf-8")):
            assert floor[imported] < number, f"{name} ({number}) imports {imported} ({floor[imported]})"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_opens_with_title_and_purpose_and_tests_what_it_defines(path):
    title = cells(path, "markdown")[0]["source"].splitlines()
    assert title[0].startswith("# ") and title[1].startswith("> ")
    code = [cell["source"] for cell in cells(path, "code")]
    exported = [source for source in code if "#| export" in source]
    assert exported and all(source.count("\n") <= 60 for source in exported)
    assert any(re.search(r"^\s*(assert |test_)", source, re.M) for source in code)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_is_thin_and_its_parameters_are_the_schema(path):
    code = cells(path, "code")
    tagged = [cell["source"] for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1 and code[0]["source"] == tagged[0]
    assert not any(re.search(r"^\s*(def|class) ", cell["source"], re.M) for cell in code)
    schema = SCHEMAS.get(path.stem, config.Params)
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
        name: field.description for name, field in config.Params.model_fields.items()
    }


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda path: path.stem)
def test_params_files_load_and_hold_only_what_differs(path):
    from ruamel.yaml import YAML

    given = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    schema = SCHEMAS.get(path.stem, config.Params)
    params, defaults = config.read_params_file(path, schema), schema()
    given.pop("deprecated", None)
    same = [name for name in given if getattr(params, name) == getattr(defaults, name)]
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


@pytest.mark.parametrize("path", CHAPTERS + JOBS, ids=lambda path: path.stem)
def test_notebooks_are_small_and_name_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r"/(root|home|work|Users)/\w|/tmp/\w|/site-packages/", text), "a path of one machine"


def test_no_server_is_opened_to_the_network():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "jupyter lab --ServerApp.ip=127.0.0.1 " in text and text.count("ip=") == 1
    served = json.loads((ROOT / "voila.json").read_text(encoding="utf-8"))
    assert served["Voila"]["ip"] == "127.0.0.1"
