"""The commands of the README and of docs/ are real, and the results are a table of `report.comparison`.

Whether the figures are those of a run, no test can tell: that takes real posters.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pandas as pd
from conftest import ROOT, SMALL
from ruamel.yaml import YAML
from test_project import SCHEMAS

from postergenre.config import make_params, read_params_file
from postergenre.params import AuditParams, EvaluateParams, Params, RunJobParams
from postergenre.paths import write_json
from postergenre.report.comparison import markdown, results_table
from postergenre.report.outcome import describe_outcome

README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCH_README = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
DOCS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
STAGES, PROCESSES = README.split("## More than one GPU")
COMMANDS, OTHER_COMMANDS = (
    [shlex.split(line) for line in text.splitlines() if line.startswith("papermill ")]
    for text in (STAGES, "\n".join([PROCESSES, BENCH_README, *DOCS.values()]))
)


def check_command(command: list[str]) -> None:
    "Check that notebook, params files and parameters exist."
    notebook = ROOT / command[1]
    assert notebook.is_file(), notebook
    schema = SCHEMAS.get(notebook.stem, Params)
    # a job on a finished run takes the parameters of its training too
    known = {*schema.model_fields, *(Params.model_fields if issubclass(schema, RunJobParams) else ())}
    for flag, value in zip(command, command[1:], strict=False):
        if flag == "-f":
            read_params_file(ROOT / value, schema)
        if flag in ("-p", "-r"):
            assert value in known, value
        if flag == "-y":
            assert set(YAML(typ="safe").load(value)) <= known, value


def test_the_commands_name_notebooks_params_and_parameters_that_exist():
    assert len(COMMANDS) == 9 and len(OTHER_COMMANDS) >= 6
    for command in COMMANDS + OTHER_COMMANDS:
        check_command(command)


def test_the_command_that_checks_a_params_file_says_where_a_tab_is(tmp_path):
    (code,) = re.findall(r'`python -c "(import postergenre[^"]+)"`', DOCS["stages"])
    (tmp_path / "tab.yaml").write_text("n_epochs: 3\n\tseed: 1\n")
    printed = []
    for file in ("params/full.yaml", str(tmp_path / "tab.yaml")):
        command = [sys.executable, "-c", code.replace("params/full.yaml", file)]
        printed.append(subprocess.run(command, cwd=ROOT, capture_output=True, text=True))
    assert printed[0].returncode == 0 and "experiment_name='full'" in printed[0].stdout, printed[0].stderr
    assert printed[1].returncode == 1 and "tab.yaml is not valid YAML" in printed[1].stderr
    assert "'\\t' that cannot start any token" in printed[1].stderr and "line 2" in printed[1].stderr


def test_the_commands_that_jobs_print_exist_too(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(tmp_path))
    valid = {"macro_ap": 0.4, "macro_ap_floor": 0.1}
    facts = {"valid": valid, "test": valid, "split": "valid", "metrics": {}}
    data = {"root_path": "/my posters", "split_fractions": [0.7, 0.2, 0.1], "genre_separator": None}
    head = make_params({**data, "callbacks": ["freeze"], "keep": "averaging", "model_kwargs": {"window_size": 7}})
    jobs = {
        "audit": make_params(data, AuditParams),
        "lr_find": make_params({**data, "checkpoint_name": "007"}),
        "train": head,
        "swa": head,
        "ensemble": head,
        "evaluate": make_params({"text": True, "weights": "swa", "threshold_rule": "precision"}, EvaluateParams),
        "to_torchscript": head,
    }
    seen = set()
    for job, params in jobs.items():
        for name in ("lrf_head", "lrf_full", "my_run"):
            folder = tmp_path / name
            for file in ("summary.json", "evaluation.json"):
                write_json(folder / file, facts)
            lines = describe_outcome(job, folder, params).splitlines()
            commands = [shlex.split(line.partition(": ")[2]) for line in lines if line.startswith("Next")]
            assert commands, job
            for command in commands:
                seen.add(command[1])
                if command[0] == "papermill":
                    check_command(command)
    assert {f"nbs/{name}.ipynb" for name in ("lr_find", "train", "swa", "evaluate", "predict")} <= seen


def test_the_stages_come_in_their_order():
    jobs = [command[1].removeprefix("nbs/").removesuffix(".ipynb") for command in COMMANDS]
    assert jobs == "audit lr_find train lr_find train swa evaluate to_torchscript predict".split()


def test_the_other_commands_do_what_is_printed(chain, as_printed, tmp_path):
    "What the chain leaves out: the audit, the evaluation and a prediction, on a copy of the run."
    shutil.copytree(chain / "full", tmp_path / "full")
    (tmp_path / "demo_posters_200").symlink_to(chain / "demo_posters_200")
    images = tmp_path / "five"
    images.mkdir()
    for path in sorted((chain / "demo_posters_200" / "Images").iterdir())[:5]:
        shutil.copy(path, images)
    audit, evaluation, prediction = (COMMANDS[number] for number in (0, 6, 8))
    small = {name: SMALL[name] for name in ("n_demo_posters", "min_positives", "split_fractions")}
    as_printed(audit, tmp_path, **small)
    as_printed(evaluation, tmp_path)
    assert (tmp_path / "full" / "report.html").is_file()
    as_printed([str(images) if word == "FOLDER" else word for word in prediction], tmp_path)
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 5


def test_make_knows_the_targets():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"`make (\w+)|^make (\w+)", README + BENCH_README + "".join(DOCS.values()), re.M))
    named = {one or other for one, other in named}
    assert {"demo", "test", "bench", "lab", "book", "tidy", "app"} <= named <= targets


def test_jupyterlab_opens_at_the_projects_root_so_that_links_to_runs_work():
    lab = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlab:")[1].split("\n\n")[0]
    assert "--ServerApp.root_dir='$(CURDIR)'" in lab and "--LabApp.default_url=/lab/tree/nbs/index.ipynb" in lab


def test_the_front_page_is_short_and_its_links_lead_somewhere():
    assert len(README.split()) < 900
    for name, text in {"README": README, **{f"docs/{name}": text for name, text in DOCS.items()}}.items():
        for address in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (ROOT / name).parent.joinpath(address).exists(), f"{name}.md links to {address}"


def test_the_result_on_the_front_page_is_that_of_the_results():
    sentence = README.split("**macro AP of ")[1].split("\n\n")[0]
    value, low, high, words, floor = re.findall(r"0\.\d{3}", sentence)
    assert f"end at {value} ({low} to {high}) on the same test posters" in DOCS["results"]
    assert f"from {value} to {words} (" in DOCS["results"] and f" | {floor} | 14 of 23 |" in DOCS["results"]


def test_the_results_are_a_table_as_the_report_writes_it(tmp_path):
    name = "results on real posters"
    part = DOCS["results"].split(f"<!-- {name} -->\n")[1].split(f"\n<!-- end of {name} -->")[0]
    header, _, *rows = [line.strip("| ").split(" | ") for line in part.splitlines()]
    table = pd.DataFrame(rows, columns=header).set_index("run")
    assert markdown(table) == part
    (tmp_path / "lrf").mkdir()
    summary = {"job": "lr_find", "suggestion": {"words": ""}}
    (tmp_path / "lrf" / "summary.json").write_text(json.dumps(summary))
    assert list(table) == list(results_table(["lrf"], tmp_path))
    for split in ("valid", "test"):
        for cell, floor in zip(table[f"{split} macro AP"], table[f"{split} no skill"], strict=True):
            value, low, high = map(float, re.fullmatch(r"(0\.\d{3}) \((0\.\d{3}) to (0\.\d{3})\)", cell).groups())
            assert float(floor) < low <= value <= high, cell


def test_the_demo_uses_its_own_posters_and_fails_where_it_does_not_learn():
    demo = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndemo:")[1].split("\n\n")[0]
    assert "unset ROOT_PATH RUNS_PATH" in demo.splitlines()[1]
    assert "sys.exit(shortfall('demo_full', 0.8, 0.3))" in demo


def test_the_files_named_are_those_that_a_run_leaves(chain):
    named = set(
        re.findall(
            r"`([\w.]+\.(?:csv|json|yaml|pth|ts|pt2|onnx))`", DOCS["stages"].split("## Output files")[1].split("##")[0]
        )
    )
    made = {path.name for stage in ("full", "lrf_full") for path in (chain / stage).iterdir()}
    elsewhere = {"thresholds.json", "evaluation.json"}  # tests/test_evaluate.py sees them written
    elsewhere |= {
        "model.int8.onnx",
        "ensemble.json",
        "model.ensemble.pth",
    }  # test_int8, test_ensemble
    assert named <= made | elsewhere, named - made


def test_the_lines_of_python_do_what_they_say(tmp_path):
    lines = README.split("```python\n")[1].split("```")[0]
    assert len([line for line in lines.splitlines() if line and not line.startswith("import")]) == 5
    inherited = {name: value for name, value in os.environ.items() if name != "ROOT_PATH"}
    env = {**inherited, "RUNS_PATH": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "genres.csv")
    assert len(table) == 200 and table["error"].isna().all() and table["Drama"].between(0, 1).all()
    assert "demo0000.jpg" in done.stdout and (tmp_path / "runs" / "first" / "model.ts").is_file()


def test_memory_stays_flat_over_epochs(runs, monkeypatch):
    import psutil

    from postergenre.train.loop import seed_epoch, train_epoch
    from postergenre.train.setup import create_run

    monkeypatch.setenv("RUNS_PATH", str(runs))
    monkeypatch.delenv("ROOT_PATH", raising=False)
    small = {"n_demo_posters": 200, "img_size": [64, 48], "batch_size": 16, "num_workers": 0, "min_positives": 3,
             "split_fractions": [0.6, 0.2, 0.2], "model_name": "test_efficientnet", "pretrained": False}  # fmt: skip
    run = create_run(make_params(small), runs / "memory")
    used = []
    for _ in range(12):
        seed_epoch(run)
        train_epoch(run)
        used.append(psutil.Process().memory_info().rss / 2**20)
    assert max(used[6:]) - used[3] < 60, used
