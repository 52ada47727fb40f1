"""Two processes under Accelerate are as correct as one: same figures, same files, written by one of them alone."""

import json
import os
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from postergenre.config import make_params

SMALL = {
    "n_demo_posters": 180,  # 108 of them to train on, which steps of 16 do not divide
    "split_fractions": [0.6, 0.3, 0.1],  # several batches to validate on
    "img_size": [32, 32],
    "batch_size": 8,
    "num_iteration_on_epoch": 3,
    "n_epochs": 2,
    "pretrained": False,
    "num_workers": 0,
    "min_positives": 2,
    "mixed_precision": "no",
    "model_name": "test_efficientnet",
    "optimizer_kwargs": {"lr": 0.02},
    "callbacks": [{"checkpoints": {"top_k": 9}}],
    "keep": "all",
}
# without batch norm, two processes with half the batch do what one does
ALIKE = {**SMALL, "model_name": "test_vit", "optimizer": "SGD", "optimizer_kwargs": {"lr": 0.1}, "gradient_clip": 0.5}
ALIKE |= {"ema_decay": 0.9, "augmentations": "none"}
HEAD = {**ALIKE, "callbacks": ["freeze", *SMALL["callbacks"]], "ema_decay": None}
PAIR = {
    "pair": SMALL,
    "pair_ema": {**SMALL, "ema_decay": 0.5, "valid_metric": "loss"},
    "pair_short": {**SMALL, "n_epochs": 1},
    "pair_alike": ALIKE,
    "pair_mixed": {**SMALL, "mixing": {"mixup": 1.0, "cutmix": 1.0}},
    "pair_head": HEAD,
    "lrf_pair": {**ALIKE, "lrf_iterations": 14},
}


def torchrun(*arguments, runs) -> subprocess.CompletedProcess:
    "Run a script, or a module after -m, in two processes on the CPU."
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    variables = {name: value for name, value in os.environ.items() if name != "ROOT_PATH"}
    variables |= {"RUNS_PATH": str(runs), "OMP_NUM_THREADS": "1"}
    if torch.accelerator.is_available():  # elsewhere the project finds out by itself
        variables["ACCELERATE_USE_CPU"] = "true"
    return subprocess.run(
        [*launch, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, env=variables, timeout=400
    )


@pytest.fixture(scope="module")
def both(runs, tmp_path_factory) -> list[dict]:
    "What the two processes found, the main one first."
    out = tmp_path_factory.mktemp("both")
    done = torchrun(ROOT / "tests" / "two_processes.py", json.dumps(PAIR), out, runs=runs)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture
def alone(runs, monkeypatch):
    "Train in this process alone, with twice the batch."
    from postergenre.train.training import train_run

    monkeypatch.setenv("RUNS_PATH", str(runs))
    monkeypatch.delenv("ROOT_PATH", raising=False)
    return lambda name, values: train_run(make_params({**values, "experiment_name": name, "batch_size": 16}))


def test_both_processes_see_one_run(both):
    one, other = (process["runs"] for process in both)
    for name in one:
        assert one[name]["processes"] == other[name]["processes"] == 2
        assert one[name]["step"] == other[name]["step"] == 3 * PAIR[name]["n_epochs"]
        assert one[name]["draw"] == other[name]["draw"] == 2 * 8 * one[name]["step"]
        for part in ("weights", "statistics", "history", "validation"):
            assert one[name][part] == other[name][part], f"{name}: {part}"
    assert one["pair_head"]["stored"] and other["pair_head"]["stored"] and not one["pair"]["stored"]


def test_a_step_holds_a_poster_once(both):
    steps = list(zip(*(process["runs"]["pair"]["batches"] for process in both), strict=True))
    assert len(steps) == 8 * 3 and all(len({*mine, *others}) == 16 for mine, others in steps)


def test_only_the_main_process_writes_and_prints(both):
    main, other = both
    assert {"state.pth", "model.best.pth", "summary.json", "metrics.csv", "lr_find.csv"} <= set(main["written"])
    assert other["written"] == [] and other["printed"] == ""
    assert main["printed"].count("epoch 1 ") >= 5 and main["printed"].count("features of") == 2


@pytest.mark.parametrize("name", [name for name in PAIR if name.startswith("pair")])
def test_each_epoch_is_what_its_stored_checkpoint_gives(both, name, runs, monkeypatch):
    from postergenre.data.experiment import evaluation_loader, load_run_data
    from postergenre.metrics.metrics import summary_metrics
    from postergenre.train.checkpoints import load_checkpoint, model_of
    from postergenre.train.loop import evaluate
    from postergenre.train.setup import create_accelerator, loss_of

    monkeypatch.setenv("RUNS_PATH", str(runs))
    params = make_params({**PAIR[name], "experiment_name": name})
    data, accelerator, loss = load_run_data(params), create_accelerator(params), loss_of(params, load_run_data(params))
    history, summary = pd.read_csv(runs / name / "metrics.csv"), json.loads((runs / name / "summary.json").read_text())
    for row in history.to_dict("records"):
        checkpoint = load_checkpoint(runs / name / "checkpoints" / f"epoch_{row['epoch']:04d}.pth")
        loader = accelerator.prepare(evaluation_loader(params, data, "valid"))
        found = evaluate(model_of(checkpoint), loader, loss, accelerator)
        thresholds = np.array(checkpoint["meta"]["thresholds"])
        again = summary_metrics(found.targets, found.scores, data.genres, thresholds, params.min_positives)
        again["valid_loss"] = found.loss
        for column in ("valid_loss", "macro_ap", "micro_ap", "macro_auc"):
            assert abs(again[column] - row[column]) < 1e-6, f"{column} of epoch {row['epoch']}"
            if row["epoch"] == summary["best_epoch"]:
                assert abs(again[column] - summary["valid"][column.removeprefix("valid_")]) < 1e-6
    assert len(found.scores) == summary["posters"]["valid"]


@pytest.mark.parametrize("name", ["pair_alike", "pair_head"])
def test_two_processes_train_as_one_with_twice_the_batch(both, name, alone):
    run = alone(f"{name}_alone", PAIR[name])
    together = both[0]["runs"][name]
    assert (run.feature_cache is not None) == together["stored"]
    for row, wanted in zip(together["history"], run.history, strict=True):
        for column in ("train_loss", "valid_loss", "macro_ap"):
            assert abs(row[column] - wanted[column]) < 1e-5, f"{column} of epoch {row['epoch']}"
    assert np.abs(np.array(together["validation"]) - run.validation.scores).max() < 1e-5


def test_a_range_test_is_that_of_one_process_with_twice_the_batch(both, runs, monkeypatch):
    from postergenre.train.finder import find_lr

    monkeypatch.setenv("RUNS_PATH", str(runs))
    values = {**PAIR["lrf_pair"], "experiment_name": "lrf_alone", "batch_size": 16}
    wanted = find_lr(make_params(values)).table["loss"].tolist()
    assert both[0]["lrf_pair"] == both[1]["lrf_pair"]
    assert len(wanted) >= 12 and np.allclose(both[0]["lrf_pair"], wanted, rtol=1e-4, atol=0)


def test_a_loss_that_is_no_number_in_one_process_ends_both_at_that_batch(both, runs):
    assert both[0]["diverged"] == both[1]["diverged"]
    assert both[0]["diverged"].startswith("The loss of batch 2 of epoch 1 is nan, at a learning rate of 0.02.")
    assert not (runs / "diverged" / "state.pth").exists()


def test_jobs_for_one_process_say_so(both):
    for process in both:
        assert process["average_run"].startswith("swa runs in one process, and was started in 2.")
        assert process["export_run"].startswith("to_torchscript runs in one process, and was started in 2.")
        assert "given 65 in each of 2 processes; allowed: at most" in process["too many"]


def test_a_poster_that_one_process_has_lost_counts_in_both(both):
    assert both[0]["lost"] == both[1]["lost"] == 3 / SMALL["n_demo_posters"]


def test_machines_that_do_not_share_their_runs_are_refused_before_the_first_epoch(both):
    for process in both:
        for message in process["apart"].values():
            assert "of machine 0 is not the folder of all processes. All machines must share it" in message


def test_no_poster_is_evaluated_twice(both):
    for n, seen in both[0]["gathered"].items():
        assert seen == list(range(int(n))), n


def test_two_papermills_do_not_write_one_notebook(runs, tmp_path):
    code = """from postergenre.params import Params
from postergenre.train.setup import create_accelerator

print(f"process {create_accelerator(Params()).process_index} of 2")"""
    source = tmp_path / "job.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, source)
    papermill = ("-m", "papermill", "--no-progress-bar", source)
    same = torchrun(*papermill, tmp_path / "same.ipynb", runs=runs)
    assert same.returncode != 0 and "2 papermill processes would write the same notebook" in same.stderr
    own = torchrun(*papermill, tmp_path / "own.${local_rank}.ipynb", runs=runs)
    assert own.returncode == 0, own.stderr[-3000:]
    for rank in (0, 1):
        assert f"process {rank} of 2" in (tmp_path / f"own.{rank}.ipynb").read_text()
