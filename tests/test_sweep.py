"""A sweep without Snakemake: a plan that refuses mistakes, runs that fail and resume, a table, and one choice."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SMALL
from ruamel.yaml import YAML
from scipy.special import logit

from bench import study_recipe
from postergenre.config import make_params
from postergenre.data.split import load_split
from postergenre.errors import ConfigError
from postergenre.sweep import runs
from postergenre.sweep.jobs import describe_parts
from postergenre.sweep.outcome import (
    choose_variant,
    describe_choice,
    interval_of,
    measured_variants,
    outcome_table,
    scored_valid_posters,
)
from postergenre.sweep.plan import Plan, make_plan
from postergenre.sweep.runs import row_file, train_part
from postergenre.train.training import train_run

TINY = {**SMALL, "model_name": "test_efficientnet", "pretrained": False, "n_epochs": 2, "feature_views": 1,
        "augmentations": [], "callbacks": [{"freeze": {"parts": ["backbone"]}}]}  # fmt: skip
# the last is more than there are training posters, which only the run itself can find
AXES = {"optimizer_kwargs.lr": [1e-3, 1e-1], "batch_size": {"small": {"batch_size": 16}, "huge": {"batch_size": 4096}}}
KILLED = """
import os, signal, sys
from postergenre.sweep import runs
from postergenre.sweep.plan import make_plan
finalize, count = runs.finalize, []
def die(run):
    count.append(run)
    return finalize(run) if len(count) == 1 else os.kill(os.getpid(), signal.SIGKILL)
runs.finalize = die
plan = make_plan(sys.argv[1])
runs.train_part(plan, plan.runs[0].name)
"""


def write_sweep(folder: Path, name: str = "tiny", file: str = "sweep.yaml", **changes) -> Path:
    "Write a sweep file with its base, and return its path."
    folder.mkdir(exist_ok=True, parents=True)
    content = {"name": name, "base": str(folder / "base.yaml"), "axes": AXES, "seeds": [1, 2], "runs_per_job": 8}
    for path, values in ((folder / "base.yaml", TINY), (folder / file, {**content, **changes})):
        with path.open("w", encoding="utf-8") as opened:
            YAML().dump(values, opened)
    return folder / file


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory) -> Path:
    "A folder for sweep files, whose runs/ is that of this process."
    folder, before = tmp_path_factory.mktemp("sweep"), os.environ.get("RUNS_PATH")
    root = os.environ.pop("ROOT_PATH", None)
    os.environ["RUNS_PATH"] = str(folder / "runs")
    yield folder
    os.environ.pop("RUNS_PATH") if before is None else os.environ.update(RUNS_PATH=before)
    os.environ.update({"ROOT_PATH": root} if root else {})


@pytest.fixture(scope="module")
def trained(place) -> Plan:
    "A sweep whose runs have been trained."
    plan = make_plan(write_sweep(place))
    train_part(plan, plan.runs[0].name)
    return plan


def predictions(run: str) -> pd.DataFrame:
    return pd.read_csv(Path(os.environ["RUNS_PATH"]) / run / "valid_predictions.csv")


def test_a_failed_variant_is_a_row_with_its_message(trained):
    table = outcome_table(trained)
    assert len(table) == 4 and sorted(table["state"]) == ["failed", "failed", "finished", "finished"]
    failed = table[table["state"] == "failed"]
    assert set(failed["batch_size"]) == {"huge"} and failed["message"].str.contains("`batch_size`: given 4,096").all()
    assert failed["macro_ap"].isna().all() and (failed["vs_base"] == "").all()
    good = table[table["state"] == "finished"]
    assert (good["low"] < good["macro_ap"]).all() and (good["macro_ap"] < good["high"]).all()
    assert good.index[0] in good.index[good["vs_best"] == "the best"] and "the base" in set(good["vs_base"])
    assert (good["seconds"] > 0).all()


def test_the_value_is_the_mean_of_the_seeds_and_the_interval_is_wider_than_that_of_posters(trained):
    _, measured = measured_variants(trained)
    found = measured["base"]
    stored = [
        json.loads(row_file(trained, run).read_text())["macro_ap"] for run in trained.runs if run.variant == "base"
    ]
    assert len(stored) == 2 and np.isclose(
        found.value, np.mean(stored), atol=5e-3
    )  # predictions are stored with six digits
    alone = interval_of(type(found)(found.values[:1], [fold[:1] for fold in found.added]))
    assert alone[0] < found.values[0, 0] < alone[1]


def test_test_posters_are_not_read_before_a_variant_is_chosen(trained, monkeypatch):
    runs = Path(os.environ["RUNS_PATH"])
    assert not list(runs.glob("tiny.*/test_predictions.csv"))
    for run in (run for run in trained.runs if (runs / run.name / "summary.json").is_file()):
        summary = json.loads((runs / run.name / "summary.json").read_text())
        assert "test" not in summary and summary["posters"]["test"] == 0
    assert "no test poster has been read" in describe_choice(trained)
    other = next(name for name in trained.variants if name != "base")
    with pytest.raises(ConfigError, match="4 variants|allowed: best, or a finished variant"):
        choose_variant(trained, "nothing")
    made = choose_variant(trained, "base")
    ids = len(load_split(trained.runs[0].params).test)
    assert ids > 0 and 0 <= made["test"]["macro_ap"] <= 1 and len(made["test"]["runs"]) == 2
    assert choose_variant(trained, "base") == made == json.loads((trained.folder / "choice.json").read_text())
    with pytest.raises(ConfigError, match="allowed|base was chosen"):
        choose_variant(trained, other)
    assert "Chosen: base" in describe_choice(trained)


def test_a_run_of_a_sweep_is_the_same_as_one_that_is_trained_alone(trained):
    run = trained.runs[0]
    train_run(make_params({**run.values, "experiment_name": "alone"}))
    assert predictions("alone").equals(predictions(run.name))


def test_a_sweep_that_was_killed_resumes(trained, place):
    file = write_sweep(place, "again", "again.yaml", seeds=[1])
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr[-2000:]
    plan, runs = make_plan(file), Path(os.environ["RUNS_PATH"])
    states = [
        json.loads(row_file(plan, run).read_text())["state"] for run in plan.runs if row_file(plan, run).is_file()
    ]
    assert states[0] == "finished" and "begun" in states
    first = (runs / plan.runs[0].name / "model.best.pth").stat().st_mtime_ns
    rows = train_part(plan, plan.runs[0].name)
    assert (runs / plan.runs[0].name / "model.best.pth").stat().st_mtime_ns == first  # not trained again
    good = rows.index[rows["state"] == "finished"]
    assert len(good) == 2
    for name in good:  # as if nothing had happened
        assert predictions(name).equals(predictions(name.replace("again.", "tiny.")))


@pytest.fixture(scope="module")
def folded(place) -> Plan:
    "A sweep with a head stage and two folds, whose runs have been trained."
    head = {"head": str(place / "base.yaml"), "k_folds": 2, "seeds": [1], "runs_per_job": 1}
    plan = make_plan(write_sweep(place, "folded", "folded.yaml", axes={"optimizer_kwargs.lr": [1e-3]}, **head))
    assert len(plan.heads) == 2 and len(plan.runs) == 2
    for run in [*plan.heads, *plan.runs]:
        assert train_part(plan, run.name)["state"].tolist() == ["finished"]
    return plan


def test_the_study_compares_each_run_with_its_own_head(folded):
    table = study_recipe.compare_with(study_recipe.measure_stages(folded), "head")
    assert sorted(table.index) == ["full", "full and head", "head"] and math.isnan(table.loc["head", "gain"])
    stored = {run.name: json.loads(row_file(folded, run).read_text()) for run in [*folded.heads, *folded.runs]}
    stages = {"head": folded.heads, "full": folded.runs}
    value = {stage: np.mean([stored[run.name]["macro_ap"] for run in stages[stage]]) for stage in stages}
    seconds = {stage: np.mean([stored[run.name]["seconds"] for run in stages[stage]]) for stage in stages}
    full = table.loc["full"]
    assert np.isclose(full["gain"], value["full"] - value["head"], atol=1e-3)
    assert full["gain_low"] < full["gain"] < full["gain_high"]
    assert np.isclose(full["seconds"], seconds["head"] + seconds["full"])
    run, head = folded.runs[0], folded.heads[0]
    genres, _, both = study_recipe.with_the_head([run], scored_valid_posters)(run.name)
    wanted = np.mean([logit(predictions(each.name)[genres].clip(1e-6, 1 - 1e-6)) for each in (run, head)], axis=0)
    assert np.allclose(logit(both), wanted)
    curve = study_recipe.learning_curves(folded, "base")
    assert len(curve) == TINY["n_epochs"] and 0 < curve["seconds"].iloc[0] < curve["seconds"].iloc[1]
    assert curve["seconds"].iloc[-1] <= seconds["full"]
    assert len(study_recipe.plot_frontier(folded, table).axes[0].lines) == 3


def test_the_study_measures_the_recipe_on_test_posters_for_good(folded):
    table = study_recipe.tested(folded)
    assert sorted(table.index) == ["full", "full and head", "head"] and table["macro_ap"].between(0, 1).all()
    assert json.loads((folded.folder / "choice.json").read_text())["variant"] == "base"


def test_the_study_shows_no_result_of_another_sweep(place):
    plan = make_plan(write_sweep(place, "untrained", "untrained.yaml", head=str(place / "base.yaml")))
    with pytest.raises(ConfigError, match="The base of .*untrained.yaml is not finished"):
        study_recipe.measure_stages(plan)


def test_head_stage_and_folds_are_shared(folded):
    plan = folded
    ids = [set(predictions(run.name)["Id"].astype(str)) for run in plan.runs]
    splits = [load_split(run.params) for run in plan.runs]
    assert not ids[0] & ids[1] and set(splits[0].test["Id"]) == set(splits[1].test["Id"])
    everything = {poster for name in ("train", "valid") for poster in getattr(splits[0], name)["Id"].astype(str)}
    assert ids[0] | ids[1] == everything
    start = json.loads((Path(os.environ["RUNS_PATH"]) / plan.runs[0].name / "summary.json").read_text())["start"]
    assert start["checkpoint_name"] == plan.heads[0].name
    assert outcome_table(plan)["state"].tolist() == ["finished"]


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"axes": {"batch_sise": [8]}}, ["axis `batch_sise`", "[8]", "Did you mean `batch_size`?"]),
        ({"axes": {"batch_size": [8, -3]}}, ["axis `batch_size`, value -3", "at least 1"]),
        ({"axes": {"recipe": ["nowhere.yaml"]}}, ["nowhere.yaml"]),
        ({"axes": {"seed": [1, 2]}}, ["axis `seed`, value 1", "`seeds`"]),
        (
            {"axes": {"optimizer_kwargs.lr": [1e-3], "recipe": {"slow": {"optimizer_kwargs": {"lr": 1e-4}}}}},
            ["axis `recipe` sets optimizer_kwargs", "axis `optimizer_kwargs.lr`", "the last one would win"],
        ),
        ({"sampler": "random"}, ["`sampler`", "'random'", "'grid', 'optuna'"]),
        ({"base": "nowhere.yaml"}, ["nowhere.yaml"]),
    ],
)
def test_a_mistake_is_refused_before_the_first_job(place, changes, parts):
    file = write_sweep(place / "wrong", "wrong", "wrong.yaml", **changes)
    line = [sys.executable, "-m", "postergenre.sweep", "jobs", "--sweep", str(file)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout and "Traceback" not in done.stderr
    assert all(part in done.stderr for part in parts), done.stderr
    assert not (Path(os.environ["RUNS_PATH"]) / "wrong").exists()


def test_two_sweeps_in_one_folder_are_refused(trained, place):
    file = write_sweep(place, "tiny", "other.yaml")
    with pytest.raises(
        ConfigError, match=r"other.yaml: `name`: given 'tiny', but runs/tiny holds the sweep of .*sweep"
    ):
        make_plan(file)
    assert make_plan(trained.file).folder == trained.folder


def test_the_job_shows_the_outcome(trained, papermill, runs):
    env = {"RUNS_PATH": os.environ["RUNS_PATH"]}
    done = papermill("sweep", "sweep_outcome", env=env, sweep=str(trained.file))
    assert done.returncode == 0, done.stderr[-2000:]
    shown = (runs / "sweep_outcome.ipynb").read_text()
    assert "4 variants: 2 finished, 2 failed" in shown and '"image/' in shown  # the plot
    table = pd.read_csv(trained.folder / "outcome.csv").set_index("variant")
    assert list(table.index) == list(outcome_table(trained).index)
    wrong = papermill("sweep", "sweep_wrong", env=env, sweep=str(trained.file), part="nothing")
    assert wrong.returncode != 0 and "`part`: given 'nothing'" in wrong.stderr


def test_optuna_chooses_variants(place):
    pytest.importorskip("optuna", reason="optuna is not installed")
    axes = {"optimizer_kwargs.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
    sampled = {"axes": axes, "sampler": "optuna", "trials": 2, "seeds": [1], "runs_per_job": 1}
    plan = make_plan(write_sweep(place, "sampled", "sampled.yaml", **sampled))
    for part in ("sampled.base.s1", "sampled.worker1"):
        assert (train_part(plan, part)["state"] == "finished").all()
    table = outcome_table(plan)
    assert len(table) == 3 and table["optimizer_kwargs.lr"].between(1e-4, 1e-1).all()


def test_another_overlay_by_the_same_name_makes_another_study(place):
    overlay = place / "overlay.yaml"
    sampled = {"axes": {"recipe": [str(overlay)]}, "sampler": "optuna", "trials": 2, "seeds": [1]}
    found = []
    for loss in ("bce", "focal"):
        overlay.write_text(f"loss: {loss}\n")
        plan = make_plan(write_sweep(place, "overlaid", "overlaid.yaml", **sampled))
        digests = [part["digest"] for part in describe_parts(plan)["parts"].values()]
        found.append((runs.stamp_of(plan, plan.runs_of(plan.variants["base"])[0]), digests))
    (one, part), (other, other_part) = found
    assert one["values"] != other["values"] and part[-1] != other_part[-1]


def test_a_draw_that_another_worker_trains_is_drawn_again(place, monkeypatch):
    pytest.importorskip("optuna", reason="optuna is not installed")
    axes = {"batch_size": {"low": 8, "high": 64}}
    sampled = {"axes": axes, "sampler": "optuna", "trials": 1, "seeds": [1], "runs_per_job": 1}
    plan = make_plan(write_sweep(place, "busy", "busy.yaml", **sampled))
    runs.claim_folder(plan)
    rows = iter([None, 0.5])
    monkeypatch.setattr(runs, "train_planned", lambda plan, run: {"run": run.name, "macro_ap": next(rows)})
    monkeypatch.setattr(runs, "is_locked", lambda folder: True)
    assert [row["macro_ap"] for row in runs._sample(plan, "busy.worker1")] == [0.5]


def test_a_changed_base_is_trained_again_even_if_the_first_attempt_fails(place, monkeypatch):
    file = write_sweep(place, "redone", "redone.yaml", axes={}, seeds=[1])
    plan = make_plan(file)
    train_part(plan, plan.runs[0].name)
    first = predictions(plan.runs[0].name)
    base = place / "base.yaml"
    base.write_text(base.read_text() + "optimizer: SGD\n")
    plan = make_plan(file)
    assert outcome_table(plan)["state"].tolist() == ["waiting"]  # the result is that of another base

    def fail(params):
        raise OSError("the disk is gone")

    with monkeypatch.context() as patching:
        patching.setattr(runs, "prepare", fail)
        assert train_part(plan, plan.runs[0].name)["state"].tolist() == ["failed"]
    assert train_part(plan, plan.runs[0].name)["state"].tolist() == ["finished"]
    assert not predictions(plan.runs[0].name).equals(first)
    assert outcome_table(plan)["state"].tolist() == ["finished"]
    write_sweep(place)


def test_a_sweep_refuses_wrong_arguments_and_processes_before_the_first_job(place):
    for axes, words in (
        ({"scheduler_kwargs.max_rl": [1e-3]}, "axis `scheduler_kwargs.max_rl`, value 0.001: .*max_rl"),
        ({"num_workers": [0, 1]}, "num_workers cannot vary"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_plan(write_sweep(place, "wrong", "wrong.yaml", axes=axes))
    write_sweep(place, "wrong", "wrong.yaml")
    base = place / "base.yaml"
    base.write_text(base.read_text() + "n_processes: 2\n")
    with pytest.raises(ConfigError, match="the base has `n_processes: 2`; allowed: 1"):
        make_plan(place / "wrong.yaml")
    write_sweep(place)
