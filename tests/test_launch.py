"""A job in several processes, started from its notebook: same results, own errors, and nothing left running."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest.mock import patch

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import ROOT
from test_processes import ALIKE

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.train import processes, setup
from postergenre.train.callbacks import Callback
from postergenre.train.processes import process_count, run_in_processes
from postergenre.train.runs import is_finished
from postergenre.train.training import train_run

ALONE = {"n_processes": 1, "batch_size": 16}
PAIR = {**ALIKE, "n_processes": 2}


pytestmark = pytest.mark.usefixtures("own_runs")


class DiesOnce(Callback):
    "Kill the second process in the second epoch, once."

    def on_epoch_start(self, run) -> None:
        mark = run.folder / "has_died"
        if run.epoch == 1 and run.accelerator.process_index == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def workers() -> list[psutil.Process]:
    "The processes that were spawned by a launcher, wherever it is."
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line, variables = process.info["cmdline"] or [], process.info["environ"] or {}
        if any("spawn_main" in part for part in line) and variables.get("RUNS_PATH") == os.environ["RUNS_PATH"]:
            found.append(process)
    return found


def epochs_of(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv").drop(columns="seconds")


def threads_of_a_worker() -> int:
    setup.create_accelerator(make_params({}))
    return torch.get_num_threads()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot keep a process to some cores")
def test_processes_share_the_cores_that_the_job_may_use(monkeypatch):
    "Accelerate would count all cores of the machine."
    monkeypatch.delenv("OMP_NUM_THREADS")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert processes.launch(threads_of_a_worker, (), 1, "") == [1]
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_notebook_trains_in_two_processes_what_one_trains_with_twice_the_batch(papermill, runs):
    done = papermill("train", "from_notebook", **{**PAIR, "experiment_name": "from_notebook"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "epoch 1 of 2" not in done.stdout  # what processes print reaches the terminal through the notebook alone
    shown = json.dumps([cell.get("outputs") for cell in nbformat.read(runs / "from_notebook.ipynb", 4).cells])
    assert "2 processes, each with a batch of 8: 16 posters per step." in shown
    assert shown.count("epoch 1 of 2") == 1 and shown.count("is finished; its results are shown. ") == 1
    with patch.object(processes, "launch", side_effect=AssertionError):  # the same command again
        params = make_params({**PAIR, "experiment_name": "from_notebook"})
        assert run_in_processes("train", params) is params
    train_run(make_params({**ALIKE, **ALONE, "experiment_name": "from_one"}))
    together, alone = epochs_of(runs / "from_notebook"), epochs_of(runs / "from_one")
    for column in ("train_loss", "valid_loss", "macro_ap"):
        assert np.allclose(together[column], alone[column], rtol=0, atol=1e-5), column
    assert not workers()


def test_a_range_test_without_a_name_is_launched_under_its_own(monkeypatch):
    launched = []
    monkeypatch.setattr(processes, "launch", lambda *given: launched.append(given[-1]))
    params = run_in_processes("lr_find", make_params({"n_processes": 2}))
    assert launched == ["smoke_lr_find"] and params.experiment_name == "smoke_lr_find"


def test_a_process_that_dies_ends_the_run_and_another_number_of_processes_goes_on():
    values = {**PAIR, "experiment_name": "dies", "num_iteration_on_epoch": None, "n_epochs": 3}
    values |= {"callbacks": ["test_launch.DiesOnce", {"checkpoints": {"top_k": 9}}]}
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="Process 1 of 2 failed.*signal 9.*goes on after the last finished epoch"):
        run_in_processes("train", make_params(values))
    assert signal.getsignal(signal.SIGTERM) is before and not workers()
    run = train_run(make_params({**values, "n_processes": 1}))
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert run.step == 3 * run.schedule.steps_per_epoch
    assert run.steps_taken == 108 // 16 + 2 * (108 // 8)  # those that were logged


def test_a_mistake_that_a_process_finds_is_told_as_its_own():
    with pytest.raises(ConfigError, match="given 65 in each of 2 processes; allowed: at most 53"):
        run_in_processes("train", make_params({**PAIR, "experiment_name": "too_large", "batch_size": 65}))


def test_processes_end_with_the_notebook_that_started_them():
    values = {**PAIR, "experiment_name": "orphans", "n_epochs": 1000}
    code = "import sys, json; from postergenre.config import make_params; from postergenre.train import processes\n"
    code += "if __name__ == '__main__': processes.run_in_processes('train', make_params(json.loads(sys.argv[1])))"
    launcher = subprocess.Popen([sys.executable, "-c", code, json.dumps(values)], stdout=subprocess.PIPE, text=True)
    while "epoch 1 of" not in launcher.stdout.readline():
        assert launcher.poll() is None
    assert len(workers()) == 2
    launcher.kill()
    launcher.wait()
    end = time.monotonic() + 60
    while workers() and time.monotonic() < end:
        time.sleep(0.2)
    assert not workers()


def test_two_machines_train_one_run(command, environment, runs):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = {**ALIKE, "experiment_name": "machines", "n_nodes": 2, "rendezvous": f"127.0.0.1:{port}"}
    lines = [command("train", f"machine_{rank}", **{**values, "node_rank": rank}) for rank in (0, 1)]
    options = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ended = [
        (process.communicate()[0], process.returncode) for process in [subprocess.Popen(x, **options) for x in lines]
    ]
    assert [status for _, status in ended] == [0, 0], ended
    shown = [(runs / f"machine_{rank}.ipynb").read_text() for rank in (0, 1)]
    assert "epoch 2 of 2" in shown[0] and "epoch 2 of 2" not in shown[1]
    train_run(make_params({**ALIKE, **ALONE, "experiment_name": "from_one"}))
    assert np.allclose(epochs_of(runs / "machines")["macro_ap"], epochs_of(runs / "from_one")["macro_ap"], atol=1e-5)
    assert is_finished(runs / "machines")


def test_machines_that_do_not_join_are_given_up():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        values = {**ALIKE, "experiment_name": "waits", "n_nodes": 2, "rendezvous": address}
        with pytest.raises(ConfigError, match=f"{address} cannot be opened on this machine"):
            run_in_processes("train", make_params({**values, "node_rank": 0}))
    with patch.object(processes, "JOIN_TIMEOUT", 2), pytest.raises(ConfigError, match="not all machines have joined"):
        run_in_processes("train", make_params({**values, "node_rank": 0}))
    assert not workers()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_nodes": 2}, "`node_rank`: missing; allowed: 0 to 1"),
        ({"n_nodes": 2, "node_rank": 2}, "`node_rank`: given 2; allowed: 0 to 1"),
        ({"n_nodes": 2, "node_rank": 1, "rendezvous": "host"}, "`rendezvous`: given host; allowed: HOST:PORT"),
    ],
)
def test_a_wrong_place_is_told_before_anything_starts(values, message):
    with pytest.raises(ConfigError, match=message):
        run_in_processes("train", make_params({**values, "experiment_name": "nowhere"}))


def test_there_are_no_more_processes_than_gpus():
    with patch("torch.accelerator.is_available", lambda: True), patch("torch.accelerator.device_count", lambda: 2):
        assert process_count(make_params({"n_processes": "auto"})) == 2
        with pytest.raises(ConfigError, match="given 4; allowed: at most 2, the number of GPUs here, or auto"):
            process_count(make_params({"n_processes": 4}))


def test_machines_with_other_programs_are_refused():
    alike, other = {"torch": "1", "host": "a"}, {"torch": "2", "host": "b"}
    with patch.object(processes, "gather_object", lambda given: [alike | given[0] | alike, given[0] | other]):
        with pytest.raises(ConfigError, match="The machines a and b differ: torch 1 and 2"):
            processes._check_same_programs()


def test_machines_with_other_posters_are_refused():
    data = SimpleNamespace(data_hash="a", split_hash="b")
    setup._check_same_data(data)
    with patch.object(setup, "gather_object", lambda given: [*given, ("other", "b")]):
        with pytest.raises(ConfigError, match="the machines have different posters"):
            setup._check_same_data(data)
