"""The wheel: what is in it, and what a user who has nothing else can do."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, SMALL
from test_project import JOBS, SCHEMAS

from postergenre.new import project_files
from postergenre.params import Params

README = (ROOT / "postergenre" / "templates" / "project_readme.md").read_text(encoding="utf-8")
SECTIONS = {text.splitlines()[0]: text for text in README.split("\n## ")}
SOURCES = "setup.py settings.ini pyproject.toml MANIFEST.in README.md LICENSE voila.json".split()
SOURCES += ["postergenre", "nbs", "params", "workflow"]
TINY = {**SMALL, "n_demo_posters": 120, "n_epochs": 2, "model_name": "test_efficientnet", "pretrained": False}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
WHERE = """
import importlib.metadata
import jupyter_client.kernelspec, postergenre
(engine,) = importlib.metadata.entry_points(group="papermill.engine", name="postergenre")
print(postergenre.__file__)
print(engine.dist.locate_file("."))
print(jupyter_client.kernelspec.KernelSpecManager().get_kernel_spec("python3").argv[0])
"""


def commands(section: str) -> list[list[str]]:
    return [shlex.split(line) for line in SECTIONS[section].splitlines() if line.startswith("papermill ")]


def succeed(line: list[str], **options) -> subprocess.CompletedProcess:
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{line}:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    "A wheel that pip builds from the source distribution of a clean copy."
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "source" / name)
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    succeed([sys.executable, "-c", code], cwd=folder / "source")
    (sdist,) = folder.glob("*.tar.gz")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(sdist)]
    succeed([*PIP, *build], cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> str:
    "The interpreter of an environment with the wheel, and with the packages it needs, but without this project."
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # the project that is installed next to the dependencies has the same version
    options = ["--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    succeed([*PIP, "--python", str(python), "install", *options, str(wheel)])
    return str(python)


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    "The environment of a user who set nothing."
    set_here = ("PYTHONPATH", "RUNS_PATH", "ROOT_PATH", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if name not in set_here}
    return {**inherited, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}


@pytest.fixture(scope="module")
def project(python, env, tmp_path_factory) -> Path:
    "A project made by the installed package."
    folder = tmp_path_factory.mktemp("home")
    said = succeed([python, "-m", "postergenre", "new", "my_posters"], cwd=folder, env=env).stdout
    assert f"Created {folder}/my_posters: {len(JOBS) - 1} notebooks" in said and "Next: cd my_posters\n" in said
    return folder / "my_posters"


def test_a_project_gets_every_job_and_every_params_file_of_use():
    jobs = {f"nbs/{path.name}" for path in JOBS} - {"nbs/bench.ipynb"}  # it needs the folder bench/
    files = {f"params/{path.name}" for path in (ROOT / "params").glob("*.yaml")}
    files -= {f"params/{name}.yaml" for name in ("bench", "full_focal", "full_smoothing")}  # the last two: deprecated
    rules = {str(path.relative_to(ROOT)) for path in (ROOT / "workflow").rglob("*") if path.is_file()}
    assert set(project_files()) == jobs | files | rules | {"voila.json", "README.md", ".gitignore"}


def test_the_wheel_holds_the_project_and_every_template(wheel):
    held = {name.removeprefix("postergenre/") for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in held if name.startswith("project/")} == {
        f"project/{name}" for name in project_files() if name not in ("README.md", ".gitignore")
    }
    templates = {f"templates/{path.name}" for path in (ROOT / "postergenre" / "templates").iterdir()}
    assert len(templates) > 10 and {name for name in held if name.startswith("templates/")} == templates


def test_a_module_that_is_gone_is_not_in_a_later_wheel(wheel, tmp_path):
    source = shutil.copytree(wheel.parent / "source", tmp_path / "source")
    left = source / "build" / "lib" / "postergenre" / "gone.py"  # by an earlier `pip wheel .`
    left.parent.mkdir(parents=True)
    left.touch()
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    succeed([sys.executable, "-c", code], cwd=source)
    (built,) = tmp_path.glob("*.whl")
    assert set(zipfile.ZipFile(built).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_package_engine_and_kernel_are_those_of_the_wheel(python, env, tmp_path):
    places = succeed([python, "-c", WHERE], cwd=tmp_path, env=env).stdout.split()
    home = Path(python).parents[1]
    assert len(places) == 3 and Path(places[0]).is_relative_to(home) and Path(places[1]).is_relative_to(home)
    assert places[2] == python


def test_a_project_is_what_the_repository_has(project):
    for name, source in project_files().items():
        assert (project / name).read_bytes() == source.read_bytes(), name
    assert not any((project / "runs").iterdir())
    assert re.search(r"^/runs/\*$", (project / ".gitignore").read_text(), re.M)


def test_a_folder_with_files_is_left_alone_and_a_wrong_command_gets_the_usage(python, project, env):
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    again = [python, "-m", "postergenre", "new", str(project)]
    done = subprocess.run(again, capture_output=True, text=True, env=env)
    assert done.returncode == 1 and "is not empty; nothing was written" in done.stderr
    assert "Traceback" not in done.stderr and before == {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    done = subprocess.run([python, "-m", "postergenre", "nwe"], capture_output=True, text=True, env=env)
    assert done.returncode == 2 and "usage: python -m postergenre" in done.stderr and "'new'" in done.stderr


def test_the_commands_of_the_readme_run_with_only_the_installed_package(python, project, env):
    first = commands("A first run")
    assert [line[1] for line in first] == [
        f"nbs/{job}.ipynb" for job in ("audit", "train", "evaluate", "to_torchscript", "predict")
    ]
    printed = {}
    for line in first:
        job = Path(line[1]).stem
        extra = ["-y", repr(TINY)] if job == "train" else []
        extra = ["-y", "{n_demo_posters: 120, min_positives: 1}"] if job == "audit" else extra
        line = [word.replace("demo_posters_600", "demo_posters_120") for word in line]
        done = succeed([python, "-m", *line, *extra], cwd=project, env=env)
        printed[job] = done.stdout + done.stderr
    assert re.search(r"Epoch +2", printed["train"], re.I), printed["train"]
    assert "Output files: runs/first/\n" in printed["train"]
    assert "Next: papermill nbs/evaluate.ipynb runs/first_evaluate.ipynb -r experiment_name first" in printed["train"]
    for job, line in {
        "evaluate": "Evaluating runs/first on valid posters.\nScored ",
        "to_torchscript": "Exporting runs/first as TorchScript, torch.export program and ONNX.\n3 of 3 files",
    }.items():
        assert line in printed[job], printed[job]
    for name in ("summary.json", "report.html", "MODEL_CARD.md", "model.ts"):
        assert (project / "runs" / "first" / name).is_file(), name
    assert len((project / "predictions.csv").read_text().splitlines()) == 121
    assert len(list((project / "runs").glob("*.ipynb"))) == len(first)


def test_the_other_commands_name_notebooks_params_and_parameters_that_exist(project):
    lines = [*commands("All stages"), *commands("Your posters"), *commands("Pages")]
    assert len(lines) >= 10
    for line in lines:
        named = [word for word in line if word.startswith(("nbs/", "params/"))]
        assert named and all((project / word).is_file() for word in named), line
        schema = SCHEMAS.get(Path(named[0]).stem, Params)
        given = [value for flag, value in zip(line, line[1:], strict=False) if flag == "-p"]
        assert set(given) <= set(schema.model_fields), line
