"""workflow/Snakefile: its commands are those of the README, and only what has changed runs again.

They need Snakemake on the PATH, or its program in the environment variable SNAKEMAKE; its environment may be its own.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import BIN, ROOT
from test_sweep import write_sweep

SNAKEMAKE = os.environ.get("SNAKEMAKE") or shutil.which("snakemake")
pytestmark = pytest.mark.skipif(not SNAKEMAKE, reason="no Snakemake on this machine; see the extra `workflow`")


class Workflow:
    "Snakemake in a project folder of its own, whose lock and records are no one else's."

    def __init__(self, folder: Path, environment: dict[str, str], runs: Path):
        self.folder, self.runs = folder, runs
        folder.mkdir()
        for name in ("nbs", "params", "workflow"):
            (folder / name).symlink_to(ROOT / name)
        path = f"{BIN}:{os.environ['PATH']}"
        self.env = {**environment, "RUNS_PATH": str(runs), "PATH": path, "PYTHONPATH": str(ROOT)}

    def start(self, *line: str) -> subprocess.Popen:
        command = [SNAKEMAKE, "--profile", "workflow/profiles/local", *line]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.env, start_new_session=True, **pipes)

    def run(self, *line: str, code: int = 0) -> str:
        process = self.start(*line)
        output = process.communicate(timeout=900)[0]
        assert process.returncode == code, output[-4000:]
        return output

    def planned(self, *line: str) -> dict[str, int]:
        "Return how many jobs of each rule a dry run lists."
        output = self.run("--dry-run", *line)
        counts = re.findall(r"^(\w+) +(\d+)$", output, re.M)
        return {rule: int(count) for rule, count in counts if rule != "total"}


@pytest.fixture(scope="module")
def workflow(tmp_path_factory, environment) -> Workflow:
    folder = tmp_path_factory.mktemp("workflow")
    return Workflow(folder / "project", environment, folder / "runs")


@pytest.fixture(scope="module")
def sweep(workflow) -> list[str]:
    "The options of a sweep of three variants, one of which fails."
    axes = {"setting": {"base": {}, "fast": {"optimizer_kwargs": {"lr": 0.1}}, "huge": {"batch_size": 4096}}}
    file = write_sweep(workflow.folder.parent, "three", axes=axes, seeds=[1], runs_per_job=2)
    return ["--config", f"sweep={file}", "--", "sweep"]


def test_each_rule_runs_the_command_of_the_readme(workflow):
    output = workflow.run("--dry-run", "--config", "images=FOLDER", "n_shards=2")
    commands = [shlex.split(line) for line in re.findall(r"^Shell command: (papermill .*)", output, re.M)]
    stages, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("## More than one GPU")
    wanted = [shlex.split(line)[1:] for line in stages.splitlines() if line.startswith("papermill ")]
    assert len(wanted) == 9
    for notebook, _, *options in wanted:
        own = [c for c in commands if c[1] == notebook and all(word in c for word in options if ".yaml" in word)]
        assert own, f"no rule runs {notebook} {options}"
    jobs = workflow.planned("--config", "images=FOLDER", "n_shards=2")
    assert jobs.pop("predict") == 2 and set(jobs.values()) == {1}
    assert set(jobs) == {"audit", "lrf_head", "head", "lrf_full", "full", "average", "evaluate", "export", "gather",
                         "pipeline"}  # fmt: skip


def test_names_and_params_files_can_be_added(workflow):
    output = workflow.run("--dry-run", "--config", "prefix=demo_", "overlays=params/demo.yaml")
    (full,) = re.findall(r"^Shell command: (papermill nbs/train.ipynb \S+demo_full.ipynb .*)", output, re.M)
    assert "-f params/full.yaml -f params/demo.yaml -r experiment_name demo_full -r checkpoint_name demo_head" in full


def test_later_stages_take_from_the_overlays_what_is_theirs(workflow):
    overlay = workflow.folder / "overlay.yaml"
    overlay.write_text("text: true\nswa_method: greedy\nexport_precision: int8\nbatch_size: 8\n")
    output = workflow.run("--dry-run", "--config", f"overlays={overlay}")
    wanted = {
        "swa": {"swa_method": "greedy"},
        "evaluate": {"text": True},
        "to_torchscript": {"text": True, "export_precision": "int8"},
    }
    for notebook, values in wanted.items():
        (line,) = re.findall(rf"^Shell command: (papermill nbs/{notebook}.ipynb .*)", output, re.M)
        words = shlex.split(line)
        assert json.loads(words[words.index("-y") + 1]) == values, line


def test_a_sweep_refuses_settings_that_it_would_ignore(workflow, sweep):
    option, setting, *target = sweep
    output = workflow.run("--dry-run", option, setting, "data=mine.yaml", *target, code=1)
    assert "a sweep does not use data. Its base in" in output


def test_another_list_of_images_is_predicted_again(tmp_path):
    from postergenre.sweep.jobs import describe_jobs

    images = tmp_path / "images.txt"
    found = []
    for name in ("a.jpg", "another.jpg"):
        images.write_text(f"{name}\n")
        found.append(describe_jobs(images=str(images))["images"])
    assert found[0] != found[1] and describe_jobs(images="s3://bucket/posters")["images"] == "s3://bucket/posters"


def test_a_job_on_another_machine_is_planned_once(workflow, tmp_path, monkeypatch):
    "Slurm's jobs read the Snakefile twice each; only the first Snakemake may look at all files of the data folder."
    workflow.run("--dry-run")
    report = max((workflow.folder / ".snakemake" / "jobs").glob("*.json"), key=os.path.getmtime)
    other = tmp_path / "report.json"
    other.write_text(json.dumps({**json.loads(report.read_text()), "runs": "elsewhere"}))
    monkeypatch.setitem(workflow.env, "POSTERGENRE_JOBS", str(other))
    assert "elsewhere/full.ipynb" in workflow.run("--dry-run", "--mode", "remote")
    assert "elsewhere" not in workflow.run("--dry-run")


def test_a_mistake_in_a_sweep_ends_it_before_the_first_job(workflow):
    file = write_sweep(workflow.folder.parent / "wrong", "wrong", axes={"batch_size": [8, 0]})
    output = workflow.run("--config", f"sweep={file}", "--", "sweep", code=1)
    assert "sweep.yaml: axis `batch_size`, value 0 cannot be used" in output and "Traceback" not in output
    assert not (workflow.runs / "wrong").exists()


def test_a_sweep_that_was_killed_resumes_and_runs_once(workflow, sweep):
    assert workflow.planned(*sweep) == {"sweep_data": 1, "sweep_part": 2, "sweep_outcome": 1, "sweep": 1}
    process, begun = workflow.start(*sweep), time.monotonic()
    while not list((workflow.runs / "three" / "rows").glob("*.json")):
        assert process.poll() is None and time.monotonic() - begun < 600, process.communicate()[0][-4000:]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    # the part of the variant that fails may be complete, the other is not
    assert len(list((workflow.runs / "three" / "parts").glob("*.json"))) < 2
    workflow.run("--unlock", *sweep)
    output = workflow.run(*sweep)
    assert "4 of 4 steps" in output or "5 of 5 steps" in output or "3 of 3 steps" in output
    table = pd.read_csv(workflow.runs / "three" / "outcome.csv").set_index("setting")
    assert table["state"].to_dict() == {"base": "finished", "fast": "finished", "huge": "failed"}
    assert "given 4,096" in table.loc["huge", "message"]
    assert "steps (100%) done\n1 of 3 variants failed; their messages are in " in output, output[-1500:]
    assert not list(workflow.runs.glob("three.*/test_predictions.csv"))
    assert workflow.planned(*sweep) == {}


def test_only_what_has_changed_runs_again(workflow, sweep):
    file = Path(sweep[1].removeprefix("sweep="))
    file.write_text("# a comment\n" + file.read_text())
    assert workflow.planned(*sweep) == {}
    before = file.read_text()
    file.write_text(before.replace("lr: 0.1", "lr: 0.05"))
    assert workflow.planned(*sweep) == {"sweep_part": 1, "sweep_outcome": 1, "sweep": 1}
    file.write_text(before)


def test_parts_of_a_prediction_are_one_data_set(workflow, chain, environment, tmp_path):
    other = Workflow(tmp_path / "project", environment, chain)
    images, table = chain / "demo_posters_200" / "Images", tmp_path / "scores.parquet"
    settings = ["--config", f"images={images}", f"output={table}", "n_shards=3"]
    target = ["--allowed-rules", "predict", "gather", "--", str(chain / "predictions.json")]
    other.run(*settings, *target)
    found = json.loads((chain / "predictions.json").read_text())
    assert found == {"output": "scores.parquet", "rows": 200, "files": 3, "parts": 3}
    rows = pd.read_parquet(table)
    assert list(rows["path"]) == sorted(path.name for path in images.iterdir()) and not rows["error"].any()
    assert other.planned(*settings, *target) == {}
