"""What the tests share: a runs folder, papermill as a user calls it, and one whole chain at small scale."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

# a few seconds a stage on one core, and still enough positives to choose a checkpoint by
SMALL = {
    "n_demo_posters": 200,
    "img_size": [64, 48],
    "batch_size": 16,
    "num_iteration_on_epoch": 4,
    "n_epochs": 3,
    "num_workers": 0,
    "min_positives": 3,
    "split_fractions": [0.6, 0.2, 0.2],
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    "A runs folder that all tests share, so that demo posters are drawn once."
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def environment(runs) -> dict[str, str]:
    "The environment of a job: the shared runs folder, no data folder, one thread."
    inherited = {name: value for name, value in os.environ.items() if name != "ROOT_PATH"}
    return {**inherited, "RUNS_PATH": str(runs), "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}


@pytest.fixture(scope="session")
def command(runs):
    "The papermill command line of a job: parameters of a file, then those of a dict."

    def build(job: str, notebook: str, params_file: str | None = None, **values) -> list[str]:
        line = [str(BIN / "papermill"), "--no-progress-bar", f"nbs/{job}.ipynb", str(runs / f"{notebook}.ipynb")]
        if params_file:
            line += ["-f", f"params/{params_file}.yaml"]
        return line + ["-y", repr(values)] if values else line

    return build


@pytest.fixture(scope="session")
def papermill(command, environment):
    "Runs a job as a user does, from the project's root; returns the finished process."

    def run(job: str, notebook: str, params_file: str | None = None, env: dict | None = None, **values):
        return subprocess.run(
            command(job, notebook, params_file, **values),
            cwd=ROOT,
            env={**environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture(scope="session")
def chain(papermill, runs) -> Path:
    "The stages of the README, in that order, with the project's params files at small scale; returns the runs folder."
    stages = [
        ("lr_find", "lrf_head", "lrf_head", {"experiment_name": "lrf_head", "lrf_iterations": 14}),
        ("train", "head", "head", {}),
        ("lr_find", "lrf_full", "lrf_full", {"experiment_name": "lrf_full", "lrf_iterations": 14}),
        ("train", "full", "full", {}),
        ("swa", "full_swa", "full", {}),
        ("to_torchscript", "full_ts", "full", {}),
    ]
    for job, output, params_file, values in stages:
        done = papermill(job, output, params_file, **{**SMALL, **values})
        assert done.returncode == 0, f"{job} -f params/{params_file}.yaml:\n{done.stderr[-3000:]}"
    return runs
