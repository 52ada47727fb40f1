"""The benchmark: what it measures, what it keeps, and what its tables say."""

import json
import runpy
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import setuptools
from conftest import ROOT

from bench import measure, processes
from bench.competitors.work import read_work
from bench.measure import run_bench
from bench.params import BenchParams
from bench.plots import plot_bench
from bench.results import ratio_table, stages_table, targets_table, write_results
from postergenre.errors import ConfigError

SMOKE = BenchParams(contenders=["postergenre"])


@pytest.fixture(scope="module")
def bench_runs(tmp_path_factory):
    "A runs folder of the benchmark, so that its demo posters are drawn once."
    folder = tmp_path_factory.mktemp("bench_runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNS_PATH", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("ROOT_PATH", raising=False)
        yield folder


@pytest.fixture
def started(bench_runs, monkeypatch) -> list[str]:
    "Stands in for the processes of the jobs: each writes made-up results at once. Returns the jobs that were started."
    jobs = []

    def do(command: list[str], **options) -> subprocess.CompletedProcess:
        contender, job, work, result = command[-4:]
        jobs.append(f"{job} {contender}")
        np.save(Path(result).with_name("valid_scores.npy"), np.zeros(read_work(Path(work)).targets("valid").shape))
        moments = {name: time.time() for name in ("imported", "first_step", "done")}
        Path(result).write_text(json.dumps({**moments, "stages": {}, "posters_per_second": 10.0}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(measure, "subprocess", SimpleNamespace(run=do))
    monkeypatch.setattr(measure, "fingerprint", lambda params: params.model_dump(mode="json", include={"batch_size"}))
    return jobs


def text_in(params: BenchParams) -> str:
    return (measure.runs_path() / params.experiment_name / "bench.md").read_text().strip()


def written(params: BenchParams, table: pd.DataFrame) -> str:
    write_results(params, table, ratio_table(table), targets_table(table))
    return text_in(params)


def test_this_project_does_its_jobs_and_the_limits_are_measured(bench_runs, command, environment, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- benchmark -->\nearlier results\n<!-- end of benchmark -->\n")
    params = SMOKE.model_copy(update={"readme": str(readme)})
    line = command("bench", "bench", contenders=params.contenders, readme=params.readme)
    env = {**environment, "RUNS_PATH": str(bench_runs)}
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert text_in(params) in readme.read_text() and "earlier results" not in readme.read_text()
    measured = {path: path.stat().st_mtime_ns for path in bench_runs.rglob("measured.json")}
    table = run_bench(params)
    assert measured and {path: path.stat().st_mtime_ns for path in measured} == measured  # the table is that of the job
    jobs = set(zip(table["job"], table["contender"], strict=True))
    both = {(job, contender) for job in ("finetune", "predict") for contender in ("postergenre", "limit")}
    assert jobs == both | {("head", "postergenre"), ("decode", "limit")} and len(table) == 6
    assert (table["wall_seconds"] > 0).all() and table.loc[table["job"] != "head", "posters_per_second"].gt(0).all()
    assert table.loc[table["job"] == "head", "macro_ap"].between(0, 1).all()
    assert table["max_difference_to_fp32"].dropna().lt(0.02).all()
    assert list(pd.read_csv(bench_runs / params.experiment_name / "bench.csv")["job"]) == list(table["job"])
    stages = stages_table(table)
    assert list(stages.index) == ["head stage", "fine-tuning epoch"]
    assert (stages["start, imports"] > 0).all() and (stages["start, imports"] <= stages["to the first step"]).all()
    assert "Measured in one run" in text_in(params) and "| head stage | postergenre |" in text_in(params)
    work = read_work(bench_runs / params.experiment_name / "work")
    assert len(work.paths("train")) == SMOKE.n_posters and not set(work.paths("train")) & set(work.paths("valid"))
    if work.device == "cpu":  # where predictions are computed in float32
        assert set(table.loc[table["job"] == "predict", "precision"]) == {"fp32"}


def test_finished_jobs_are_kept_and_a_stopped_one_starts_again(bench_runs, started):
    params = SMOKE.model_copy(update={"experiment_name": "kept"})
    table = run_bench(params)
    everything = list(started)
    assert len(everything) == 6 and run_bench(params)["sitting"].equals(table["sitting"]) and started == everything
    place = bench_runs / "kept" / "results" / "finetune_postergenre_0"
    (place / "measured.json").unlink()  # as if it had been stopped there
    (place / "left").touch()
    again = run_bench(params)
    assert started == [*everything, "finetune postergenre"] and not (place / "left").exists()
    assert (again["sitting"] != table["sitting"]).sum() == 1 and "Measured in several runs" in written(params, again)


def test_results_of_other_work_are_kept_apart(bench_runs, started):
    params = SMOKE.model_copy(update={"experiment_name": "apart"})
    run_bench(params)
    other = params.model_copy(update={"batch_size": 8, "jobs": ["head"]})
    with pytest.raises(ConfigError, match="batch_size was 16, now 8"):
        run_bench(other)
    table = run_bench(other.model_copy(update={"overwrite": True}))
    assert set(table["job"]) == {"head", "decode"} and read_work(bench_runs / "apart" / "work").batch_size == 8


def test_other_code_is_another_fingerprint_and_a_choice_of_jobs_is_not(tmp_path, monkeypatch):
    monkeypatch.delenv("ROOT_PATH", raising=False)
    monkeypatch.setattr(measure, "PROJECT", tmp_path)
    files = [tmp_path / "bench" / "competitors" / "a.py", tmp_path / "postergenre" / "data" / "b.py"]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    before = measure.fingerprint(SMOKE)
    assert measure.fingerprint(SMOKE.model_copy(update={"jobs": ["head"], "repeats": 3})) == before
    assert measure.fingerprint(SMOKE.model_copy(update={"seed": 1})) != before
    for file in files:
        file.write_text("changed")
        now = measure.fingerprint(SMOKE)
        assert now["code"] != before["code"]
        before = now


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"jobs": ["predict"]}, "predict needs the model"),
        ({"contenders": ["fastai"], "jobs": ["head"]}, "bench/peers.txt"),
        ({"experiment_name": "a_run", "overwrite": True}, "holds something that is no benchmark"),
    ],
)
def test_what_cannot_be_measured_is_refused(changed, words, bench_runs, started):
    (bench_runs / "a_run").mkdir(exist_ok=True)
    (bench_runs / "a_run" / "summary.json").touch()
    with pytest.raises(ConfigError, match=words):
        run_bench(SMOKE.model_copy(update={"experiment_name": "refused", **changed}))
    assert not started and (bench_runs / "a_run" / "summary.json").exists()


@pytest.fixture
def made_up() -> pd.DataFrame:
    rows = [
        {"job": "head", "contender": "postergenre", "wall_seconds": 2.0, "macro_ap": 0.5},
        {"job": "head", "contender": "fastai", "wall_seconds": 60.0, "macro_ap": 0.4},
        {"job": "predict", "contender": "postergenre", "posters_per_second": 60.0, "max_difference_to_fp32": 0.01},
        {"job": "predict", "contender": "fastai", "posters_per_second": 10.0},
        *({"job": "finetune", "contender": "postergenre", "posters_per_second": speed} for speed in (10.0, 30.0, 20.0)),
        {"job": "finetune", "contender": "torch", "posters_per_second": 16.0},
        {"job": "finetune", "contender": "fastai", "posters_per_second": 10.0},
        {"job": "finetune", "contender": "limit", "posters_per_second": 25.0},
    ]
    return pd.DataFrame(rows).assign(precision="fp32", sitting="one")


def test_the_ratios_are_of_medians(made_up):
    shown = ratio_table(made_up)
    assert shown["ours is faster by"].tolist() == ["", "30.0", "", "6.0", "", "1.2", "2.0", ""]
    assert shown["share of the limit"].tolist() == ["", "", "", "", "0.80", "0.64", "0.40", ""]
    assert shown["posters/s"].iloc[4] == "20.0 (10.0 to 30.0)"


@pytest.mark.parametrize("gpu", [False, True])
def test_targets_are_met_only_if_the_conditions_hold(gpu, made_up, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)

    def judge(**changed) -> pd.DataFrame:
        values = made_up.copy()
        for column, value in changed.items():
            values.loc[values["contender"] == "postergenre", column] = value
        return targets_table(values).set_index(["job", "against"])[["target", "reached", "met"]]

    reached = judge()
    head, tuning, folder = "head stage", "fine-tuning epoch", "predicting a folder"
    assert reached.loc[(head, "fastai")].tolist() == [10.0 if gpu else 30.0, 30.0, True]
    assert reached.loc[(tuning, "limit")].tolist() == [0.9 if gpu else 0.95, 0.8, False]
    assert reached.loc[(folder, "fastai")].tolist() == [3.0 if gpu else 5.0, 6.0, True]
    if gpu:
        assert reached.loc[(tuning, "fastai")].tolist() == [2.5, 2.0, False]
    else:
        assert reached.loc[(tuning, "best competitor")].tolist() == [1.4, 1.25, False]
    assert judge(macro_ap=0.39).loc[(head, "fastai")].tolist()[1:] == [30.0, False]  # fast, but worse
    assert not judge(max_difference_to_fp32=0.021).loc[(folder, "fastai"), "met"]
    assert not judge(sitting="another").loc[(head, "fastai"), "met"]  # the other side was measured on another day
    assert judge(start_seconds=16.0)["met"].iloc[-1] == gpu  # 15 seconds on a CPU, 20 on a GPU


def test_the_plot_has_a_panel_per_job_and_the_limit_as_a_line(made_up):
    axes = plot_bench(made_up).axes
    assert [axis.get_title() for axis in axes] == ["head stage", "predicting a folder", "fine-tuning epoch"]
    bars = [[label.get_text() for label in axis.get_yticklabels()] for axis in axes]
    assert bars[2] == ["fastai", "torch", "postergenre"] and [bool(axis.get_legend()) for axis in axes] == [0, 0, 1]


def test_the_benchmark_is_not_installed(monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **settings: given.update(settings))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    assert given["packages"] and {name.split(".")[0] for name in given["packages"]} == {"postergenre"}
    assert "bench" in setuptools.find_packages()  # it would be, if it were not left out


def test_two_processes_are_compared_with_one():
    both = [("one", 10.0, 0.3), ("two", 12.0, 0.2), ("one", 8.0, 0.4), ("two", 15.0, 0.5)]
    rows = [dict(zip(("setting", "posters_per_second", "macro_ap"), row, strict=True)) for row in both]
    table = processes.summarize(rows)
    assert list(table.index) == ["one", "two"] and table["factor"].tolist() == [1.0, 1.5]
    assert table["macro_ap_lowest"].tolist() == [0.3, 0.2] and table["rounds"].tolist() == [2, 2]
