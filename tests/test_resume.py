"""A killed run goes on by the same command and ends as if nothing had happened; a finished one is left alone."""

import json
import subprocess
import time

import pandas as pd
import psutil
import pytest
import torch
from conftest import ROOT, SMALL

LONG = {
    **SMALL,
    "n_epochs": 6,
    "ema_decay": 0.9,
    "model_kwargs": {"drop_rate": 0.2, "drop_path_rate": 0.1},
    "keep": "all",
}


def kill_after_first_epoch(line: list[str], environment: dict, folder) -> None:
    "Starts a job and kills it, kernel included, as soon as its first epoch is safe and the next is under way."
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not (folder / "metrics.csv").exists():
        assert process.poll() is None and time.monotonic() < limit, "the run ended before it could be killed"
        time.sleep(0.01)
    time.sleep(0.2)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=30)
    process.wait(30)


def weights(path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)["model"]


@pytest.fixture(scope="module")
def pair(command, papermill, environment, runs):
    "The same run twice: one killed and continued with other loader workers, one left in peace."
    values = {**LONG, "experiment_name": "killed"}
    kill_after_first_epoch(command("train", "killed", **values), environment, runs / "killed")
    assert not (runs / "killed" / "summary.json").exists()
    done_before = len(pd.read_csv(runs / "killed" / "metrics.csv"))
    assert 1 <= done_before < 6
    for name, output, changed in (("killed", "killed", {"num_workers": 2}), ("peaceful", "peaceful", {})):
        done = papermill("train", output, **{**values, "experiment_name": name, **changed})
        assert done.returncode == 0, done.stderr[-3000:]
    return runs / "killed", runs / "peaceful"


@pytest.mark.parametrize("file", ["model.last.pth", "model.best.pth"])
def test_same_weights_bit_for_bit(pair, file):
    killed, peaceful = (weights(folder / file) for folder in pair)
    assert killed.keys() == peaceful.keys()
    different = [name for name in killed if not torch.equal(killed[name], peaceful[name])]
    assert not different


def test_same_history_without_a_row_twice(pair):
    killed, peaceful = (pd.read_csv(folder / "metrics.csv").drop(columns="seconds") for folder in pair)
    assert killed["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    pd.testing.assert_frame_equal(killed, peaceful)


def test_same_index_and_files(pair):
    killed, peaceful = ((folder / "model.storage.json").read_text() for folder in pair)
    assert json.loads(killed) == json.loads(peaceful)
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in pair]
    assert names[0] == names[1] == sorted(entry["file"].split("/")[1] for entry in json.loads(killed)["checkpoints"])


def test_another_seed_gives_other_weights(pair, papermill, runs):
    done = papermill("train", "seed", **{**LONG, "experiment_name": "seed", "seed": 43, "n_epochs": 1})
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = weights(runs / "seed" / "model.last.pth"), weights(pair[1] / "model.last.pth")
    assert not torch.equal(one["head.weight"] if "head.weight" in one else one[list(one)[-1]], other[list(other)[-1]])


def test_a_finished_run_is_not_touched_unasked(pair, papermill):
    folder = pair[1]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pth")} | {
        path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")
    }
    again = papermill("train", "peaceful", **{**LONG, "experiment_name": "peaceful"})
    assert again.returncode == 0, again.stderr[-3000:]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    other = papermill("train", "peaceful", **{**LONG, "experiment_name": "peaceful", "n_epochs": 7})
    assert other.returncode != 0 and "`n_epochs` was 6, now 7" in other.stderr and "overwrite: true" in other.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
